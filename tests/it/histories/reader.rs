//! From the model's records through the real decoder into a sink, and the comparison after every batch.
//!
//! The records lie on partitions by the hash of their key, as Kafka's default partitioner puts them. The dice of a
//! history say from which partition the next record is read, where a batch ends, and where the reader crashes: then
//! the running batch is lost, and a new decoder begins at what the sink has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use alluvium::change::{Batch, KnownSchemas, KnownTables, Progress, TableId, TopicIdentity, TopicPartition};
use alluvium::debezium::{Decoder, DecoderOptions, Drained, Outcome, RecordRef};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::effect::{Raw, Sent};
use super::source::Source;
use super::steps::History;
use super::tables::Table;
use super::truth::{Shown, Truth};
use super::values::quoted;

/// Where batches go.
pub trait Copy {
    /// Makes a batch durable.
    fn commit(&mut self, batch: &Batch) -> Result<(), String>;

    /// Starts over from what is durable, as a new process does, and says from where to read; `None` where it commits all
    /// of a batch or nothing, filtered records included.
    fn restart(&mut self) -> Result<Option<Progress>, String>;

    /// The schemas of its tables, as a decoder asks for them that has not seen their rows.
    fn known(&self) -> KnownSchemas;

    /// Its tables, as their events name them.
    fn tables(&self) -> KnownTables;

    /// Work between two batches.
    fn maintain(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// The places of all raw rows, as `topic/partition@offset`; `None` where it keeps none.
    fn raw(&mut self) -> Result<Option<Vec<String>>, String> {
        Ok(None)
    }

    /// The rows of a table as they are now, in any order; nothing where there is no table.
    fn rows(&mut self, table: &str) -> Result<Vec<Shown>, String>;

    /// Whether its rows are looked at after each batch, or at the end alone.
    fn is_cheap(&self) -> bool;

    /// Whether it keeps key changes that are half done, so that a batch may end within one.
    fn keeps_key_changes(&self) -> bool {
        false
    }
}

/// A record at its place.
struct Placed {
    sent: Sent,
    offset: i64,
}

/// Reads the partitions of a history.
struct Reader<'a, C> {
    copy: &'a mut C,
    tables: Vec<Table>,
    log: BTreeMap<TopicPartition, Vec<Placed>>,
    decoder: Decoder,
    options: DecoderOptions,
    /// The next record to read of each partition, and the next one to commit.
    at: BTreeMap<TopicPartition, usize>,
    committed: BTreeMap<TopicPartition, usize>,
    /// Records of the running batch: partition, index, and what the decoder said.
    running: Vec<(TopicPartition, usize, Outcome)>,
    truth: Truth,
}

/// Drives a history into a copy. The error says what differs.
pub fn run<C: Copy>(history: &History, copy: &mut C) -> Result<(), String> {
    let mut source = Source::new(&history.setting);
    for step in &history.steps {
        source.apply(step);
    }
    let options = DecoderOptions { types: types(&source), ..DecoderOptions::default() };
    let mut reader = Reader {
        copy,
        log: place(&source, history.setting.partitions),
        tables: source.tables,
        decoder: Decoder::new(options.clone(), |_: &TableId| None),
        options,
        at: BTreeMap::new(),
        committed: BTreeMap::new(),
        running: Vec::new(),
        truth: Truth::default(),
    };
    reader.restart()?;
    let mut dice = history.dice.iter().copied();
    loop {
        let roll = dice.next().unwrap_or(0);
        if !reader.push_next(roll)? {
            break;
        }
        match roll / 8 {
            24..=29 => reader.commit()?,
            30 => reader.restart()?,
            31 => {
                reader.commit()?;
                reader.copy.maintain()?;
            }
            _ => {}
        }
    }
    reader.commit()?;
    reader.compare()?;
    reader.compare_raw()
}

/// The types to configure for events without schema block.
fn types(source: &Source) -> HashMap<String, HashMap<String, alluvium::debezium::ConfiguredType>> {
    source
        .tables
        .iter()
        .map(|table| {
            let columns = table
                .columns
                .iter()
                .filter_map(|column| Some((column.name.clone(), column.kind.configured()?.parse().ok()?)));
            (format!("public.{}", table.name), columns.collect())
        })
        .collect()
}

