//! Reading classic checkpoints: one Parquet row an action, one column a kind of action.
//!
//! The rows are turned into the JSON lines that they were made from, so that a checkpoint and a commit go through the
//! same code. Only the columns that are asked for are read; parsed statistics, the bulk of a checkpoint, never are. Nor
//! is a row that has none of them: most rows say which files left the table, which a state is not made of.

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use deltalake::ObjectStoreError;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;

use super::action::Line;
use super::error::LakeError;
use super::mor::reader::StoredFile;

/// Rows that are decoded at a time.
const ROWS_AT_A_TIME: usize = 4096;

/// Columns that the state is made of, by path; a prefix stands for all below it.
pub(super) const OF_STATE: [&str; 10] = [
    "protocol",
    "metaData",
    "txn",
    "add.path",
    "add.partitionValues",
    "add.size",
    "add.modificationTime",
    "add.stats",
    "add.deletionVector",
    "add.dataChange",
];

/// Columns that say which files are needed: those of the table, and those that it had.
pub(super) const OF_FILES: [&str; 7] = [
    "metaData",
    "add.path",
    "add.size",
    "add.deletionVector",
    "remove.path",
    "remove.deletionTimestamp",
    "remove.deletionVector",
];

/// Calls `each` for every action in a checkpoint file, with those of its members that are among `columns`. Of the file
/// no more is in memory than these columns of a row group.
pub(super) async fn read(
    table: &str,
    file: StoredFile,
    columns: &[&str],
    mut each: impl FnMut(Line) + Send,
) -> Result<(), LakeError> {
    let builder = ParquetRecordBatchStreamBuilder::new(file).await.map_err(|error| fault(table, &error))?;
    let leaves: Vec<usize> = builder
        .parquet_schema()
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, column)| is_read(&column.path().string(), columns))
        .map(|(index, _)| index)
        .collect();
    let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
    let batches = builder.with_projection(mask).with_batch_size(ROWS_AT_A_TIME).build();
    let mut batches = batches.map_err(|error| fault(table, &error))?;
    while let Some(batch) = batches.try_next().await.map_err(|error| fault(table, &error))? {
        lines(&batch, &mut each).map_err(|error| unreadable(table, &error))?;
    }
    Ok(())
}

fn lines(rows: &RecordBatch, each: &mut impl FnMut(Line)) -> Result<(), ArrowError> {
    let mut json = LineDelimitedWriter::new(Vec::new());
    json.write(&with_actions(rows)?).and_then(|()| json.finish())?;
    for line in json.into_inner().split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        each(serde_json::from_slice(line).map_err(|error| ArrowError::JsonError(error.to_string()))?);
    }
    Ok(())
}

/// What the storage says may be otherwise the next time; what the file says will not.
fn fault(table: &str, error: &ParquetError) -> LakeError {
    match error {
        ParquetError::External(cause) => match cause.downcast_ref::<ObjectStoreError>() {
            None | Some(ObjectStoreError::NotFound { .. }) => unreadable(table, error),
            Some(cause) => LakeError::store(table, cause),
        },
        _ => unreadable(table, error),
    }
}

fn unreadable(table: &str, error: &dyn std::fmt::Display) -> LakeError {
    LakeError::Unreadable { table: table.to_owned(), message: format!("checkpoint: {error}") }
}

/// The rows that have one of the columns.
fn with_actions(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let has_one = |row: usize| rows.columns().iter().any(|column| column.is_valid(row));
    let kept: BooleanArray = (0..rows.num_rows()).map(|row| Some(has_one(row))).collect();
    filter_record_batch(rows, &kept)
}

fn is_read(path: &str, columns: &[&str]) -> bool {
    columns
        .iter()
        .any(|column| path.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray, StructArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{DataType, Field};
    use deltalake::logstore::object_store::ObjectStoreExt;
    use deltalake::logstore::object_store::memory::InMemory;
    use deltalake::{ObjectStore, Path};
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[tokio::test]
    async fn rows_of_other_actions_are_passed_over_and_a_file_that_is_gone_is_no_storage_error() {
        let paths: Vec<String> = (0..6).map(|row| format!("{row}.parquet")).collect();
        let action = |has: fn(usize) -> bool| -> ArrayRef {
            let path: ArrayRef =
                Arc::new((0..6).map(|row| has(row).then(|| paths[row].clone())).collect::<StringArray>());
            let valid = NullBuffer::from((0..6).map(has).collect::<Vec<bool>>());
            let fields = vec![Field::new("path", DataType::Utf8, true)].into();
            Arc::new(StructArray::new(fields, vec![path], Some(valid)))
        };
        let (added, removed) = (action(|row| row % 3 == 0), action(|row| row % 3 != 0));
        let rows =
            RecordBatch::try_from_iter_with_nullable([("add", added, true), ("remove", removed, true)]);
        let rows = rows.unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        store.put(&Path::from("a.parquet"), writer.into_inner().unwrap().into()).await.unwrap();
        let file = |path: &str| StoredFile { store: Arc::clone(&store), path: Path::from(path) };
        let (mut lines, mut found) = (0, Vec::new());
        let each = |line: Line| {
            lines += 1;
            found.extend(line.remove.map(|remove| remove.path));
        };
        read("t", file("a.parquet"), &["remove.path"], each).await.unwrap();
        let gone = ["1", "2", "4", "5"].map(|row| format!("{row}.parquet"));
        assert_eq!((lines, found), (4, gone.to_vec()), "a line for each row that was read");
        let error = read("t", file("b.parquet"), &["remove.path"], |_| {}).await.unwrap_err();
        assert!(error.stops_table(), "{error}");
    }
}
