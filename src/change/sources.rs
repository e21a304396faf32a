//! Tables that take the rows of several source tables: which of two changes of a key is the later one.
//!
//! A row that moves from one source table to another (from one partition of a partitioned table to the next) is a delete
//! in one topic and a create in another, and topics have no order among each other. So each stored row keeps where its
//! last change came from, the partition of its topic ([`TOPIC_PARTITION`]) and the place in the source's log ([`LSN`]),
//! and a change that comes from *another* partition and lies further back in the log is *late*: it does nothing. Changes
//! of one partition apply in its order, as in every table, whatever their LSN.
//!
//! Why that is exact for Postgres, given that a key is in one source table at a time. Whoever changes a row holds its lock
//! until the commit, and a move writes its delete before its create; so the changes of a key have ascending LSNs in the
//! order in which they happened, across all source tables. Let L be the last of them.
//! - L is a create or an update: once it is applied nothing is later in another partition, and nothing follows in its own,
//!   so it stays. Its absent cells are found, because the create that brought the row to this source table lies before it
//!   in the same partition, and from then on only changes of that partition are not late.
//! - L is a delete. Say that a row of the key were left when all partitions have been read: it came by a change from some
//!   partition, and there a delete of the key follows, for the row does not live there any more. When that delete was read
//!   the row was either of this partition, and went; or of another and later, and then the change from here had been
//!   replaced and was not the one that is left. So none is left, and deletes need not be remembered: what a late create
//!   brings back, its own partition takes away again.
//!
//! What has no place in the log of its own:
//! - A row that a snapshot reads (`r`) was there, unchanged, since the change before it: it takes over the LSN of the stored
//!   row, where that is of the same partition, and else has none, which is older than everything. (The LSN in its event is
//!   that of the snapshot, and transactions that were open then have lower ones and are newer; those of an incremental
//!   snapshot have none.) So it never replaces a row that a streamed change has brought from another partition.
//! - A tombstone alone takes only a row of its own partition. Other changes without LSN (of sources that have none) apply.
//! - Rows stored before these columns were: older than everything.
//!
//! A replay of a record that was in quarantine comes from the partition that the record was read from. Where it is late, it
//! does nothing, which is an answer to whoever asked for it; where it is forced, it applies.
//!
//! A source that begins its log anew (a failover, a restored database) has lower LSNs from then on. Therefore a change is
//! late only if its commit time, too, does not lie behind that of the stored row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::error::ArrowError;

use super::ledger::{self, KeyText};
use super::quarantine::origin_of;
use super::{Batch, ChangeBatch, Column, ColumnType, Operation, TableSchema, TopicPartition};

/// Column: the place in the source's log of the last change of a row; null where it is not known. Stored in every table
/// of several sources: **do not rename it**.
pub const LSN: &str = "__cdc_lsn";
/// Column: topic and partition of the last change of a row. **Do not rename it** either.
pub const TOPIC_PARTITION: &str = "__cdc_topic_partition";

/// Whether the rows of a table say where their last changes came from.
pub fn are_placed(schema: &TableSchema) -> bool {
    !schema.key().is_empty() && schema.index_of(TOPIC_PARTITION).is_some() && schema.index_of(LSN).is_some()
}

