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
pub(super) struct StoredFile {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
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
