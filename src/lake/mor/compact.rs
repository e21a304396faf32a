//! Compaction of a table that is written by deletion vectors: the rows of some files become one file, the deleted ones
//! are left behind.
//!
//! A step is an ordinary commit: it says that no data changed, and moves the index along. A large one reads and writes
//! beside the batches, and other writers may commit meanwhile as well. What they append does not matter; rows of the files read that they delete are deleted in the new file as
//! well, for rows keep their order, so that it is known where each one went; and where they took one of the files away,
//! brought deleted rows back or changed the columns, the step is given up.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat, filter_record_batch};
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake::Path;
use deltalake::logstore::object_store::ObjectStoreExt;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::files::{self, DataFiles, RowWriter};
use super::keys::{KeyCodec, Keys};
use super::locate::OwnCommit;
use super::plan::with_vector;
use super::vectors::{VectorFile, Vectors};
use super::{MergeOnRead, obstacle};
use crate::change::TableSchema;
use crate::failpoint;
use crate::lake::action::{Add, DeletionVector, Entry};
use crate::lake::compaction::{AT_ONCE, Background, Landed, Pressure, Rewrite, Step, Target, choose};
use crate::lake::error::LakeError;
use crate::lake::now_millis;
use crate::lake::schema::IS_CURRENT;
use crate::lake::shape::Shape;
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
pub(super) struct Compacted {
    files: DataFiles,
    /// The instance that commits it.
    writer: String,
    /// The columns that the table had when its files were read.
    schema: String,
    sources: Vec<Source>,
    /// The new file; `None` where no row was left.
    add: Option<Add>,
    /// The keys of its rows.
    keys: Vec<Keys>,
    rows: u64,
    /// Those of them that were deleted while it was written.
    deleted_meanwhile: RoaringTreemap,
    /// How the keys were made.
    codec: KeyCodec,
}

impl MergeOnRead {
    /// Makes one step, if one is due; says whether it did.
    pub(in crate::lake) async fn compact(
        &mut self,
        table: &mut Table,
        (schema, shape): (&Arc<TableSchema>, Shape),
        writer: &Writer,
        pressure: Pressure,
    ) -> Result<bool, LakeError> {
        let compacted = match self.compacting.take() {
            Some(running) if !running.is_finished() => {
                self.compacting = Some(running);
                return Ok(false);
            }
            Some(finished) => finished.join(table.log.table()).await?,
            None => {
                let chosen = due(&table.state, schema, pressure);
                // Which columns tell rows apart without a key, the newest events say.
                let unknown = schema.key().is_empty() && self.locator.is_none();
                if chosen.is_empty() || unknown || self.conflict == Some(table.state.version()) {
                    return Ok(false);
                }
                let (bytes, sources) = sources(table, &mut self.vectors, &chosen).await?;
                let work = rewrite(
                    table,
                    (Arc::clone(schema), shape, self.codec(schema)),
                    sources,
                    writer.id.clone(),
                );
                if bytes > AT_ONCE {
                    self.compacting = Some(Background::start(work));
                    return Ok(false);
                }
                work.await?
            }
        };
        self.land(table, (schema, shape), writer, compacted).await
    }

    /// Commits files that were put together, and has index and vectors follow.
    async fn land(
        &mut self,
        table: &mut Table,
        (schema, shape): (&Arc<TableSchema>, Shape),
        writer: &Writer,
        mut compacted: Compacted,
    ) -> Result<bool, LakeError> {
        // Behind a log that was not looked at for long, the next version may have been there and expired.
        table.refresh(writer, &[]).await?;
        let version = table.state.version();
        let codec = self.codec(schema);
        self.follow(table, (&codec, shape), &data_files(table)).await?;
        let landed = commit(table, &mut compacted, writer).await?;
        let keys = without(std::mem::take(&mut compacted.keys), &compacted.deleted_meanwhile);
        let gone: Vec<String> = compacted.sources.into_iter().map(|source| source.path).collect();
        match &landed {
            Landed::No => {
                self.conflict = Some(version);
                return Ok(false);
            }
            Landed::Next(entry) if compacted.codec == codec => self.index_follows(&OwnCommit {
                version: table.state.version(),
                entry,
                written: compacted.add.as_ref().map(|add| add.path.as_str()),
                upserted: &keys,
                deleted: &Keys::default(),
                cuts: &[],
                emptied: false,
                gone: &gone,
            }),
            // Another writer was faster, or rows are told apart by other columns by now: the commit is read from the log.
            Landed::Next(_) | Landed::Behind => {}
        }
        for path in &gone {
            self.vectors.forget(path);
        }
        Ok(true)
    }
}

/// Makes one step on a table of which no index is kept here.
pub(in crate::lake) async fn step_without_index(
    table: &mut Table,
    (schema, shape): (&Arc<TableSchema>, Shape),
    writer: &Writer,
) -> Result<Step, LakeError> {
    let chosen = due(&table.state, schema, Pressure::Idle);
    if chosen.is_empty() {
        return Ok(Step::Nothing);
    }
    let (_, sources) = sources(table, &mut Vectors::new(0), &chosen).await?;
    let all: Vec<usize> = (0..schema.columns().len()).collect();
    let codec = KeyCodec::new(schema, &all);
    let work = rewrite(table, (Arc::clone(schema), shape, codec), sources, writer.id.clone());
    let mut compacted = work.await?;
    Ok(commit(table, &mut compacted, writer).await?.step(chosen.len()))
}

