//! The model of the source: a small database, and what its connector sends for each thing that happens to it.
//!
//! This is the description of what is right. It knows nothing of batches, folds or sinks: each record comes with its
//! [`Effect`], which is what the table in the source is after it, with every value, whether the record holds it or not.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::effect::{self, Effect, Raw, Sent};
use super::event::{self, Event, Image};
use super::steps::{Choices, Setting, Step};
use super::tables::{ASIDE, Column, Row, Table, tables};
use super::values::Kind;

/// The source and its connector.
pub struct Source {
    pub tables: Vec<Table>,
    setting: Setting,
    /// Columns whose value a copy may have lost on the way, by table and key.
    lost: BTreeMap<(usize, u8), BTreeSet<usize>>,
    /// Where the log stands, and the place of the statement at hand.
    log: i64,
    lsn: i64,
    /// Places of the last change of each row, and of the last statement that locked each table.
    touched: BTreeMap<(usize, u8), i64>,
    locked: BTreeMap<usize, i64>,
    transaction: i64,
    added: usize,
    /// Whether `schemas.enable` is the other way than at the start.
    switched: bool,
    pub sent: Vec<Sent>,
}

impl Source {
    /// A source with the rows that its snapshot reads.
    pub fn new(setting: &Setting) -> Self {
        let mut source = Self {
            tables: tables(),
            setting: setting.clone(),
            lost: BTreeMap::new(),
            log: 1_000_000,
            lsn: 1_000_000,
            touched: BTreeMap::new(),
            locked: BTreeMap::new(),
            transaction: 700,
            added: 0,
            switched: false,
            sent: Vec::new(),
        };
        for (table, key, cells) in &setting.snapshot {
            source.snapshot_row(*table as usize, *key, cells);
        }
        source
    }

    fn snapshot_row(&mut self, table: usize, key: u8, cells: &Choices) {
        let row = self.tables[table].row(key, cells);
        if self.tables[table].key.is_empty() {
            self.tables[table].bag.push(row.clone());
        } else if let Entry::Vacant(free) = self.tables[table].rows.entry(key) {
            free.insert(row.clone());
        } else {
            return;
        }
        self.send(table, "r", Some(key), None, Some((&row, &[])), "true");
    }

    /// Lets a step happen.
    pub fn apply(&mut self, step: &Step) {
        self.log += 100;
        self.lsn = self.log;
        self.transaction += 1;
        match step {
            Step::Insert { table, key, cells } => self.insert(*table as usize, *key, cells),
            Step::Update { table, row, columns, cells } => {
                self.update(*table as usize, *row, *columns, cells);
            }
            Step::Delete { table, row } => self.delete(*table as usize, *row),
            Step::ChangeKey { table, row, to, columns, cells } => {
                self.change_key(*table as usize, *row, *to, *columns, cells);
            }
            Step::Read { table, row } => self.read(*table as usize, *row),
            Step::Truncate { table } => self.truncate(*table as usize),
            Step::AddColumn { table, kind } => self.add_column(*table as usize, *kind),
            Step::DropColumn { table, column } => self.drop_column(*table as usize, *column),
            Step::Noise { table, kind } => self.noise(*table as usize, *kind),
            Step::SwitchSchemaBlocks => self.switched = !self.switched,
            Step::Replay { records } => self.replay(*records as usize % 24),
        }
    }

    /// Gives the statement at hand its place in the log. Transactions that overlap are sent in the order of their
    /// commits, so that places go back and forth; but never before what the rows' locks have waited for.
    fn touch(&mut self, table: usize, keys: &[u8]) {
        let rows = keys.iter().filter_map(|key| self.touched.get(&(table, *key)));
        let after = rows.chain(self.locked.get(&table)).max().copied().unwrap_or(1_000_000);
        self.lsn = if self.transaction % 3 == 0 { (after + 1).max(self.log - 2_000) } else { self.log };
        self.touched.extend(keys.iter().map(|key| ((table, *key), self.lsn)));
    }

    /// A statement that waits for all others of the table.
    fn lock(&mut self, table: usize) {
        self.lsn = self.log;
        self.locked.insert(table, self.lsn);
    }

    fn insert(&mut self, table: usize, key: u8, cells: &Choices) {
        let row = self.tables[table].row(key, cells);
        if self.tables[table].key.is_empty() {
            self.tables[table].bag.push(row.clone());
            return self.send(table, "c", None, None, Some((&row, &[])), "false");
        }
        if self.tables[table].rows.contains_key(&key) {
            return self.set(table, key, &row);
        }
        self.tables[table].rows.insert(key, row.clone());
        self.touch(table, &[key]);
        self.send(table, "c", Some(key), None, Some((&row, &[])), "false");
    }

    fn update(&mut self, table: usize, row: u8, columns: u16, cells: &Choices) {
        let of = &mut self.tables[table];
        if of.key.is_empty() {
            let Some(at) = (row as usize).checked_rem(of.bag.len()) else {
                return self.insert(table, 0, cells);
            };
            let before = of.bag[at].clone();
            let after = of.changed(&before, columns, cells);
            of.bag[at] = after.clone();
            return self.send(table, "u", None, Some(&before), Some((&after, &[])), "false");
        }
        let Some(key) = of.nth_key(row) else { return self.insert(table, row % 6, cells) };
        let after = of.changed(&of.rows[&key], columns, cells);
        self.set(table, key, &after);
    }

