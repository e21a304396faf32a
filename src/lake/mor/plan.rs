//! What a batch does to the files that are there: which rows go, and which of their cells the new rows keep.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::ObjectStore;
use futures::{FutureExt, StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use serde_json::Value;

use super::files::DataFiles;
use super::locate::Locator;
use super::rewrite;
use super::vectors::{VectorFile, Vectors};
use crate::change::{Folded, TableSchema};
use crate::failpoint;
use crate::lake::action::{Add, DeletionVector, Entry};
use crate::lake::error::LakeError;
use crate::lake::index::RowAddress;
use crate::lake::now_millis;
use crate::lake::schema::DELETED;
use crate::lake::shape::Shape;
use crate::lake::state::LiveFile;
use crate::lake::table::Table;

/// Files that are read at the same time for the cells of old rows.
pub(super) const READERS: usize = 8;

/// A row that goes, by its ordinal, and the row of the batch that takes its place.
pub(super) type Going = (u32, Option<usize>);

/// The files that lose rows.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) files: Vec<Touched>,
}

/// A file that loses rows.
#[derive(Debug)]
pub(super) struct Touched {
    pub(super) path: String,
    pub(super) file: LiveFile,
    /// Rows that go because of the batch's keys, ascending.
    pub(super) rows: Vec<Going>,
    /// Whether every row goes; `deleted` is empty then.
    whole: bool,
    /// All deleted rows, those that go included.
    pub(super) deleted: RoaringTreemap,
    /// Where `deleted` is written; `None` where no row is left and the file goes.
    pub(super) vector: Option<DeletionVector>,
}

/// Stored rows that go whatever their key, by file: what a truncate takes of a table that has newer rows.
pub(super) type Emptied = HashMap<String, RoaringTreemap>;

/// Finds the live rows among what the index says about the keys of a batch.
///
/// The index may name rows that are deleted and files that are gone; nothing else may come of it. Rows in `emptied` go as
/// well, and no new row keeps cells of them.
pub(super) async fn resolve(
    table: &Table,
    locator: &Locator,
    vectors: &mut Vectors,
    store: &dyn ObjectStore,
    (upserted, deleted): (&[Option<RowAddress>], &[Option<RowAddress>]),
    emptied: &Emptied,
) -> Result<Plan, LakeError> {
    let mut by_path: BTreeMap<&str, Vec<Going>> =
        emptied.keys().map(|path| (path.as_str(), Vec::new())).collect();
    let upserted = upserted.iter().enumerate().map(|(row, address)| (*address, Some(row)));
    for (address, row) in upserted.chain(deleted.iter().map(|address| (*address, None))) {
        if let Some(address) = address
            && let Some(path) = locator.file(address.file)
        {
            by_path.entry(path).or_default().push((address.row, row));
        }
    }
    take(table, vectors, store, by_path, emptied).await
}

/// The files that lose `going`, and `emptied`.
pub(super) async fn take(
    table: &Table,
    vectors: &mut Vectors,
    store: &dyn ObjectStore,
    going: BTreeMap<&str, Vec<Going>>,
    emptied: &Emptied,
) -> Result<Plan, LakeError> {
    let live: Vec<(&str, &LiveFile, Vec<Going>)> = going
        .into_iter()
        .filter_map(|(path, rows)| Some((path, table.state.files().get(path)?, rows)))
        .collect();
    let names = live.iter().map(|(path, file, _)| (*path, *file));
    let before = vectors.of(table.log.table(), store, names).await?;
    let mut files = Vec::with_capacity(live.len());
    for ((path, file, mut rows), before) in live.into_iter().zip(before) {
        let mut deleted = RoaringTreemap::clone(&before);
        if let Some(rows) = emptied.get(path) {
            deleted |= rows;
        }
        rows.retain(|(row, _)| !deleted.contains(u64::from(*row)));
        if rows.is_empty() && deleted.len() == before.len() {
            continue;
        }
        rows.sort_unstable();
        deleted.extend(rows.iter().map(|(row, _)| u64::from(*row)));
        let (path, file) = (path.to_owned(), file.clone());
        files.push(Touched { path, file, rows, whole: false, deleted, vector: None });
    }
    Ok(Plan { files })
}

impl Touched {
    /// Rows that go, ascending, each with the row of the batch that takes its place.
    pub(super) fn going(&self) -> impl Iterator<Item = (u32, Option<usize>)> {
        self.rows.iter().copied()
    }
}

