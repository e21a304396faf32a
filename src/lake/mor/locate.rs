//! Where the current row of each key lies: the key index, kept at the version of the table's state.
//!
//! The index stands at a version of the log and *follows*: entries after it are read again and the key columns of files
//! that came are put in. Only what may bring rows matters. A file that went, or a vector that grew, leaves addresses
//! behind that are stale, which whoever looks them up sees; but a file that came back or a vector that shrank (RESTORE)
//! brings rows, so every `add` by others is read anew. Where the entries are gone, or are too many, or the index cannot
//! be used, it is built from the key columns of all live files. In a history table the current row of a key is its current
//! version: versions that have ended are never in the index.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use tokio::sync::mpsc;

use super::files::DataFiles;
use super::home::Home;
use super::keys::{KeyCodec, Keys};
use super::{stacks, vectors};
use crate::lake::action::{DeletionVector, Line};
use crate::lake::error::LakeError;
use crate::lake::index::{IndexIdentity, KeyIndex, RowAddress};
use crate::lake::schema::IS_CURRENT;
use crate::lake::shape::Shape;
use crate::lake::state::{LiveFile, TableState};
use crate::lake::table::Table;

/// Entries that are applied one by one; beyond, reading the key columns is no slower.
const REPLAYED: i64 = 1000;
/// Files that are read at the same time.
const READERS: usize = 4;
/// Time between two lines of the log about a long reading.
const PROGRESS: Duration = Duration::from_secs(5);
/// Batches of keys that wait for the index.
const QUEUED: usize = 16;

/// The index of one table.
pub(super) struct Locator {
    /// `None` only while another takes its place.
    index: Option<KeyIndex>,
    identity: IndexIdentity,
    codec: Arc<KeyCodec>,
    /// Where the next stale address of a stack is looked for.
    cursor: u32,
    /// Whether rows are versions: only the current one of a key has an address.
    versions: bool,
    /// Whether the entry of the index's version was compared.
    verified: bool,
    home: Home,
}

impl std::fmt::Debug for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locator").field("home", &self.home).finish_non_exhaustive()
    }
}

/// How far the reading of keys has got, said now and then.
struct Progress<'a> {
    table: &'a str,
    done: usize,
    of: i64,
    said: Instant,
}

impl<'a> Progress<'a> {
    fn new(table: &'a str, of: i64) -> Self {
        Self { table, done: 0, of, said: Instant::now() }
    }

    fn advance(&mut self, rows: usize) {
        self.done += rows;
        if self.said.elapsed() >= PROGRESS {
            tracing::info!(table = self.table, rows = self.done, of = self.of, "building the key index");
            self.said = Instant::now();
        }
    }
}

/// Keys of consecutive rows of a file.
struct Located {
    file: u32,
    first: u32,
    keys: Keys,
    deleted: Arc<RoaringTreemap>,
}

/// What an index of `table` belongs to.
pub(super) fn identity(state: &TableState, codec: &KeyCodec) -> IndexIdentity {
    IndexIdentity { table_id: state.metadata().id.clone(), key: codec.description(), exact: codec.is_exact() }
}

impl Locator {
    /// Opens what is in `home`, or begins an empty index there.
    pub(super) fn open(
        home: Home,
        identity: IndexIdentity,
        codec: KeyCodec,
        shape: Shape,
    ) -> std::io::Result<Self> {
        let index = match KeyIndex::open(home.folder(), &identity) {
            Ok(index) => index,
            Err(reason) => {
                tracing::debug!(folder = %home.folder().display(), %reason, "no usable index");
                KeyIndex::create(home.folder(), &identity)?
            }
        };
        let (codec, versions) = (Arc::new(codec), shape.history);
        Ok(Self { index: Some(index), identity, codec, cursor: 0, versions, verified: false, home })
    }

    /// Whether it is the index of what `identity` describes.
    pub(super) fn is_of(&self, identity: &IndexIdentity) -> bool {
        self.identity == *identity
    }

