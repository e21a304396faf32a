//! What a fold comes to: the final state of each key that a batch touches, as sinks take it.
//!
//! It has everything that a sink needs and nothing of how it was found: rows with the cells that are known, masks of those
//! that are stored somewhere, and where. A sink that gets the same batch twice gets the same rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;

use super::ending::Ending;
use super::ledger::{Departed, KeyChange, KeyLedger};
use super::origins::Origins;
use super::{Batch, Operation, TableSchema, Truncated, UnresolvedRow};

/// Rows with unresolved cells that are named; all of them are counted.
const NAMED: usize = 20;

/// The final state of each key that a batch touches. A key is either in `rows` or in `deletes`.
///
/// Without a key, `deletes` are rows of which one stored instance each goes, and `rows` are added to what is stored,
/// whether it has equal ones or not; an equal row may be in both, and more than once.
#[derive(Debug, Clone)]
pub struct Folded {
    /// The schema that rows and masks follow.
    pub schema: Arc<TableSchema>,
    /// Rows to insert or update, columns as in [`TableSchema::arrow`], in the order of their last change.
    pub rows: RecordBatch,
    /// For each column `None`, or a mask of the cells of `rows` that keep a stored value.
    pub absent: Vec<Option<BooleanBuffer>>,
    /// Where those values are stored; `None` where all are in the stored row of the same key.
    pub origins: Option<Origins>,
    /// The last operation on each row of `rows`.
    pub operations: Vec<Operation>,
    /// Commit time in the source of each row's last change, microseconds since 1970 UTC.
    pub source_micros: Vec<i64>,
    /// Partition (its index in the batch) and offset of each row's last change.
    pub places: Vec<(u32, i64)>,
    /// Stored rows that go before anything else happens.
    pub truncated: Option<Truncated>,
    /// Where deleted rows are kept, what truncates do to the stored rows instead.
    pub ending: Option<Box<Ending>>,
    /// Indexes of the columns that say which row a delete means: those of the key, in key order; without a key all that
    /// the events have.
    pub compared: Vec<usize>,
    /// Keys to delete: the columns of `compared` only, in that order. Empty where deleted rows are kept.
    pub deletes: RecordBatch,
    /// Where deleted rows are kept, the rows that delete what is stored and nothing of this batch: they take the cells
    /// of a stored row even if it is marked as deleted, and where none is stored they are not to be written.
    pub of_stored: Option<BooleanBuffer>,
    /// Changes that went in.
    pub changes: usize,
    /// Row and column of the cells that the batch says to be unchanged, of a row that the same batch says to be new:
    /// null in `rows`.
    pub unresolved: Vec<(usize, usize)>,
    /// Rows that are deleted by a key change whose create has not come: the sink keeps them aside.
    pub departing: Option<Box<Departing>>,
    /// The ledger after this batch, without what `departing` adds.
    pub ledger: KeyLedger,
}

/// Deleted rows whose values are still needed.
#[derive(Debug, Clone)]
pub struct Departing {
    /// The rows as they were, with absent cells to be looked up like those of any batch. Each absent cell has a list.
    pub rows: Folded,
    /// The key change of each row.
    pub changes: Vec<KeyChange>,
}

impl Folded {
    /// Rows that exist in the source.
    pub fn upserted(&self) -> usize {
        self.operations.iter().filter(|operation| operation.is_upsert()).count()
    }

    /// Rows that were deleted one by one, whether they go or stay as deleted ones.
    pub fn deleted(&self) -> usize {
        let kept = self.operations.iter().filter(|&&operation| operation == Operation::Delete);
        self.deletes.num_rows() + kept.count()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0 && self.deletes.num_rows() == 0 && !self.truncates()
    }

    /// Whether the table was truncated.
    pub fn truncates(&self) -> bool {
        self.truncated.is_some() || self.ending.is_some()
    }

    /// Whether rows have no key, so that equal ones may be there several times.
    pub fn is_keyless(&self) -> bool {
        self.schema.key().is_empty()
    }

    /// The ledger after this batch, given where the sink keeps each of the departing rows: `None` where a row was not
    /// stored, or not all of it.
    pub fn ledger_with(&self, kept: impl Iterator<Item = Option<String>>) -> KeyLedger {
        let mut ledger = self.ledger.clone();
        let changes = self.departing.iter().flat_map(|departing| &departing.changes);
        let at = now();
        for (change, kept) in changes.zip(kept) {
            let departed = kept.map(|kept| Departed { change: change.clone(), kept, at });
            ledger.departed.extend(departed);
        }
        ledger.prune(at);
        ledger
    }

    /// Names the newest rows of `cells`, which are rows and columns of this batch.
    pub fn named(&self, batch: &Batch, cells: &[(usize, usize)]) -> Vec<UnresolvedRow> {
        let mut cells = cells.to_vec();
        cells.sort_unstable();
        let mut named: Vec<UnresolvedRow> = Vec::new();
        for of_row in cells.chunk_by(|a, b| a.0 == b.0).rev().take(NAMED) {
            let place = of_row.first().and_then(|(row, _)| self.places.get(*row));
            let Some(&(partition, offset)) = place else { continue };
            let Some(partition) = batch.partitions.get(partition as usize).cloned() else { continue };
            let columns = of_row.iter().filter_map(|&(_, column)| self.schema.columns().get(column));
            let columns = columns.map(|column| Arc::clone(&column.name)).collect();
            named.push(UnresolvedRow { partition, offset, columns });
        }
        named
    }
}

/// A batch that also works without columns.
pub(super) fn with_rows(
    schema: arrow::datatypes::SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
