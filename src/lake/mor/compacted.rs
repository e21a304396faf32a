//! What compaction has written, until it is committed: the live rows of some files, in other files.
//!
//! While it is being written other writers may commit. What they append does not matter; rows of the files read that they
//! delete are deleted in the new files as well, for rows keep their order, so that it is known where each one went; and
//! where they took one of the files away, brought deleted rows back or changed the columns, all of it is given up.
//!
//! Memory does not grow with the files: rows go through, and their keys are kept for the index only as long as they are
//! few. Where they are many the index reads them from the new files.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::files::DataFiles;
use super::keys::{KeyCodec, Keys};
use super::outputs::{Output, Outputs};
use super::plan::with_vector;
use super::vectors::{self, VectorFiles};
use crate::change::TableSchema;
use crate::lake::action::{DeletionVector, Entry};
use crate::lake::compaction::Target;
use crate::lake::error::LakeError;
use crate::lake::landing::Rewrite;
use crate::lake::moment::Moment;
use crate::lake::now_millis;
use crate::lake::schema::IS_CURRENT;
use crate::lake::shape::Shape;
use crate::lake::state::{LiveFile, TableState};
use crate::lake::table::{Table, Writer};

/// Bytes of keys that a step keeps, which is about 250,000 rows.
const KEPT: usize = if cfg!(test) { 8 << 10 } else { 8 << 20 };

/// A file that is read.
pub(super) struct Source {
    pub(super) path: String,
    /// Its deleted rows when it was read, and where they are written down.
    vector: Option<DeletionVector>,
    deleted: Arc<RoaringTreemap>,
    /// Where its first live row went.
    first: u64,
}

impl Source {
    pub(super) fn new(path: &str, file: &LiveFile, deleted: Arc<RoaringTreemap>) -> Self {
        Self { path: path.to_owned(), vector: file.vector.as_deref().cloned(), deleted, first: 0 }
    }
}

/// The live rows of some files, written anew.
pub(super) struct Compacted {
    pub(super) files: DataFiles,
    /// The instance that commits it.
    writer: String,
    /// The columns that the table had when its files were read.
    schema: String,
    pub(super) sources: Vec<Source>,
    /// When the first of the new files was begun.
    since: Moment,
    /// The new files, in the order of their rows.
    pub(super) outputs: Vec<Output>,
    pub(super) rows: u64,
    /// The keys of the rows, where the index takes them from here.
    kept: Option<KeptKeys>,
    /// Those of them that were deleted while they were written.
    deleted_meanwhile: RoaringTreemap,
}

/// The keys of the rows of one file, and how they were made.
struct KeptKeys {
    codec: KeyCodec,
    keys: Vec<Keys>,
    bytes: usize,
}

impl KeptKeys {
    /// Takes over the keys of more rows; `None` where they are too many by now.
    fn and(mut self, rows: &RecordBatch, shape: Shape) -> Result<Option<Self>, ArrowError> {
        let keys = self.codec.encode(&self.codec.columns_of(rows))?;
        let keys = match current_flags(rows, shape) {
            Some(flags) => keys.only(flags),
            None => keys,
        };
        self.bytes += keys.bytes();
        self.keys.push(keys);
        Ok((self.bytes <= KEPT).then_some(self))
    }
}

/// Writes the live rows of some files anew, in their order; it does not need the table while it does so.
pub(super) fn rewrite(
    table: &Table,
    files: DataFiles,
    (schema, shape, codec): (Arc<TableSchema>, Shape, Option<KeyCodec>),
    target: Target,
    (sources, writer): (Vec<Source>, &Writer),
) -> impl Future<Output = Result<Compacted, LakeError>> + Send + use<> {
    let compacted = Compacted {
        files,
        writer: writer.id.clone(),
        schema: table.state.metadata().schema_string.clone(),
        sources,
        since: Moment::now(),
        outputs: Vec::new(),
        rows: 0,
        kept: codec.map(|codec| KeptKeys { codec, keys: Vec::new(), bytes: 0 }),
        deleted_meanwhile: RoaringTreemap::new(),
    };
    compacted.write((schema, shape), target)
}

