//! A batch: the changes of a contiguous range of offsets, as Arrow columns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;

use super::quarantine::{Originals, Quarantined, Settlement};
use super::{Span, TableId, TableSchema, TopicPartition, Truncate};

/// What an event did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `c`: inserted.
    Create,
    /// `u`: updated.
    Update,
    /// `d`: deleted, or a tombstone without a delete before it.
    Delete,
    /// `r`: read by a snapshot.
    Read,
    /// `t`: the whole table was emptied. Its row is all null; [`ChangeBatch::truncates`] says what it takes away. In a sink
    /// that keeps what is deleted, also the end of one row by a truncate.
    Truncate,
}

impl Operation {
    /// Debezium's letter.
    pub fn code(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
            Self::Truncate => "t",
        }
    }

    /// Whether the row exists after it.
    pub fn is_upsert(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Read)
    }
}

/// The changes of a batch that are halves of a primary-key change, and the key on the other side of each.
///
/// A row whose key changes arrives as the delete of its old key and the create of its new one. What the source did not
/// send again is, for the create, in the row of the old key.
#[derive(Debug, Clone)]
pub struct KeyMoves {
    /// Index of each of these changes, ascending. They are creates and deletes.
    pub changes: Vec<u32>,
    /// For a create the key that its row had before, for a delete the key that its row has afterwards: key columns, in
    /// key order, one row for each of `changes`.
    pub keys: RecordBatch,
    /// For each of `changes` its LSN in the source, which both halves have in common, if the event says.
    pub lsns: Vec<Option<i64>>,
}

impl KeyMoves {
    /// Those among the changes that `rows` names, ascending, which are counted anew.
    fn only(&self, rows: &[u32]) -> Result<Self, ArrowError> {
        let found = self.changes.iter().enumerate().filter_map(|(at, change)| {
            let now = rows.binary_search(change).ok()?;
            Some((at as u32, now as u32))
        });
        let (at, changes): (Vec<u32>, Vec<u32>) = found.unzip();
        Ok(Self {
            lsns: those(&self.lsns, &at),
            keys: take_record_batch(&self.keys, &UInt32Array::from(at))?,
            changes,
        })
    }
}

/// Changes of one table with one schema, in the order in which they apply.
///
/// All vectors and columns have one entry a change.
#[derive(Debug, Clone)]
pub struct ChangeBatch {
    /// The table.
    pub table: TableId,
    /// The schema that all these records were written with.
    pub schema: Arc<TableSchema>,
    /// What each change did.
    pub operations: Vec<Operation>,
    /// The row after the change, columns as in [`TableSchema::arrow`]. A delete has its key columns only, taken from
    /// the record key; its other cells are null and mean nothing. In a table without key a delete has the whole row as
    /// it was, and an update is two entries with one offset: the delete of the row before, and the row after.
    pub rows: RecordBatch,
    /// For each column `None`, or a mask of the cells that are absent (null in `rows`, unchanged in the source).
    pub absent: Vec<Option<BooleanBuffer>>,
    /// Index into [`Batch::partitions`] of the partition each change came from.
    pub partitions: Vec<u32>,
    /// Kafka offset.
    pub offsets: Vec<i64>,
    /// Commit time in the source, microseconds since 1970 UTC; 0 where the event does not say.
    pub source_micros: Vec<i64>,
    /// Which of the changes are halves of a key change; `None` where none is.
    pub moves: Option<KeyMoves>,
    /// Place of the change in the source's log (LSN); 0 where the event does not say. It decides only where partitions
    /// leave the order open: what a truncate takes away, and in a table of several sources which change is late.
    pub lsns: Vec<i64>,
    /// The truncates among the changes, in order; nearly always none.
    pub truncates: Vec<Truncate>,
}

impl ChangeBatch {
    /// Number of changes.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The changes at these indexes, which ascend, and no other.
    ///
    /// # Errors
    /// Where there is no such change.
    pub fn only(&self, rows: &[u32]) -> Result<Self, ArrowError> {
        let new_place = |row: u32| rows.binary_search(&row).ok();
        let indices = UInt32Array::from(rows.to_vec());
        let mask = |mask: &BooleanBuffer| rows.iter().map(|&row| mask.value(row as usize)).collect();
        let moves = self.moves.as_ref().map(|moves| moves.only(rows)).transpose()?;
        let truncates = self.truncates.iter().filter_map(|truncate| {
            let row = new_place(u32::try_from(truncate.row).ok()?)?;
            Some(Truncate { row, ..*truncate })
        });
        Ok(Self {
            table: self.table.clone(),
            schema: Arc::clone(&self.schema),
            operations: those(&self.operations, rows),
            rows: take_record_batch(&self.rows, &indices)?,
            absent: self.absent.iter().map(|absent| absent.as_ref().map(mask)).collect(),
            partitions: those(&self.partitions, rows),
            offsets: those(&self.offsets, rows),
            source_micros: those(&self.source_micros, rows),
            moves,
            lsns: those(&self.lsns, rows),
            truncates: truncates.collect(),
        })
    }
}

/// The entries at these indexes.
fn those<T: Copy>(values: &[T], rows: &[u32]) -> Vec<T> {
    rows.iter().filter_map(|&row| values.get(row as usize)).copied().collect()
}

