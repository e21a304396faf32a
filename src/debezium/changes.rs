//! From an event to the changes of a row, with a key and without.
//!
//! In a table without key the row itself says which one is meant: a delete is the row before, and an update is two
//! changes, the delete of the row before and the row after, under one offset. Both are needed whole, which they are under
//! REPLICA IDENTITY FULL; without it Debezium sends no updates and deletes of such tables at all.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::change::{Keyless, Operation, RecordErrorKind, TableId};

use super::bare::{self, TypeSources};
use super::decoder::{Decoder, topic_at};
use super::envelope::Source;
use super::fault::{Decoded, Fault};
use super::key::KeyNames;
use super::raw_rows::RawRow;
use super::record::{Outcome, RecordRef};
use super::refine::Refinements;
use super::row::{Layout, RowFault};
use super::tables::Change;
use super::topic::{Opened, names, table_of};
use super::wire::Wire;

/// An event of a row, once its kind is known.
struct RowEvent<'a> {
    record: &'a RecordRef<'a>,
    at: usize,
    topic: usize,
    operation: Operation,
    opened: &'a Opened<'a>,
    source: &'a Source<'a>,
    key_names: KeyNames,
    change: Change,
}

impl Decoder {
    pub(super) fn row(
        &mut self,
        record: &RecordRef<'_>,
        at: usize,
        topic: usize,
        operation: Operation,
        opened: &Opened<'_>,
    ) -> Decoded<Outcome> {
        let source = source_of(opened)?;
        let known = topic_at(&mut self.topics, topic)?;
        let key = record.key.map(|key| known.keys.read(key)).transpose()?.flatten();
        let key_names = key.as_ref().map_or_else(|| known.keys.none(), |key| Arc::clone(&key.names));
        let micros = source.micros();
        let change = Change {
            operation,
            partition: self.partitions.in_batch(at),
            offset: record.offset,
            source_micros: micros.unwrap_or(0),
            lsn: source.order(),
        };
        let event = RowEvent { record, at, topic, operation, opened, source, key_names, change };
        let (before, after) =
            (opened.envelope.before.map(RawValue::get), opened.envelope.after.map(RawValue::get));
        let raw = RawRow { operation: operation.code(), before, after, ..RawRow::of(record, Some(source)) };
        let outcome = match key {
            Some(key) => {
                let text = if operation == Operation::Delete {
                    key.text
                } else {
                    after.ok_or_else(|| without_row(operation, "after"))?
                };
                let layout = self.push_row(&event, operation, text)?;
                if !opened.flattened {
                    let other_key = match operation {
                        Operation::Create => record.old_key,
                        Operation::Delete => record.new_key,
                        _ => None,
                    };
                    self.moved(topic, other_key, source.lsn.0, &layout);
                }
                self.judge(record, topic, operation, key.text, &layout)?;
                self.push_raw(&RawRow { key: Some(key.text), ..raw }, Some(&layout))?;
                self.keep(&event, layout);
                Outcome::Change(operation)
            }
            None => self.keyless(&event, &raw)?,
        };
        self.counts.newest_source_micros = self.counts.newest_source_micros.max(micros);
        Ok(outcome)
    }

