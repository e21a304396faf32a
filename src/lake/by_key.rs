//! Copy-on-write: stored rows by their keys, read by the library.
//!
//! A table without index is joined with the keys that are asked for. Each key has a number, so that what is found is known
//! by its place among them, whatever the order of the join; keys are compared as the merge compares them, because its
//! answer and this one have to agree.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use deltalake::datafusion::logical_expr::{Expr, JoinType};
use deltalake::datafusion::prelude::SessionContext;
use deltalake::delta_datafusion::create_session_state_with_spill_config;
use deltalake::{DeltaResult, DeltaTable};

use super::mor::StoredRows;
use super::upsert::{RESERVED, same_key, source_column, target_column};
use crate::change::TableSchema;

/// Column with the number of a key.
const NUMBER: &str = "__alluvium_number";

/// The cells in `columns` of the rows of `table`, at its version, that have these keys, the key columns of `schema`; of those
/// rows only such as `only` says, where it does.
pub(super) async fn stored_rows(
    table: &DeltaTable,
    schema: &TableSchema,
    keys: &RecordBatch,
    (columns, only): (&SchemaRef, Option<Expr>),
    memory: usize,
) -> DeltaResult<StoredRows> {
    let session = SessionContext::new_with_state(create_session_state_with_spill_config(Some(memory), None));
    let source = session.read_batch(numbered(keys)?)?.alias("source")?;
    let target = session.read_table(table.table_provider().await?)?.alias("target")?;
    let key = schema.key().iter().filter_map(|&index| schema.columns().get(index)).map(same_key);
    let mut joined = source.join_on(target, JoinType::Inner, key)?;
    if let Some(only) = only {
        joined = joined.filter(only)?;
    }
    // A name of its own for each: the key of the other side may have the same.
    let cells = columns.fields().iter().enumerate();
    let cells = cells.map(|(at, field)| target_column(field.name()).alias(format!("{RESERVED}cell_{at}")));
    let wanted: Vec<Expr> = std::iter::once(source_column(NUMBER)).chain(cells).collect();
    let found = joined.select(wanted)?.collect().await?;
    let mut places = HashMap::new();
    let mut batches = Vec::with_capacity(found.len());
    for (at, batch) in found.iter().enumerate() {
        let numbers = batch.column(0).as_primitive::<Int64Type>();
        places.extend(numbers.values().iter().enumerate().map(|(row, &number)| (number, (at, row))));
        let cells = batch.columns().iter().skip(1).zip(columns.fields());
        let cells = cells.map(|(cells, field)| cast(cells, field.data_type())).collect::<Result<_, _>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        batches.push(RecordBatch::try_new_with_options(Arc::clone(columns), cells, &rows)?);
    }
    Ok((batches, (0..keys.num_rows() as i64).map(|number| places.get(&number).copied()).collect()))
}

/// The keys, each with its place among them.
fn numbered(keys: &RecordBatch) -> DeltaResult<RecordBatch> {
    let mut fields = vec![Field::new(NUMBER, DataType::Int64, false)];
    fields.extend(keys.schema().fields().iter().map(|field| field.as_ref().clone()));
    let mut cells: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..keys.num_rows() as i64))];
    cells.extend(keys.columns().iter().cloned());
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), cells)?)
}
