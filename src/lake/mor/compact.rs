//! Compaction of a table that is written by deletion vectors: the rows of some files become one file, the deleted ones
//! are left behind.
//!
//! A step is an ordinary commit: it says that no data changed, and moves the index along. Other writers may commit while
//! it reads. What they append does not matter; rows of the files read that they delete are deleted in the new file as
//! well, for rows keep their order, so that it is known where each one went; and where they took one of the files away
//! or brought deleted rows back, the step is given up.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat, filter_record_batch};
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake::Path;
use deltalake::logstore::object_store::ObjectStoreExt;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::files::{self, DataFiles, RowWriter, stored_schema};
use super::keys::{KeyCodec, Keys};
use super::locate::OwnCommit;
use super::plan::with_vector;
use super::vectors::{VectorFile, Vectors};
use super::{MergeOnRead, obstacle};
use crate::change::TableSchema;
use crate::failpoint;
use crate::lake::action::{Add, DeletionVector, Entry};
use crate::lake::compaction::{Landed, Pressure, Rewrite, Step, Target, choose};
use crate::lake::error::LakeError;
use crate::lake::now_millis;
use crate::lake::state::TableState;
use crate::lake::table::{Table, Writer};

/// A file that was read.
struct Source {
    path: String,
    /// Its deleted rows when it was read, and where they are written down.
    vector: Option<DeletionVector>,
    deleted: Arc<RoaringTreemap>,
    /// Where its first live row went.
    first: u64,
}

/// The live rows of some files as one file.
struct Compacted<'a> {
    files: DataFiles,
    writer: &'a Writer,
    sources: Vec<Source>,
    /// The new file; `None` where no row was left.
    add: Option<Add>,
    /// The keys of its rows.
    keys: Vec<Keys>,
    rows: u64,
}

impl MergeOnRead {
    /// Makes one step, if one is due; says whether it did.
    pub(in crate::lake) async fn compact(
        &mut self,
        table: &mut Table,
        schema: &Arc<TableSchema>,
        writer: &Writer,
        pressure: Pressure,
    ) -> Result<bool, LakeError> {
        let version = table.state.version();
        let chosen = due(&table.state, schema, pressure);
        if chosen.is_empty() || self.conflict == Some(version) {
            return Ok(false);
        }
        let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
        self.follow(table, schema, &files).await?;
        let (landed, compacted) = run(table, schema, &mut self.vectors, writer, &chosen).await?;
        match landed {
            Landed::No => self.conflict = Some(version),
            // The index follows with the next batch, by reading the log.
            Landed::Behind => {}
            Landed::Next(entry) => self.index_follows(&OwnCommit {
                version: table.state.version(),
                entry: &entry,
                written: compacted.add.as_ref().map(|add| add.path.as_str()),
                upserted: &compacted.keys,
                deleted: &Keys::default(),
                gone: &chosen,
            }),
        }
        Ok(landed != Landed::No)
    }
}

/// Makes one step on a table of which no index is kept here.
pub(in crate::lake) async fn step_without_index(
    table: &mut Table,
    schema: &Arc<TableSchema>,
    writer: &Writer,
) -> Result<Step, LakeError> {
    let chosen = due(&table.state, schema, Pressure::Idle);
    if chosen.is_empty() {
        return Ok(Step::Nothing);
    }
    let (landed, _) = run(table, schema, &mut Vectors::new(0), writer, &chosen).await?;
    Ok(landed.step(chosen.len()))
}

/// The files of the next step, of a table that can be compacted.
fn due(state: &TableState, schema: &TableSchema, pressure: Pressure) -> Vec<String> {
    let files = state.files().iter().map(|(path, file)| (&**path, file));
    let chosen = choose(files, Target::of(state.bytes()), pressure);
    if chosen.is_empty() || obstacle(state, schema).is_some() { Vec::new() } else { chosen }
}

/// Writes the live rows of `chosen` as one file and commits it in their place.
async fn run<'a>(
    table: &mut Table,
    schema: &Arc<TableSchema>,
    vectors: &mut Vectors,
    writer: &'a Writer,
    chosen: &[String],
) -> Result<(Landed, Compacted<'a>), LakeError> {
    let started = std::time::Instant::now();
    let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
    let mut compacted = rewrite(&table.state, schema, files, vectors, writer, chosen).await?;
    failpoint::hit("lake.before_compaction");
    let landed = table.commit_rewrite(&mut compacted, writer).await?;
    if landed == Landed::No {
        if let Some(add) = &compacted.add {
            // Nobody knows of it; a file left behind costs space until the vacuum finds it.
            let _ = compacted.files.store.delete(&Path::from(add.path.as_str())).await;
        }
    } else {
        chosen.iter().for_each(|path| vectors.forget(path));
    }
    let (files, rows) = (chosen.len(), compacted.rows);
    tracing::debug!(table = table.log.table(), files, rows, ?landed, elapsed = ?started.elapsed(), "compacted");
    Ok((landed, compacted))
}

