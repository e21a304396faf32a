//! Folding a table without key: a row is known by all of its values, and there may be several of the same.
//!
//! So a fold is a count for each distinct row: each create is one more, each delete one less. A delete takes a row that
//! the same batch has made, if there is one, and otherwise a stored one; the order within the batch is kept, so that a
//! delete never takes a row that was created behind it. Null equals null.
//!
//! Rows are compared in the columns that the newest events have. A column that the source has dropped is in no event any
//! more, and its values must not keep stored rows from being found; one that was added is null in rows from before.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::folded::{Folded, with_rows};
use super::input::Input;
use super::ledger::KeyLedger;
use super::{ChangeBatch, Operation, TableSchema};

/// Folds the changes of a table without key.
pub(super) fn fold(
    schema: &Arc<TableSchema>,
    batches: &[&ChangeBatch],
    input: &Input<'_>,
) -> Result<Folded, ArrowError> {
    let compared = compared(schema, batches);
    let cells: Vec<ArrayRef> =
        compared.iter().filter_map(|&column| input.columns.get(column)).cloned().collect();
    let (upserts, deletes) = count(&input.operations, &cells)?;
    let of_mask = |mask: &BooleanBuffer| -> Option<BooleanBuffer> {
        let mask: BooleanBuffer = upserts.iter().map(|&row| mask.value(row as usize)).collect();
        (mask.count_set_bits() > 0).then_some(mask)
    };
    let absent = input.absent.iter().map(|mask| mask.as_ref().and_then(of_mask)).collect();
    let taken = |columns: &[ArrayRef], rows: &[u32]| -> Result<Vec<ArrayRef>, ArrowError> {
        let rows = UInt32Array::from(rows.to_vec());
        columns.iter().map(|column| take(column, &rows, None)).collect()
    };
    let rows = with_rows(schema.arrow().clone(), taken(&input.columns, &upserts)?, upserts.len())?;
    let of_deletes = Arc::new(schema.arrow().project(&compared)?);
    let deletes = with_rows(of_deletes, taken(&cells, &deletes)?, deletes.len())?;
    let (operations, source_micros, places) = input.described(&upserts);
    Ok(Folded {
        schema: Arc::clone(schema),
        rows,
        absent,
        origins: None,
        operations,
        source_micros,
        places,
        truncated: input.truncated,
        ending: None,
        compared,
        deletes,
        of_stored: None,
        changes: input.changes,
        unresolved: Vec::new(),
        departing: None,
        ledger: KeyLedger::default(),
    })
}

/// Indexes of the columns by which rows of `schema` are compared, in the order of the schema.
fn compared(schema: &TableSchema, batches: &[&ChangeBatch]) -> Vec<usize> {
    let newest = batches.iter().rev().find(|batch| !batch.is_empty()).map(|batch| &batch.schema);
    let there = |name: &str| newest.is_none_or(|newest| newest.index_of(name).is_some());
    let columns = schema.columns().iter().enumerate();
    columns.filter(|(_, column)| there(&column.name)).map(|(index, _)| index).collect()
}

/// Indexes of the changes that leave a row, and of those that take a stored one, both in order.
fn count(operations: &[Operation], compared: &[ArrayRef]) -> Result<(Vec<u32>, Vec<u32>), ArrowError> {
    let fields = compared.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(compared)?;
    let mut created: HashMap<&[u8], Vec<usize>> = HashMap::new();
    let mut left = Vec::with_capacity(operations.len());
    let mut deletes = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let row = encoded.row(index).data();
        left.push(operation.is_upsert());
        if operation.is_upsert() {
            created.entry(row).or_default().push(index);
        } else if let Some(taken) = created.get_mut(row).and_then(Vec::pop) {
            if let Some(taken) = left.get_mut(taken) {
                *taken = false;
            }
        } else {
            deletes.push(index as u32);
        }
    }
    let left = left.iter().enumerate().filter(|(_, left)| **left).map(|(index, _)| index as u32);
    Ok((left.collect(), deletes))
}