/// The files of the next step, of a table that can be compacted.
fn due(state: &TableState, schema: &TableSchema, pressure: Pressure) -> Vec<String> {
    let files = state.files().iter().map(|(path, file)| (&**path, file));
    let chosen = choose(files, Target::of(state.bytes()), pressure);
    if chosen.is_empty() || obstacle(state, schema).is_some() { Vec::new() } else { chosen }
}

fn data_files(table: &Table) -> DataFiles {
    DataFiles { table: table.log.table().into(), store: table.log.files() }
}

/// The files of a step with their deleted rows, and their bytes.
async fn sources(
    table: &Table,
    vectors: &mut Vectors,
    chosen: &[String],
) -> Result<(i64, Vec<Source>), LakeError> {
    let files = data_files(table);
    let (mut bytes, mut sources) = (0, Vec::with_capacity(chosen.len()));
    for path in chosen {
        let Some(file) = table.state.files().get(path.as_str()) else { continue };
        let deleted = vectors.of(&files.table, &*files.store, [(path.as_str(), file)]).await?;
        bytes += file.size;
        sources.push(Source {
            path: path.clone(),
            vector: file.vector.as_deref().cloned(),
            deleted: deleted.into_iter().next().unwrap_or_default(),
            first: 0,
        });
    }
    Ok((bytes, sources))
}

/// Puts a step into the log.
async fn commit(table: &mut Table, compacted: &mut Compacted, writer: &Writer) -> Result<Landed, LakeError> {
    failpoint::hit("lake.before_compaction");
    let landed = table.commit_rewrite(compacted, writer).await?;
    if landed == Landed::No
        && let Some(add) = &compacted.add
    {
        // Nobody knows of it; a file left behind costs space until the vacuum finds it.
        let _ = compacted.files.store.delete(&Path::from(add.path.as_str())).await;
    }
    let (files, rows, committed) = (compacted.sources.len(), compacted.rows, landed != Landed::No);
    tracing::debug!(table = table.log.table(), files, rows, committed, "compacted");
    Ok(landed)
}

/// Writes the live rows of some files as one, in their order; it does not need the table while it does so.
fn rewrite(
    table: &Table,
    (schema, shape, codec): (Arc<TableSchema>, Shape, KeyCodec),
    sources: Vec<Source>,
    writer: String,
) -> impl Future<Output = Result<Compacted, LakeError>> + Send + use<> {
    let compacted = Compacted {
        files: data_files(table),
        writer,
        schema: table.state.metadata().schema_string.clone(),
        sources,
        add: None,
        keys: Vec::new(),
        rows: 0,
        deleted_meanwhile: RoaringTreemap::new(),
        codec,
    };
    compacted.write((schema, shape))
}

impl Compacted {
    /// Reads the files and writes their live rows.
    async fn write(mut self, (schema, shape): (Arc<TableSchema>, Shape)) -> Result<Self, LakeError> {
        let table = Arc::clone(&self.files.table);
        let refused =
            |error: ArrowError| LakeError::Refused(format!("table {table} cannot be compacted: {error}"));
        let columns = shape.stored(&schema);
        let mut out = RowWriter::new(&columns).map_err(refused)?;
        let mut bounds: Vec<Vec<ArrayRef>> = vec![Vec::new(); schema.key().len()];
        for source in &mut self.sources {
            source.first = out.rows() as u64;
            let mut batches = self.files.scan(&source.path, &columns).await?;
            let mut first = 0;
            while let Some(cells) = batches.try_next().await? {
                let batch = RecordBatch::try_new(Arc::clone(&columns), cells).map_err(refused)?;
                let rows = batch.num_rows() as u64;
                let batch = live(&batch, first, &source.deleted).map_err(refused)?;
                first += rows;
                let of_key: Vec<ArrayRef> =
                    schema.key().iter().filter_map(|&index| batch.columns().get(index).cloned()).collect();
                let of_rows = self.codec.encode(&self.codec.columns_of(&batch)).map_err(refused)?;
                self.keys.push(match current_flags(&batch, shape) {
                    Some(flags) => of_rows.only(flags),
                    None => of_rows,
                });
                for (bounds, column) in bounds.iter_mut().zip(of_key) {
                    bounds.push(column);
                }
                out.write(&batch).map_err(refused)?;
            }
        }
        self.rows = out.rows() as u64;
        if self.rows > 0 {
            let of_key = bounds.iter().map(|parts| whole(parts)).collect::<Result<Vec<_>, _>>();
            let stats = files::statistics(out.rows(), &schema, &of_key.map_err(refused)?);
            self.add = Some(self.files.put(out.finish().map_err(refused)?, stats, false).await?);
        }
        Ok(self)
    }
}

/// A column whose parts were read one after the other.
fn whole(parts: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    concat(&parts)
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

impl Compacted {
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
    use arrow::array::Int64Array;

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