/// All that a lane commits at once.
#[derive(Clone, Default)]
pub struct Batch {
    /// The partitions that the rows refer to by index.
    pub partitions: Vec<TopicPartition>,
    /// What the batch covers. A partition whose records were all filtered is here too.
    pub spans: BTreeMap<TopicPartition, Span>,
    /// Changes by table. One table may come more than once, in order, where its schema changed within the batch.
    pub changes: Vec<ChangeBatch>,
    /// One row a record for the raw table, columns as in [`super::raw::schema`]; `None` where the lane keeps none.
    pub raw: Option<RecordBatch>,
    /// Bytes of keys and values that the batch was made of.
    pub bytes: u64,
    /// Records that the batch was made of, filtered ones included.
    pub records: u64,
    /// Newest commit time of the source in the batch, microseconds since 1970 UTC.
    pub newest_source_micros: Option<i64>,
    /// By table, changes that the source had sent before. They are in `changes` like all others.
    pub duplicates: BTreeMap<TableId, u64>,
    /// Places where the source went on from an earlier point of its log.
    pub regressions: Vec<Regression>,
    /// The newest time at which the connector is known to have been alive, milliseconds since 1970 UTC: when it sent a
    /// change or a heartbeat.
    pub alive_millis: Option<i64>,
    /// By table, how many of its columns are nullable with a default and have never been null since the start: a
    /// converter with `replace.null.with.default` writes the default for each null. Tables with such columns only.
    pub suspect_defaults: BTreeMap<TableId, u64>,
    /// Records that could not become changes. Their offsets are covered by `spans`.
    pub quarantined: Vec<Quarantined>,
    /// What the changes mean for records that are in quarantine already.
    pub settled: Vec<Settlement>,
    /// Finds the records as they came; where the lane keeps them.
    pub originals: Option<Arc<dyn Originals>>,
    /// Whether these are records out of the quarantine: what the sink refuses of them is there already.
    pub replay: bool,
    /// Offsets of changes of a replay that are applied whatever came later.
    pub forced: BTreeSet<i64>,
}

/// A record with which the source's log began anew: after a failover, or from a restored slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regression {
    /// Where the record lies.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// LSN of the last commit before.
    pub from: u64,
    /// LSN of the last commit now.
    pub to: u64,
}

/// Without the original records.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("spans", &self.spans)
            .field("changes", &self.changes)
            .field("quarantined", &self.quarantined)
            .field("settled", &self.settled)
            .finish_non_exhaustive()
    }
}

/// Why a record could not become a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordErrorKind {
    /// The key or value is not JSON, or not UTF-8.
    NotJson,
    /// The value is JSON, but not a Debezium event.
    NotAnEvent,
    /// `op` is not one that Debezium documents.
    UnknownOperation,
    /// An operation on a row came without a key.
    MissingKey,
    /// A value does not fit the type of its column.
    InvalidValue,
    /// The schema block cannot be understood.
    InvalidSchema,
    /// The table was truncated, and its policy is to stop then, or the truncate cannot be applied to it.
    Truncate,
    /// The table has no key, and its policy is to stop then, or the event does not say which row it means.
    Keyless,
    /// The change leaves columns absent, and the row that would keep their values is known to be wrong, because an earlier
    /// record of its key is in quarantine.
    BaseQuarantined,
    /// The sink cannot hold a value of the row.
    ValueRefused,
    /// A constraint of the sink's table does not allow the row.
    ConstraintViolated,
    /// The row is larger than the sink can store.
    RowTooLarge,
}

impl RecordErrorKind {
    /// Every kind that may go into quarantine; the two others stop their table.
    pub const ALL: [Self; 10] = [
        Self::NotJson,
        Self::NotAnEvent,
        Self::UnknownOperation,
        Self::MissingKey,
        Self::InvalidValue,
        Self::InvalidSchema,
        Self::BaseQuarantined,
        Self::ValueRefused,
        Self::ConstraintViolated,
        Self::RowTooLarge,
    ];

    /// Stable code, used in logs, metrics and `status`.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotAnEvent => "not_an_event",
            Self::UnknownOperation => "unknown_operation",
            Self::MissingKey => "missing_key",
            Self::InvalidValue => "invalid_value",
            Self::InvalidSchema => "invalid_schema",
            Self::Truncate => "truncate",
            Self::Keyless => "keyless",
            Self::BaseQuarantined => "base_quarantined",
            Self::ValueRefused => "value_refused",
            Self::ConstraintViolated => "constraint_violated",
            Self::RowTooLarge => "row_too_large",
        }
    }

    /// Whether the record is good, and it is the table that cannot go on: such a record is never put aside.
    pub fn stops_table(self) -> bool {
        matches!(self, Self::Truncate | Self::Keyless)
    }
}

/// A record that could not become a change, with its place. The text never holds row values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Where the record lies.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// What is wrong with it.
    pub kind: RecordErrorKind,
    /// What is wrong in words: the column, the expected form.
    pub detail: String,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}@{}: {} ({})", self.partition, self.offset, self.detail, self.kind.code())
    }
}

impl std::error::Error for RecordError {}
