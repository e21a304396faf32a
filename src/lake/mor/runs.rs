//! The files of a step of compaction as runs: their live rows, a batch at a time, sorted by key as far as that can be had.
//!
//! What an earlier step has merged is sorted and says so in its footer. Other files are read into memory and sorted there,
//! as long as there is room for their rows as they are decoded; where there is not, they are taken as they lie. That costs
//! order, and nothing else.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use super::compacted::{Source, live};
use super::encoding::sorted_by;
use super::files::{DataFiles, ROWS_AT_A_TIME};
use super::key_order::KeyOrder;
use super::went::Went;
use crate::lake::error::LakeError;

/// Bytes of decoded rows that a step holds.
pub(super) struct Room {
    /// In files that it sorts.
    sorted: usize,
    /// In batches, of which each file has its share.
    batches: usize,
}

/// What a step of a daemon holds.
const LARGE: Room = Room { sorted: 32 << 20, batches: 8 << 20 };
/// What is there in tests, so that small files are many batches.
const SMALL: Room = Room { sorted: 256 << 10, batches: 64 << 10 };

impl Room {
    pub(super) const OF_A_STEP: Self = if cfg!(test) { SMALL } else { LARGE };
    #[cfg(test)]
    pub(super) const OF_A_DAEMON: Self = LARGE;
}

/// Bytes that a cell of fixed width takes at most.
const CELL: u64 = 16;

/// The rows of one file.
pub(super) type Rows = BoxStream<'static, Result<RecordBatch, LakeError>>;

/// The files of a step.
pub(super) struct Runs {
    pub(super) of_files: Vec<(Rows, Went)>,
    /// Whether each of them is sorted.
    pub(super) are_sorted: bool,
    /// Rows of a batch.
    pub(super) at_a_time: usize,
}

/// What is refused by arrow.
pub(super) fn refused(table: &str, error: &ArrowError) -> LakeError {
    LakeError::Refused(format!("table {table} cannot be compacted: {error}"))
}

/// Opens the files of a step.
pub(super) async fn open(
    files: &DataFiles,
    sources: &[Source],
    columns: &SchemaRef,
    order: &Arc<KeyOrder>,
    room: Room,
) -> Result<Runs, LakeError> {
    let (mut opened, mut widest) = (Vec::with_capacity(sources.len()), 1);
    for source in sources {
        let file = files.open(&source.path, false).await?;
        let (rows, bytes) = decoded(file.metadata());
        widest = widest.max(bytes / rows.max(1));
        opened.push((source, file, bytes));
    }
    let share = room.batches / sources.len().max(1);
    let at_a_time = (share / usize::try_from(widest).unwrap_or(usize::MAX)).clamp(1, ROWS_AT_A_TIME);
    let (mut runs, mut are_sorted, mut room) = (Vec::with_capacity(sources.len()), true, room.sorted);
    for (source, file, bytes) in opened {
        let is_sorted = sorted_by(file.metadata().file_metadata()) == Some(order.description());
        let cells = files.cells(file, (&source.path, columns), at_a_time)?;
        let rows = of_source(&files.table, source, columns, cells);
        if is_sorted || bytes > room as u64 {
            are_sorted &= is_sorted;
            runs.push((rows, Went::default()));
            continue;
        }
        let (run, is_sorted) = sorted(&files.table, rows, (order, at_a_time), &mut room).await?;
        are_sorted &= is_sorted;
        runs.push(run);
    }
    Ok(Runs { of_files: runs, are_sorted, at_a_time })
}

/// The live rows of a file, as they lie.
pub(super) fn of_source(
    table: &Arc<str>,
    source: &Source,
    columns: &SchemaRef,
    cells: BoxStream<'static, Result<Vec<ArrayRef>, LakeError>>,
) -> Rows {
    let (table, columns, deleted) = (Arc::clone(table), Arc::clone(columns), Arc::clone(&source.deleted));
    let mut first = 0;
    let rows = cells.map(move |cells| {
        let batch = RecordBatch::try_new(Arc::clone(&columns), cells?);
        let batch = batch.map_err(|error| refused(&table, &error))?;
        let rows = live(&batch, first, &deleted).map_err(|error| refused(&table, &error))?;
        first += batch.num_rows() as u64;
        Ok(rows)
    });
    rows.boxed()
}

/// Reads rows into memory and sorts them, unless they turn out to be too many; says whether they are sorted.
async fn sorted(
    table: &Arc<str>,
    mut rows: Rows,
    (order, at_a_time): (&Arc<KeyOrder>, usize),
    room: &mut usize,
) -> Result<((Rows, Went), bool), LakeError> {
    let mut held = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        let bytes = batch.get_array_memory_size();
        held.push(batch);
        let Some(left) = room.checked_sub(bytes) else {
            *room = 0;
            let all = futures::stream::iter(held.into_iter().map(Ok)).chain(rows);
            return Ok(((all.boxed(), Went::default()), false));
        };
        *room = left;
    }
    let order = Arc::clone(order);
    let sort = tokio::task::spawn_blocking(move || order.sorted(&held).map(|sorted| (held, sorted))).await;
    let (held, permutation) = sort
        .map_err(|error| LakeError::Storage { table: table.to_string(), message: error.to_string() })?
        .map_err(|error| refused(table, &error))?;
    let went = Went::in_order(permutation.as_deref());
    let rows = match permutation {
        None => futures::stream::iter(held.into_iter().map(Ok)).boxed(),
        Some(permutation) => in_order(Arc::clone(table), held, permutation, at_a_time),
    };
    Ok(((rows, went), true))
}

/// Rows of some batches in another order, so many at a time.
fn in_order(table: Arc<str>, batches: Vec<RecordBatch>, order: Vec<u32>, at_a_time: usize) -> Rows {
    let firsts: Vec<usize> = batches
        .iter()
        .scan(0, |first, batch| {
            *first += batch.num_rows();
            Some(*first - batch.num_rows())
        })
        .collect();
    let mut done = 0;
    let next = move || {
        let rows: Vec<(usize, usize)> = order
            .iter()
            .skip(done)
            .take(at_a_time)
            .map(|&row| {
                let row = row as usize;
                let batch = firsts.partition_point(|&first| first <= row).saturating_sub(1);
                (batch, row - firsts.get(batch).copied().unwrap_or(0))
            })
            .collect();
        done += rows.len();
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        (!rows.is_empty())
            .then(|| interleave_record_batch(&batches, &rows).map_err(|error| refused(&table, &error)))
    };
    futures::stream::iter(std::iter::from_fn(next)).boxed()
}

/// Rows of a file, and about the bytes that they take when they are decoded.
fn decoded(footer: &ParquetMetaData) -> (u64, u64) {
    let of_column = |column: &ColumnChunkMetaData| {
        let whole = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        let encoded = whole(column.uncompressed_size());
        let texts = column.unencoded_byte_array_data_bytes().map_or(0, whole);
        encoded.max(texts).max(whole(column.num_values()) * CELL)
    };
    let groups = footer.row_groups().iter();
    let bytes = groups.flat_map(RowGroupMetaData::columns).map(of_column).sum();
    (u64::try_from(footer.file_metadata().num_rows()).unwrap_or(0), bytes)
}
