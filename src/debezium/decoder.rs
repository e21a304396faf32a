//! The decoder: which kind of record it is, and what follows from that.
//!
//! Tombstones. One directly after the delete of its key only repeats it and is filtered. Any other one is a delete of
//! its own, with a raw row, of the table that the topic's newest row belonged to. Where the decoder has not seen the
//! record before it (the first of a partition after a start) it cannot tell the two apart: then the delete is
//! applied, because deleting twice is harmless and deleting never is not, but no raw row is made, because the delete
//! before it may have one already.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::error::ArrowError;
use serde_json::value::RawValue;

use crate::change::{
    Batch, Operation, RecordError, RecordErrorKind, Regression, TableId, TopicIdentity, TopicPartition,
};

use super::aside::Aside;
use super::bare::{self, TypeSources};
use super::envelope::{self, Source};
use super::fault::{Decoded, Fault};
use super::key::RecordKey;
use super::modes::Modes;
use super::order::Seen;
use super::partitions::{Partitions, Predecessor};
use super::placeholder::Placeholder;
use super::raw_rows::{RawRow, RawRows};
use super::record::{DecoderOptions, KnownSchemas, Outcome, RecordRef};
use super::refine::Refinements;
use super::row::{Layout, RowFault};
use super::tables::{Change, Tables};
use super::topic::{Opened, Topic, names, table_of};

/// Decodes records into a running batch.
pub struct Decoder {
    options: DecoderOptions,
    placeholder: Placeholder,
    known: Box<dyn KnownSchemas>,
    pub(super) topics: Vec<Topic>,
    topic_index: HashMap<Arc<str>, usize>,
    partitions: Partitions,
    pub(super) tables: Tables,
    raw: RawRows,
    counts: Counts,
    pub(super) aside: Aside,
}

/// Figures of the running batch.
#[derive(Debug, Default)]
struct Counts {
    changes: usize,
    records: u64,
    bytes: u64,
    newest_source_micros: Option<i64>,
    duplicates: BTreeMap<TableId, u64>,
    regressions: Vec<Regression>,
}

/// The row part of an event, once its kind is known.
struct RowEvent<'a> {
    operation: Operation,
    text: &'a str,
    key: &'a RecordKey<'a>,
    source: &'a Source<'a>,
}

impl Decoder {
    /// A decoder with an empty batch. `known` gives what the sink already has.
    pub fn new(options: DecoderOptions, known: impl KnownSchemas + 'static) -> Self {
        Self {
            placeholder: Placeholder::new(&options.placeholder),
            options,
            known: Box::new(known),
            topics: Vec::new(),
            topic_index: HashMap::new(),
            partitions: Partitions::default(),
            tables: Tables::default(),
            raw: RawRows::default(),
            counts: Counts::default(),
            aside: Aside::default(),
        }
    }

    /// Says from which position a partition will be read: after an assignment or a seek, before its first record. The
    /// next span of the partition begins there, and what came before is forgotten.
    pub fn begin_partition(&mut self, partition: TopicPartition, position: i64) {
        let topic = Arc::clone(&partition.topic);
        let (topics, index, modes) = (&mut self.topics, &mut self.topic_index, self.options.modes);
        self.partitions.begin(partition, position, || topic_of(topics, index, &topic, modes));
    }

    /// Says that no record of `partition` lies before `next` but those that were given: the running batch ends there.
    /// Whether that is further than before.
    pub fn reach(&mut self, partition: &TopicPartition, next: i64, identity: &TopicIdentity) -> bool {
        self.partitions.reach(partition, next, identity)
    }

    /// Decodes one record into the running batch.
    ///
    /// # Errors
    /// Where the record cannot become a change: it has then left nothing behind, and the batch ends before it.
    pub fn push(&mut self, record: RecordRef<'_>, identity: &TopicIdentity) -> Result<Outcome, RecordError> {
        self.aside.begin(&record, identity);
        let at = self.locate(&record);
        let outcome = self.decode(&record, at).map_err(|fault| RecordError {
            partition: TopicPartition::new(Arc::clone(record.topic), record.partition),
            offset: record.offset,
            kind: fault.kind,
            detail: fault.detail,
        })?;
        let deleted = record.key.filter(|_| outcome == Outcome::Change(Operation::Delete));
        self.accept(&record, identity, deleted);
        self.counts.changes += usize::from(matches!(outcome, Outcome::Change(_)));
        Ok(outcome)
    }

