//! Rows that move among source tables, read from their topics in every order, against the source itself.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use super::fold_tests::{Cell, Change, batch};
use super::sources::{LSN, LastChange, TOPIC_PARTITION, Touched, placed};
use super::{Batch, ChangeBatch, Operation, TopicPartition, fold};

/// A copy in memory, written as sinks write theirs: by key, the last change and the cells of the row.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    rows: BTreeMap<i64, (LastChange, Vec<Option<String>>)>,
    pub(crate) late: u64,
}

impl Copy {
    /// Brings the changes of a batch into it. The key is one column of 64-bit integers.
    pub(crate) fn apply(&mut self, batch: &Batch) {
        let parts: Vec<ChangeBatch> =
            batch.changes.iter().map(|changes| placed(changes, &batch.partitions).unwrap()).collect();
        let parts: Vec<&ChangeBatch> = parts.iter().collect();
        let Some(schema) = parts.first().map(|part| part.schema.clone()) else { return };
        let touched = Touched::of(&schema, &parts, |_, _| true).unwrap();
        let keys = touched.keys(&schema).unwrap();
        let keys = keys.column(0).as_primitive::<Int64Type>();
        let stored = keys.values().iter().map(|key| self.rows.get(key).map(|(last, _)| last.clone()));
        let settled = touched.settle(&parts, batch, stored.collect()).unwrap();
        self.late += settled.late;
        let settled: Vec<&ChangeBatch> = settled.changes.iter().collect();
        let folded = fold(&schema, &settled, |_, _| true).unwrap();
        for key in folded.deletes.column(0).as_primitive::<Int64Type>().values() {
            self.rows.remove(key);
        }
        let keys = folded.rows.column(schema.key()[0]).as_primitive::<Int64Type>();
        let lsns = folded.rows.column_by_name(LSN).unwrap().as_primitive::<Int64Type>();
        let partitions = folded.rows.column_by_name(TOPIC_PARTITION).unwrap().as_string::<i32>();
        let texts: Vec<usize> = (0..schema.columns().len())
            .filter(|&column| schema.columns()[column].column_type.is_text())
            .filter(|&column| *schema.columns()[column].name != *TOPIC_PARTITION)
            .collect();
        for row in 0..folded.rows.num_rows() {
            let old = self.rows.get(&keys.value(row)).map(|(_, cells)| cells.clone());
            let cell = |(at, &column): (usize, &usize)| {
                if folded.absent[column].as_ref().is_some_and(|mask| mask.value(row)) {
                    return old.as_ref().and_then(|old| old[at].clone());
                }
                let cells = folded.rows.column(column).as_string::<i32>();
                cells.is_valid(row).then(|| cells.value(row).to_owned())
            };
            let last = LastChange {
                partition: Some(partitions.value(row).into()),
                lsn: lsns.is_valid(row).then(|| lsns.value(row)),
                micros: Some(folded.source_micros[row]),
            };
            let cells = texts.iter().enumerate().map(cell).collect();
            self.rows.insert(keys.value(row), (last, cells));
        }
    }

    /// The rows, cells joined by a space.
    pub(crate) fn rows(&self) -> Vec<String> {
        let text = |cells: &[Option<String>]| {
            cells.iter().map(|cell| cell.clone().unwrap_or("-".into())).collect::<Vec<_>>().join(" ")
        };
        self.rows.iter().map(|(key, (_, cells))| format!("{key} {}", text(cells))).collect()
    }
}

/// A record as a topic has it.
#[derive(Debug, Clone)]
struct Entry {
    change: Change,
    lsn: i64,
    micros: i64,
}

/// A partitioned table with the topics of its partitions. A key is in one partition at a time.
struct Source {
    random: fastrand::Rng,
    /// By key: its partition, and its cells.
    rows: BTreeMap<i64, (usize, [String; 2])>,
    topics: Vec<Vec<Entry>>,
    /// All that was sent, in order, with its topic.
    sent: Vec<(usize, Entry)>,
    lsn: i64,
    micros: i64,
    values: u32,
}

