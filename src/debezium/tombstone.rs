//! Tombstones: records with a key and no value.
//!
//! One directly after the delete of its key only repeats it and is filtered. Any other one is a delete of
//! its own, with a raw row, of the table that the topic's newest row belonged to. Where the decoder has not seen the
//! record before it (the first of a partition after a start) it cannot tell the two apart: then the delete is
//! applied, because deleting twice is harmless and deleting never is not, but no raw row is made, because the delete
//! before it may have one already. Where no row of the topic was seen yet, its table is the one that the topic's name
//! ends with, if the sink has one under just that name: so it is with flattened events, whose deletes may be tombstones
//! and nothing else. A name that lacks the database which all other events of the table give would be another table, which
//! could not be written to the same place.
//!
//! A tombstone does not say when the source committed. Its time is the one that Kafka has, milliseconds later, because a
//! row that is kept when it is deleted has to have one.

use crate::change::{Operation, RecordErrorKind};

use super::decoder::{Decoder, topic_at};
use super::fault::{Decoded, Fault};
use super::partitions::Predecessor;
use super::raw_rows::RawRow;
use super::record::{Outcome, RecordRef};
use super::row::RowFault;
use super::tables::Change;

impl Decoder {
    /// A record whose value is null.
    pub(super) fn tombstone(&mut self, record: &RecordRef<'_>, at: usize, topic: usize) -> Decoded<Outcome> {
        let Some(bytes) = record.key else { return Ok(Outcome::Filtered("empty")) };
        let predecessor = self.partitions.predecessor(at, bytes);
        if predecessor == Predecessor::SameDelete {
            return Ok(Outcome::Filtered("tombstone"));
        }
        let known = topic_at(&mut self.topics, topic)?;
        // A tombstone says nothing but its key, unless the transformation that left it has added headers.
        let said = known.said_in(record.headers);
        let Some(key) = known.keys.read(bytes)? else { return Ok(Outcome::Filtered("empty")) };
        let newest = known.newest.clone();
        let Some(layout) = newest.or_else(|| self.layout_of_topic(topic, &key.names)) else {
            return Ok(Outcome::Filtered("tombstone_unknown_table"));
        };
        if key.names != layout.key_names {
            let detail =
                format!("the key of the tombstone has other fields than the key of {}", layout.table);
            return Err(Fault::new(RecordErrorKind::InvalidSchema, detail));
        }
        let operation = Operation::Delete;
        let partition = self.partitions.in_batch(at);
        let change = Change {
            operation,
            partition,
            offset: record.offset,
            source_micros: said.source.micros().or(kafka_micros(record)).unwrap_or(0),
            lsn: said.source.order(),
        };
        self.tables.push(&layout, key.text, change, &self.placeholder).map_err(RowFault::strict)?;
        self.moved(topic, record.new_key, None, &layout);
        self.judge(record, topic, operation, key.text, &layout)?;
        if predecessor == Predecessor::Other {
            let raw = RawRow {
                operation: operation.code(),
                source_schema: Some(&layout.source.schema),
                source_table: Some(&layout.source.table),
                key: Some(key.text),
                ..RawRow::of(record, said.any.then_some(&said.source))
            };
            self.push_raw(&raw, Some(&layout))?;
        }
        Ok(Outcome::Change(operation))
    }
}

/// When the record was written to Kafka, if the producer or the broker said so.
fn kafka_micros(record: &RecordRef<'_>) -> Option<i64> {
    record.timestamp_ms.checked_mul(1000).filter(|micros| *micros > 0)
}
