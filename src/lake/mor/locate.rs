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
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::builds::IndexBuilds;
use super::files::DataFiles;
use super::home::Home;
use super::keys::{KeyCodec, Keys};
use super::{intake, stacks};
use crate::lake::action::{DeletionVector, Line};
use crate::lake::error::LakeError;
use crate::lake::index::{IndexIdentity, KeyIndex, RowAddress, TOGETHER};
use crate::lake::live_file::LiveFile;
use crate::lake::schema::IS_CURRENT;
use crate::lake::shape::Shape;
use crate::lake::state::TableState;
use crate::lake::table::Table;

/// Entries that are applied one by one; beyond, reading the key columns is no slower.
const REPLAYED: i64 = 1000;

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
    builds: IndexBuilds,
    home: Home,
}

impl std::fmt::Debug for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locator").field("home", &self.home).finish_non_exhaustive()
    }
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
        builds: IndexBuilds,
    ) -> std::io::Result<Self> {
        let index = match KeyIndex::open(home.folder(), &identity) {
            Ok(index) => index,
            Err(reason) => {
                tracing::debug!(folder = %home.folder().display(), %reason, "no usable index");
                KeyIndex::create(home.folder(), &identity)?
            }
        };
        let (codec, versions) = (Arc::new(codec), shape.history);
        Ok(Self { index: Some(index), identity, codec, cursor: 0, versions, verified: false, builds, home })
    }

    /// Whether it is the index of what `identity` describes.
    pub(super) fn is_of(&self, identity: &IndexIdentity) -> bool {
        self.identity == *identity
    }

    /// Has the log entry of the index's version compared again.
    pub(super) fn distrust(&mut self) {
        self.verified = false;
    }

    /// Brings the index to the version of the table's state; says whether it was built anew for that.
    pub(super) async fn follow(&mut self, table: &Table, files: &DataFiles) -> Result<bool, LakeError> {
        let was_open = self.verified;
        let built = self.bring(table, files).await?;
        if !was_open {
            // The list of files is a log to which forgetting one adds nothing: those of a former process are known again.
            let is_there = |path: &str| table.state.files().contains_key(path);
            let retained = self.index_mut()?.retain_files(is_there);
            retained.map_err(|error| failed(table.log.table(), &error))?;
        }
        Ok(built)
    }

    async fn bring(&mut self, table: &Table, files: &DataFiles) -> Result<bool, LakeError> {
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
            Some(at) if at == goal => Ok(false),
            Some(at) if at < goal && goal - at <= REPLAYED && self.replay(at, table, files).await? => {
                Ok(false)
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

    /// Builds the index anew from the key columns of all live files; says whether there were any.
    async fn rebuild(&mut self, table: &Table, files: &DataFiles) -> Result<bool, LakeError> {
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
        Ok(!table.state.files().is_empty())
    }

    /// Reads the keys of the live rows of `added`, about `rows` of them, into the index.
    async fn take_in(
        &mut self,
        added: Vec<(String, Option<DeletionVector>)>,
        rows: i64,
        files: &DataFiles,
    ) -> Result<(), LakeError> {
        let columns = self.key_columns();
        let index = self.index.as_mut().ok_or_else(missing)?;
        let (codec, from) = ((&self.codec, &columns), (files, &self.builds));
        intake::take_in(index, codec, &mut self.cursor, (added, rows), from).await
    }

    fn key_columns(&self) -> SchemaRef {
        let current = self.versions.then(|| Field::new(IS_CURRENT, DataType::Boolean, true));
        Arc::new(Schema::new(self.codec.fields().chain(current).collect::<Vec<Field>>()))
    }

    /// What the index says about each key: the data file and the row in it. It may be stale.
    pub(super) fn locate(&self, keys: &Keys) -> Result<Vec<Option<RowAddress>>, LakeError> {
        let index = self.index()?;
        let keys: Vec<_> = keys.iter().map(|key| key.map(|key| index.key(key))).collect();
        let mut found = Vec::with_capacity(keys.len());
        for some in keys.chunks(TOGETHER) {
            index.approach(some.iter().copied().flatten());
            found.extend(some.iter().map(|key| key.and_then(|key| index.get(key))));
        }
        Ok(found)
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
            let rows = (0..).zip(commit.upserted.iter().flat_map(Keys::iter));
            intake::enter(index, file, rows, whole_rows.then_some(&mut self.cursor))?;
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

pub(super) fn failed(table: &str, error: &std::io::Error) -> LakeError {
    LakeError::Storage {
        table: format!("the key index of {table}"),
        message: format!("{error}; lake.index_dir says where it lies"),
    }
}

fn missing() -> LakeError {
    LakeError::Storage { table: "the key index".to_owned(), message: "it is closed".to_owned() }
}