impl Source {
    /// A source whose rows at the beginning a snapshot reads: with an LSN behind those of transactions that are still open.
    fn new(seed: u64) -> Self {
        let mut source = Self {
            random: fastrand::Rng::with_seed(seed),
            rows: BTreeMap::new(),
            topics: vec![Vec::new(); 3],
            sent: Vec::new(),
            lsn: 100,
            micros: 1_000,
            values: 0,
        };
        for key in 0..2 {
            let (partition, cells) = (source.random.usize(0..3), source.cells());
            source.rows.insert(key, (partition, cells));
            source.read(key, 130);
        }
        source
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("v{}", self.values)
    }

    fn cells(&mut self) -> [String; 2] {
        [self.value(), self.value()]
    }

    fn send(&mut self, topic: usize, operation: Operation, key: i64, cells: [Cell; 2], lsn: i64) {
        let [first, second] = cells;
        let change = Change { operation, key, first, second };
        let entry = Entry { change, lsn, micros: self.micros };
        self.topics[topic].push(entry.clone());
        self.sent.push((topic, entry));
    }

    fn log(&mut self, topic: usize, operation: Operation, key: i64, cells: [Cell; 2]) {
        self.lsn += self.random.i64(1..10);
        self.send(topic, operation, key, cells, self.lsn);
    }

    fn read(&mut self, key: i64, lsn: i64) {
        let (partition, [first, second]) = self.rows[&key].clone();
        self.send(partition, Operation::Read, key, [Cell::Value(first), Cell::Value(second)], lsn);
    }

    /// A transaction; now and then something else.
    fn step(&mut self) {
        self.micros += self.random.i64(0..3);
        let key = self.random.i64(0..3);
        let Some((partition, [first, second])) = self.rows.get(&key).cloned() else {
            let (partition, cells) = (self.random.usize(0..3), self.cells());
            self.log(partition, Operation::Create, key, cells.clone().map(Cell::Value));
            self.rows.insert(key, (partition, cells));
            return;
        };
        match self.random.u8(0..10) {
            0 | 1 => {
                self.log(partition, Operation::Delete, key, [Cell::Null, Cell::Null]);
                self.rows.remove(&key);
            }
            2..=4 => {
                let to = (partition + self.random.usize(1..3)) % 3;
                self.log(partition, Operation::Delete, key, [Cell::Null, Cell::Null]);
                self.log(
                    to,
                    Operation::Create,
                    key,
                    [Cell::Value(first.clone()), Cell::Value(second.clone())],
                );
                self.rows.insert(key, (to, [first, second]));
            }
            // An incremental snapshot.
            5 => self.read(key, 0),
            // The connector crashes and sends its last records again.
            6 if !self.sent.is_empty() => {
                let from = self.random.usize(self.sent.len().saturating_sub(12)..self.sent.len());
                for (topic, entry) in &self.sent[from..] {
                    self.topics[*topic].push(entry.clone());
                }
            }
            7 => {
                let second = self.value();
                self.log(partition, Operation::Update, key, [Cell::Absent, Cell::Value(second.clone())]);
                self.rows.insert(key, (partition, [first, second]));
            }
            _ => {
                let first = self.value();
                self.log(partition, Operation::Update, key, [Cell::Value(first.clone()), Cell::Absent]);
                self.rows.insert(key, (partition, [first, second]));
            }
        }
    }

    /// The source begins its log anew.
    fn fail_over(&mut self) {
        self.lsn = 1;
        self.micros += 10;
    }

    fn rows(&self) -> Vec<String> {
        self.rows.iter().map(|(key, (_, [first, second]))| format!("{key} {first} {second}")).collect()
    }
}

fn partitions() -> Vec<TopicPartition> {
    ["cdc.p0", "cdc.p1", "cdc.p2"].map(|topic| TopicPartition::new(topic, 0)).to_vec()
}

