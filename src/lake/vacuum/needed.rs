//! Which files of a table are needed by a version that somebody may still read.
//!
//! A version needs its data files and the deletion vectors that it gives them; versions since a moment need what is in
//! the table now, and what left it since that moment. Both stand in the log: `add` and `remove` name the vector beside
//! the file. Age does not come into it, for a vector that was written a month ago may have been replaced a minute ago.
//!
//! Files that are needed are remembered by a hash: two with the same one are both kept, which costs space and nothing
//! else.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher;

use deltalake::Path;
use siphasher::sip::SipHasher13;

use crate::lake::action::{DeletionVector, Line, Metadata};
use crate::lake::checkpoint;
use crate::lake::error::LakeError;
use crate::lake::log::Log;
use crate::lake::mor::reader::StoredFile;
use crate::lake::mor::vector_path;
use crate::lake::properties;

/// The hash of a file's path.
type File = u64;

/// The files that are needed by the newest version, or by one since [`Needed::since`].
#[derive(Debug)]
pub(super) struct Needed {
    since: i64,
    next_version: u64,
    pub(super) metadata: Metadata,
    /// Everything that left the table from then on is known.
    known_since: i64,
    /// Files of the table, and the file of their vectors.
    live: HashMap<File, Option<File>>,
    /// How many files of the table have vectors in that file.
    vectors: HashMap<File, u32>,
    /// Files that left the table since then, and of vectors that were replaced.
    left: HashSet<File>,
}

impl Needed {
    /// Reads the log of a table; `None` where there is none.
    pub(super) async fn read(log: &Log, since: i64) -> Result<Option<Self>, LakeError> {
        let listing = log.recent().await?;
        if listing.newest().is_none() {
            return Ok(None);
        }
        let mut needed = Self {
            since,
            next_version: 0,
            metadata: Metadata::default(),
            known_since: i64::MIN,
            live: HashMap::new(),
            vectors: HashMap::new(),
            left: HashSet::new(),
        };
        if let Some(version) = listing.newest_checkpoint() {
            for path in listing.parts_of(version) {
                needed = needed.with_checkpoint(log.clone(), path).await?;
            }
            let written = listing.written(version).unwrap_or(i64::MAX);
            needed.known_since = properties::known_since(&needed.metadata.configuration, written);
            needed.next_version = version + 1;
        }
        needed.follow(log).await?;
        if listing.newest() >= Some(needed.next_version) {
            return Err(unreadable(log, &format!("version {} is missing", needed.next_version)));
        }
        Ok(Some(needed))
    }

    /// A large checkpoint takes a while to read: not on a thread that others share.
    async fn with_checkpoint(mut self, log: Log, path: Path) -> Result<Self, LakeError> {
        let (name, runtime) = (log.table().to_owned(), tokio::runtime::Handle::current());
        let read = async move {
            let mut result = Ok(());
            let part = StoredFile { store: log.files(), path };
            checkpoint::read(log.table(), part, &checkpoint::OF_FILES, |line| {
                if result.is_ok() {
                    result = self.take_in([line], true);
                }
            })
            .await?;
            result.map(|()| self)
        };
        tokio::task::spawn_blocking(move || runtime.block_on(read))
            .await
            .map_err(|error| LakeError::Storage { table: name, message: error.to_string() })?
    }

    /// Takes in what was committed since the log was last read.
    pub(super) async fn follow(&mut self, log: &Log) -> Result<(), LakeError> {
        while let Some(entry) = log.entry(self.next_version).await? {
            let lines = entry.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            let lines: Result<Vec<Line>, _> = lines.map(serde_json::from_slice).collect();
            let lines = lines.map_err(|error| {
                unreadable(log, &format!("version {} is not valid: {error}", self.next_version))
            })?;
            self.take_in(lines, false)?;
            self.next_version += 1;
        }
        Ok(())
    }

    /// Whether a version since then, or the newest, needs the file.
    pub(super) fn has(&self, path: &Path) -> bool {
        let file = hash(path);
        self.live.contains_key(&file) || self.vectors.contains_key(&file) || self.left.contains(&file)
    }

    /// Where files may have left the table since then without a trace: from when on they are known.
    pub(super) fn unknown_before(&self) -> Option<i64> {
        (self.known_since > self.since).then_some(self.known_since)
    }

    /// Takes in the actions of one commit, or some of a checkpoint, where a file that left with one vector may be there
    /// with another.
    fn take_in(&mut self, lines: impl IntoIterator<Item = Line>, checkpoint: bool) -> Result<(), LakeError> {
        let mut added = Vec::new();
        for line in lines {
            if let Some(remove) = line.remove
                && let Some(file) = data_file(&remove.path)?
            {
                let vector = vector_file(remove.deletion_vector.as_ref());
                let had = if checkpoint { None } else { self.live.remove(&file).flatten() };
                // Without a time it is as if it had just been removed.
                if remove.deletion_timestamp.is_none_or(|millis| millis >= self.since) {
                    self.left.extend([Some(file), vector, had].into_iter().flatten());
                }
                self.release(had);
            }
            if let Some(add) = line.add
                && let Some(file) = data_file(&add.path)?
            {
                added.push((file, add.deletion_vector));
            }
            if let Some(metadata) = line.meta_data {
                self.metadata = metadata;
            }
        }
        // A file whose vector changed is removed and added by the same commit, in either order.
        for (file, vector) in added {
            let vector = vector_file(vector.as_ref());
            if let Some(vector) = vector {
                *self.vectors.entry(vector).or_default() += 1;
            }
            let had = self.live.insert(file, vector).flatten();
            self.release(had);
        }
        Ok(())
    }

    /// One file of the table less has its vector there.
    fn release(&mut self, vector: Option<File>) {
        if let Some(vector) = vector
            && let Some(files) = self.vectors.get_mut(&vector)
        {
            *files -= 1;
            if *files == 0 {
                self.vectors.remove(&vector);
            }
        }
    }
}

/// The file that an action names; `None` where it lies outside of the table.
fn data_file(path: &str) -> Result<Option<File>, LakeError> {
    if path.contains("://") || path.starts_with('/') {
        return Ok(None);
    }
    let path = Path::from_url_path(path).map_err(|error| LakeError::Unreadable {
        table: String::new(),
        message: format!("it names a file {path:?}: {error}"),
    })?;
    Ok(Some(hash(&path)))
}

fn hash(path: &Path) -> File {
    let mut hasher = SipHasher13::new();
    hasher.write(path.as_ref().as_bytes());
    hasher.finish()
}

fn unreadable(log: &Log, message: &str) -> LakeError {
    LakeError::Unreadable { table: log.table().to_owned(), message: message.to_owned() }
}

/// The file of a vector, where it lies in the table.
fn vector_file(vector: Option<&DeletionVector>) -> Option<File> {
    vector.filter(|vector| vector.storage_type == "u").and_then(vector_path).as_ref().map(hash)
}