    /// Has the log entry of the index's version compared again.
    pub(super) fn distrust(&mut self) {
        self.verified = false;
    }

    /// Brings the index to the version of the table's state.
    pub(super) async fn follow(&mut self, table: &Table, files: &DataFiles) -> Result<(), LakeError> {
        let goal = table.state.version() as i64;
        let at = self.index()?.version();
        if !self.verified {
            if let Some(at) = at {
                let entry = table.log.entry(at as u64).await?;
                if at > goal || !entry.is_some_and(|entry| self.index().is_ok_and(|i| i.stands_on(&entry))) {
                    return self.rebuild(table, files).await;
                }
            }
            self.verified = true;
        }
        match at {
            Some(at) if at == goal => Ok(()),
            Some(at) if at < goal && goal - at <= REPLAYED => {
                if self.replay(at, table, files).await? {
                    Ok(())
                } else {
                    self.rebuild(table, files).await
                }
            }
            _ => self.rebuild(table, files).await,
        }
    }

    /// Applies the entries after `at`; `false` where one of them is gone.
    async fn replay(&mut self, at: i64, table: &Table, files: &DataFiles) -> Result<bool, LakeError> {
        let goal = table.state.version();
        let mut came: HashSet<String> = HashSet::new();
        let mut went: HashSet<String> = HashSet::new();
        let mut last = None;
        for version in at as u64 + 1..=goal {
            let Some(entry) = table.log.entry(version).await? else { return Ok(false) };
            let changes = FileChanges::of(&entry);
            went.extend(changes.went);
            came.extend(changes.came);
            last = Some(entry);
        }
        let live = |path: &String| table.state.files().get(path.as_str());
        let added =
            came.iter().filter_map(|path| Some((path.clone(), live(path)?.vector.as_deref().cloned())));
        let added: Vec<_> = added.collect();
        let rows = added.iter().filter_map(|(path, _)| live(path)?.physical_rows()).sum();
        self.take_in(added, rows, files).await?;
        let index = self.index_mut()?;
        let mut finish = || {
            for path in went.iter().filter(|path| live(path).is_none()) {
                index.forget_file(path)?;
            }
            index.set_version(goal as i64, last.as_deref())
        };
        finish().map_err(|error| failed(table.log.table(), &error))?;
        Ok(true)
    }

    /// Builds the index anew from the key columns of all live files.
    async fn rebuild(&mut self, table: &Table, files: &DataFiles) -> Result<(), LakeError> {
        let started = Instant::now();
        let name = table.log.table();
        self.index = None;
        let index = KeyIndex::create(self.home.folder(), &self.identity);
        self.index = Some(index.map_err(|error| failed(name, &error))?);
        let rows = table.state.files().values().filter_map(LiveFile::physical_rows).sum();
        let all = table.state.files().iter();
        let all = all.map(|(path, file)| (path.to_string(), file.vector.as_deref().cloned())).collect();
        self.take_in(all, rows, files).await?;
        let entry = table.log.entry(table.state.version()).await?;
        let index = self.index_mut()?;
        index
            .set_version(table.state.version() as i64, entry.as_deref())
            .map_err(|error| failed(name, &error))?;
        let keys = index.len();
        self.verified = true;
        if keys > 0 {
            tracing::info!(table = name, keys, elapsed = ?started.elapsed(), "built the key index");
        }
        Ok(())
    }