impl Plan {
    /// All files go.
    pub(super) fn everything(table: &Table) -> Self {
        let files = table.state.files().iter().map(|(path, file)| Touched {
            path: path.to_string(),
            file: file.clone(),
            rows: Vec::new(),
            whole: true,
            deleted: RoaringTreemap::new(),
            vector: None,
        });
        Self { files: files.collect() }
    }

    /// Writes the touched files anew without the rows that go, and the actions that put them in place.
    pub(super) async fn write_files(
        &self,
        mut entry: Entry,
        files: &DataFiles,
        (schema, shape): (&Arc<TableSchema>, Shape),
    ) -> Result<Entry, LakeError> {
        let now = now_millis();
        for touched in &self.files {
            entry = entry.remove(&touched.file.remove(&touched.path, now, true));
            if touched.whole {
                continue;
            }
            let left = rewrite::without(files, (schema, shape), &touched.path, &touched.deleted);
            if let Some(add) = left.await? {
                entry = entry.add(&add);
            }
        }
        Ok(entry)
    }

    /// The rows of the batch that take the place of a stored one.
    pub(super) fn replacing(&self) -> HashSet<usize> {
        self.files.iter().flat_map(|touched| &touched.rows).filter_map(|&(_, by)| by).collect()
    }

    /// Leaves the rows where they are whose number in the batch `spared` says yes to.
    pub(super) fn spare(&mut self, spared: impl Fn(usize) -> bool) {
        for touched in &mut self.files {
            let deleted = &mut touched.deleted;
            touched.rows.retain(|&(row, by)| {
                let goes = !by.is_some_and(&spared);
                if !goes {
                    deleted.remove(u64::from(row));
                }
                goes
            });
        }
        self.files.retain(|touched| !touched.rows.is_empty());
    }

    /// Rows that go, of which none of the batch takes the place.
    pub(super) fn without_successor(&self) -> usize {
        self.files.iter().flat_map(|touched| &touched.rows).filter(|(_, by)| by.is_none()).count()
    }

    /// Writes the vectors of all touched files as one file, and the actions that put them in place.
    pub(super) async fn write_vectors(
        mut self,
        mut entry: Entry,
        files: &DataFiles,
    ) -> Result<(Entry, Self), LakeError> {
        let mut out = VectorFile::new();
        let (mut any, now) = (false, now_millis());
        for touched in &mut self.files {
            entry = entry.remove(&touched.file.remove(&touched.path, now, true));
            if touched.whole {
                continue;
            }
            let physical = match touched.file.physical_rows() {
                Some(rows) => rows,
                None => files.count(&touched.path).await?,
            };
            if touched.deleted.len() as i64 >= physical {
                continue;
            }
            let vector = out.push(&touched.deleted).map_err(|error| LakeError::Storage {
                table: files.table.to_string(),
                message: format!("deletion vector: {error}"),
            })?;
            entry = entry.add(&readded(&touched.path, &touched.file, physical, vector.clone()));
            touched.vector = Some(vector);
            any = true;
        }
        if any {
            out.put(&files.table, &*files.store).await?;
            failpoint::hit("lake.after_deletion_vectors");
        }
        Ok((entry, self))
    }
}

/// The same file with another vector.
fn readded(path: &str, file: &LiveFile, physical: i64, vector: DeletionVector) -> Add {
    let add = Add {
        path: path.to_owned(),
        partition_values: HashMap::new(),
        size: file.size,
        modification_time: file.modification_time,
        data_change: true,
        stats: file.stats.as_deref().map(str::to_owned),
        deletion_vector: None,
    };
    with_vector(add, physical, vector)
}

/// A file of `physical` rows with a vector: its bounds still hold, but no longer tightly, and its rows are counted as
/// before.
pub(super) fn with_vector(add: Add, physical: i64, vector: DeletionVector) -> Add {
    let stats = add.stats.as_deref().and_then(|stats| serde_json::from_str::<Value>(stats).ok());
    let mut stats = stats.unwrap_or_default();
    if !stats.is_object() {
        stats = Value::Object(serde_json::Map::new());
    }
    stats["numRecords"] = physical.into();
    stats["tightBounds"] = false.into();
    Add { stats: Some(stats.to_string()), deletion_vector: Some(vector), ..add }
}

/// The columns of a batch with absent cells filled in.
pub(super) struct Cells {
    pub(super) columns: Vec<ArrayRef>,
    /// Whether there were absent cells: then the columns hold at one version of the table only.
    pub(super) depends: bool,
    /// Absent cells of rows that are not in the table.
    pub(super) unresolved: u64,
}