/// The changes of a table with several sources, with the columns that say where they came from.
///
/// # Errors
/// Where the source has a column of that name.
pub fn placed(changes: &ChangeBatch, partitions: &[TopicPartition]) -> Result<ChangeBatch, ArrowError> {
    let names = names_of(partitions);
    let of_row = changes.partitions.iter().map(|&index| names.get(index as usize));
    let topics: ArrayRef = Arc::new(of_row.map(|name| name.map(|name| &**name)).collect::<StringArray>());
    let lsns: ArrayRef = Arc::new((0..changes.len()).map(|row| lsn_of(changes, row)).collect::<Int64Array>());
    let (mut columns, mut cells, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    let of_source = changes.schema.columns().iter().zip(changes.rows.columns().iter().zip(&changes.absent));
    for (column, (values, mask)) in of_source {
        // A table as the sink has it has them already, and a delete by its key alone has its columns, as null.
        if [LSN, TOPIC_PARTITION].contains(&&*column.name) {
            if values.null_count() < values.len() {
                let reason =
                    format!("the source has a column {}, which is one of ours: rename it there", column.name);
                return Err(ArrowError::SchemaError(reason));
            }
            continue;
        }
        columns.push(column.clone());
        cells.push(Arc::clone(values));
        absent.push(mask.clone());
    }
    let key =
        changes.schema.key_names().filter_map(|name| columns.iter().position(|column| *column.name == *name));
    let key = key.collect();
    for (name, column_type, values) in
        [(LSN, ColumnType::Int64, lsns), (TOPIC_PARTITION, ColumnType::Text, topics)]
    {
        columns.push(Column { name: name.into(), column_type, nullable: true });
        cells.push(values);
        absent.push(None);
    }
    let schema = Arc::new(TableSchema::new(columns, key));
    let rows = RecordBatch::try_new(Arc::clone(schema.arrow()), cells)?;
    Ok(ChangeBatch { schema, rows, absent, ..changes.clone() })
}

/// What is stored of the last change of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastChange {
    /// Topic and partition, as [`TopicPartition`] is written.
    pub partition: Option<Arc<str>>,
    /// Its place in the source's log.
    pub lsn: Option<i64>,
    /// Its commit time, microseconds since 1970 UTC.
    pub micros: Option<i64>,
}

/// The keys that a batch of one table touches.
#[derive(Debug)]
pub struct Touched {
    keys: Vec<KeyText>,
    /// For each change of each part of the batch, which key it is of; `None` where it does not count.
    of: Vec<Vec<Option<usize>>>,
}

/// Changes without those that are late.
#[derive(Debug)]
pub struct Settled {
    /// The others, in order.
    pub changes: Vec<ChangeBatch>,
    /// How many were late.
    pub late: u64,
    /// Where the batch is a replay, the offsets of the late ones: somebody has asked for these, and is told.
    pub late_replays: Vec<i64>,
}

