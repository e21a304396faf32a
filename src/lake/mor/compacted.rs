//! What compaction has written, until it is committed: the live rows of some files, in other files.
//!
//! In a table with a key they are merged by it ([`merge`](super::merge)), so that readers who ask for some keys can leave
//! files, row groups and pages out; in others they lie one behind the other. Nothing but that depends on their order.
//!
//! While it is being written other writers may commit. What they append does not matter; rows of the files read that they
//! delete are deleted in the new files as well, for it is known where each one [`Went`]; and where they took one of the
//! files away, brought deleted rows back or changed the columns, all of it is given up.
//!
//! Rows go through, whatever the size of the files. In memory are a batch and a row group as it is stored of each file,
//! those files that are sorted here, where rows went (two to six bytes for each), and keys for the index as long as they
//! are few. Where they are many the index reads them from the new files.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::encoding::{clustered_by, writer_properties};
use super::files::DataFiles;
use super::key_order::KeyOrder;
use super::keys::{KeyCodec, Keys};
use super::merge::Merge;
use super::outputs::{Output, Outputs};
use super::plan::with_vector;
use super::runs::{self, Room, refused};
use super::vectors::{self, VectorFiles};
use super::went::Went;
use crate::change::TableSchema;
use crate::lake::action::{DeletionVector, Entry};
use crate::lake::compaction::Target;
use crate::lake::error::LakeError;
use crate::lake::landing::Rewrite;
use crate::lake::live_file::LiveFile;
use crate::lake::moment::Moment;
use crate::lake::now_millis;
use crate::lake::schema::IS_CURRENT;
use crate::lake::shape::Shape;
use crate::lake::state::TableState;
use crate::lake::table::{Table, Writer};

/// Bytes of keys that a step keeps, which is about 250,000 rows.
const KEPT: usize = if cfg!(test) { 8 << 10 } else { 8 << 20 };

/// A file that is read.
pub(super) struct Source {
    pub(super) path: String,
    /// Its deleted rows when it was read, and where they are written down.
    vector: Option<DeletionVector>,
    pub(super) deleted: Arc<RoaringTreemap>,
    /// Where its live rows went.
    went: Went,
}

impl Source {
    pub(super) fn new(path: &str, file: &LiveFile, deleted: Arc<RoaringTreemap>) -> Self {
        Self {
            path: path.to_owned(),
            vector: file.vector.as_deref().cloned(),
            deleted,
            went: Went::default(),
        }
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

/// Writes the live rows of some files anew; it does not need the table while it does so.
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
        let order = KeyOrder::of(&schema).map(Arc::new);
        let outputs = |properties| {
            Outputs::new(self.files.clone(), (Arc::clone(&columns), properties), Arc::clone(&schema), large)
        };
        let (mut out, written);
        if let Some(order) = order {
            let runs =
                Box::pin(runs::open(&self.files, &self.sources, &columns, &order, Room::OF_A_STEP)).await?;
            out = outputs(clustered_by(order.names(), runs.are_sorted.then_some(order.description())));
            let merge = Merge::new(&self.files.table, order, runs);
            written = self.merge(merge, shape, &mut out).await;
        } else {
            out = outputs(writer_properties());
            written = self.copy(shape, &mut out).await;
        }
        match written {
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

    /// Writes the rows of all files by key.
    async fn merge(&mut self, mut rows: Merge, shape: Shape, out: &mut Outputs) -> Result<(), LakeError> {
        while let Some(batch) = rows.next().await? {
            self.put(&batch, shape, out).await?;
        }
        for (source, went) in self.sources.iter_mut().zip(rows.went()) {
            source.went = went;
        }
        Ok(())
    }

    /// Writes the rows of one file behind those of another.
    async fn copy(&mut self, shape: Shape, out: &mut Outputs) -> Result<(), LakeError> {
        let columns = out.columns();
        let mut sources = std::mem::take(&mut self.sources);
        for source in &mut sources {
            let cells = self.files.scan(&source.path, &columns).await?;
            let mut rows = runs::of_source(&self.files.table, source, &columns, cells);
            let first = out.rows();
            while let Some(batch) = rows.try_next().await? {
                self.put(&batch, shape, out).await?;
            }
            source.went.to(first..out.rows());
        }
        self.sources = sources;
        Ok(())
    }

    async fn put(&mut self, rows: &RecordBatch, shape: Shape, out: &mut Outputs) -> Result<(), LakeError> {
        if let Some(kept) = self.kept.take() {
            self.kept = kept.and(rows, shape).map_err(|error| refused(&self.files.table, &error))?;
        }
        out.write(rows).await
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
    /// Where the rows went that were deleted in a file since it was read; `None` where deleted ones came back, or some that
    /// it never had are deleted.
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
        Ok(source.went.moved(&source.deleted, &now))
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
