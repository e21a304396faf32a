//! Folding a table without key: a row is known by all of its values, and there may be several of the same.
//!
//! So a fold is a count for each distinct row: each create is one more, each delete one less. A delete takes a row that
//! the same batch has made, if there is one, and otherwise a stored one; the order within the batch is kept, so that a
//! delete never takes a row that was created behind it. Null equals null.
//!
//! Rows are compared in the columns that the newest events have. A column that the source has dropped is in no event any
//! more, and its values must not keep stored rows from being found; one that was added is null in rows from before.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::{ChangeBatch, Operation, TableSchema};

/// Indexes of the columns by which rows of `schema` are compared, in the order of the schema.
pub(super) fn compared(schema: &TableSchema, batches: &[&ChangeBatch]) -> Vec<usize> {
    let newest = batches.iter().rev().find(|batch| !batch.is_empty()).map(|batch| &batch.schema);
    let there = |name: &str| newest.is_none_or(|newest| newest.index_of(name).is_some());
    let columns = schema.columns().iter().enumerate();
    columns.filter(|(_, column)| there(&column.name)).map(|(index, _)| index).collect()
}

/// Indexes of the changes that leave a row, and of those that take a stored one, both in order.
pub(super) fn count(
    operations: &[Operation],
    compared: &[ArrayRef],
) -> Result<(Vec<u32>, Vec<u32>), ArrowError> {
    let fields = compared.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(compared)?;
    let mut created: HashMap<&[u8], Vec<u32>> = HashMap::new();
    let mut left = vec![false; operations.len()];
    let mut deletes = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let row = encoded.row(index).data();
        if operation.is_upsert() {
            created.entry(row).or_default().push(index as u32);
            left[index] = true;
        } else if let Some(taken) = created.get_mut(row).and_then(Vec::pop) {
            left[taken as usize] = false;
        } else {
            deletes.push(index as u32);
        }
    }
    let left = left.iter().enumerate().filter(|(_, left)| **left).map(|(index, _)| index as u32);
    Ok((left.collect(), deletes))
}