impl Touched {
    /// The keys of the changes that count, under a table with `schema`; `keep` is as in [`fold`](super::fold()).
    ///
    /// # Errors
    /// Where the keys of a batch cannot be read.
    pub fn of(
        schema: &TableSchema,
        parts: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Self, ArrowError> {
        let mut touched = Self { keys: Vec::new(), of: Vec::with_capacity(parts.len()) };
        let mut numbers: HashMap<KeyText, usize> = HashMap::new();
        for part in parts {
            let key = schema.key_names().map(|name| part.rows.column_by_name(name).cloned());
            let Some(key) = key.collect::<Option<Vec<_>>>() else {
                touched.of.push(vec![None; part.len()]);
                continue;
            };
            let places = part.operations.iter().zip(part.partitions.iter().zip(&part.offsets));
            let numbered = ledger::texts(&key)?.into_iter().zip(places).map(|(key, (operation, place))| {
                if *operation == Operation::Truncate || !keep(*place.0, *place.1) {
                    return None;
                }
                Some(*numbers.entry(key).or_insert_with_key(|key| {
                    touched.keys.push(key.clone());
                    touched.keys.len() - 1
                }))
            });
            let numbered = numbered.collect();
            touched.of.push(numbered);
        }
        Ok(touched)
    }

    /// Whether no change counts.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys, each once: the key columns of `schema`, in key order.
    ///
    /// # Errors
    /// Where a key is none under this schema.
    pub fn keys(&self, schema: &TableSchema) -> Result<RecordBatch, ArrowError> {
        let names = Arc::new(schema.arrow().project(schema.key())?);
        RecordBatch::try_new(names, ledger::columns(schema, &self.keys)?)
    }

    /// Leaves out the late ones of `parts`, which are those that [`Self::of`] was given, of `batch`; `stored` says of each
    /// key what was the last change of its stored row. What is forced is never late.
    ///
    /// # Errors
    /// Never, unless the columns contradict their schema.
    pub fn settle(
        &self,
        parts: &[&ChangeBatch],
        batch: &Batch,
        mut stored: Vec<Option<LastChange>>,
    ) -> Result<Settled, ArrowError> {
        stored.resize(self.keys.len(), None);
        // Rows that were replayed before a replay had the name of its partition.
        for last in stored.iter_mut().flatten() {
            if let Some(origin) = last.partition.as_deref().and_then(origin_of) {
                last.partition = Some(origin.into());
            }
        }
        let names = names_of(&batch.partitions);
        let mut settled =
            Settled { changes: Vec::with_capacity(parts.len()), late: 0, late_replays: Vec::new() };
        for (part, keys) in parts.iter().zip(&self.of) {
            let mut lsns: Vec<Option<i64>> = (0..part.len()).map(|row| lsn_of(part, row)).collect();
            let mut left: Vec<u32> = Vec::with_capacity(part.len());
            for (row, key) in keys.iter().enumerate() {
                let offset = part.offsets.get(row).copied().unwrap_or_default();
                let forced = batch.forced.contains(&offset);
                if let Some(last) = key.and_then(|key| stored.get_mut(key))
                    && !take(last, part, (row, forced), &names, &mut lsns)
                {
                    settled.late += 1;
                    settled.late_replays.extend(batch.replay.then_some(offset));
                } else {
                    left.push(row as u32);
                }
            }
            let part = with_lsns(part, lsns)?;
            settled.changes.push(if left.len() == part.len() { part } else { part.only(&left)? });
        }
        Ok(settled)
    }
}

/// Makes a change the last one of its key, with the LSN that its row is stored with; `false` where it is late, and not
/// forced.
fn take(
    last: &mut Option<LastChange>,
    part: &ChangeBatch,
    (row, forced): (usize, bool),
    names: &[Arc<str>],
    lsns: &mut [Option<i64>],
) -> bool {
    let micros = part.source_micros.get(row).copied().filter(|micros| *micros != 0);
    let partition = part.partitions.get(row).and_then(|&index| names.get(index as usize)).cloned();
    let (Some(lsn), Some(&operation)) = (lsns.get_mut(row), part.operations.get(row)) else { return true };
    let mut change = LastChange { partition, lsn: *lsn, micros };
    if let Some(last) = last {
        if !forced && is_late(&change, operation, last) {
            return false;
        }
        if change.partition == last.partition {
            change.lsn = change.lsn.or(last.lsn);
        }
    }
    *lsn = change.lsn;
    *last = Some(change);
    true
}

/// Whether a change came too late for a row whose last change was `last`.
fn is_late(change: &LastChange, operation: Operation, last: &LastChange) -> bool {
    if last.partition.is_none() || last.partition == change.partition {
        return false;
    }
    match (change.lsn, last.lsn) {
        (Some(lsn), Some(of_last)) => {
            let newer = change.micros.zip(last.micros).is_some_and(|(micros, of_last)| micros > of_last);
            lsn < of_last && !newer
        }
        (Some(_), None) => false,
        (None, of_last) => match operation {
            Operation::Read => of_last.is_some(),
            Operation::Delete => true,
            _ => false,
        },
    }
}

/// The place in the log that a change has of its own.
fn lsn_of(changes: &ChangeBatch, row: usize) -> Option<i64> {
    let is_read = changes.operations.get(row) == Some(&Operation::Read);
    changes.lsns.get(row).copied().filter(|lsn| *lsn > 0 && !is_read)
}

/// Changes with these values in the column [`LSN`].
fn with_lsns(changes: &ChangeBatch, lsns: Vec<Option<i64>>) -> Result<ChangeBatch, ArrowError> {
    let mut changes = changes.clone();
    let Some(at) = changes.schema.index_of(LSN) else { return Ok(changes) };
    let mut cells = changes.rows.columns().to_vec();
    if let Some(cells) = cells.get_mut(at) {
        *cells = Arc::new(Int64Array::from(lsns));
    }
    changes.rows = RecordBatch::try_new(changes.rows.schema(), cells)?;
    Ok(changes)
}

/// Where rows come from, by index of their partition.
fn names_of(partitions: &[TopicPartition]) -> Vec<Arc<str>> {
    let names = partitions.iter().map(ToString::to_string);
    names.map(|name| Arc::from(origin_of(&name).unwrap_or(name))).collect()
}