    fn locate(&mut self, record: &RecordRef<'_>) -> usize {
        let (topics, index, modes) = (&mut self.topics, &mut self.topic_index, self.options.modes);
        self.partitions.locate(record, || topic_of(topics, index, record.topic, modes))
    }

    /// Index of the topic of a record.
    pub(super) fn partition_topic(&mut self, record: &RecordRef<'_>) -> usize {
        let at = self.locate(record);
        self.partitions.topic(at)
    }

    /// Has the running batch cover a record.
    pub(super) fn accept(
        &mut self,
        record: &RecordRef<'_>,
        identity: &TopicIdentity,
        deleted: Option<&[u8]>,
    ) {
        let at = self.locate(record);
        self.partitions.accept(at, record.offset, identity, deleted);
        self.counts.records += 1;
        self.counts.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
    }

    /// Changes in the running batch.
    pub fn rows(&self) -> usize {
        self.counts.changes
    }

    /// Records in the running batch, filtered ones included.
    pub fn records(&self) -> u64 {
        self.counts.records
    }

    /// Bytes of keys and values that went into the running batch.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.counts.bytes).unwrap_or(usize::MAX)
    }

    /// Takes the running batch and leaves an empty one; what was learned of topics and tables stays.
    ///
    /// # Errors
    /// Never for any input: only if the columns contradicted their own schema.
    pub fn finish(&mut self) -> Result<Batch, ArrowError> {
        let counts = std::mem::take(&mut self.counts);
        let raw = std::mem::take(&mut self.raw);
        let (partitions, spans) = self.partitions.finish();
        let (quarantined, settled) = self.aside.finish();
        Ok(Batch {
            partitions,
            spans,
            changes: self.tables.finish()?,
            suspect_defaults: self.tables.suspects(),
            raw: if self.options.raw { Some(raw.finish()?) } else { None },
            bytes: counts.bytes,
            records: counts.records,
            newest_source_micros: counts.newest_source_micros,
            duplicates: counts.duplicates,
            regressions: counts.regressions,
            quarantined,
            settled,
            originals: None,
            replay: false,
        })
    }

    fn decode(&mut self, record: &RecordRef<'_>, at: usize) -> Decoded<Outcome> {
        let topic = self.partitions.topic(at);
        let known = topic_at(&mut self.topics, topic)?;
        if known.heartbeats {
            return Ok(Outcome::Filtered("heartbeat"));
        }
        let opened = match record.value {
            Some(value) => known.open(value)?,
            None => None,
        };
        let Some(opened) = opened else { return self.tombstone(record, at, topic) };
        let Some(code) = opened.envelope.op.as_ref() else {
            let name = opened.schema.as_ref().and_then(|schema| schema.name.as_deref());
            return envelope::purpose(name, opened.payload).map(Outcome::Filtered).ok_or_else(|| {
                Fault::new(RecordErrorKind::NotAnEvent, "the value has no `op`: it is not a Debezium event")
            });
        };
        let operation = match code.as_str() {
            "c" => Operation::Create,
            "u" => Operation::Update,
            "d" => Operation::Delete,
            "r" => Operation::Read,
            "m" => return self.message(record, topic, &opened),
            "t" => {
                let detail = "truncate (`t`) is not supported; set skipped.operations=t in the connector";
                return Err(Fault::new(RecordErrorKind::UnknownOperation, detail));
            }
            _ => {
                let detail = "`op` is none of c, u, d, r, t, m";
                return Err(Fault::new(RecordErrorKind::UnknownOperation, detail));
            }
        };
        self.row(record, at, topic, operation, &opened)
    }

    fn row(
        &mut self,
        record: &RecordRef<'_>,
        at: usize,
        topic: usize,
        operation: Operation,
        opened: &Opened<'_>,
    ) -> Decoded<Outcome> {
        let known = topic_at(&mut self.topics, topic)?;
        let source =
            opened.envelope.source.as_ref().filter(|source| source.table.is_some()).ok_or_else(|| {
                Fault::new(RecordErrorKind::NotAnEvent, "the value does not name its table in `source.table`")
            })?;
        let key = record.key.map(|key| known.keys.read(key)).transpose()?.flatten().ok_or_else(|| {
            let detail = format!(
                "the record has no key: {} needs a primary key, or message.key.columns in the connector",
                table_of(source)
            );
            Fault::new(RecordErrorKind::MissingKey, detail)
        })?;
        let after = opened.envelope.after.map(RawValue::get);
        let text = match (operation, after) {
            (Operation::Delete, _) => key.text,
            (_, Some(after)) => after,
            (_, None) => {
                let detail = format!("operation `{}` has no `after`", operation.code());
                return Err(Fault::new(RecordErrorKind::NotAnEvent, detail));
            }
        };
        let micros = source.micros();
        let change = Change {
            operation,
            partition: self.partitions.in_batch(at),
            offset: record.offset,
            source_micros: micros.unwrap_or(0),
        };
        let layout = if let Some(schema) = &opened.schema {
            let refinements = Refinements { known: self.known.as_ref(), configured: &self.options.types };
            let layout = known.layout(schema, &key.names, source, &mut self.tables, refinements)?;
            self.tables.push(&layout, text, change, &self.placeholder).map_err(RowFault::strict)?;
            layout
        } else {
            self.push_bare(topic, &RowEvent { operation, text, key: &key, source }, change)?
        };
        let other_key = match operation {
            Operation::Create => record.old_key,
            Operation::Delete => record.new_key,
            _ => None,
        };
        self.moved(topic, other_key, source.lsn.0, &layout);
        self.judge(record, topic, operation, key.text, &layout)?;
        let raw = RawRow {
            operation: operation.code(),
            key: Some(key.text),
            before: opened.envelope.before.map(RawValue::get),
            after,
            ..raw_row(record, Some(source))
        };
        self.push_raw(&raw, Some(&layout))?;
        self.counts.newest_source_micros = self.counts.newest_source_micros.max(micros);
        if operation != Operation::Read {
            self.watch_order(record, at, operation, source, &layout.table);
        }
        let known = topic_at(&mut self.topics, topic)?;
        if !known.newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, &layout)) {
            known.newest = Some(layout);
        }
        Ok(Outcome::Change(operation))
    }

    /// Counts what the order of the source says of an accepted change.
    fn watch_order(
        &mut self,
        record: &RecordRef<'_>,
        at: usize,
        operation: Operation,
        source: &Source<'_>,
        table: &TableId,
    ) {
        let Some(order) = self.partitions.order(at) else { return };
        match order.look(source.sequence, source.micros(), operation, record.key) {
            Seen::New => {}
            Seen::Again => match self.counts.duplicates.get_mut(table) {
                Some(count) => *count += 1,
                None => drop(self.counts.duplicates.insert(table.clone(), 1)),
            },
            Seen::WentBack { from, to } => {
                let partition = TopicPartition::new(Arc::clone(record.topic), record.partition);
                self.counts.regressions.push(Regression { partition, offset: record.offset, from, to });
            }
        }
    }

    /// Notes that the newest change of `layout`'s table is half of a key change, where its header says so.
    fn moved(&mut self, topic: usize, other_key: Option<&[u8]>, lsn: Option<i64>, layout: &Layout) {
        let Some((header, topic)) = other_key.zip(self.topics.get_mut(topic)) else { return };
        if let Ok(Some(key)) = topic.keys.read(header)
            && key.names == layout.key_names
        {
            self.tables.moved(layout, key.text, lsn, &self.placeholder);
        }
    }

    /// Appends a row without schema block, with the columns that it is the first to have.
    fn push_bare(&mut self, topic: usize, event: &RowEvent<'_>, change: Change) -> Decoded<Arc<Layout>> {
        let newest = self.topics.get(topic).and_then(|topic| topic.newest.as_ref());
        let slot = match newest {
            Some(newest) if names(event.source, &newest.table) => newest.slot,
            _ => self.tables.slot_of(&table_of(event.source)),
        };
        let before = self.tables.get(slot).and_then(|slot| slot.bare.clone());
        if let Some(layout) = before.as_ref().filter(|layout| layout.key_names == event.key.names) {
            match self.tables.push(layout, event.text, change, &self.placeholder) {
                Ok(()) => return Ok(Arc::clone(layout)),
                Err(RowFault::UnknownColumn(_)) if event.operation.is_upsert() => {}
                Err(fault) => return Err(fault.strict()),
            }
        }
        let table = table_of(event.source);
        let known = self.known.schema(&table);
        let modes = self.options.modes;
        let source = self.options.source.as_ref().and_then(|source| source.of(&table, modes));
        let types = TypeSources {
            configured: self.options.types.get(&table.to_string()),
            source: source.as_ref(),
            known: known.as_deref(),
            modes,
            placeholder: &self.placeholder,
        };
        let guessed = bare::layout(&table, slot, before.as_deref(), &event.key.names, event.text, types)?;
        let layout = Arc::new(guessed.layout);
        self.tables.push(&layout, event.text, change, &self.placeholder).map_err(RowFault::strict)?;
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

    fn tombstone(&mut self, record: &RecordRef<'_>, at: usize, topic: usize) -> Decoded<Outcome> {
        let Some(bytes) = record.key else { return Ok(Outcome::Filtered("empty")) };
        let predecessor = self.partitions.predecessor(at, bytes);
        if predecessor == Predecessor::SameDelete {
            return Ok(Outcome::Filtered("tombstone"));
        }
        let known = topic_at(&mut self.topics, topic)?;
        let Some(layout) = known.newest.clone() else {
            return Ok(Outcome::Filtered("tombstone_unknown_table"));
        };
        let Some(key) = known.keys.read(bytes)? else { return Ok(Outcome::Filtered("empty")) };
        if key.names != layout.key_names {
            let detail =
                format!("the key of the tombstone has other fields than the key of {}", layout.table);
            return Err(Fault::new(RecordErrorKind::InvalidSchema, detail));
        }
        let operation = Operation::Delete;
        let partition = self.partitions.in_batch(at);
        let change = Change { operation, partition, offset: record.offset, source_micros: 0 };
        self.tables.push(&layout, key.text, change, &self.placeholder).map_err(RowFault::strict)?;
        self.moved(topic, record.new_key, None, &layout);
        self.judge(record, topic, operation, key.text, &layout)?;
        if predecessor == Predecessor::Other {
            let raw = RawRow {
                operation: operation.code(),
                source_schema: Some(&layout.table.schema),
                source_table: Some(&layout.table.table),
                key: Some(key.text),
                ..raw_row(record, None)
            };
            self.push_raw(&raw, Some(&layout))?;
        }
        Ok(Outcome::Change(operation))
    }

    /// A message of `pg_logical_emit_message`: part of the history, but of no table.
    fn message(&mut self, record: &RecordRef<'_>, topic: usize, opened: &Opened<'_>) -> Decoded<Outcome> {
        let known = topic_at(&mut self.topics, topic)?;
        let key = record.key.map(|key| known.keys.read(key)).transpose()?.flatten();
        let raw = RawRow {
            operation: "m",
            key: key.as_ref().map(|key| key.text),
            ..raw_row(record, opened.envelope.source.as_ref())
        };
        self.push_raw(&raw, None)?;
        Ok(Outcome::Filtered("message"))
    }

    /// Appends the raw row of the newest change of `layout`'s table, or takes that change back.
    fn push_raw(&mut self, row: &RawRow<'_>, layout: Option<&Layout>) -> Decoded<()> {
        if !self.options.raw {
            return Ok(());
        }
        let pushed = match layout {
            None => self.raw.push(row, std::iter::empty()),
            Some(layout) => {
                let columns = layout.schema.columns();
                let absent = self.tables.absent_in_last(layout.slot);
                self.raw.push(
                    row,
                    absent.filter_map(|index| columns.get(index)).map(|column| column.name.as_ref()),
                )
            }
        };
        pushed.map_err(|_| {
            if let Some(layout) = layout {
                self.tables.undo(layout.slot);
            }
            let detail = "the raw table takes no more than 2 GiB in one batch and dates of 32 bits: lower batch.max_bytes";
            Fault::new(RecordErrorKind::InvalidValue, detail)
        })
    }
}