/// Puts the records on partitions. Topics without keys have one: on several they would have no order at all.
fn place(source: &Source, partitions: u8) -> BTreeMap<TopicPartition, Vec<Placed>> {
    let mut log: BTreeMap<TopicPartition, Vec<Placed>> = BTreeMap::new();
    for sent in &source.sent {
        let hash = sent
            .key
            .as_deref()
            .unwrap_or_default()
            .bytes()
            .fold(17_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let partition = TopicPartition::new(Arc::clone(&sent.topic), (hash % u32::from(partitions)) as i32);
        let records = log.entry(partition).or_default();
        // Offsets have gaps where a producer's transactions end.
        let offset = records.last().map_or(0, |last| last.offset + 1 + i64::from(hash % 5 == 0));
        records.push(Placed { sent: sent.clone(), offset });
    }
    log
}

impl<C: Copy> Reader<'_, C> {
    fn restart(&mut self) -> Result<(), String> {
        if let Some(progress) = self.copy.restart()? {
            for (partition, records) in &self.log {
                let next = progress.get(partition).map_or(0, |stored| stored.next_offset);
                let index = records.iter().position(|record| record.offset >= next);
                self.committed.insert(partition.clone(), index.unwrap_or(records.len()));
            }
        }
        self.decoder = Decoder::new(self.options.clone(), self.copy.known()).with_tables(self.copy.tables());
        self.running.clear();
        self.at = self.committed.clone();
        for (partition, records) in &self.log {
            let next = self.at.entry(partition.clone()).or_default();
            let before = next.checked_sub(1).and_then(|last| records.get(last));
            self.decoder.begin_partition(partition.clone(), before.map_or(0, |record| record.offset + 1));
        }
        Ok(())
    }

    /// Reads one record of the partition that the dice say; false at the end.
    fn push_next(&mut self, roll: u8) -> Result<bool, String> {
        let open: Vec<&TopicPartition> = self
            .log
            .iter()
            .filter(|(partition, records)| self.at[*partition] < records.len())
            .map(|(p, _)| p)
            .collect();
        let Some(&partition) = open.get(roll as usize % open.len().max(1)) else { return Ok(false) };
        let partition = partition.clone();
        self.push(&partition)?;
        // Elsewhere the records of one change of a key are one batch's, where they lie behind each other.
        while !self.copy.keeps_key_changes() && self.is_within_move(&partition) {
            self.push(&partition)?;
        }
        Ok(true)
    }

    fn is_within_move(&self, partition: &TopicPartition) -> bool {
        let (records, next) = (&self.log[partition], self.at[partition]);
        let header = |at: usize, name: &str| {
            records.get(at).is_some_and(|record| record.sent.headers.iter().any(|(n, _)| *n == name))
        };
        next > 0
            && header(next - 1, "__debezium.newkey")
            && (header(next, "__debezium.newkey") || header(next, "__debezium.oldkey"))
    }

    fn push(&mut self, partition: &TopicPartition) -> Result<(), String> {
        let index = self.at[partition];
        let Placed { sent, offset } = &self.log[partition][index];
        // Over several partitions the plainest copy would need a ledger of key changes that are half done, and the model
        // would have to know which values of rows that change their keys more than once are still to be had.
        let one_partition = self.log.keys().all(|partition| partition.partition == 0);
        let header = |name: &str| {
            let found = sent.headers.iter().find(|(header, _)| *header == name && one_partition);
            found.map(|(_, value)| value.as_bytes())
        };
        let record = RecordRef {
            new_key: header("__debezium.newkey"),
            old_key: header("__debezium.oldkey"),
            headers: &(),
            topic: &sent.topic,
            partition: partition.partition,
            offset: *offset,
            timestamp_ms: 1_700_000_000_000,
            key: sent.key.as_deref().map(str::as_bytes),
            value: sent.value.as_deref().map(str::as_bytes),
        };
        let identity = TopicIdentity::unknown();
        let mut outcome = self.decoder.push(record, &identity).map_err(|error| error.to_string())?;
        if matches!(outcome, Outcome::Truncate { .. }) {
            let partitions = self.log.keys().filter(|other| other.topic == partition.topic).count();
            let drained = Drained { partitions };
            outcome = self.decoder.truncate(record, &identity, drained).map_err(|error| error.to_string())?;
        }
        self.running.push((partition.clone(), index, outcome));
        *self.at.entry(partition.clone()).or_default() += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), String> {
        let batch = self.decoder.finish().map_err(|error| error.to_string())?;
        self.check_spans(&batch)?;
        self.check_raw(&batch)?;
        self.copy.commit(&batch)?;
        for (partition, index, _) in std::mem::take(&mut self.running) {
            self.truth.apply(&self.log[&partition][index].sent.effect);
        }
        self.committed = self.at.clone();
        if self.copy.is_cheap() { self.compare() } else { Ok(()) }
    }

    fn compare(&mut self) -> Result<(), String> {
        for (number, table) in self.tables.iter().enumerate() {
            let rows = self.copy.rows(table.name)?;
            self.truth.compare(number, table, rows)?;
        }
        Ok(())
    }

    /// Each record that has a raw row has it once.
    fn compare_raw(&mut self) -> Result<(), String> {
        let Some(mut found) = self.copy.raw()? else { return Ok(()) };
        let of = |(partition, records): (&TopicPartition, &Vec<Placed>)| -> Vec<String> {
            let with_row = records.iter().filter(|record| record.sent.raw.is_some());
            with_row.map(|record| format!("{partition}@{}", record.offset)).collect()
        };
        let mut expected: Vec<String> = self.log.iter().flat_map(of).collect();
        found.sort();
        expected.sort();
        if found == expected { Ok(()) } else { Err(format!("raw rows of {found:?} instead of {expected:?}")) }
    }

    /// The spans of a batch follow on those before, and cover its records.
    fn check_spans(&self, batch: &Batch) -> Result<(), String> {
        for (partition, records) in &self.log {
            let (from, to) = (self.committed.get(partition).copied().unwrap_or_default(), self.at[partition]);
            let after = |index: usize| index.checked_sub(1).map_or(0, |last| records[last].offset + 1);
            let expected = (to > from).then(|| (after(from), after(to)));
            let found = batch.spans.get(partition).map(|span| (span.first, span.next));
            if found != expected {
                return Err(format!("the span of {partition} is {found:?} instead of {expected:?}"));
            }
        }
        Ok(())
    }

    /// Each record that is no tombstone of a delete has one row in the raw table.
    fn check_raw(&self, batch: &Batch) -> Result<(), String> {
        let rows = batch.raw.as_ref().ok_or("no raw rows")?;
        let cell = |row: usize, name: &str| text(rows, row, name).unwrap_or_default();
        let mut found: Vec<(String, Raw)> = (0..rows.num_rows())
            .map(|row| {
                let place =
                    format!("{}/{}@{}", cell(row, "topic"), cell(row, "partition"), cell(row, "offset"));
                let list = cell(row, "absent_columns");
                let mut absent: Vec<String> = serde_json::from_str(&list).unwrap_or_default();
                absent.sort();
                let operation =
                    ["c", "u", "d", "r", "t", "m"].into_iter().find(|known| *known == cell(row, "operation"));
                (place, Raw { operation: operation.unwrap_or("?"), absent })
            })
            .collect();
        let mut expected: Vec<(String, Raw)> = self
            .running
            .iter()
            .filter_map(|(partition, index, _)| {
                let Placed { sent, offset } = &self.log[partition][*index];
                let mut raw = sent.raw.clone()?;
                raw.absent.sort();
                Some((format!("{partition}@{offset}"), raw))
            })
            .collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        if found == expected {
            return Ok(());
        }
        let odd: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
        let lost: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
        Err(format!("raw rows {odd:?} instead of {lost:?}"))
    }
}

/// A cell as text; `None` for null. A list is shown as compact JSON, as the events have it.
pub fn text(rows: &RecordBatch, row: usize, column: &str) -> Option<String> {
    let array = rows.column_by_name(column)?;
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::List(_) => Some(list(array.as_list::<i32>().value(row).as_ref())),
        DataType::LargeList(_) => Some(list(array.as_list::<i64>().value(row).as_ref())),
        _ => array_value_to_string(array, row).ok(),
    }
}

fn list(items: &dyn Array) -> String {
    let item = |at: usize| {
        let text = array_value_to_string(items, at).unwrap_or_default();
        match items.data_type() {
            _ if items.is_null(at) => "null".to_owned(),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => quoted(&text),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                let bytes = text
                    .as_bytes()
                    .chunks(2)
                    .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
                quoted(&STANDARD.encode(bytes.collect::<Vec<u8>>()))
            }
            _ => text,
        }
    };
    format!("[{}]", (0..items.len()).map(item).collect::<Vec<_>>().join(","))
}