/// Takes absent cells from the rows that the batch replaces.
///
/// A row that is marked as deleted is none: what comes after it replaces it whole. Only another delete keeps its cells.
pub(super) async fn with_stored_cells(
    folded: &Folded,
    plan: &Plan,
    files: &DataFiles,
    shape: Shape,
) -> Result<Cells, LakeError> {
    let partial: Vec<usize> = (0..folded.absent.len())
        .filter(|&column| folded.absent.get(column).is_some_and(Option::is_some))
        .collect();
    let mut columns = folded.rows.columns().to_vec();
    if partial.is_empty() {
        return Ok(Cells { columns, depends: false, unresolved: 0 });
    }
    let fields = partial.iter().filter_map(|&column| folded.schema.arrow().fields().get(column).cloned());
    let mark = shape.keeps_deleted.then(|| Arc::new(Field::new(DELETED, DataType::Boolean, true)));
    let wanted: SchemaRef = Arc::new(Schema::new(fields.chain(mark).collect::<Vec<_>>()));
    let mut old = stored(folded, plan, files, &wanted).await?;
    let of_stored = |row: usize| folded.of_stored.as_ref().is_some_and(|rows| rows.value(row));
    if shape.keeps_deleted {
        old.forget_deleted(of_stored);
    }
    let mut unresolved = 0;
    for (at, &column) in partial.iter().enumerate() {
        let Some((Some(mask), rows)) = folded.absent.get(column).zip(columns.get(column).cloned()) else {
            continue;
        };
        let mut sources: Vec<&dyn Array> = vec![&*rows];
        sources.extend(old.batches.iter().map(|batch| &**batch.column(at)));
        let picked: Vec<(usize, usize)> = (0..rows.len())
            .map(|row| {
                if let Some(&(batch, place)) = old.places.get(&row).filter(|_| mask.value(row)) {
                    return (batch + 1, place);
                }
                unresolved += u64::from(mask.value(row) && !of_stored(row));
                (0, row)
            })
            .collect();
        let filled = interleave(&sources, &picked)
            .map_err(|error| LakeError::Refused(format!("stored cells of {}: {error}", files.table)))?;
        if let Some(slot) = columns.get_mut(column) {
            *slot = filled;
        }
    }
    Ok(Cells { columns, depends: true, unresolved })
}

/// Old rows that have cells to keep.
struct Stored {
    batches: Vec<RecordBatch>,
    /// Row of the batch to (which of `batches`, which row).
    places: HashMap<usize, (usize, usize)>,
}

impl Stored {
    /// Leaves out rows that are marked as deleted, but where `keep` says so of the row of the batch.
    fn forget_deleted(&mut self, keep: impl Fn(usize) -> bool) {
        let is_deleted = |batch: usize, place: usize| {
            let marks = self.batches.get(batch).and_then(|batch| batch.column_by_name(DELETED));
            marks
                .and_then(|marks| marks.as_boolean_opt())
                .is_some_and(|marks| marks.is_valid(place) && marks.value(place))
        };
        self.places.retain(|&row, &mut (batch, place)| keep(row) || !is_deleted(batch, place));
    }
}

async fn stored(
    folded: &Folded,
    plan: &Plan,
    files: &DataFiles,
    columns: &SchemaRef,
) -> Result<Stored, LakeError> {
    let has_absent = |row: usize| folded.absent.iter().flatten().any(|mask| mask.value(row));
    let wanted: Vec<(&str, Vec<(u32, usize)>)> = plan
        .files
        .iter()
        .map(|touched| {
            let replaced = touched.rows.iter().filter_map(|&(row, by)| Some((row, by?)));
            (touched.path.as_str(), replaced.filter(|&(_, by)| has_absent(by)).collect::<Vec<_>>())
        })
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let mut reads = Vec::with_capacity(wanted.len());
    for (path, rows) in &wanted {
        let ordinals: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
        reads.push(async move { files.rows(path, columns, &ordinals).await }.boxed());
    }
    let batches: Vec<RecordBatch> = futures::stream::iter(reads).buffered(READERS).try_collect().await?;
    let mut places = HashMap::new();
    for (batch, (_, rows)) in wanted.iter().enumerate() {
        places.extend(rows.iter().enumerate().map(|(place, &(_, by))| (by, (batch, place))));
    }
    Ok(Stored { batches, places })
}
