//! What a batch does to the files that are there: which rows go, and where those are that cells are kept of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use deltalake::ObjectStore;
use roaring::RoaringTreemap;
use serde_json::{Map, Value};

use super::files::DataFiles;
use super::locate::Locator;
use super::rewrite;
use super::vectors::{VectorFiles, Vectors};
use crate::change::TableSchema;
use crate::failpoint;
use crate::lake::action::{Add, DeletionVector, Entry};
use crate::lake::error::LakeError;
use crate::lake::index::RowAddress;
use crate::lake::live_file::LiveFile;
use crate::lake::now_millis;
use crate::lake::shape::Shape;
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

/// A stored row: its file and its ordinal there.
pub(in crate::lake) type Place = (String, u32);

/// Where rows of the batch that nothing replaces find cells to keep: the live rows among what the index says, without those in
/// `emptied`.
pub(super) async fn live_places(
    table: &Table,
    locator: &Locator,
    vectors: &mut Vectors,
    store: &dyn ObjectStore,
    addresses: &[Option<RowAddress>],
    emptied: &Emptied,
) -> Result<Vec<Option<Place>>, LakeError> {
    let mut by_file: BTreeMap<u32, Vec<(u32, usize)>> = BTreeMap::new();
    for (at, address) in addresses.iter().enumerate() {
        if let Some(address) = address {
            by_file.entry(address.file).or_default().push((address.row, at));
        }
    }
    let live: Vec<_> = by_file
        .into_iter()
        .filter_map(|(number, rows)| {
            let path = locator.file(number)?;
            Some((path, table.state.files().get(path)?, rows))
        })
        .collect();
    let names = live.iter().map(|(path, file, _)| (*path, *file));
    let deleted = vectors.of(table.log.table(), store, names).await?;
    let mut places = vec![None; addresses.len()];
    for ((path, _, rows), deleted) in live.into_iter().zip(deleted) {
        let emptied = emptied.get(path);
        for (row, at) in rows {
            if emptied.is_some_and(|rows| rows.contains(u64::from(row))) {
                continue;
            }
            if let Some(place) = places.get_mut(at).filter(|_| !deleted.contains(u64::from(row))) {
                *place = Some((path.to_owned(), row));
            }
        }
    }
    Ok(places)
}

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
        // A union of two bitmaps goes through both once; single rows would move what lies behind each of them.
        deleted |= rows.iter().map(|(row, _)| u64::from(*row)).collect::<RoaringTreemap>();
        let (path, file) = (path.to_owned(), file.clone());
        files.push(Touched { path, file, rows, whole: false, deleted, vector: None });
    }
    Ok(Plan { files })
}

/// Which rows of a file go whatever their key.
pub(super) enum Others {
    /// All that were live: those not in the old vector.
    Live(RoaringTreemap),
    /// These.
    These(RoaringTreemap),
}

impl Others {
    /// Whether the row goes.
    pub(super) fn has(&self, row: u64) -> bool {
        match self {
            Self::Live(before) => !before.contains(row),
            Self::These(rows) => rows.contains(row),
        }
    }
}

impl Touched {
    /// Whether rows go that are not among [`Self::going`].
    pub(super) fn loses_others(&self) -> bool {
        let before = self.file.vector.as_ref().map_or(0, |vector| vector.cardinality as u64);
        self.whole || self.deleted.len() > before + self.rows.len() as u64
    }

    /// Those rows; `before` are the rows that were deleted before.
    pub(super) fn others(&self, before: RoaringTreemap) -> Others {
        if self.whole {
            return Others::Live(before);
        }
        let by_key: RoaringTreemap = self.rows.iter().map(|(row, _)| u64::from(*row)).collect();
        Others::These(&(&self.deleted - &before) - &by_key)
    }

    /// Rows that go, ascending, each with the row of the batch that takes its place.
    pub(super) fn going(&self) -> impl Iterator<Item = (u32, Option<usize>)> {
        self.rows.iter().copied()
    }
}

impl Plan {
    /// Rows of the batch that take the place of stored ones, with the file and ordinal of those.
    pub(super) fn replaced(&self) -> impl Iterator<Item = (usize, &str, u32)> {
        self.files.iter().flat_map(|touched| {
            touched.rows.iter().filter_map(|&(row, by)| Some((by?, touched.path.as_str(), row)))
        })
    }

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
        self.files.retain(|touched| !touched.rows.is_empty() || touched.loses_others());
    }

    /// Rows that go, of which none of the batch takes the place.
    pub(super) fn without_successor(&self) -> usize {
        self.files.iter().flat_map(|touched| &touched.rows).filter(|(_, by)| by.is_none()).count()
    }

    /// Writes the vectors of all touched files, and the actions that put them in place.
    pub(super) async fn write_vectors(
        mut self,
        mut entry: Entry,
        files: &DataFiles,
    ) -> Result<(Entry, Self), LakeError> {
        let (mut out, now) = (VectorFiles::default(), now_millis());
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
            let vector = out.push(&mut touched.deleted).map_err(|error| LakeError::Storage {
                table: files.table.to_string(),
                message: format!("deletion vector: {error}"),
            })?;
            entry = entry.add(&readded(&touched.path, &touched.file, physical, vector.clone()));
            touched.vector = Some(vector);
        }
        if out.put(&files.table, &*files.store).await? {
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
    let stats = add.stats.as_deref().and_then(|stats| serde_json::from_str::<Map<String, Value>>(stats).ok());
    let mut stats = stats.unwrap_or_default();
    stats.insert("numRecords".to_owned(), physical.into());
    stats.insert("tightBounds".to_owned(), false.into());
    Add { stats: Some(Value::Object(stats).to_string()), deletion_vector: Some(vector), ..add }
}