    /// An event of a table without key, as its policy says.
    fn keyless(&mut self, event: &RowEvent<'_>, raw: &RawRow<'_>) -> Decoded<Outcome> {
        let table = self.routed(event.source);
        let policy = self.options.policies.of(&table).keyless;
        let (operation, before, after) = (event.operation, raw.before, raw.after);
        let taken = match (policy, operation) {
            (Keyless::Stop, _) => {
                let detail = format!(
                    "{table} has no key: give it a primary key, or set message.key.columns in the connector, or keyless = \
                     \"match_row\" or \"append\" here"
                );
                return Err(Fault::new(RecordErrorKind::Keyless, detail));
            }
            (Keyless::Append, Operation::Delete) => {
                self.push_raw(raw, None)?;
                return Ok(Outcome::Filtered("keyless_delete"));
            }
            (Keyless::MatchRow, Operation::Update | Operation::Delete) => {
                Some(before.ok_or_else(|| without_before(&table, event))?)
            }
            _ => None,
        };
        let left = match operation {
            Operation::Delete => None,
            _ => Some(after.ok_or_else(|| without_row(operation, "after"))?),
        };
        let mut pushed = 0;
        let mut layout = None;
        let parts = [taken.map(|row| (Operation::Delete, row)), left.map(|row| (operation, row))];
        for (operation, row) in parts.into_iter().flatten() {
            let done = self.push_row(event, operation, row).and_then(|layout| {
                pushed += 1;
                self.refuse_absent(&layout, policy)?;
                Ok(layout)
            });
            match done {
                Ok(done) => layout = Some(done),
                Err(fault) => {
                    self.take_back(event, pushed);
                    return Err(fault);
                }
            }
        }
        let Some(layout) = layout else { return Err(without_row(operation, "after")) };
        if let Err(fault) = self.push_raw(raw, Some(&layout)) {
            // The newest was taken back with the raw row.
            self.take_back(event, pushed - 1);
            return Err(fault);
        }
        self.keep(event, layout);
        Ok(Outcome::Change(operation))
    }

    fn take_back(&mut self, event: &RowEvent<'_>, changes: usize) {
        let slot = self.tables.slot_of(&self.routed(event.source));
        for _ in 0..changes {
            self.tables.undo(slot);
        }
    }

    /// A row that is to be compared as a whole has to be whole.
    fn refuse_absent(&self, layout: &Layout, policy: Keyless) -> Decoded<()> {
        let absent = self.tables.absent_in_last(layout.slot).next();
        let Some(column) = absent.filter(|_| policy == Keyless::MatchRow) else { return Ok(()) };
        let name = layout.schema.columns().get(column).map_or("?", |column| column.name.as_ref());
        let detail = format!(
            "column `{name}` of {}, which has no key, is not in the event: the whole row is needed to find it (ALTER TABLE … \
             REPLICA IDENTITY FULL)",
            layout.table
        );
        Err(Fault::new(RecordErrorKind::Keyless, detail))
    }