impl Compacted {
    /// Reads the files and writes their live rows.
    async fn write(
        mut self,
        (schema, shape): (Arc<TableSchema>, Shape),
        target: Target,
    ) -> Result<Self, LakeError> {
        let columns = shape.stored(&schema);
        let large = usize::try_from(target.large).unwrap_or(usize::MAX);
        let mut out = Outputs::new(self.files.clone(), columns, schema, large);
        match self.copy(shape, &mut out).await {
            Ok(()) => {
                self.rows = out.rows();
                self.kept = self.kept.filter(|_| !out.are_several());
                self.outputs = out.finish().await?;
                Ok(self)
            }
            Err(error) => {
                out.abandon().await;
                Err(error)
            }
        }
    }

    async fn copy(&mut self, shape: Shape, out: &mut Outputs) -> Result<(), LakeError> {
        let table = Arc::clone(&self.files.table);
        let refused =
            |error: ArrowError| LakeError::Refused(format!("table {table} cannot be compacted: {error}"));
        let columns = out.columns();
        for source in &mut self.sources {
            source.first = out.rows();
            let mut batches = self.files.scan(&source.path, &columns).await?;
            let mut first = 0;
            while let Some(cells) = batches.try_next().await? {
                let batch = RecordBatch::try_new(Arc::clone(&columns), cells).map_err(refused)?;
                let rows = batch.num_rows() as u64;
                let batch = live(&batch, first, &source.deleted).map_err(refused)?;
                first += rows;
                if let Some(kept) = self.kept.take() {
                    self.kept = kept.and(&batch, shape).map_err(refused)?;
                }
                out.write(&batch).await?;
            }
        }
        Ok(())
    }

    /// The keys of the rows as they lie in the new file, for an index whose keys are made by `codec`.
    pub(super) fn keys_for(&mut self, codec: &KeyCodec) -> Option<Vec<Keys>> {
        let kept = self.kept.take().filter(|kept| kept.codec == *codec)?;
        Some(without(kept.keys, &self.deleted_meanwhile))
    }

    /// Adds the new files to an entry, each with those of its rows marked that are `deleted` among all of them.
    async fn added_to(&self, mut entry: Entry, deleted: &RoaringTreemap) -> Result<Entry, LakeError> {
        let (mut out, mut first) = (VectorFiles::default(), 0);
        for output in &self.outputs {
            let rows = first..first + output.rows;
            first = rows.end;
            let mut of_output: RoaringTreemap =
                deleted.iter().filter(|row| rows.contains(row)).map(|row| row - rows.start).collect();
            if of_output.is_empty() {
                entry = entry.add(&output.add);
            } else if of_output.len() < output.rows {
                let vector = out.push(&mut of_output).map_err(|error| LakeError::Storage {
                    table: self.files.table.to_string(),
                    message: format!("deletion vector: {error}"),
                })?;
                entry = entry.add(&with_vector(output.add.clone(), output.rows as i64, vector));
            }
        }
        out.put(&self.files.table, &*self.files.store).await?;
        Ok(entry)
    }
}

impl Rewrite for Compacted {
    async fn entry(&mut self, state: &TableState) -> Result<Option<Bytes>, LakeError> {
        if state.metadata().schema_string != self.schema {
            return Ok(None);
        }
        let now = now_millis();
        let mut entry = Entry::with_ledger("OPTIMIZE", &self.writer, now, state.known_ledger());
        let mut deleted = RoaringTreemap::new();
        for source in &self.sources {
            let Some(file) = state.files().get(source.path.as_str()) else { return Ok(None) };
            if file.vector.as_deref() != source.vector.as_ref() {
                let Some(moved) = self.deleted_since(source, file.vector.as_deref()).await? else {
                    return Ok(None);
                };
                deleted |= moved;
            }
            entry = entry.remove(&file.remove(&source.path, now, false));
        }
        self.deleted_meanwhile.clone_from(&deleted);
        Ok(Some(self.added_to(entry, &deleted).await?.into_bytes()))
    }

