//! The decoder: which kind of record it is, and what follows from that.
//!
//! Invariant: a record that is refused has left nothing behind, neither a change nor a raw row, so that the batch may end
//! before it and what is read again gives the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::error::ArrowError;

use crate::change::{
    Batch, KnownTables, Operation, RecordError, RecordErrorKind, Regression, TableId, TopicIdentity,
    TopicPartition,
};

use super::aside::Aside;
use super::envelope::{self, Source};
use super::fault::{Decoded, Fault};
use super::order::Seen;
use super::partitions::Partitions;
use super::placeholder::Placeholder;
use super::raw_rows::{RawRow, RawRows};
use super::record::{DecoderOptions, KnownSchemas, Outcome, RecordRef};
use super::row::Layout;
use super::tables::Tables;
use super::topic::{Opened, Topic};
use super::truncate::Drained;

/// Decodes records into a running batch.
pub struct Decoder {
    pub(super) options: DecoderOptions,
    pub(super) placeholder: Placeholder,
    pub(super) known: Box<dyn KnownSchemas>,
    /// Tables that have rows in the sink.
    pub(super) in_sink: KnownTables,
    pub(super) topics: Vec<Topic>,
    topic_index: HashMap<Arc<str>, usize>,
    pub(super) partitions: Partitions,
    pub(super) tables: Tables,
    raw: RawRows,
    pub(super) counts: Counts,
    pub(super) aside: Aside,
}

/// Figures of the running batch.
#[derive(Debug, Default)]
pub(super) struct Counts {
    changes: usize,
    records: u64,
    bytes: u64,
    pub(super) newest_source_micros: Option<i64>,
    alive_millis: Option<i64>,
    duplicates: BTreeMap<TableId, u64>,
    regressions: Vec<Regression>,
}

impl Decoder {
    /// A decoder with an empty batch. `known` gives what the sink already has.
    pub fn new(options: DecoderOptions, known: impl KnownSchemas + 'static) -> Self {
        Self {
            placeholder: Placeholder::new(&options.placeholder),
            options,
            known: Box::new(known),
            in_sink: KnownTables::default(),
            topics: Vec::new(),
            topic_index: HashMap::new(),
            partitions: Partitions::default(),
            tables: Tables::default(),
            raw: RawRows::default(),
            counts: Counts::default(),
            aside: Aside::default(),
        }
    }

    /// Says which tables have rows in the sink.
    #[must_use]
    pub fn with_tables(mut self, tables: KnownTables) -> Self {
        self.in_sink = tables;
        self
    }

    /// Says from which position a partition will be read: after an assignment or a seek, before its first record. The
    /// next span of the partition begins there, and what came before is forgotten.
    pub fn begin_partition(&mut self, partition: TopicPartition, position: i64) {
        let topic = Arc::clone(&partition.topic);
        let (topics, index, options) = (&mut self.topics, &mut self.topic_index, &self.options);
        self.partitions.begin(partition, position, || topic_of(topics, index, &topic, options));
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
        self.take(&record, identity, None)
    }

