//! Copy-on-write upserts: the library's MERGE, as one attempt on one version.
//!
//! The library may not retry: its conflict check does not know our positions. It gets the exact version whose positions
//! were checked and fails if that is no longer the newest; our loop then resolves the batch again. A cell that is
//! absent keeps the target's value by a CASE on its mask. The session's memory is bounded and dropped with the merge.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use deltalake::datafusion::common::Column;
use deltalake::datafusion::functions::expr_fn::coalesce;
use deltalake::datafusion::logical_expr::{Expr, lit, when};
use deltalake::datafusion::prelude::SessionContext;
use deltalake::delta_datafusion::create_session_state_with_spill_config;
use deltalake::kernel::Transaction;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::operations::merge::{InsertBuilder, UpdateBuilder};
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};

use super::action::{LEDGER, Txn, WRITER};
use super::schema::{DELETED, OPERATION, SOURCE_TIME, SYNCED_AT};
use super::shape::Shape;
use super::types::has_exact_bounds;
use crate::change::Folded;

/// Names with this beginning belong to the merge's source.
pub(super) const RESERVED: &str = "__alluvium_";
const DELETE: &str = "__alluvium_delete";
const OF_STORED: &str = "__alluvium_of_stored";

/// Merges `folded` into the version that `table` stands at, together with `txns`; the instance and its ledger stand in
/// the commit.
pub(super) async fn merge(
    table: DeltaTable,
    (folded, shape): (&Folded, Shape),
    txns: impl Iterator<Item = Txn>,
    (writer, ledger): (&str, &str),
    memory: usize,
) -> DeltaResult<DeltaTable> {
    let batch = source(folded, shape).map_err(|source| DeltaTableError::Arrow { source })?;
    let session = create_session_state_with_spill_config(Some(memory), None);
    let source = SessionContext::new_with_state(session.clone()).read_batch(batch)?;
    let matching = folded
        .schema
        .key()
        .iter()
        .filter_map(|&index| folded.schema.columns().get(index))
        .map(same_key)
        .reduce(Expr::and)
        .ok_or_else(|| DeltaTableError::Generic("a table without key cannot be merged".to_owned()))?;
    let updates = assignments(folded, shape, true)?;
    let inserts = assignments(folded, shape, false)?;
    let transactions = txns
        .map(|txn| Transaction::new_with_last_update(txn.app_id, txn.version, txn.last_updated))
        .collect();
    let mut info = vec![(WRITER.to_owned(), writer.into())];
    if !ledger.is_empty() {
        info.push((LEDGER.to_owned(), ledger.into()));
    }
    let commit = CommitProperties::default()
        .with_max_retries(0)
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false))
        .with_metadata(info)
        .with_application_transactions(transactions);
    let mut merge = table
        .merge(source, matching)
        .with_source_alias("source")
        .with_target_alias("target")
        .with_session_state(Arc::new(session))
        .with_commit_properties(commit);
    if folded.deletes.num_rows() > 0 {
        merge = merge.when_matched_delete(|delete| delete.predicate(source_column(DELETE)))?;
    }
    if folded.rows.num_rows() > 0 {
        merge = merge.when_matched_update(|update: UpdateBuilder| {
            updates
                .into_iter()
                .fold(update, |update, (name, value)| update.update(Column::new_unqualified(name), value))
        })?;
        merge = merge.when_not_matched_insert(|insert: InsertBuilder| {
            let nothing = source_column(DELETE).or(of_stored(folded));
            let insert = insert.predicate(Expr::Not(Box::new(nothing)));
            inserts
                .into_iter()
                .fold(insert, |insert, (name, value)| insert.set(Column::new_unqualified(name), value))
        })?;
    }
    merge.await.map(|(table, _)| table)
}

/// The value of each target column; `matched` says that there is a row to keep absent cells from.
fn assignments(folded: &Folded, shape: Shape, matched: bool) -> DeltaResult<Vec<(String, Expr)>> {
    let mut assignments = Vec::with_capacity(folded.schema.columns().len() + 3);
    for (index, column) in folded.schema.columns().iter().enumerate() {
        let value = source_column(&column.name);
        let is_absent = folded.absent.get(index).is_some_and(Option::is_some);
        let value = if matched && is_absent {
            let keeps = source_column(&absent_name(index)).and(has_cells(folded, shape));
            when(keeps, target_column(&column.name)).otherwise(value)?
        } else {
            value
        };
        assignments.push((column.name.to_string(), value));
    }
    for field in shape.fields() {
        assignments.push((field.name().clone(), source_column(field.name())));
    }
    Ok(assignments)
}

