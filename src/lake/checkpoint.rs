//! Reading classic checkpoints: one Parquet row an action, one column a kind of action.
//!
//! The rows are turned into the JSON lines that they were made from, so that a checkpoint and a commit go through the
//! same code. Only the columns that are asked for are read; parsed statistics, the bulk of a checkpoint, never are.

use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::action::Line;
use super::error::LakeError;

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

/// Calls `each` for every action in a checkpoint file, with those of its members that are among `columns`.
pub(super) fn read(
    table: &str,
    file: Bytes,
    columns: &[&str],
    mut each: impl FnMut(Line),
) -> Result<(), LakeError> {
    let unreadable = |error: &dyn std::fmt::Display| LakeError::Unreadable {
        table: table.to_owned(),
        message: format!("checkpoint: {error}"),
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(&error))?;
    let leaves: Vec<usize> = builder
        .parquet_schema()
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, column)| is_read(&column.path().string(), columns))
        .map(|(index, _)| index)
        .collect();
    let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
    let reader =
        builder.with_projection(mask).with_batch_size(4096).build().map_err(|error| unreadable(&error))?;
    for batch in reader {
        let batch = batch.map_err(|error| unreadable(&error))?;
        let mut json = LineDelimitedWriter::new(Vec::new());
        json.write(&batch).and_then(|()| json.finish()).map_err(|error| unreadable(&error))?;
        for line in json.into_inner().split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            each(serde_json::from_slice(line).map_err(|error| unreadable(&error))?);
        }
    }
    Ok(())
}

fn is_read(path: &str, columns: &[&str]) -> bool {
    columns
        .iter()
        .any(|column| path.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}
