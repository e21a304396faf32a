//! Data files of a current table: writing the rows of a batch, reading key columns and single rows back.
//!
//! A row's place is its ordinal in the file over all row groups, deleted rows included. The writer keeps the order of
//! its input, and a reader that skips rows says which ones it kept, so ordinals hold on both sides.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::{cast, concat_batches, max, max_string, min, min_string};
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use deltalake::logstore::object_store::PutOptions;
use deltalake::{ObjectStore, Path};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use serde_json::{Map, Value, json};

use super::reader::StoredFile;
use crate::change::{Folded, TableSchema};
use crate::lake::action::Add;
use crate::lake::error::LakeError;
use crate::lake::now_millis;
use crate::lake::shape::Shape;
use crate::lake::types::has_exact_bounds;

/// Longest text that becomes a bound in the statistics; they stand in every log entry that touches the file.
const LONGEST_BOUND: usize = 64;
/// Rows decoded at a time.
const ROWS_AT_A_TIME: usize = 8192;

/// One table's files.
#[derive(Debug, Clone)]
pub(in crate::lake) struct DataFiles {
    pub(in crate::lake) table: Arc<str>,
    pub(in crate::lake) store: Arc<dyn ObjectStore>,
}

impl DataFiles {
    /// Writes `rows`, columns of `schema` first, as one file and returns the action that adds it.
    pub(super) async fn write(&self, rows: RecordBatch, schema: &Arc<TableSchema>) -> Result<Add, LakeError> {
        let schema = Arc::clone(schema);
        let encode = move || {
            let key: Vec<ArrayRef> =
                schema.key().iter().filter_map(|&index| rows.columns().get(index).cloned()).collect();
            let mut writer = RowWriter::new(&rows.schema())?;
            writer.write(&rows)?;
            Ok::<_, ArrowError>((writer.finish()?, statistics(rows.num_rows(), &schema, &key)))
        };
        let (bytes, stats) =
            tokio::task::spawn_blocking(encode).await.map_err(|error| self.storage(&error))?.map_err(
                |error| LakeError::Refused(format!("table {} cannot take this batch: {error}", self.table)),
            )?;
        self.put(bytes, stats, true).await
    }

    /// Stores a data file under a new name.
    pub(in crate::lake) async fn put(
        &self,
        bytes: Vec<u8>,
        stats: String,
        data_change: bool,
    ) -> Result<Add, LakeError> {
        let path = format!("part-{}.zstd.parquet", uuid::Uuid::new_v4());
        let size = bytes.len() as i64;
        self.put_at(&path, bytes).await?;
        Ok(Add {
            path,
            partition_values: std::collections::HashMap::new(),
            size,
            modification_time: now_millis(),
            data_change,
            stats: Some(stats),
            deletion_vector: None,
        })
    }

    /// Stores rows in a file that is no data file of the table.
    pub(super) async fn put_aside(&self, rows: RecordBatch) -> Result<String, LakeError> {
        let encode = move || {
            let mut writer = RowWriter::new(&rows.schema())?;
            writer.write(&rows)?;
            writer.finish()
        };
        let bytes = tokio::task::spawn_blocking(encode).await.map_err(|error| self.storage(&error))?;
        let bytes = bytes.map_err(|error| self.storage(&error))?;
        let path = format!("departed-{}.zstd.parquet", uuid::Uuid::new_v4());
        self.put_at(&path, bytes).await?;
        Ok(path)
    }

    /// Stores a file.
    pub(super) async fn put_at(&self, path: &str, bytes: Vec<u8>) -> Result<(), LakeError> {
        self.store
            .put_opts(&Path::from(path), bytes.into(), PutOptions::default())
            .await
            .map(|_| ())
            .map_err(|error| LakeError::store(&self.table, &error))
    }

    /// Reads some columns of all rows, a batch at a time; a column that the file lacks is null.
    pub(in crate::lake) async fn scan(
        &self,
        path: &str,
        columns: &SchemaRef,
    ) -> Result<BoxStream<'static, Result<Vec<ArrayRef>, LakeError>>, LakeError> {
        let builder = self.open(path, false).await?;
        let mask = projection(&builder, columns);
        let batches = builder
            .with_projection(mask)
            .with_batch_size(ROWS_AT_A_TIME)
            .build()
            .map_err(|error| self.storage(&error))?;
        let (this, columns) = (self.clone(), Arc::clone(columns));
        Ok(batches
            .map(move |batch| {
                let batch = batch.map_err(|error| this.storage(&error))?;
                aligned(&batch, &columns).map_err(|error| this.storage(&error))
            })
            .boxed())
    }

    /// Reads all columns that the file has, a batch at a time, as it has them.
    pub(in crate::lake) async fn whole(
        &self,
        path: &str,
    ) -> Result<BoxStream<'static, Result<RecordBatch, LakeError>>, LakeError> {
        let builder = self.open(path, false).await?;
        let batches =
            builder.with_batch_size(ROWS_AT_A_TIME).build().map_err(|error| self.storage(&error))?;
        let this = self.clone();
        Ok(batches.map(move |batch| batch.map_err(|error| this.storage(&error))).boxed())
    }

    /// Reads some columns of the rows at `ordinals` (ascending), in that order.
    pub(in crate::lake) async fn rows(
        &self,
        path: &str,
        columns: &SchemaRef,
        ordinals: &[u32],
    ) -> Result<RecordBatch, LakeError> {
        let builder = self.open(path, true).await?;
        let mask = projection(&builder, columns);
        let total = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if ordinals.last().is_some_and(|&last| last as usize >= total) {
            return Err(self.storage(&format!("{path} has {total} rows, fewer than the index says")));
        }
        let selection = RowSelection::from_consecutive_ranges(runs(ordinals).into_iter(), total);
        let batches: Vec<RecordBatch> = builder
            .with_projection(mask)
            .with_row_selection(selection)
            .build()
            .map_err(|error| self.storage(&error))?
            .try_collect()
            .await
            .map_err(|error| self.storage(&error))?;
        let mut read = Vec::with_capacity(batches.len());
        for batch in &batches {
            let cells = aligned(batch, columns).map_err(|error| self.storage(&error))?;
            read.push(
                RecordBatch::try_new(Arc::clone(columns), cells).map_err(|error| self.storage(&error))?,
            );
        }
        concat_batches(columns, &read).map_err(|error| self.storage(&error))
    }

    /// Rows of a file, deleted ones included, by its footer.
    pub(super) async fn count(&self, path: &str) -> Result<i64, LakeError> {
        Ok(self.open(path, false).await?.metadata().file_metadata().num_rows())
    }

    async fn open(
        &self,
        path: &str,
        pages: bool,
    ) -> Result<ParquetRecordBatchStreamBuilder<StoredFile>, LakeError> {
        let location = Path::from_url_path(path).map_err(|error| self.storage(&error))?;
        let reader = StoredFile { store: Arc::clone(&self.store), path: location };
        ParquetRecordBatchStreamBuilder::new_with_options(
            reader,
            ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::from(pages)),
        )
        .await
        .map_err(|error| self.storage(&error))
    }

    fn storage(&self, error: &dyn std::fmt::Display) -> LakeError {
        LakeError::Storage { table: self.table.to_string(), message: error.to_string() }
    }
}

