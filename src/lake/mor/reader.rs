//! A Parquet file in an object store, read by ranges.
//!
//! The footer comes with the end of the file in one request, whose reply also says how long the file is. The library's
//! own way by suffix (`load_via_suffix_and_finish`) cannot take a prefetch hint together with page indexes: it counts
//! their absolute offsets from the start of the fetched suffix, and calls every file that is longer corrupt.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use deltalake::logstore::object_store::{GetOptions, GetRange, ObjectStoreExt};
use deltalake::{ObjectStore, Path};
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

/// Bytes at the end of a file that are fetched first; most footers lie in them.
const TAIL: usize = 64 << 10;

/// A file and where it lies.
#[derive(Debug)]
pub(in crate::lake) struct StoredFile {
    pub(in crate::lake) store: Arc<dyn ObjectStore>,
    pub(in crate::lake) path: Path,
}

fn external(error: deltalake::ObjectStoreError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.store.get_range(&self.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let reader = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_prefetch_hint(Some(TAIL));
            let tail = self.tail().await?;
            let length = tail.start + tail.bytes.len() as u64;
            Ok(Arc::new(reader.load_and_finish(tail, length).await?))
        }
        .boxed()
    }
}

impl StoredFile {
    async fn tail(&mut self) -> Result<Tail<'_>> {
        let options = GetOptions { range: Some(GetRange::Suffix(TAIL as u64)), ..GetOptions::default() };
        let reply = self.store.get_opts(&self.path, options).await.map_err(external)?;
        let start = reply.range.start;
        let bytes = reply.bytes().await.map_err(external)?;
        Ok(Tail { file: self, start, bytes })
    }
}

/// A file of which the end is here already.
struct Tail<'a> {
    file: &'a mut StoredFile,
    /// Where in the file `bytes` begin; they go up to its end.
    start: u64,
    bytes: Bytes,
}

impl MetadataFetch for Tail<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let within = |offset: u64| offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        match (within(range.start), within(range.end)) {
            (Some(start), Some(end)) if start <= end && end <= self.bytes.len() => {
                let bytes = self.bytes.slice(start..end);
                async move { Ok(bytes) }.boxed()
            }
            _ => self.file.get_bytes(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
    use deltalake::logstore::object_store::memory::InMemory;
    use futures::TryStreamExt;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
    use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// A file of rows that do not compress, several pages of them, and its rows.
    fn file(rows: usize) -> (Vec<u8>, Vec<String>) {
        let mut random = fastrand::Rng::with_seed(7);
        let texts: Vec<String> =
            (0..rows).map(|_| (0..1_000).map(|_| random.alphanumeric()).collect()).collect();
        let column: ArrayRef = Arc::new(StringArray::from(texts.clone()));
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        let pages = WriterProperties::builder().set_data_page_row_count_limit(10).set_write_batch_size(10);
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(pages.build())).unwrap();
        writer.write(&batch).unwrap();
        (writer.into_inner().unwrap(), texts)
    }

    #[tokio::test]
    async fn single_rows_are_found_in_files_shorter_and_longer_than_the_tail() {
        for rows in [5, 60, 64, 66, 80, 300] {
            let (bytes, texts) = file(rows);
            let (size, path) = (bytes.len(), Path::from("a.parquet"));
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            store.put(&path, bytes.into()).await.unwrap();
            let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
            let builder =
                ParquetRecordBatchStreamBuilder::new_with_options(StoredFile { store, path }, options)
                    .await
                    .unwrap_or_else(|error| panic!("a file of {size} bytes: {error}"));
            let last = RowSelection::from(vec![RowSelector::skip(rows - 1), RowSelector::select(1)]);
            let read: Vec<RecordBatch> =
                builder.with_row_selection(last).build().unwrap().try_collect().await.unwrap();
            let found = read[0].column(0).as_string::<i32>().value(0);
            assert!(found == texts[rows - 1], "another row of a file of {size} bytes");
        }
    }
}
