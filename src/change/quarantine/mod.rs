//! Quarantine: records that could not become changes, or that a sink refused, kept as they came.
//!
//! A record in quarantine is a fact (its bytes, its place, what was wrong) and the events that followed: a later change of
//! its key superseded it, somebody asked for its replay, it was replayed or discarded. Both are [rows] that are only ever
//! appended; what a record *is* now is a function of its rows ([`Ledger`]), whatever their order, so that sinks, the
//! running daemon and commands agree without locks.
//!
//! While a record is open, the stored row of its key is known to be wrong. Its key is therefore *marked* ([`Marks`]): a
//! later change that leaves columns absent would be applied on that wrong base, and is quarantined too. A change with a
//! whole row, or a delete, supersedes the record. So of the later changes of a marked key each either supersedes the
//! record or is in quarantine itself: that makes "a later change has been applied" an exact question, answered by the
//! ledger alone.

mod ledger;
mod limit;
mod marks;
pub mod rows;

use std::fmt;
use std::sync::Arc;

use super::{RecordErrorKind, TableId, TopicIdentity, TopicPartition};

pub use ledger::{Ledger, LedgerRecord, PendingReplay, RecordState};
pub use limit::{Limiter, Limits, Waiting};
pub use marks::{JudgedChange, Marks, Verdict};
pub use rows::{QuarantineEvent, QuarantineRow};

/// Under this name behind its topic's stands the position of a partition's replays. `#` is in no topic's name.
const REPLAYS: &str = "#replay";

/// The partition under which a sink stores how far the replays of `partition` have got.
pub fn replays_of(partition: &TopicPartition) -> TopicPartition {
    TopicPartition::new(format!("{}{REPLAYS}", partition.topic), partition.partition)
}

/// Whether that is the position of replays, and not of a partition that is read.
pub fn is_of_replays(partition: &TopicPartition) -> bool {
    partition.topic.ends_with(REPLAYS)
}

/// The partition, as `topic/partition`, that replayed records were read from; `None` where `name` is not that of replays. A
/// replay has a position of its own, but a row comes from where its record lay.
pub fn origin_of(name: &str) -> Option<String> {
    let (topic, partition) = name.split_once(REPLAYS)?;
    Some(format!("{topic}{partition}"))
}

/// Where one record lies in one log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordPlace {
    /// Topic and partition.
    pub partition: TopicPartition,
    /// The log that the offset counts in.
    pub identity: TopicIdentity,
    /// Offset.
    pub offset: i64,
}

impl RecordPlace {
    /// The name of the record among all that a pipeline has in quarantine: `<lane>/<topic>/<partition>@<offset>`.
    pub fn id(&self, lane: &str) -> String {
        format!("{lane}/{self}")
    }
}

/// `topic/partition@offset`
impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

/// What a record was made of.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// Kafka timestamp, milliseconds since 1970 UTC; −1 for none.
    pub timestamp_ms: i64,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The value's bytes.
    pub value: Option<Vec<u8>>,
    /// All headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Says how much it holds, never what.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("key", &self.key.as_ref().map(Vec::len))
            .field("value", &self.value.as_ref().map(Vec::len))
            .field("headers", &self.headers.len())
            .finish_non_exhaustive()
    }
}

/// A record that goes into quarantine.
#[derive(Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it lies.
    pub place: RecordPlace,
    /// Its table, where the record or its topic says which.
    pub table: Option<TableId>,
    /// The key of its row as JSON text, where the key can be read.
    pub row_key: Option<String>,
    /// What is wrong with it.
    pub kind: RecordErrorKind,
    /// The same in words, without row values.
    pub detail: String,
    /// The record itself.
    pub payload: Payload,
}

/// Without the row's key.
impl fmt::Debug for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantined")
            .field("place", &self.place.to_string())
            .field("table", &self.table)
            .field("kind", &self.kind)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

/// What became of a record in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The record.
    pub place: RecordPlace,
    /// What happened to it.
    pub event: QuarantineEvent,
    /// For [`QuarantineEvent::Moved`], the key that its row has now.
    pub row_key: Option<String>,
    /// In words.
    pub detail: String,
    /// The replay that this answers.
    pub replay: Option<i64>,
}

impl Quarantined {
    /// The row that keeps it.
    pub fn into_row(self, lane: &Arc<str>, at_micros: i64) -> QuarantineRow {
        QuarantineRow {
            event: QuarantineEvent::Quarantined,
            at_micros,
            lane: Arc::clone(lane),
            place: self.place,
            table: self.table,
            row_key: self.row_key,
            code: Some(self.kind.code().to_owned()),
            detail: Some(self.detail),
            replay: None,
            force: false,
            payload: Some(self.payload),
        }
    }
}

impl Settlement {
    /// The row that keeps it.
    pub fn into_row(self, lane: &Arc<str>, at_micros: i64) -> QuarantineRow {
        QuarantineRow {
            event: self.event,
            at_micros,
            lane: Arc::clone(lane),
            place: self.place,
            table: None,
            row_key: self.row_key,
            code: None,
            detail: Some(self.detail),
            replay: self.replay,
            force: false,
            payload: None,
        }
    }
}

/// Finds records of a batch as they came, for sinks that refuse single ones.
pub trait Originals: Send + Sync {
    /// The record at that place, if the batch was made of it.
    fn find(&self, partition: &TopicPartition, offset: i64) -> Option<Original>;
}

/// A record as it came, and the key of its row.
#[derive(Debug, Clone)]
pub struct Original {
    /// The record.
    pub payload: Payload,
    /// The key of its row as JSON text, where the key can be read.
    pub row_key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::RecordErrorKind;

    #[test]
    fn every_error_code_is_documented_with_what_to_do() {
        let document = include_str!("../../../docs/operations.md");
        for kind in RecordErrorKind::ALL {
            let row = format!("| `{}` | ", kind.code());
            assert!(document.contains(&row), "docs/operations.md has no row for {}", kind.code());
        }
    }
}