/// A raw row with what record and source block say.
fn raw_row<'a>(record: &RecordRef<'a>, source: Option<&'a Source<'a>>) -> RawRow<'a> {
    let text = |text: Option<&'a envelope::Text<'a>>| text.map(envelope::Text::as_str);
    RawRow {
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        source_schema: source.and_then(|source| text(source.schema.as_ref())),
        source_table: source.and_then(|source| text(source.table.as_ref())),
        lsn: source.and_then(|source| source.lsn.0),
        tx_id: source.and_then(|source| source.tx_id.0),
        snapshot: source.and_then(|source| text(source.snapshot.as_ref())),
        source_micros: source.and_then(Source::micros),
        ..RawRow::default()
    }
}

fn topic_at(topics: &mut [Topic], index: usize) -> Decoded<&mut Topic> {
    topics.get_mut(index).ok_or_else(|| Fault::new(RecordErrorKind::NotAnEvent, "the decoder lost its topic"))
}

fn topic_of(
    topics: &mut Vec<Topic>,
    index: &mut HashMap<Arc<str>, usize>,
    name: &Arc<str>,
    modes: Modes,
) -> usize {
    if let Some(&topic) = index.get(name) {
        return topic;
    }
    topics.push(Topic::new(name, modes));
    index.insert(Arc::clone(name), topics.len() - 1);
    topics.len() - 1
}
