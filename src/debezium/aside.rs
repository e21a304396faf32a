//! Records that are set aside, and what marks say about the changes after them.
//!
//! The batch covers the offset of a record that is set aside like any other one; its bytes, its table and the key of its
//! row go with the batch. Judging comes after decoding and before the raw row: a change that must not be applied leaves
//! nothing behind, like one that could not be decoded.

use std::sync::Arc;

use crate::change::quarantine::{
    JudgedChange, Marks, Payload, Quarantined, RecordPlace, Settlement, Verdict,
};
use crate::change::{Operation, RecordError, RecordErrorKind, TableId, TopicIdentity, TopicPartition};

use super::decoder::Decoder;
use super::envelope::Source;
use super::fault::{Decoded, Fault};
use super::key::Keys;
use super::record::RecordRef;
use super::row::Layout;
use super::topic::table_of;

/// What the running batch has set aside and settled.
#[derive(Debug, Default)]
pub(super) struct Aside {
    marks: Marks,
    quarantined: Vec<Quarantined>,
    settled: Vec<Settlement>,
    /// Place of the record that is being decoded; only where some key is marked.
    place: Option<RecordPlace>,
}

impl Aside {
    /// The next record.
    pub(super) fn begin(&mut self, record: &RecordRef<'_>, identity: &TopicIdentity) {
        self.place = (!self.marks.is_empty()).then(|| place_of(record, identity));
    }

    /// The record that is being decoded empties a table.
    pub(super) fn emptied(&mut self, table: &TableId) {
        if let Some(place) = self.place.take() {
            self.marks.truncated(table, &place, &mut self.settled);
        }
    }

    /// What goes with the batch that ends here.
    pub(super) fn finish(&mut self) -> (Vec<Quarantined>, Vec<Settlement>) {
        (std::mem::take(&mut self.quarantined), std::mem::take(&mut self.settled))
    }
}

fn place_of(record: &RecordRef<'_>, identity: &TopicIdentity) -> RecordPlace {
    RecordPlace {
        partition: TopicPartition { topic: Arc::clone(record.topic), partition: record.partition },
        identity: identity.clone(),
        offset: record.offset,
    }
}

impl Decoder {
    /// Judges changes by these marks, and marks the keys of records that are set aside.
    #[must_use]
    pub fn with_marks(mut self, marks: Marks) -> Self {
        self.aside.marks = marks;
        self
    }

    /// The table that the row of a record goes to: that of the source table which the record names, or else the one that the
    /// newest row of its topic went to.
    pub fn table_named_by(&mut self, record: &RecordRef<'_>) -> Option<TableId> {
        let topic = self.partition_topic(record);
        let topic = self.topics.get_mut(topic)?;
        let named = |source: &Source<'_>| source.table.is_some().then(|| table_of(source));
        let opened = record.value.and_then(|value| topic.open(value, record.headers).ok().flatten());
        let source = opened.and_then(|opened| opened.envelope.source.as_ref().and_then(named));
        match source {
            Some(source) => Some(self.options.routes.of(&source).unwrap_or(source)),
            None => topic.newest.as_ref().map(|newest| newest.table.clone()),
        }
    }

    /// The table that rows of a record's topic go to by the topic's name, where that is another one than the name says. It
    /// lacks the database, so it is good for a policy and for nothing that is stored.
    pub fn table_of_topic(&mut self, record: &RecordRef<'_>) -> Option<TableId> {
        let topic = self.partition_topic(record);
        let (schema, table) = self.topics.get(topic)?.table();
        self.options.routes.of(&TableId::new("", schema, table))
    }

    /// Has the running batch cover a record that could not be decoded, and keep it.
    pub fn set_aside(
        &mut self,
        record: &RecordRef<'_>,
        identity: &TopicIdentity,
        error: RecordError,
        headers: Vec<(String, Option<Vec<u8>>)>,
    ) {
        let table = self.table_named_by(record);
        let topic = self.partition_topic(record);
        let keys = self.topics.get_mut(topic).map(|topic| &mut topic.keys);
        let row_key = keys.zip(record.key).and_then(|(keys, key)| text_of(keys, key));
        let place = place_of(record, identity);
        if let Some(key) = &row_key {
            self.aside.marks.add(&place, table.as_ref(), key);
        }
        let at = self.locate(record);
        self.accept(record, at, identity, None);
        let payload = Payload {
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
        };
        self.aside.quarantined.push(Quarantined {
            place,
            table,
            row_key,
            kind: error.kind,
            detail: error.detail,
            payload,
        });
    }

    /// Judges the newest change of `layout`'s table, and takes it back where it must not be applied.
    pub(super) fn judge(
        &mut self,
        record: &RecordRef<'_>,
        topic: usize,
        operation: Operation,
        key: &str,
        layout: &Layout,
    ) -> Decoded<()> {
        let Some(place) = self.aside.place.take() else { return Ok(()) };
        let whole =
            operation == Operation::Delete || self.tables.absent_in_last(layout.slot).next().is_none();
        let keys = self.topics.get_mut(topic).map(|topic| &mut topic.keys);
        let (old_key, new_key) = match keys {
            Some(keys) => (
                record.old_key.and_then(|bytes| text_of(keys, bytes)),
                record.new_key.and_then(|bytes| text_of(keys, bytes)),
            ),
            None => (None, None),
        };
        let change = JudgedChange {
            place: &place,
            table: &layout.table,
            source: &layout.source,
            several_sources: self.options.routes.leads_to(&layout.table),
            key,
            old_key: old_key.as_deref(),
            new_key: new_key.as_deref().filter(|_| operation == Operation::Delete),
            whole,
        };
        match self.aside.marks.judge(&change, &mut self.aside.settled) {
            Verdict::Sound => Ok(()),
            Verdict::WrongBase(missing) => {
                self.tables.undo(layout.slot);
                let detail = format!(
                    "it leaves columns as they are in a row that is wrong: record {missing} of its key is in quarantine"
                );
                Err(Fault::new(RecordErrorKind::BaseQuarantined, detail))
            }
        }
    }
}

fn text_of(keys: &mut Keys, bytes: &[u8]) -> Option<String> {
    keys.read(bytes).ok().flatten().map(|key| key.text.to_owned())
}

/// Reads the keys of rows out of the keys of records.
#[derive(Debug, Default)]
pub struct KeyReader(Keys);

impl KeyReader {
    /// The key of a record's row as JSON text, where it can be read.
    pub fn read(&mut self, key: &[u8]) -> Option<String> {
        text_of(&mut self.0, key)
    }
}