/// Whether a row is a delete of what is stored.
fn of_stored(folded: &Folded) -> Expr {
    if folded.of_stored.is_some() { source_column(OF_STORED) } else { lit(false) }
}

/// Whether the target row has cells for the new one: a row that is marked as deleted has them for deletes only.
fn has_cells(folded: &Folded, shape: Shape) -> Expr {
    if shape.keeps_deleted {
        let deleted = coalesce(vec![target_column(DELETED), lit(false)]);
        Expr::Not(Box::new(deleted)).or(of_stored(folded))
    } else {
        lit(true)
    }
}

/// Upserts and deletes as one batch: the table's columns, the metadata columns, masks of absent cells, and whether the
/// row is a delete.
fn source(folded: &Folded, shape: Shape) -> Result<RecordBatch, ArrowError> {
    let (upserts, deletes) = (folded.rows.num_rows(), folded.deletes.num_rows());
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut push = |name: &str, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    };
    let key_of = |index: usize| folded.schema.key().iter().position(|&key| key == index);
    for (index, (column, rows)) in folded.schema.columns().iter().zip(folded.rows.columns()).enumerate() {
        let of_deletes = match key_of(index) {
            Some(key) => Arc::clone(folded.deletes.column(key)),
            None => new_null_array(rows.data_type(), deletes),
        };
        push(&column.name, concat(&[rows.as_ref(), of_deletes.as_ref()])?);
        if let Some(mask) = folded.absent.get(index).and_then(Option::as_ref) {
            let none = BooleanBuffer::new_unset(deletes);
            let mask: BooleanArray = mask.iter().chain(none.iter()).map(Some).collect();
            push(&absent_name(index), Arc::new(mask));
        }
    }
    let operations: StringArray = folded
        .operations
        .iter()
        .map(|operation| Some(operation.code()))
        .chain(std::iter::repeat_n(None, deletes))
        .collect();
    push(OPERATION, Arc::new(operations));
    let times: TimestampMicrosecondArray = folded
        .source_micros
        .iter()
        .map(|&micros| (micros != 0).then_some(micros))
        .chain(std::iter::repeat_n(None, deletes))
        .collect();
    push(SOURCE_TIME, Arc::new(times.with_timezone("UTC")));
    let now = TimestampMicrosecondArray::from_value(super::now_millis() * 1000, upserts + deletes);
    push(SYNCED_AT, Arc::new(now.with_timezone("UTC")));
    if shape.keeps_deleted {
        let marks = folded.operations.iter().map(|operation| Some(!operation.is_upsert()));
        let marks: BooleanArray = marks.chain(std::iter::repeat_n(None, deletes)).collect();
        push(DELETED, Arc::new(marks));
    }
    if let Some(of_stored) = &folded.of_stored {
        let none = BooleanBuffer::new_unset(deletes);
        let rows: BooleanArray = of_stored.iter().chain(none.iter()).map(Some).collect();
        push(OF_STORED, Arc::new(rows));
    }
    let deleted: BooleanArray = (0..upserts + deletes).map(|row| Some(row >= upserts)).collect();
    push(DELETE, Arc::new(deleted));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Equality of a key column in target and source.
///
/// From an equality of columns the library derives a range of values and leaves out files by it; from one of function
/// calls it does not.
pub(super) fn same_key(column: &crate::change::Column) -> Expr {
    let (target, source) = (target_column(&column.name), source_column(&column.name));
    if has_exact_bounds(&column.column_type) {
        target.eq(source)
    } else {
        let opaque = |column: Expr| coalesce(vec![column.clone(), column]);
        opaque(target).eq(opaque(source))
    }
}

fn absent_name(column: usize) -> String {
    format!("{RESERVED}absent_{column}")
}

pub(super) fn source_column(name: &str) -> Expr {
    Expr::Column(Column::new(Some("source"), name))
}

pub(super) fn target_column(name: &str) -> Expr {
    Expr::Column(Column::new(Some("target"), name))
}
