//! Rows that are written anew, in the order in which they come, into as many files as they fill.
//!
//! What is in memory is a row group, whatever the number of rows: it goes to the store when it is full, and a file ends
//! when it is large. A file that ended is as large as asked for, by its bytes in the store and not by what was expected
//! of them: a little less, and compaction would take it up again for nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use deltalake::Path;
use deltalake::logstore::object_store::ObjectStoreExt;
use deltalake::logstore::object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::bounds::Statistics;
use super::files::DataFiles;
use crate::change::TableSchema;
use crate::lake::action::Add;
use crate::lake::error::LakeError;
use crate::lake::now_millis;

/// Bytes of encoded rows after which a row group ends.
pub(in crate::lake) const ROW_GROUP: usize = 32 << 20;

/// A file that was written.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) add: Add,
    pub(super) rows: u64,
}

/// Files that are being written.
pub(super) struct Outputs {
    files: DataFiles,
    columns: SchemaRef,
    properties: WriterProperties,
    schema: Arc<TableSchema>,
    /// Bytes with which a file ends.
    large: usize,
    current: Option<Current>,
    done: Vec<Output>,
    rows: u64,
}

/// The file that rows go into.
struct Current {
    path: String,
    writer: AsyncArrowWriter<BufWriter>,
    statistics: Statistics,
    rows: u64,
}

impl Current {
    fn begin(
        files: &DataFiles,
        (columns, properties): (&SchemaRef, &WriterProperties),
        schema: &TableSchema,
    ) -> Result<Self, LakeError> {
        let path = format!("part-{}.zstd.parquet", uuid::Uuid::new_v4());
        let store = BufWriter::new(Arc::clone(&files.store), Path::from(path.as_str()));
        let writer = AsyncArrowWriter::try_new(store, Arc::clone(columns), Some(properties.clone()))
            .map_err(|error| LakeError::writing(&files.table, &path, &error))?;
        Ok(Self { path, writer, statistics: Statistics::new(schema), rows: 0 })
    }

    /// Writes rows, and says whether the file is large by now.
    async fn write(&mut self, rows: &RecordBatch, large: usize) -> Result<bool, ParquetError> {
        self.writer.write(rows).await?;
        self.statistics.extend(rows);
        self.rows += rows.num_rows() as u64;
        let (stored, waiting) = (self.writer.bytes_written(), self.writer.in_progress_size());
        // What waits may become less when it is stored; so a bit more has to wait than is missing.
        if waiting >= ROW_GROUP || stored + waiting >= large + large / 8 {
            self.writer.flush().await?;
        }
        Ok(self.writer.bytes_written() >= large)
    }

    async fn end(mut self) -> Result<Output, (String, ParquetError)> {
        if let Err(error) = self.writer.finish().await {
            return Err((self.path, error));
        }
        let add = Add {
            size: i64::try_from(self.writer.bytes_written()).unwrap_or(i64::MAX),
            path: self.path,
            partition_values: HashMap::new(),
            modification_time: now_millis(),
            data_change: false,
            stats: Some(self.statistics.into_text()),
            deletion_vector: None,
        };
        Ok(Output { add, rows: self.rows })
    }
}

impl Outputs {
    /// Files of `columns`, the first of which are those of `schema`, written like that, each of about `large` bytes.
    pub(super) fn new(
        files: DataFiles,
        (columns, properties): (SchemaRef, WriterProperties),
        schema: Arc<TableSchema>,
        large: usize,
    ) -> Self {
        Self { files, columns, properties, schema, large, current: None, done: Vec::new(), rows: 0 }
    }

    /// Their columns.
    pub(super) fn columns(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    /// Rows that were written so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether they are more than fill one file.
    pub(super) fn are_several(&self) -> bool {
        self.done.len() + usize::from(self.current.is_some()) > 1
    }

    /// Writes rows behind the others.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let current = match &mut self.current {
            Some(current) => current,
            none => {
                let with = (&self.columns, &self.properties);
                none.insert(Current::begin(&self.files, with, &self.schema)?)
            }
        };
        let is_large = current
            .write(rows, self.large)
            .await
            .map_err(|error| LakeError::writing(&self.files.table, &current.path, &error))?;
        self.rows += rows.num_rows() as u64;
        if is_large { self.end_current().await } else { Ok(()) }
    }

    async fn end_current(&mut self) -> Result<(), LakeError> {
        if let Some(current) = self.current.take() {
            let output = current
                .end()
                .await
                .map_err(|(path, error)| LakeError::writing(&self.files.table, &path, &error))?;
            self.done.push(output);
        }
        Ok(())
    }

    /// The files, in the order of their rows.
    pub(super) async fn finish(mut self) -> Result<Vec<Output>, LakeError> {
        match self.end_current().await {
            Ok(()) => Ok(self.done),
            Err(error) => {
                self.abandon().await;
                Err(error)
            }
        }
    }

    /// Leaves it, and takes away what was written. What stays behind costs space until the vacuum finds it.
    pub(super) async fn abandon(self) {
        if let Some(current) = self.current {
            let _ = current.writer.into_inner().abort().await;
        }
        remove(&self.files, &self.done).await;
    }
}

