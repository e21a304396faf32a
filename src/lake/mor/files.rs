//! Data files of a current table: writing the rows of a batch, reading key columns and single rows back.
//!
//! A row's place is its ordinal in the file over all row groups, deleted rows included. The writer keeps the order of
//! its input, and a reader that skips rows says which ones it kept, so ordinals hold on both sides.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use deltalake::logstore::object_store::PutOptions;
use deltalake::{ObjectStore, Path};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::metadata::PageIndexPolicy;

use super::aside;
use super::bounds::Statistics;
use super::encoding::RowWriter;
use super::reader::StoredFile;
use crate::change::{Folded, TableSchema};
use crate::lake::action::Add;
use crate::lake::error::LakeError;
use crate::lake::now_millis;
use crate::lake::shape::Shape;

/// Rows decoded at a time.
pub(super) const ROWS_AT_A_TIME: usize = 8192;

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
            let (mut writer, mut statistics) = (RowWriter::new(&rows.schema())?, Statistics::new(&schema));
            writer.write(&rows)?;
            statistics.extend(&rows);
            Ok::<_, ArrowError>((writer.finish()?, statistics.into_text()))
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
        let bytes = bytes.map_err(|error| {
            LakeError::Refused(format!("table {} cannot keep rows aside: {error}", self.table))
        })?;
        let path = format!("{}{}.zstd.parquet", aside::PREFIX, uuid::Uuid::new_v4());
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
        self.cells(builder, (path, columns), ROWS_AT_A_TIME)
    }

    /// The same of a file that is open, so many rows at a time.
    pub(super) fn cells(
        &self,
        builder: ParquetRecordBatchStreamBuilder<StoredFile>,
        (path, columns): (&str, &SchemaRef),
        at_a_time: usize,
    ) -> Result<BoxStream<'static, Result<Vec<ArrayRef>, LakeError>>, LakeError> {
        let mask = projection(&builder, columns);
        let batches = builder
            .with_projection(mask)
            .with_batch_size(at_a_time)
            .build()
            .map_err(|error| self.failed(path, &error))?;
        let (this, path, columns) = (self.clone(), path.to_owned(), Arc::clone(columns));
        Ok(batches
            .map(move |batch| {
                let batch = batch.map_err(|error| this.failed(&path, &error))?;
                aligned(&batch, &columns).map_err(|error| this.failed(&path, &error))
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
            builder.with_batch_size(ROWS_AT_A_TIME).build().map_err(|error| self.failed(path, &error))?;
        let (this, path) = (self.clone(), path.to_owned());
        Ok(batches.map(move |batch| batch.map_err(|error| this.failed(&path, &error))).boxed())
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
            let message = format!(
                "its file {path} has {total} rows, fewer than the key index says; delete the index (lake.index_dir) while the daemon is down"
            );
            return Err(LakeError::Unreadable { table: self.table.to_string(), message });
        }
        let selection = RowSelection::from_consecutive_ranges(runs(ordinals).into_iter(), total);
        let batches: Vec<RecordBatch> = builder
            .with_projection(mask)
            .with_row_selection(selection)
            .build()
            .map_err(|error| self.failed(path, &error))?
            .try_collect()
            .await
            .map_err(|error| self.failed(path, &error))?;
        let together = || {
            let batches = batches
                .iter()
                .map(|batch| RecordBatch::try_new(Arc::clone(columns), aligned(batch, columns)?));
            concat_batches(columns, &batches.collect::<Result<Vec<_>, _>>()?)
        };
        together().map_err(|error| self.failed(path, &error))
    }

    /// Rows of a file, deleted ones included, by its footer.
    pub(super) async fn count(&self, path: &str) -> Result<i64, LakeError> {
        Ok(self.open(path, false).await?.metadata().file_metadata().num_rows())
    }

    /// Opens a file, with `pages` in such a way that pages can be skipped, where it says where they lie. Files of other
    /// writers may not; of these whole columns are read.
    pub(super) async fn open(
        &self,
        path: &str,
        pages: bool,
    ) -> Result<ParquetRecordBatchStreamBuilder<StoredFile>, LakeError> {
        let location = Path::from_url_path(path).map_err(|error| self.failed(path, &error))?;
        let reader = StoredFile { store: Arc::clone(&self.store), path: location };
        let policy = if pages { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
        let options = ArrowReaderOptions::new().with_offset_index_policy(policy);
        ParquetRecordBatchStreamBuilder::new_with_options(reader, options)
            .await
            .map_err(|error| self.failed(path, &error))
    }

    fn failed(&self, path: &str, error: &(dyn Error + 'static)) -> LakeError {
        LakeError::reading(&self.table, path, error)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use deltalake::logstore::object_store::ObjectStoreExt;
    use deltalake::logstore::object_store::memory::InMemory;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    use super::super::encoding::{DICTIONARY, PAGE, ROWS_OF_A_PAGE};
    use super::*;
    use crate::change::{Column, ColumnType};

    fn files() -> DataFiles {
        DataFiles { table: "t".into(), store: Arc::new(InMemory::new()) }
    }

    /// Numbers, and texts of so many characters that all differ.
    fn rows(count: i64, characters: usize) -> RecordBatch {
        let mut random = fastrand::Rng::with_seed(7);
        let texts = (0..count).map(|_| (0..characters).map(|_| random.alphanumeric()).collect::<String>());
        let columns: [(&str, ArrayRef); 2] = [
            ("id", Arc::new(Int64Array::from_iter_values(0..count))),
            ("note", Arc::new(StringArray::from_iter_values(texts))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn schema() -> Arc<TableSchema> {
        let column = |name: &str, column_type| Column { name: name.into(), column_type, nullable: true };
        let columns = vec![column("id", ColumnType::Int64), column("note", ColumnType::Text)];
        Arc::new(TableSchema::new(columns, vec![0]))
    }

    #[tokio::test]
    async fn a_cell_that_is_looked_up_costs_a_page_and_a_dictionary_of_bounded_size() {
        let (files, rows) = (files(), rows(10_000, 2000));
        let add = files.write(rows, &schema()).await.unwrap();
        let opened = files.open(&add.path, true).await.unwrap();
        let metadata = opened.metadata();
        for group in 0..metadata.num_row_groups() {
            for column in 0..2 {
                let chunk = metadata.row_group(group).column(column);
                let pages = metadata.offset_index().unwrap()[group][column].page_locations();
                let largest = pages.iter().map(|page| page.compressed_page_size).max().unwrap();
                // The writer looks at the limit once in as many bytes.
                assert!(largest as usize <= 2 * PAGE, "column {column} has a page of {largest} bytes");
                let firsts: Vec<i64> = pages.iter().map(|page| page.first_row_index).collect();
                let most = firsts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
                assert!(most as usize <= ROWS_OF_A_PAGE, "column {column} has a page of {most} rows");
                let dictionary = pages[0].offset as u64 - chunk.byte_range().0;
                assert!(dictionary as usize <= DICTIONARY + 4096, "column {column}: {dictionary} bytes");
            }
        }
    }

    /// A file as another writer may have made it, without the places of its pages.
    async fn foreign(files: &DataFiles, rows: &RecordBatch) {
        let plain = WriterProperties::builder()
            .set_offset_index_disabled(true)
            .set_statistics_enabled(EnabledStatistics::Chunk);
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(plain.build())).unwrap();
        writer.write(rows).unwrap();
        files.put_at("foreign.parquet", writer.into_inner().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn single_rows_are_read_from_files_that_do_not_say_where_their_pages_lie() {
        let (files, rows) = (files(), rows(5_000, 10));
        foreign(&files, &rows).await;
        let found = files.rows("foreign.parquet", &rows.schema(), &[3, 4, 4_999]).await.unwrap();
        let expected: Vec<_> = [3, 4, 4_999].map(|row| rows.column(1).as_string::<i32>().value(row)).to_vec();
        let texts: Vec<_> = found.column(1).as_string::<i32>().iter().flatten().collect();
        assert_eq!(texts, expected);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_file_stops_its_table_and_what_is_wrong_with_the_storage_is_tried_again() {
        let (files, rows) = (files(), rows(100, 10));
        let gone = files.rows("gone.parquet", &rows.schema(), &[1]).await.unwrap_err();
        assert!(matches!(&gone, LakeError::Missing { path, .. } if path == "gone.parquet"), "{gone:?}");
        let gone = files.scan("gone.parquet", &rows.schema()).await.map(drop).unwrap_err();
        assert!(gone.stops_table(), "{gone:?}");

        foreign(&files, &rows).await;
        let path = Path::from("foreign.parquet");
        let mut bytes = files.store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[4..200].fill(0xff);
        files.put_at("damaged.parquet", bytes.clone()).await.unwrap();
        let damaged = files.rows("damaged.parquet", &rows.schema(), &[1]).await.unwrap_err();
        assert!(matches!(&damaged, LakeError::Unreadable { .. }), "{damaged:?}");
        files.put_at("short.parquet", bytes[..bytes.len() - 1].to_vec()).await.unwrap();
        let short = files.count("short.parquet").await.unwrap_err();
        assert!(matches!(&short, LakeError::Unreadable { .. }), "{short:?}");

        let away = deltalake::ObjectStoreError::Generic { store: "s3", source: "no answer".into() };
        let away = parquet::errors::ParquetError::External(Box::new(away));
        let away = files.failed("a.parquet", &away);
        assert!(matches!(&away, LakeError::Storage { .. }), "{away:?}");
    }
}
