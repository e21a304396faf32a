//! Tombstones: records with a key and no value.
//!
//! One directly after the delete of its key only repeats it and is filtered. Any other one is a delete of
//! its own, with a raw row, of the table that [`super::owner`] finds.
//!
//! Of the first record of a partition after a start the decoder has not seen the record before it. Where the topic's
//! deletes are records with a value, a tombstone with which a partition goes on repeats the delete that ended what was
//! read before. In flattened topics deletes may be tombstones and nothing else (that is the transformation's default):
//! there each is a delete of its own. Where neither is known, because no row of the topic was read yet and nothing says
//! that they are flattened, the delete is applied, because deleting twice is harmless and deleting never is not, but no
//! raw row is made, because the delete before it may have one already.
//!
//! Where it is not known whose row it deletes, a delete of its own goes into quarantine, and what can only be a
//! repetition is filtered. Where the sink has no row that it could delete, it is filtered, and the history has it.
//!
//! A tombstone does not say when the source committed. Its time is the one that Kafka has, milliseconds later, because a
//! row that is kept when it is deleted has to have one.

use std::sync::Arc;

use crate::change::{Operation, RecordErrorKind, TopicIdentity};

use super::decoder::{Decoder, topic_at};
use super::fault::{Decoded, Fault};
use super::flattened::Metadata;
use super::key::RecordKey;
use super::owner::Owner;
use super::partitions::Predecessor;
use super::raw_rows::RawRow;
use super::record::{Outcome, RecordRef};
use super::row::{Layout, RowFault};
use super::tables::Change;

impl Decoder {
    /// A record whose value is null.
    pub(super) fn tombstone(
        &mut self,
        record: &RecordRef<'_>,
        (at, topic): (usize, usize),
        identity: &TopicIdentity,
    ) -> Decoded<Outcome> {
        let Some(bytes) = record.key else { return Ok(Outcome::Filtered("empty")) };
        let predecessor = self.partitions.predecessor(at, bytes, record.offset, identity);
        if predecessor == Predecessor::SameDelete {
            return Ok(Outcome::Filtered("tombstone"));
        }
        let known = topic_at(&mut self.topics, topic)?;
        // A tombstone says nothing but its key, unless the transformation that left it has added headers.
        let said = known.said_in(record.headers);
        let Some(key) = known.keys.read(bytes)? else { return Ok(Outcome::Filtered("empty")) };
        let repeats = known.repeats_deletes(said.any);
        if predecessor == Predecessor::ReadBefore && repeats == Some(true) {
            return Ok(Outcome::Filtered("tombstone"));
        }
        let is_own = predecessor == Predecessor::Other || repeats == Some(false);
        let layout = match self.owner_of(topic, &key, &said.source)? {
            Owner::Table(layout) => layout,
            Owner::OneOfSeveral if is_own => return Err(ownerless("in a topic with rows of several tables")),
            Owner::Unsaid => return Err(ownerless("in a topic whose name is that of no table here")),
            Owner::Nobody if is_own => {
                let name = topic_at(&mut self.topics, topic)?.table();
                let name = (name.0.to_owned(), name.1.to_owned());
                self.push_raw(&raw_row(record, &key, &said, (&name.0, &name.1)), None)?;
                return Ok(Outcome::Filtered("tombstone_unknown_table"));
            }
            Owner::OneOfSeveral | Owner::Nobody => return Ok(Outcome::Filtered("tombstone_unknown_table")),
        };
        // Events of Debezium name their database always, flattened ones only where they are told to.
        let has_raw_row = is_own || (repeats.is_none() && layout.table.database.is_empty());
        self.delete(record, (at, topic), (&key, &said), &layout, has_raw_row)
    }

    /// The delete that a tombstone is.
    fn delete(
        &mut self,
        record: &RecordRef<'_>,
        (at, topic): (usize, usize),
        (key, said): (&RecordKey<'_>, &Metadata<'_>),
        layout: &Arc<Layout>,
        has_raw_row: bool,
    ) -> Decoded<Outcome> {
        let has = |name: &Arc<str>| key.names.contains(name);
        if key.names.len() != layout.key_names.len() || !layout.key_names.iter().all(has) {
            let detail =
                format!("the key of the tombstone has other fields than the key of {}", layout.table);
            return Err(Fault::new(RecordErrorKind::InvalidSchema, detail));
        }
        let operation = Operation::Delete;
        let change = Change {
            operation,
            partition: self.partitions.in_batch(at),
            offset: record.offset,
            source_micros: said.source.micros().or(kafka_micros(record)).unwrap_or(0),
            lsn: said.source.order(),
        };
        self.tables.push(layout, key.text, change, &self.placeholder).map_err(RowFault::strict)?;
        self.moved(topic, record.new_key, None, layout);
        self.judge(record, topic, operation, key.text, layout)?;
        if has_raw_row {
            let name = (&*layout.source.schema, &*layout.source.table);
            self.push_raw(&raw_row(record, key, said, name), Some(layout))?;
        }
        Ok(Outcome::Change(operation))
    }
}

/// The row that the history has of a tombstone; `table` is what its headers do not say.
fn raw_row<'a>(
    record: &RecordRef<'a>,
    key: &RecordKey<'a>,
    said: &'a Metadata<'a>,
    (schema, table): (&'a str, &'a str),
) -> RawRow<'a> {
    let said = RawRow::of(record, said.any.then_some(&said.source));
    RawRow {
        operation: Operation::Delete.code(),
        source_schema: said.source_schema.or(Some(schema)),
        source_table: said.source_table.or(Some(table)),
        key: Some(key.text),
        ..said
    }
}

fn ownerless(place: &str) -> Fault {
    let detail = format!(
        "the tombstone does not name its table, {place}: have the transformation that flattens the events add headers \
         (add.headers=table,schema); discard this record if its row was deleted by the record before it"
    );
    Fault::new(RecordErrorKind::NotAnEvent, detail)
}

/// When the record was written to Kafka, if the producer or the broker said so.
fn kafka_micros(record: &RecordRef<'_>) -> Option<i64> {
    record.timestamp_ms.checked_mul(1000).filter(|micros| *micros > 0)
}