/// Consecutive numbers as ranges.
fn runs(ordinals: &[u32]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &ordinal in ordinals {
        let at = ordinal as usize;
        match runs.last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

fn projection(builder: &ParquetRecordBatchStreamBuilder<StoredFile>, columns: &SchemaRef) -> ProjectionMask {
    let roots = builder
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| columns.column_with_name(field.name()).is_some())
        .map(|(index, _)| index);
    ProjectionMask::roots(builder.parquet_schema(), roots)
}

/// The columns of `schema`, by name, in its types.
fn aligned(batch: &RecordBatch, schema: &SchemaRef) -> Result<Vec<ArrayRef>, ArrowError> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    schema.fields().iter().map(column).collect()
}

/// The rows of `folded` as a table of that shape stores them: `columns`, which are its own with absent cells filled in,
/// then the metadata columns.
pub(super) fn stored_rows(
    folded: &Folded,
    mut columns: Vec<ArrayRef>,
    shape: Shape,
) -> Result<RecordBatch, ArrowError> {
    let times: TimestampMicrosecondArray =
        folded.source_micros.iter().map(|&micros| (micros != 0).then_some(micros)).collect();
    let now = TimestampMicrosecondArray::from_value(now_millis() * 1000, folded.rows.num_rows());
    let operations: StringArray = folded.operations.iter().map(|operation| Some(operation.code())).collect();
    columns.push(Arc::new(operations));
    columns.push(Arc::new(times.with_timezone("UTC")));
    columns.push(Arc::new(now.with_timezone("UTC")));
    if shape.keeps_deleted {
        let deleted = folded.operations.iter().map(|operation| Some(!operation.is_upsert()));
        columns.push(Arc::new(deleted.collect::<BooleanArray>()));
    }
    RecordBatch::try_new(shape.stored(&folded.schema), columns)
}

/// How data files of current tables are written.
pub(in crate::lake) fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build()
}

/// A data file in memory, row by row.
pub(in crate::lake) struct RowWriter {
    writer: ArrowWriter<Vec<u8>>,
    rows: usize,
}

impl RowWriter {
    pub(in crate::lake) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(writer_properties()))?;
        Ok(Self { writer, rows: 0 })
    }

    pub(in crate::lake) fn write(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        self.rows += rows.num_rows();
        Ok(self.writer.write(rows)?)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(in crate::lake) fn finish(self) -> Result<Vec<u8>, ArrowError> {
        Ok(self.writer.into_inner()?)
    }
}

/// `numRecords`, and exact bounds of the key columns that have them; `key` are the cells of the key columns.
pub(super) fn statistics(rows: usize, schema: &TableSchema, key: &[ArrayRef]) -> String {
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    let columns = schema.key().iter().filter_map(|&index| schema.columns().get(index));
    for (column, cells) in columns.zip(key) {
        if !has_exact_bounds(&column.column_type) {
            continue;
        }
        if let Some((low, high)) = bounds(cells) {
            least.insert(column.name.to_string(), low);
            most.insert(column.name.to_string(), high);
        }
        nulls.insert(column.name.to_string(), cells.null_count().into());
    }
    json!({
        "numRecords": rows,
        "tightBounds": true,
        "minValues": least,
        "maxValues": most,
        "nullCount": nulls,
    })
    .to_string()
}

/// Least and greatest cell, of types whose bounds are exact and texts that are short.
pub(in crate::lake) fn bounds(cells: &ArrayRef) -> Option<(Value, Value)> {
    match cells.data_type() {
        DataType::Int16 => {
            let cells = cells.as_primitive::<Int16Type>();
            Some((min(cells)?.into(), max(cells)?.into()))
        }
        DataType::Int32 => {
            let cells = cells.as_primitive::<Int32Type>();
            Some((min(cells)?.into(), max(cells)?.into()))
        }
        DataType::Int64 => {
            let cells = cells.as_primitive::<Int64Type>();
            Some((min(cells)?.into(), max(cells)?.into()))
        }
        DataType::Utf8 => {
            let cells = cells.as_string::<i32>();
            let (low, high) = (min_string(cells)?, max_string(cells)?);
            (low.len().max(high.len()) <= LONGEST_BOUND).then(|| (low.into(), high.into()))
        }
        _ => None,
    }
}