/// Reads topics from where `read` stands, in random pieces of which several make a batch; with `all` to their ends.
fn read_on(source: &mut Source, read: &mut [usize; 3], copy: &mut Copy, all: bool) {
    loop {
        let left: Vec<usize> = (0..3).filter(|&topic| read[topic] < source.topics[topic].len()).collect();
        if left.is_empty() || (!all && source.random.u8(0..3) == 0) {
            return;
        }
        let mut batch_read = Batch { partitions: partitions(), ..Batch::default() };
        for _ in 0..source.random.usize(1..4) {
            let topic = left[source.random.usize(0..left.len())];
            let from = read[topic];
            let count = source.random.usize(0..=source.topics[topic].len() - from);
            read[topic] += count;
            let entries = &source.topics[topic][from..from + count];
            let changes: Vec<Change> = entries.iter().map(|entry| entry.change.clone()).collect();
            let mut changes = batch(&changes, from as i64);
            changes.partitions = vec![topic as u32; count];
            changes.lsns = entries.iter().map(|entry| entry.lsn).collect();
            changes.source_micros = entries.iter().map(|entry| entry.micros).collect();
            if count > 0 {
                batch_read.changes.push(changes);
            }
        }
        copy.apply(&batch_read);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn rows_that_move_among_sources_end_as_in_the_source_in_whatever_order_topics_are_read(seed in any::<u64>()) {
        let mut source = Source::new(seed);
        let (mut copy, mut read) = (Copy::default(), [0; 3]);
        for _ in 0..30 {
            source.step();
            if source.random.u8(0..4) == 0 {
                read_on(&mut source, &mut read, &mut copy, false);
            }
        }
        read_on(&mut source, &mut read, &mut copy, true);
        prop_assert_eq!(copy.rows(), source.rows());
        // All of it was read when the log begins anew.
        source.fail_over();
        source.sent.clear();
        for _ in 0..15 {
            if source.sent.is_empty() || source.random.bool() {
                let key = source.random.i64(0..3);
                if let Some((partition, cells)) = source.rows.get(&key).cloned() {
                    let to = (partition + 1) % 3;
                    source.micros += 1;
                    source.log(partition, Operation::Delete, key, [Cell::Null, Cell::Null]);
                    source.log(to, Operation::Create, key, cells.clone().map(Cell::Value));
                    source.rows.insert(key, (to, cells));
                    continue;
                }
            }
            source.micros += 1;
            source.step();
        }
        read_on(&mut source, &mut read, &mut copy, true);
        prop_assert_eq!(copy.rows(), source.rows(), "after the log has begun anew");
    }
}

/// Changes of key 1, one batch each: topic, operation, first cell, LSN.
fn after(events: &[(u32, Operation, &str, i64)]) -> Vec<String> {
    let mut copy = Copy::default();
    for (offset, &(topic, operation, text, lsn)) in (0..).zip(events) {
        let first = Cell::Value(text.to_owned());
        let mut changes = batch(&[Change { operation, key: 1, first, second: Cell::Null }], offset);
        changes.partitions = vec![topic];
        changes.lsns = vec![lsn];
        changes.source_micros = vec![if lsn == 0 { 1_000 } else { lsn }];
        copy.apply(&Batch { partitions: partitions(), changes: vec![changes], ..Batch::default() });
    }
    copy.rows()
}

#[test]
fn a_tombstone_without_lsn_takes_only_a_row_of_its_own_partition() {
    use Operation::{Create, Delete};
    assert_eq!(after(&[(1, Create, "b", 21), (0, Delete, "", 0)]), ["1 b -"]);
    assert!(after(&[(1, Create, "b", 21), (1, Delete, "", 0)]).is_empty());
}

#[test]
fn rows_of_a_snapshot_are_older_than_every_change_of_another_partition() {
    use Operation::{Create, Delete, Read, Update};
    assert_eq!(after(&[(1, Create, "streamed", 21), (0, Read, "read", 130)]), ["1 streamed -"]);
    assert_eq!(after(&[(0, Read, "read", 130), (1, Create, "streamed", 21)]), ["1 streamed -"]);
    // In its own partition it counts where it stands, and the row keeps its place in the log.
    assert_eq!(after(&[(1, Create, "streamed", 21), (1, Read, "read", 0)]), ["1 read -"]);
    let stale =
        [(1, Create, "streamed", 21), (1, Read, "read", 0), (0, Update, "old", 20), (0, Delete, "", 20)];
    assert_eq!(after(&stale), ["1 read -"]);
}

/// Settles one change of key 1 from `topic` against a stored row; says what is late.
fn settled(topic: &str, operation: Operation, stored: (&str, i64), forced: bool) -> (u64, Vec<i64>) {
    let first = Cell::Value("x".to_owned());
    let mut changes = batch(&[Change { operation, key: 1, first, second: Cell::Null }], 7);
    (changes.lsns, changes.source_micros) = (vec![20], vec![20]);
    let of = Batch {
        partitions: vec![TopicPartition::new(topic, 0)],
        replay: true,
        forced: forced.then_some(7).into_iter().collect(),
        ..Batch::default()
    };
    let changes = placed(&changes, &of.partitions).unwrap();
    let touched = Touched::of(&changes.schema, &[&changes], |_, _| true).unwrap();
    let (partition, lsn) = stored;
    let last = LastChange { partition: Some(partition.into()), lsn: Some(lsn), micros: Some(lsn) };
    let settled = touched.settle(&[&changes], &of, vec![Some(last)]).unwrap();
    (settled.late, settled.late_replays)
}

#[test]
fn a_replay_comes_from_the_partition_that_its_record_was_read_from() {
    use Operation::{Delete, Update};
    let late = (1, vec![7]);
    for operation in [Update, Delete] {
        for stored in ["cdc.p0/0", "cdc.p0#replay/0"] {
            for topic in ["cdc.p0", "cdc.p0#replay"] {
                let case = format!("{operation:?} from {topic} on a row of {stored}");
                assert_eq!(settled(topic, operation, (stored, 30), false), (0, vec![]), "{case}");
            }
        }
        assert_eq!(settled("cdc.p0#replay", operation, ("cdc.p1/0", 30), false), late, "{operation:?}");
        assert_eq!(settled("cdc.p0#replay", operation, ("cdc.p1/0", 10), false), (0, vec![]));
        assert_eq!(settled("cdc.p0#replay", operation, ("cdc.p1/0", 30), true), (0, vec![]), "forced");
    }
}

#[test]
fn changes_of_one_partition_apply_in_its_order_whatever_their_lsn() {
    use Operation::{Create, Update};
    assert_eq!(after(&[(1, Create, "a", 21), (1, Update, "b", 20)]), ["1 b -"]);
}

#[test]
fn a_column_of_the_source_with_one_of_our_names_is_refused_and_not_overwritten() {
    use super::{Column, ColumnType, TableSchema};
    let plain = batch(
        &[Change {
            operation: Operation::Create,
            key: 1,
            first: Cell::Value("a".into()),
            second: Cell::Null,
        }],
        0,
    );
    let renamed = |name: &str| {
        let mut columns = plain.schema.columns().to_vec();
        columns[0] = Column { name: name.into(), column_type: ColumnType::Text, nullable: true };
        let schema = std::sync::Arc::new(TableSchema::new(columns, vec![1]));
        let rows = plain.rows.columns().to_vec();
        let rows = arrow::array::RecordBatch::try_new(schema.arrow().clone(), rows).unwrap();
        ChangeBatch { schema, rows, ..plain.clone() }
    };
    assert!(placed(&renamed("other"), &partitions()).is_ok());
    let error = placed(&renamed(TOPIC_PARTITION), &partitions()).unwrap_err();
    assert!(error.to_string().contains("rename it"), "{error}");
}