    /// Reads the keys of the live rows of `added`, about `rows` of them, into the index, several files at a time.
    async fn take_in(
        &mut self,
        added: Vec<(String, Option<DeletionVector>)>,
        rows: i64,
        files: &DataFiles,
    ) -> Result<(), LakeError> {
        let columns = self.key_columns();
        let codec = Arc::clone(&self.codec);
        let (whole_rows, mut cursor) = (codec.whole_rows(), self.cursor);
        let index = self.index_mut()?;
        let mut numbered = Vec::with_capacity(added.len());
        for (path, vector) in added {
            let number = index.file_number(&path).map_err(|error| failed(&files.table, &error))?;
            numbered.push((number, path, vector));
        }
        let (sender, mut receiver) = mpsc::channel::<Located>(QUEUED);
        let readers = futures::stream::iter(numbered).map(move |(number, path, vector)| {
            let (files, codec) = (files.clone(), Arc::clone(&codec));
            let (columns, sender) = (Arc::clone(&columns), sender.clone());
            async move {
                let task = async move {
                    read_keys(&files, &codec, &columns, (number, &path, vector), &sender).await
                };
                tokio::spawn(task).await.map_err(|error| LakeError::Storage {
                    table: String::new(),
                    message: error.to_string(),
                })?
            }
        });
        let reading = readers.buffer_unordered(READERS).try_collect::<()>();
        let mut progress = Progress::new(&files.table, rows);
        let writing = async {
            while let Some(located) = receiver.recv().await {
                progress.advance(located.keys.len());
                for (row, key) in (located.first..).zip(located.keys.iter()) {
                    let Some(key) = key else { continue };
                    if !located.deleted.contains(u64::from(row)) {
                        let address = RowAddress { file: located.file, row };
                        enter(index, key, address, whole_rows.then_some(&mut cursor))
                            .map_err(|error| failed(&files.table, &error))?;
                    }
                }
            }
            Ok(())
        };
        tokio::try_join!(reading, writing)?;
        self.cursor = cursor;
        Ok(())
    }

    fn key_columns(&self) -> SchemaRef {
        let current = self.versions.then(|| Field::new(IS_CURRENT, DataType::Boolean, true));
        Arc::new(Schema::new(self.codec.fields().chain(current).collect::<Vec<Field>>()))
    }

    /// What the index says about each key: the data file and the row in it. It may be stale.
    pub(super) fn locate(&self, keys: &Keys) -> Result<Vec<Option<RowAddress>>, LakeError> {
        let index = self.index()?;
        Ok(keys.iter().map(|key| key.and_then(|key| index.get(index.key(key)))).collect())
    }

    /// The data file with that number, unless it is gone.
    pub(super) fn file(&self, number: u32) -> Option<&str> {
        self.index.as_ref()?.file(number)
    }

    /// Applies a commit of this instance.
    pub(super) fn apply(&mut self, commit: &OwnCommit<'_>) -> std::io::Result<()> {
        if commit.emptied {
            // An index is made faster than millions of entries are removed, and is as small as the table.
            self.index = None;
            self.index = Some(KeyIndex::create(self.home.folder(), &self.identity)?);
        }
        let whole_rows = self.codec.whole_rows();
        let Some(index) = &mut self.index else { return Ok(()) };
        for (row, height) in commit.cuts {
            stacks::cut(index, row, *height)?;
        }
        for path in commit.gone {
            index.forget_file(path)?;
        }
        if let Some(path) = commit.written {
            let file = index.file_number(path)?;
            for (row, key) in (0..).zip(commit.upserted.iter().flat_map(Keys::iter)) {
                if let Some(key) = key {
                    enter(index, key, RowAddress { file, row }, whole_rows.then_some(&mut self.cursor))?;
                }
            }
        }
        for key in commit.deleted.iter().flatten().filter(|_| !whole_rows) {
            index.remove(index.key(key));
        }
        index.set_version(commit.version as i64, Some(commit.entry))
    }

    /// Applies a commit of this instance by which files were replaced by others with the same rows.
    pub(super) fn rewritten(
        &mut self,
        version: u64,
        entry: &[u8],
        files: &[(String, Option<String>)],
    ) -> std::io::Result<()> {
        let Some(index) = &mut self.index else { return Ok(()) };
        for (from, to) in files {
            match to {
                Some(to) => index.rename_file(from, to)?,
                None => index.forget_file(from)?,
            }
        }
        index.set_version(version as i64, Some(entry))
    }

