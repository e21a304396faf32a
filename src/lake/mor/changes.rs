//! Change data: what a commit did to the rows, in a file of its own for readers that follow the table.
//!
//! A table with a change data feed says so in its properties, and then every commit of ours that changes data names such
//! a file: rows as they were (`update_preimage`, `delete`) and as they are (`update_postimage`, `insert`). Readers could
//! work most of it out from files and vectors, but those that try get it wrong where vectors are involved, and the order
//! of a row's two images is known only here. Old rows are read from where they lie, by file and row, so that the feed
//! says what the table said, whatever the event brought.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::{FutureExt, StreamExt, TryStreamExt};
use roaring::RoaringTreemap;

use super::encoding::RowWriter;
use super::files::DataFiles;
use super::plan::{Plan, READERS, Touched};
use super::vectors;
use crate::failpoint;
use crate::lake::action::{AddChanges, Entry, Metadata};
use crate::lake::error::LakeError;

/// Property of tables with a change data feed.
pub(in crate::lake) const CHANGE_DATA_FEED: &str = "delta.enableChangeDataFeed";
/// The column that says what became of a row.
const CHANGE_TYPE: &str = "_change_type";
/// What it says of a row that goes for good.
pub(super) const DELETE: &str = "delete";
/// What it says of a row as it was, and as it is.
pub(super) const BEFORE: &str = "update_preimage";
pub(super) const AFTER: &str = "update_postimage";
/// Bytes of data files whose rows go into one file of changes.
pub(super) const FILE: i64 = 64 << 20;