/// Takes away files that no log names.
pub(super) async fn remove(files: &DataFiles, outputs: &[Output]) {
    for output in outputs {
        let path = Path::from(output.add.path.as_str());
        if let Err(error) = files.store.delete(&path).await {
            tracing::debug!(table = %files.table, %path, %error, "a file was left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use deltalake::logstore::object_store::memory::InMemory;
    use futures::TryStreamExt;
    use serde_json::Value;

    use super::super::encoding::writer_properties;
    use super::*;
    use crate::change::{Column, ColumnType};

    fn schema() -> Arc<TableSchema> {
        let column = |name: &str, column_type| Column { name: name.into(), column_type, nullable: true };
        let columns = vec![column("id", ColumnType::Int64), column("note", ColumnType::Text)];
        Arc::new(TableSchema::new(columns, vec![0]))
    }

    fn rows(ids: std::ops::Range<i64>, random: &mut fastrand::Rng) -> RecordBatch {
        let note = |_| (0..500).map(|_| random.alphanumeric()).collect::<String>();
        let notes: Vec<String> = ids.clone().map(note).collect();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from_iter_values(ids)), Arc::new(StringArray::from(notes))];
        RecordBatch::try_new(Arc::clone(schema().arrow()), columns).unwrap()
    }

    fn files() -> DataFiles {
        DataFiles { table: "t".into(), store: Arc::new(InMemory::new()) }
    }

    #[tokio::test]
    async fn rows_fill_files_of_the_size_asked_for_and_stay_in_their_order() {
        const LARGE: usize = 200_000;
        let (files, schema, mut random) = (files(), schema(), fastrand::Rng::with_seed(7));
        let how = (Arc::clone(schema.arrow()), writer_properties());
        let mut outputs = Outputs::new(files.clone(), how, Arc::clone(&schema), LARGE);
        for first in (0..5_000).step_by(100) {
            outputs.write(&rows(first..first + 100, &mut random)).await.unwrap();
            let waiting = outputs.current.as_ref().map_or(0, |current| current.writer.in_progress_size());
            assert!(waiting < 2 * LARGE, "{waiting} bytes wait in memory");
        }
        assert!(outputs.are_several() && outputs.rows() == 5_000);
        let outputs = outputs.finish().await.unwrap();
        let sizes: Vec<i64> = outputs.iter().map(|output| output.add.size).collect();
        let (last, full) = sizes.split_last().unwrap();
        assert!(full.len() > 3 && *last > 0, "{sizes:?}");
        for size in full {
            assert!(
                (LARGE as i64..2 * LARGE as i64).contains(size),
                "compaction would take it up: {sizes:?}"
            );
        }
        let mut next = 0;
        for output in outputs {
            let read = files.scan(&output.add.path, schema.arrow()).await.unwrap();
            let read: Vec<Vec<ArrayRef>> = read.try_collect().await.unwrap();
            let ids: Vec<i64> = read
                .iter()
                .flat_map(|cells| cells[0].as_primitive::<Int64Type>().values().to_vec())
                .collect();
            assert_eq!(ids, (next..next + output.rows as i64).collect::<Vec<_>>());
            let stats: Value = serde_json::from_str(output.add.stats.as_deref().unwrap()).unwrap();
            assert_eq!(stats["numRecords"], output.rows);
            assert_eq!(
                (&stats["minValues"]["id"], &stats["maxValues"]["id"]),
                (&next.into(), &(ids[ids.len() - 1]).into())
            );
            next += output.rows as i64;
        }
        assert_eq!(next, 5_000);
    }

    #[tokio::test]
    async fn no_rows_are_no_file_and_what_is_abandoned_is_taken_away() {
        let (files, schema, mut random) = (files(), schema(), fastrand::Rng::with_seed(7));
        let how = || (Arc::clone(schema.arrow()), writer_properties());
        let new = || Outputs::new(files.clone(), how(), Arc::clone(&schema), 20_000);
        let mut outputs = new();
        outputs.write(&rows(0..0, &mut random)).await.unwrap();
        assert!(outputs.finish().await.unwrap().is_empty());
        let mut outputs = new();
        for first in 0..3 {
            outputs.write(&rows(first * 100..first * 100 + 30, &mut random)).await.unwrap();
        }
        outputs.write(&rows(900..910, &mut random)).await.unwrap();
        assert!(!outputs.done.is_empty() && outputs.current.is_some());
        outputs.abandon().await;
        let left: Vec<_> = files.store.list(None).try_collect().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}