    fn set(&mut self, table: usize, key: u8, after: &Row) {
        let Some(before) = self.tables[table].rows.insert(key, after.clone()) else { return };
        let unchanged = self.tables[table].unchanged(&before, after);
        self.touch(table, &[key]);
        self.send(table, "u", Some(key), Some(&before), Some((after, &unchanged)), "false");
    }

    fn delete(&mut self, table: usize, row: u8) {
        let of = &mut self.tables[table];
        if of.key.is_empty() {
            if let Some(at) = (row as usize).checked_rem(of.bag.len()) {
                let before = of.bag.swap_remove(at);
                self.send(table, "d", None, Some(&before), None, "false");
                self.tombstone(table, None);
            }
        } else if let Some(key) = of.nth_key(row)
            && let Some(before) = of.rows.remove(&key)
        {
            self.touch(table, &[key]);
            self.send(table, "d", Some(key), Some(&before), None, "false");
            self.tombstone(table, Some(key));
        }
    }

    fn change_key(&mut self, table: usize, row: u8, to: u8, columns: u16, cells: &Choices) {
        let of = &self.tables[table];
        let Some(from) = of.nth_key(row) else { return self.update(table, row, columns, cells) };
        if from == to {
            return self.update(table, row, columns, cells);
        }
        let after = of.changed(&of.rows[&from], columns, cells);
        if of.rows.contains_key(&to) {
            // Two rows change places, by way of a third key.
            self.move_row(table, to, ASIDE, None);
            self.move_row(table, from, to, Some(after));
            self.move_row(table, ASIDE, from, None);
        } else {
            self.move_row(table, from, to, Some(after));
        }
    }

    /// A delete, its tombstone and a create, linked by headers. The create leaves out what the update left alone.
    fn move_row(&mut self, table: usize, from: u8, to: u8, after: Option<Row>) {
        let of = &mut self.tables[table];
        let Some(before) = of.rows.remove(&from) else { return };
        let after = of.with_key(after.unwrap_or_else(|| before.clone()), to);
        of.rows.insert(to, after.clone());
        let unchanged = of.unchanged(&before, &after);
        let keys = [from, to]
            .map(|key| event::key_json(&self.tables[table], &self.tables[table].with_key(Row::new(), key)));
        // Across partitions the delete may come first, and take the only copy of a value with it.
        if self.setting.partitions > 1 || !self.setting.moves_keep_values {
            self.lost.insert((table, to), unchanged.iter().copied().collect());
        } else if let Some(lost) = self.lost.remove(&(table, from)) {
            self.lost.insert((table, to), lost);
        }
        self.touch(table, &[from, to]);
        let first = self.sent.len();
        self.send(table, "d", Some(from), Some(&before), None, "false");
        self.tombstone(table, Some(from));
        for sent in &mut self.sent[first..] {
            sent.headers.push(("__debezium.newkey", keys[1].clone()));
        }
        self.send(table, "c", Some(to), None, Some((&after, &unchanged)), "false");
        if let Some(create) = self.sent.last_mut() {
            create.headers.push(("__debezium.oldkey", keys[0].clone()));
        }
    }

    fn read(&mut self, table: usize, row: u8) {
        let of = &self.tables[table];
        if let Some(key) = of.nth_key(row) {
            let row = of.rows[&key].clone();
            self.send(table, "r", Some(key), None, Some((&row, &[])), "incremental");
        }
    }

    fn truncate(&mut self, table: usize) {
        let of = &mut self.tables[table];
        // On several partitions a truncate has no order; what a copy does then is tested with the barrier.
        if self.setting.partitions > 1 && !of.key.is_empty() {
            return;
        }
        of.rows.clear();
        of.bag.clear();
        self.lock(table);
        self.send(table, "t", None, None, None, "false");
    }

    fn add_column(&mut self, table: usize, kind: u8) {
        const KINDS: [Kind; 6] =
            [Kind::Int4, Kind::Text, Kind::Jsonb, Kind::Bool, Kind::Numeric, Kind::TextArray];
        self.added += 1;
        let name = format!("added_{}", self.added);
        let kind = KINDS[kind as usize % KINDS.len()];
        self.lock(table);
        self.tables[table].columns.push(Column { name, kind, key: false, dropped: false });
    }

    fn drop_column(&mut self, table: usize, column: u8) {
        let of = &mut self.tables[table];
        let column = column as usize % of.columns.len();
        // Rows without key that were written before the drop still have the column in a copy.
        if !of.columns[column].key && !of.key.is_empty() {
            of.columns[column].dropped = true;
            let rows = of.rows.values_mut().chain(&mut of.bag);
            rows.for_each(|row| {
                row.remove(&column);
            });
            self.lock(table);
        }
    }