    fn since(&self) -> Moment {
        self.since
    }
}

impl Compacted {
    /// Where the rows went that were deleted in a file since it was read; `None` where deleted ones came back.
    async fn deleted_since(
        &self,
        source: &Source,
        vector: Option<&DeletionVector>,
    ) -> Result<Option<RoaringTreemap>, LakeError> {
        let Some(vector) = vector else { return Ok(None) };
        let now = vectors::read(&self.files.table, &*self.files.store, vector).await?;
        if !source.deleted.is_subset(&now) {
            return Ok(None);
        }
        Ok(Some(moved(&source.deleted, &now, source.first)))
    }
}

/// The keys of rows that follow one another, but for rows that were `deleted` meanwhile: the batches that did so have told
/// the index where these keys are by now.
fn without(keys: Vec<Keys>, deleted: &RoaringTreemap) -> Vec<Keys> {
    let mut first = 0;
    let of_batch = |keys: Keys| {
        let rows = first..first + keys.len() as u64;
        first = rows.end;
        if deleted.range_cardinality(rows.clone()) == 0 {
            return keys;
        }
        keys.only(&rows.map(|row| Some(!deleted.contains(row))).collect())
    };
    keys.into_iter().map(of_batch).collect()
}

/// Where the rows of `now` that were not deleted `before` are among the rows that were live before, counted from `first`.
fn moved(before: &RoaringTreemap, now: &RoaringTreemap, first: u64) -> RoaringTreemap {
    let since = now - before;
    since.iter().map(|row| first + row - before.rank(row)).collect()
}

/// Which rows of a history table are current versions, the only ones that the index knows.
fn current_flags(rows: &RecordBatch, shape: Shape) -> Option<&BooleanArray> {
    rows.column_by_name(IS_CURRENT).filter(|_| shape.history)?.as_boolean_opt()
}

/// The rows of a batch that are not deleted; `first` is the ordinal of its first row.
pub(super) fn live(
    batch: &RecordBatch,
    first: u64,
    deleted: &RoaringTreemap,
) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows() as u64;
    if deleted.range_cardinality(first..first + rows) == 0 {
        return Ok(batch.clone());
    }
    let keep: BooleanArray = (first..first + rows).map(|row| Some(!deleted.contains(row))).collect();
    filter_record_batch(batch, &keep)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::change::{Column, ColumnType};

    #[test]
    fn rows_deleted_meanwhile_are_found_where_they_went() {
        let rows = |of: &[u64]| of.iter().copied().collect::<RoaringTreemap>();
        // Rows 0 to 9; 2 and 5 were left behind, and the first went to 100.
        let went = moved(&rows(&[2, 5]), &rows(&[0, 2, 3, 5, 9]), 100);
        assert_eq!(went, rows(&[100, 102, 107]));
    }
    #[test]
    fn keys_of_rows_deleted_meanwhile_are_left_out_wherever_they_lie() {
        let column = Column { name: "id".into(), column_type: ColumnType::Int64, nullable: false };
        let codec = KeyCodec::new(&TableSchema::new(vec![column], vec![0]), &[0]);
        let of = |ids: std::ops::Range<i64>| {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
            codec.encode(&[ids]).unwrap()
        };
        let kept = without(vec![of(0..3), of(3..5), of(5..9)], &[1, 5, 8].into_iter().collect());
        let kept: Vec<Option<i64>> = kept
            .iter()
            .flat_map(Keys::iter)
            .map(|key| key.map(|key| i64::from_le_bytes(key.try_into().unwrap())))
            .collect();
        assert_eq!(kept, [Some(0), None, Some(2), Some(3), Some(4), None, Some(6), Some(7), None]);
    }
}