    /// Decodes a record of which [`Self::push`] said [`Outcome::Truncate`], now that its topic's other partitions have
    /// been read up to where they ended when it came.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn truncate(
        &mut self,
        record: RecordRef<'_>,
        identity: &TopicIdentity,
        drained: Drained,
    ) -> Result<Outcome, RecordError> {
        self.take(&record, identity, Some(drained))
    }

    fn take(
        &mut self,
        record: &RecordRef<'_>,
        identity: &TopicIdentity,
        drained: Option<Drained>,
    ) -> Result<Outcome, RecordError> {
        self.aside.begin(record, identity);
        let at = self.locate(record);
        let outcome = self.decode(record, at, identity, drained).map_err(|fault| RecordError {
            partition: TopicPartition::new(Arc::clone(record.topic), record.partition),
            offset: record.offset,
            kind: fault.kind,
            detail: fault.detail,
        })?;
        if matches!(outcome, Outcome::Truncate { .. }) {
            return Ok(outcome);
        }
        let deleted = record.key.filter(|_| outcome == Outcome::Change(Operation::Delete));
        self.accept(record, at, identity, deleted);
        self.counts.changes += usize::from(matches!(outcome, Outcome::Change(_)));
        Ok(outcome)
    }

    /// Index of the partition of a record.
    pub(super) fn locate(&mut self, record: &RecordRef<'_>) -> usize {
        let (topics, index, options) = (&mut self.topics, &mut self.topic_index, &self.options);
        self.partitions.locate(record, || topic_of(topics, index, record.topic, options))
    }

    /// Index of the topic of a record.
    pub(super) fn partition_topic(&mut self, record: &RecordRef<'_>) -> usize {
        let at = self.locate(record);
        self.partitions.topic(at)
    }

    /// Has the running batch cover a record of the partition with that index.
    pub(super) fn accept(
        &mut self,
        record: &RecordRef<'_>,
        at: usize,
        identity: &TopicIdentity,
        deleted: Option<&[u8]>,
    ) {
        self.partitions.accept(at, record.offset, identity, deleted);
        self.counts.records += 1;
        self.counts.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
    }

    /// Changes in the running batch.
    pub fn rows(&self) -> usize {
        self.counts.changes
    }

    /// Rows for the raw table in the running batch.
    pub fn raw_rows(&self) -> usize {
        self.raw.len()
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
            alive_millis: counts.alive_millis,
            quarantined,
            settled,
            originals: None,
            replay: false,
            forced: BTreeSet::new(),
        })
    }

    fn decode(
        &mut self,
        record: &RecordRef<'_>,
        at: usize,
        identity: &TopicIdentity,
        drained: Option<Drained>,
    ) -> Decoded<Outcome> {
        let topic = self.partitions.topic(at);
        let known = topic_at(&mut self.topics, topic)?;
        if known.heartbeats {
            self.alive(record.value.and_then(heartbeat_millis));
            return Ok(Outcome::Filtered("heartbeat"));
        }
        let opened = match record.value {
            Some(value) => known.open(value, record.headers)?,
            None => None,
        };
        let Some(opened) = opened else { return self.tombstone(record, (at, topic), identity) };
        self.alive(opened.envelope.ts_ms.0);
        let Some(code) = opened.envelope.op.as_ref() else {
            let name = opened.schema.as_ref().and_then(|schema| schema.name.as_deref());
            return envelope::purpose(name, opened.payload).map(Outcome::Filtered).ok_or_else(|| {
                let detail = "the value has no `op`: it is not a Debezium event; if it is a flattened one without metadata fields, \
                              name its topic in debezium.flattened_topics";
                Fault::new(RecordErrorKind::NotAnEvent, detail)
            });
        };
        let operation = match code.as_str() {
            "c" => Operation::Create,
            "u" => Operation::Update,
            "d" => Operation::Delete,
            "r" => Operation::Read,
            "m" => return self.message(record, topic, &opened),
            "t" => return self.truncated(record, at, &opened, drained),
            _ => {
                let detail = "`op` is none of c, u, d, r, t, m";
                return Err(Fault::new(RecordErrorKind::UnknownOperation, detail));
            }
        };
        self.row(record, at, topic, operation, &opened)
    }

    /// Counts what the order of the source says of an accepted change.
    pub(super) fn watch_order(
        &mut self,
        record: &RecordRef<'_>,
        at: usize,
        operation: Operation,
        source: &Source<'_>,
        table: &TableId,
    ) {
        let Some(order) = self.partitions.order(at) else { return };
        match order.look(source.pair(), source.micros(), operation, record.key) {
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
    pub(super) fn moved(
        &mut self,
        topic: usize,
        other_key: Option<&[u8]>,
        lsn: Option<i64>,
        layout: &Layout,
    ) {
        let Some((header, topic)) = other_key.zip(self.topics.get_mut(topic)) else { return };
        if let Ok(Some(key)) = topic.keys.read(header)
            && key.names == layout.key_names
        {
            self.tables.moved(layout, key.text, lsn, &self.placeholder);
        }
    }

    /// Notes that the connector was alive at that time.
    fn alive(&mut self, millis: Option<i64>) {
        self.counts.alive_millis = self.counts.alive_millis.max(millis);
    }

    /// A message of `pg_logical_emit_message`: part of the history, with all that it says, but of no table.
    fn message(&mut self, record: &RecordRef<'_>, topic: usize, opened: &Opened<'_>) -> Decoded<Outcome> {
        let known = topic_at(&mut self.topics, topic)?;
        let key = record.key.map(|key| known.keys.read(key)).transpose()?.flatten();
        let raw = RawRow {
            operation: "m",
            key: key.as_ref().map(|key| key.text),
            after: envelope::message(opened.payload),
            ..RawRow::of(record, opened.envelope.source.as_ref())
        };
        self.push_raw(&raw, None)?;
        Ok(Outcome::Filtered("message"))
    }

    /// Appends the raw row of the newest change of `layout`'s table, or takes that change back.
    pub(super) fn push_raw(&mut self, row: &RawRow<'_>, layout: Option<&Layout>) -> Decoded<()> {
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

/// When the connector sent a heartbeat; nothing depends on it, so what is no heartbeat has no time.
fn heartbeat_millis(value: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Beat {
        ts_ms: Option<i64>,
        payload: Option<Box<Beat>>,
    }
    let beat: Beat = serde_json::from_slice(value).ok()?;
    beat.payload.map_or(beat.ts_ms, |payload| payload.ts_ms)
}

pub(super) fn topic_at(topics: &mut [Topic], index: usize) -> Decoded<&mut Topic> {
    topics.get_mut(index).ok_or_else(|| Fault::new(RecordErrorKind::NotAnEvent, "the decoder lost its topic"))
}

fn topic_of(
    topics: &mut Vec<Topic>,
    index: &mut HashMap<Arc<str>, usize>,
    name: &Arc<str>,
    options: &DecoderOptions,
) -> usize {
    if let Some(&topic) = index.get(name) {
        return topic;
    }
    topics.push(Topic::new(name, options.modes, &options.flattened));
    index.insert(Arc::clone(name), topics.len() - 1);
    topics.len() - 1
}