/// Writes the live rows of `chosen` as one file, in their order.
async fn rewrite<'a>(
    state: &TableState,
    schema: &Arc<TableSchema>,
    files: DataFiles,
    vectors: &mut Vectors,
    writer: &'a Writer,
    chosen: &[String],
) -> Result<Compacted<'a>, LakeError> {
    let refused =
        |error: ArrowError| LakeError::Refused(format!("table {} cannot be compacted: {error}", files.table));
    let (columns, codec) = (stored_schema(schema), KeyCodec::new(schema));
    let mut out = RowWriter::new(&columns).map_err(refused)?;
    let (mut keys, mut sources) = (Vec::new(), Vec::new());
    let mut bounds: Vec<Vec<ArrayRef>> = vec![Vec::new(); schema.key().len()];
    for path in chosen {
        let Some(file) = state.files().get(path.as_str()) else { continue };
        let of_file = vectors.of(&files.table, &*files.store, [(path.as_str(), file)]).await?;
        let deleted = of_file.into_iter().next().unwrap_or_default();
        sources.push(Source {
            path: path.clone(),
            vector: file.vector.as_deref().cloned(),
            deleted: Arc::clone(&deleted),
            first: out.rows() as u64,
        });
        let mut batches = files.scan(path, &columns).await?;
        let mut first = 0;
        while let Some(cells) = batches.try_next().await? {
            let batch = RecordBatch::try_new(Arc::clone(&columns), cells).map_err(refused)?;
            let rows = batch.num_rows() as u64;
            let batch = live(&batch, first, &deleted).map_err(refused)?;
            first += rows;
            let of_key: Vec<ArrayRef> =
                schema.key().iter().filter_map(|&index| batch.columns().get(index).cloned()).collect();
            keys.push(codec.encode(&of_key).map_err(refused)?);
            for (bounds, column) in bounds.iter_mut().zip(of_key) {
                bounds.push(column);
            }
            out.write(&batch).map_err(refused)?;
        }
    }
    let rows = out.rows();
    let add = if rows == 0 {
        None
    } else {
        let mut of_key = Vec::with_capacity(bounds.len());
        for parts in &bounds {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            of_key.push(concat(&parts).map_err(refused)?);
        }
        let stats = files::statistics(rows, schema, &of_key);
        Some(files.put(out.finish().map_err(refused)?, stats, false).await?)
    };
    Ok(Compacted { files, writer, sources, add, keys, rows: rows as u64 })
}

impl Rewrite for Compacted<'_> {
    async fn entry(&mut self, state: &TableState) -> Result<Option<Bytes>, LakeError> {
        let now = now_millis();
        let mut entry = Entry::new("OPTIMIZE", &self.writer.id, now);
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
        let Some(add) = &self.add else { return Ok(Some(entry.into_bytes())) };
        if deleted.is_empty() {
            entry = entry.add(add);
        } else if deleted.len() < self.rows {
            let mut out = VectorFile::new();
            let vector = out.push(&deleted).map_err(|error| LakeError::Storage {
                table: self.files.table.to_string(),
                message: format!("deletion vector: {error}"),
            })?;
            out.put(&self.files.table, &*self.files.store).await?;
            entry = entry.add(&with_vector(add.clone(), self.rows as i64, vector));
        }
        Ok(Some(entry.into_bytes()))
    }
}

impl Compacted<'_> {
    /// Where the rows went that were deleted in a file since it was read; `None` where deleted ones came back.
    async fn deleted_since(
        &self,
        source: &Source,
        vector: Option<&DeletionVector>,
    ) -> Result<Option<RoaringTreemap>, LakeError> {
        let Some(vector) = vector else { return Ok(None) };
        let now = super::vectors::read(&self.files.table, &*self.files.store, vector).await?;
        if !source.deleted.is_subset(&now) {
            return Ok(None);
        }
        Ok(Some(moved(&source.deleted, &now, source.first)))
    }
}

/// Where the rows of `now` that were not deleted `before` are among the rows that were live before, counted from `first`.
fn moved(before: &RoaringTreemap, now: &RoaringTreemap, first: u64) -> RoaringTreemap {
    let since = now - before;
    since.iter().map(|row| first + row - before.rank(row)).collect()
}

/// The rows of a batch that are not deleted; `first` is the ordinal of its first row.
fn live(batch: &RecordBatch, first: u64, deleted: &RoaringTreemap) -> Result<RecordBatch, ArrowError> {
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
    use super::*;

    #[test]
    fn rows_deleted_meanwhile_are_found_where_they_went() {
        let rows = |of: &[u64]| of.iter().copied().collect::<RoaringTreemap>();
        // Rows 0 to 9; 2 and 5 were left behind, and the first went to 100.
        let went = moved(&rows(&[2, 5]), &rows(&[0, 2, 3, 5, 9]), 100);
        assert_eq!(went, rows(&[100, 102, 107]));
    }
}