    /// Whether the whole row is its key.
    pub(super) fn has_whole_rows(&self) -> bool {
        self.codec.whole_rows()
    }

    pub(super) fn index(&self) -> Result<&KeyIndex, LakeError> {
        self.index.as_ref().ok_or_else(missing)
    }

    fn index_mut(&mut self) -> Result<&mut KeyIndex, LakeError> {
        self.index.as_mut().ok_or_else(missing)
    }
}

/// Enters the address of a row: the only one of its key, or (with `cursor`) one more on the stack of equal rows.
fn enter(
    index: &mut KeyIndex,
    key: &[u8],
    address: RowAddress,
    cursor: Option<&mut u32>,
) -> std::io::Result<()> {
    match cursor {
        None => index.put(index.key(key), address),
        Some(cursor) => stacks::push(index, key, address, cursor),
    }
}

/// What a commit of this instance did.
pub(super) struct OwnCommit<'a> {
    pub(super) version: u64,
    pub(super) entry: &'a [u8],
    pub(super) written: Option<&'a str>,
    /// Keys of the rows of `written`, in their order.
    pub(super) upserted: &'a [Keys],
    pub(super) deleted: &'a Keys,
    /// In a table without key, rows whose stacks of addresses are cut to a height.
    pub(super) cuts: &'a [(Box<[u8]>, u32)],
    /// Whether nothing is left of what was there before.
    pub(super) emptied: bool,
    /// Data files that are no longer part of the table.
    pub(super) gone: &'a [String],
}

/// Files whose rows have to be read again after a commit, and files that may be gone.
struct FileChanges {
    came: HashSet<String>,
    went: HashSet<String>,
}

impl FileChanges {
    /// Lines that cannot be read are left out: the table's state has read the same entry and would have failed.
    fn of(entry: &[u8]) -> Self {
        let (mut came, mut went, mut grew) = (HashSet::new(), HashSet::new(), false);
        for line in entry.split(|&byte| byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
            came.extend(line.add.map(|add| add.path));
            went.extend(line.remove.map(|remove| remove.path));
            if let Some(info) = line.commit_info {
                grew = info.writer.is_some() && info.operation.as_deref() == Some("MERGE");
            }
        }
        // Our own upserts only ever delete rows of files that were there.
        if grew {
            came.retain(|path| !went.contains(path));
        }
        Self { came, went }
    }
}

async fn read_keys(
    files: &DataFiles,
    codec: &KeyCodec,
    columns: &SchemaRef,
    (file, path, vector): (u32, &str, Option<DeletionVector>),
    sender: &mpsc::Sender<Located>,
) -> Result<(), LakeError> {
    let deleted = match vector {
        Some(vector) => Arc::new(vectors::read(&files.table, &*files.store, &vector).await?),
        None => Arc::default(),
    };
    let mut batches = files.scan(path, columns).await?;
    let mut first = 0;
    while let Some(mut cells) = batches.try_next().await? {
        let current = if columns.column_with_name(IS_CURRENT).is_some() { cells.pop() } else { None };
        let keys = codec.encode(&cells).map_err(|error| LakeError::Unreadable {
            table: files.table.to_string(),
            message: format!("the key columns of {path}: {error}"),
        })?;
        let keys = match current.as_ref().and_then(|flags| flags.as_boolean_opt()) {
            Some(flags) => keys.only(flags),
            None => keys,
        };
        let rows = keys.len() as u32;
        if sender.send(Located { file, first, keys, deleted: Arc::clone(&deleted) }).await.is_err() {
            return Ok(());
        }
        first += rows;
    }
    Ok(())
}

pub(super) fn failed(table: &str, error: &std::io::Error) -> LakeError {
    LakeError::Storage {
        table: format!("the key index of {table}"),
        message: format!("{error}; lake.index_dir says where it lies"),
    }
}

fn missing() -> LakeError {
    LakeError::Storage { table: "the key index".to_owned(), message: "it is closed".to_owned() }
}