/// Whether a table has a change data feed.
pub(super) fn has_feed(metadata: &Metadata) -> bool {
    metadata.configuration.get(CHANGE_DATA_FEED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Writes down what a commit does to the rows, and adds it to its entry: `plan` has rows go, and others come, some in
/// their place. Of those that come it is said where the row of each number in the plan went. `columns` are the table's.
pub(super) async fn write(
    entry: Entry,
    files: &DataFiles,
    columns: &SchemaRef,
    plan: &Plan,
    rows: Option<(&RecordBatch, &[Option<usize>])>,
) -> Result<Entry, LakeError> {
    let refused =
        |error: ArrowError| LakeError::Refused(format!("change data of table {}: {error}", files.table));
    let mut out = Vec::new();
    let (rows, places) = rows.unzip();
    let place = |by: Option<usize>| places?.get(by?).copied().flatten();
    let mut replaces = vec![false; rows.map_or(0, RecordBatch::num_rows)];
    let mut old = Vec::with_capacity(plan.files.len());
    for touched in &plan.files {
        for place in touched.going().filter_map(|(_, by)| place(by)) {
            if let Some(replaces) = replaces.get_mut(place) {
                *replaces = true;
            }
        }
        old.push(stored(files, columns, touched).boxed());
    }
    let old: Vec<RecordBatch> = futures::stream::iter(old).buffered(READERS).try_collect().await?;
    for (touched, old) in plan.files.iter().zip(&old) {
        let replaced: BooleanArray = touched.going().map(|(_, by)| Some(place(by).is_some())).collect();
        split(old, &replaced, (BEFORE, DELETE), &mut out).map_err(refused)?;
    }
    if let Some(rows) = rows {
        split(rows, &replaces.into(), (AFTER, "insert"), &mut out).map_err(refused)?;
    }
    let Some(schema) = out.first().map(RecordBatch::schema) else { return Ok(entry) };
    let encode = move || {
        let mut file = RowWriter::new(&schema)?;
        out.iter().try_for_each(|rows| file.write(rows))?;
        file.finish()
    };
    let bytes = tokio::task::spawn_blocking(encode)
        .await
        .map_err(|error| LakeError::Storage { table: files.table.to_string(), message: error.to_string() })?
        .map_err(refused)?;
    let changes = put(files, bytes).await?;
    failpoint::hit("lake.after_change_data");
    Ok(entry.changes(&changes))
}

/// Writes down the rows that go whatever their key, which may be all of a table: read and written file by file, so that
/// no more than one file of changes is in memory.
pub(super) async fn emptied(
    mut entry: Entry,
    files: &DataFiles,
    columns: &SchemaRef,
    plan: &Plan,
) -> Result<Entry, LakeError> {
    let refused =
        |error: ArrowError| LakeError::Refused(format!("change data of table {}: {error}", files.table));
    let schema = marked(&RecordBatch::new_empty(Arc::clone(columns)), DELETE).map_err(refused)?.schema();
    let (mut file, mut bytes) = (RowWriter::new(&schema).map_err(refused)?, 0);
    for touched in plan.files.iter().filter(|touched| touched.loses_others()) {
        let before = match touched.file.vector.as_deref() {
            Some(vector) => vectors::read(&files.table, &*files.store, vector).await?,
            None => RoaringTreemap::new(),
        };
        let others = touched.others(before);
        let mut batches = files.scan(&touched.path, columns).await?;
        let mut first = 0;
        while let Some(cells) = batches.try_next().await? {
            let rows = RecordBatch::try_new(Arc::clone(columns), cells).map_err(refused)?;
            let numbers = first..first + rows.num_rows() as u64;
            first = numbers.end;
            let goes: BooleanArray = numbers.map(|row| Some(others.has(row))).collect();
            let rows = filter_record_batch(&rows, &goes).map_err(refused)?;
            if rows.num_rows() > 0 {
                file.write(&marked(&rows, DELETE).map_err(refused)?).map_err(refused)?;
            }
        }
        bytes += touched.file.size;
        if bytes >= FILE {
            let full = std::mem::replace(&mut file, RowWriter::new(&schema).map_err(refused)?);
            bytes = 0;
            entry = close(entry, files, full).await?;
        }
    }
    close(entry, files, file).await
}

/// Stores a file of changes, if there are any in it.
async fn close(entry: Entry, files: &DataFiles, file: RowWriter) -> Result<Entry, LakeError> {
    if file.rows() == 0 {
        return Ok(entry);
    }
    let bytes = file
        .finish()
        .map_err(|error| LakeError::Refused(format!("change data of table {}: {error}", files.table)))?;
    Ok(entry.changes(&put(files, bytes).await?))
}

/// The rows of a file that go, as they are stored.
async fn stored(files: &DataFiles, columns: &SchemaRef, touched: &Touched) -> Result<RecordBatch, LakeError> {
    let ordinals: Vec<u32> = touched.going().map(|(row, _)| row).collect();
    files.rows(&touched.path, columns, &ordinals).await
}

/// Puts the rows that are chosen, and the others, behind those of `out`, each with its kind of change.
fn split(
    rows: &RecordBatch,
    chosen: &BooleanArray,
    (of_chosen, of_others): (&str, &str),
    out: &mut Vec<RecordBatch>,
) -> Result<(), ArrowError> {
    let others = arrow::compute::not(chosen)?;
    for (change, keep) in [(of_chosen, chosen), (of_others, &others)] {
        if keep.true_count() > 0 {
            out.push(marked(&filter_record_batch(rows, keep)?, change)?);
        }
    }
    Ok(())
}

/// Rows with the column that says what became of them.
pub(super) fn marked(rows: &RecordBatch, change: &str) -> Result<RecordBatch, ArrowError> {
    let change: ArrayRef = Arc::new(StringArray::from(vec![change; rows.num_rows()]));
    let fields = rows.schema().fields().iter().cloned().collect::<Vec<_>>();
    let fields = fields.into_iter().chain([Arc::new(Field::new(CHANGE_TYPE, DataType::Utf8, true))]);
    let columns = rows.columns().iter().cloned().chain([change]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
}

pub(super) async fn put(files: &DataFiles, bytes: Vec<u8>) -> Result<AddChanges, LakeError> {
    let path = format!("_change_data/cdc-{}.zstd.parquet", uuid::Uuid::new_v4());
    let size = bytes.len() as i64;
    files.put_at(&path, bytes).await?;
    Ok(AddChanges { path, partition_values: std::collections::HashMap::new(), size, data_change: false })
}