    /// Remembers the newest layout of topic and table.
    fn keep(&mut self, event: &RowEvent<'_>, layout: Arc<Layout>) {
        self.partitions.note_lsn(event.at, event.change.lsn);
        if event.operation != Operation::Read {
            self.watch_order(event.record, event.at, event.operation, event.source, &layout.table);
        }
        let same =
            |newest: &Option<Arc<Layout>>| newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, &layout));
        if let Some(slot) = self.tables.get_mut(layout.slot).filter(|slot| !same(&slot.newest)) {
            slot.newest = Some(Arc::clone(&layout));
        }
        if let Some(topic) = self.topics.get_mut(event.topic).filter(|topic| !same(&topic.newest)) {
            topic.follow(layout, event.opened);
        }
    }

    /// Appends one row.
    fn push_row(&mut self, event: &RowEvent<'_>, operation: Operation, text: &str) -> Decoded<Arc<Layout>> {
        let change = Change { operation, ..event.change };
        let Some(schema) = &event.opened.schema else { return self.push_bare(event, change, text) };
        let known = topic_at(&mut self.topics, event.topic)?;
        let from = (event.source, &self.options.routes);
        let refinements = Refinements { known: self.known.as_ref(), configured: &self.options.types };
        let layout =
            known.layout(event.opened, schema, &event.key_names, from, &mut self.tables, refinements)?;
        self.tables.push(&layout, text, change, &self.placeholder).map_err(RowFault::strict)?;
        Ok(layout)
    }

    /// Appends a row without schema block, with the columns that it is the first to have.
    fn push_bare(&mut self, event: &RowEvent<'_>, change: Change, text: &str) -> Decoded<Arc<Layout>> {
        let topic = self.topics.get(event.topic);
        let newest = topic.and_then(|topic| topic.newest.as_ref());
        let prefix = topic.and_then(|topic| topic.metadata_prefix(event.opened));
        let slot = match newest {
            Some(newest) if names(event.source, &newest.source) => newest.slot,
            _ => self.tables.slot_of(&self.routed(event.source)),
        };
        // Where events of this table had a schema block before, their columns are known better than from values.
        let before = self.tables.get(slot).and_then(|slot| slot.bare.clone().or_else(|| slot.newest.clone()));
        let before = before.filter(|layout| layout.metadata_prefix == prefix);
        if let Some(layout) = before.as_ref().filter(|layout| layout.key_names == event.key_names) {
            match self.tables.push(layout, text, change, &self.placeholder) {
                Ok(()) => return Ok(Arc::clone(layout)),
                // A delete of a keyed table has the key alone; that of one without key is a whole row.
                Err(RowFault::UnknownColumn(_))
                    if change.operation.is_upsert() || event.key_names.is_empty() => {}
                Err(fault) => return Err(fault.strict()),
            }
        }
        let source = table_of(event.source);
        let table = self.options.routes.of(&source).unwrap_or_else(|| source.clone());
        let known = self.known.schema(&table);
        let modes = self.options.modes;
        let in_source = self.options.source.as_ref().and_then(|types| types.of(&source, modes));
        let types = TypeSources {
            configured: self.options.types.get(&table.to_string()),
            source: in_source.as_ref(),
            modes,
            known: known.as_deref(),
            placeholder: &self.placeholder,
            metadata_prefix: prefix.as_ref(),
        };
        let guessed =
            bare::layout((&source, &table), slot, before.as_deref(), &event.key_names, text, types)?;
        let layout = Arc::new(guessed.layout);
        self.tables.push(&layout, text, change, &self.placeholder).map_err(RowFault::strict)?;
        if let Some(slot) = self.tables.get_mut(slot) {
            slot.bare = Some(Arc::clone(&layout));
            if !guessed.from_values.is_empty() && !slot.warned {
                slot.warned = true;
                tracing::warn!(
                    table = %slot.id,
                    columns = %guessed.from_values.join(","),
                    "events carry no schema and no types are configured: column types are taken from values"
                );
            }
        }
        Ok(layout)
    }

    /// The table that rows of an event go to.
    pub(super) fn routed(&self, source: &Source<'_>) -> TableId {
        let source = table_of(source);
        self.options.routes.of(&source).unwrap_or(source)
    }

    /// A layout for rows of `source` in the table that they go to, as the sink has it.
    pub(super) fn layout_in_sink(&mut self, source: &TableId, table: &TableId) -> Option<Arc<Layout>> {
        let schema = self.known.schema(table)?;
        let modes = self.options.modes;
        let wires = schema.columns().iter().map(|column| Wire::of(&column.column_type, modes)).collect();
        let key_names = schema.key_names().map(Arc::from).collect();
        let slot = self.tables.slot_of(table);
        Some(Arc::new(Layout {
            table: table.clone(),
            source: source.clone(),
            slot,
            schema,
            wires,
            key_names,
            placeholders: Vec::new(),
            metadata_prefix: None,
        }))
    }
}

/// The source block of an event that names its table.
pub(super) fn source_of<'a>(opened: &'a Opened<'a>) -> Decoded<&'a Source<'a>> {
    opened.envelope.source.as_ref().filter(|source| source.table.is_some()).ok_or_else(|| {
        Fault::new(RecordErrorKind::NotAnEvent, "the value does not name its table in `source.table`")
    })
}

fn without_row(operation: Operation, member: &str) -> Fault {
    let detail = format!("operation `{}` has no `{member}`", operation.code());
    Fault::new(RecordErrorKind::NotAnEvent, detail)
}

fn without_before(table: &TableId, event: &RowEvent<'_>) -> Fault {
    let operation = event.operation.code();
    let cure = if event.opened.flattened {
        "flattened events do not say what a row was before: set keyless = \"append\" for it, or leave its events as they are"
    } else {
        "set REPLICA IDENTITY FULL, or give the table a key"
    };
    let detail =
        format!("{table} has no key, and operation `{operation}` came without the row before: {cure}");
    Fault::new(RecordErrorKind::Keyless, detail)
}