    fn noise(&mut self, table: usize, kind: u8) {
        let topic = Arc::clone(&self.tables[table].topic);
        let (topic, key, value, raw) = match kind % 4 {
            0 => (
                "__debezium-heartbeat.cdc".into(),
                r#"{"serverName":"cdc"}"#,
                r#"{"ts_ms":1}"#.to_owned(),
                None,
            ),
            1 => ("cdc.transaction".into(), r#"{"id":"7:1"}"#, event::transaction(), None),
            2 => {
                let raw = Raw { operation: "m", absent: Vec::new() };
                ("cdc.message".into(), r#"{"prefix":"app"}"#, event::message(self.lsn), Some(raw))
            }
            _ => (topic, r#"{"id":"x"}"#, event::transaction(), None),
        };
        let key = Some(key.to_owned());
        self.sent.push(Sent {
            topic,
            key,
            value: Some(value),
            headers: Vec::new(),
            effect: Effect::Nothing,
            raw,
        });
    }

    /// The last records once more. Copies pass through older states again, and end where they were.
    fn replay(&mut self, records: usize) {
        // From the beginning of a statement: its records have one place in the log.
        let mut first = self.sent.len().saturating_sub(records);
        let follows = |sent: &Sent| {
            sent.value.is_none() || sent.headers.iter().any(|(name, _)| *name == "__debezium.oldkey")
        };
        while self.sent.get(first).is_some_and(follows) {
            first -= 1;
        }
        let again: Vec<Sent> = self.sent[first..].to_vec();
        // Equal rows of a table without key cannot be told apart: a replay changes how many there are.
        let keyless: Vec<_> = self.tables.iter().filter(|table| table.key.is_empty()).collect();
        let mut again: Vec<Sent> =
            again.into_iter().filter(|sent| keyless.iter().all(|table| table.topic != sent.topic)).collect();
        for ((table, key), columns) in effect::doubt(&mut again) {
            let of = &self.tables[table];
            if of.rows.contains_key(&key) {
                let columns =
                    columns.iter().filter_map(|name| of.columns.iter().position(|c| c.name == *name));
                self.lost.entry((table, key)).or_default().extend(columns);
            }
        }
        self.sent.extend(again);
    }

    /// Whether events of a table carry a schema block now. Where it has columns whose type cannot be configured, a switch
    /// would change what they are. Keys are never switched: they would go to other partitions.
    fn schema_block(&self, table: &Table) -> bool {
        let configured = table.live().all(|column| table.columns[column].kind.configured().is_some());
        self.setting.schema_block != (self.switched && configured)
    }

    fn tombstone(&mut self, table: usize, key: Option<u8>) {
        if !self.setting.tombstones {
            return;
        }
        let of = &self.tables[table];
        let key = key.map(|key| event::key(of, &of.with_key(Row::new(), key), self.setting.schema_block));
        self.sent.push(Sent {
            topic: Arc::clone(&of.topic),
            key,
            value: None,
            headers: Vec::new(),
            effect: Effect::Nothing,
            raw: None,
        });
    }

    /// Sends the event of a row; `after` comes with the columns that it leaves out.
    fn send(
        &mut self,
        table: usize,
        operation: &'static str,
        key: Option<u8>,
        before: Option<&Row>,
        after: Option<(&Row, &[usize])>,
        snapshot: &'static str,
    ) {
        let of = &self.tables[table];
        let keyed = !of.key.is_empty() && operation != "t";
        let key = key.filter(|_| keyed);
        let before = match (before, operation) {
            (Some(row), _) if of.full => Image::Row(row),
            (Some(row), "d") => Image::Key(row),
            _ => Image::Null,
        };
        let event = Event {
            operation,
            before,
            after,
            snapshot,
            lsn: self.lsn,
            last_commit: self.log - 50,
            committed: 1_700_000_000_000_000 + (self.log - 1_000_000) * 1_000,
            transaction: self.transaction,
            schema_block: self.schema_block(of),
            old_envelope: self.setting.old_envelope,
        };
        let effect = match (key, after) {
            _ if operation == "t" => Effect::Clear { table },
            (Some(key), Some((row, absent))) => {
                let lost = self.lost.entry((table, key)).or_default();
                lost.retain(|column| absent.contains(column));
                Effect::Set { table, key, row: of.expected(row, lost) }
            }
            (Some(key), None) => {
                self.lost.remove(&(table, key));
                Effect::Remove { table, key }
            }
            (None, _) => {
                let whole = BTreeSet::new();
                Effect::Bag { table, rows: of.bag.iter().map(|row| of.expected(row, &whole)).collect() }
            }
        };
        let absent = after.iter().flat_map(|(_, absent)| *absent);
        let sent = Sent {
            topic: Arc::clone(&of.topic),
            key: key.map(|key| event::key(of, &of.with_key(Row::new(), key), self.setting.schema_block)),
            value: Some(event.json(of)),
            headers: Vec::new(),
            effect,
            raw: Some(Raw {
                operation,
                absent: absent.map(|&column| of.columns[column].name.clone()).collect(),
            }),
        };
        self.sent.push(sent);
    }
}
