//! The key index: where the current row of each key lies, as (file, physical row).
//!
//! It is a view of the Delta log, and only that: its header says at which version of which table it stands, commits
//! after that version are applied again on start (puts are idempotent), and an index that is absent, damaged, of
//! another table or from before a crash of the machine is rebuilt. So it needs no journal and no sync on the hot path.
//! One that was closed in order says so in its header, with a checksum of all entries that is kept up while they change.
//!
//! The contract with its readers: an entry may be *stale* (point to a row that is deleted, or to a file that is gone),
//! which they can see from the table's state; an entry is never *missing* for a row that is live at the header's
//! version. Therefore the table commits first and the index follows.
//!
//! Keys of up to sixteen bytes are stored as they are; longer ones as a 128-bit SipHash under a secret drawn for each
//! index, because whoever chooses keys must not be able to choose collisions. See `docs/adr/0002-key-index.md` for
//! the measurements behind the choice.
//!
//! Structure: extendible hashing. The top bits of a key's hash select a [`Shard`], a hash table in a file of its own. A
//! shard doubles until it has [`MAX_SLOTS`] and then splits in two, so the longest pause is that of one small shard,
//! whatever the number of keys.

// Indexes hold by construction, here and in the files of this folder. A slot's number is masked with the number of slots less
// one, and that number is a power of two. The directory has an entry for each prefix of `depth` bits, all of which name one of
// `shards`; both are checked where an index is opened. Keys and texts are cut at no more than their length.
#![allow(clippy::indexing_slicing)]

#[cfg(test)]
mod figures;
mod files;
mod header;
mod key;
mod map;
mod shard;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::files::FileNumbers;
use self::header::Header;
use self::key::fold;
use self::shard::{FIRST_SLOTS, Shard, Words};

pub use self::header::IndexIdentity;
pub use self::key::IndexKey;

/// Slots of a shard before it splits: 3 MiB, which takes one to two milliseconds to rewrite.
const MAX_SLOTS: usize = 1 << 17;

/// Keys to [`KeyIndex::approach`] at a time: enough that the processor has always some loads under way, and few enough
/// that their slots are still in its cache when they are looked at.
pub const TOGETHER: usize = 64;

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowAddress {
    /// Number of the data file in the table's state.
    pub file: u32,
    /// Physical row in the file, deletion vectors ignored.
    pub row: u32,
}

impl RowAddress {
    /// Never zero: zero marks an unoccupied slot. The last file number is not used.
    fn pack(self) -> u64 {
        (u64::from(self.file) + 1) << 32 | u64::from(self.row)
    }

    fn unpack(value: u64) -> Option<Self> {
        let file = (value >> 32).checked_sub(1)?;
        Some(Self { file: file as u32, row: value as u32 })
    }
}

/// Why the index in a folder cannot be used, and has to be built anew.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(#[from] io::Error);

/// Key to address, in mapped files of one folder.
pub struct KeyIndex {
    folder: PathBuf,
    header: Header,
    files: FileNumbers,
    /// One entry for each prefix of `depth` bits; shards of fewer bits stand in several entries.
    directory: Vec<usize>,
    depth: u32,
    shards: Vec<Placed>,
}

/// A shard, and the top bits of the hashes that it holds.
struct Placed {
    shard: Shard,
    depth: u32,
    prefix: u64,
}

impl KeyIndex {
    /// Opens the index in `folder`, if it is one of that table and may be trusted.
    ///
    /// # Errors
    /// Where there is none, or it is damaged, of another table, or from before the machine stopped.
    pub fn open(folder: &Path, identity: &IndexIdentity) -> Result<Self, Unusable> {
        let mut header = Header::read(folder, identity)?;
        let files = FileNumbers::open(folder)?;
        let shards = open_shards(folder)?;
        let (depth, directory) = directory(&shards)?;
        if let Some(closed) = header.closed()
            && closed != checksum(&shards, &files)?
        {
            return Err(Unusable(damaged("a shard or its list of files is damaged")));
        }
        header.mark_open(folder)?;
        Ok(Self { folder: folder.to_owned(), header, files, directory, depth, shards })
    }

    /// Creates an empty index at no version, replacing what is in `folder`.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn create(folder: &Path, identity: &IndexIdentity) -> io::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let shard = Shard::create(folder.join(name(0, 0)), FIRST_SLOTS)?;
        let mut header = Header::new(identity);
        header.mark_open(folder)?;
        let shards = vec![Placed { shard, depth: 0, prefix: 0 }];
        let files = FileNumbers::open(folder)?;
        Ok(Self { folder: folder.to_owned(), header, files, directory: vec![0], depth: 0, shards })
    }

    /// The version of the table whose live rows are all in the index; `None` while it is being built.
    pub fn version(&self) -> Option<i64> {
        self.header.version()
    }

    /// Whether `entry` is the log entry of the version at which the index stands. Version numbers alone do not say so: a
    /// table's folder may have been put back from a copy and have gone another way since.
    pub fn stands_on(&self, entry: &[u8]) -> bool {
        self.header.stands_on(entry)
    }

    /// Records that the index stands at `version`, whose log entry is `entry`.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn set_version(&mut self, version: i64, entry: Option<&[u8]>) -> io::Result<()> {
        self.header.set_version(&self.folder, version, entry)
    }

    /// The number that addresses use for a data file.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn file_number(&mut self, path: &str) -> io::Result<u32> {
        self.files.number(path)
    }

    /// The data file with that number, unless it was forgotten.
    pub fn file(&self, number: u32) -> Option<&str> {
        self.files.path(number)
    }

    /// Gives the number of a data file to another one with the same rows: addresses into it hold as they are.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn rename_file(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    /// Forgets a data file that the table no longer has; addresses into it are stale from now on.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn forget_file(&mut self, path: &str) -> io::Result<()> {
        self.files.forget(path)
    }

    /// Forgets all data files but those that the table has: those that a former process forgot are known again when the
    /// index is opened.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn retain_files(&mut self, is_there: impl Fn(&str) -> bool) -> io::Result<()> {
        self.files.retain(is_there)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|placed| placed.shard.len()).sum()
    }

    /// Bytes of the shards.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|placed| placed.shard.bytes()).sum()
    }

    /// The key of these bytes, as this index stores it.
    pub fn key(&self, bytes: &[u8]) -> IndexKey {
        if self.header.identity().exact {
            IndexKey::exact(bytes)
        } else {
            IndexKey::hashed(bytes, self.header.secret())
        }
    }

    /// Brings the slots of some keys, about [`TOGETHER`] of them, into the processor's cache.
    ///
    /// In a large index nearly each key waits for memory, and one after the other they wait in turn. Loads that do not
    /// depend on one another are waited for together: several times faster, and so a batch costs about the same whatever
    /// the size of the table.
    pub fn approach(&self, keys: impl Iterator<Item = IndexKey>) {
        let mut hashes = [0; TOGETHER];
        let mut len = 0;
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = key.hash(self.header.secret());
            len += 1;
        }
        let near = hashes[..len]
            .iter()
            .fold(0, |near, &hash| near ^ self.shards[self.shard_of(hash)].shard.home(hash));
        std::hint::black_box(near);
    }

    /// Where the row of `key` lies, as far as the index knows.
    pub fn get(&self, key: IndexKey) -> Option<RowAddress> {
        let hash = key.hash(self.header.secret());
        RowAddress::unpack(self.shards[self.shard_of(hash)].shard.get(key.words(), hash))
    }

    /// Sets where the row of `key` lies.
    ///
    /// # Errors
    /// Where a shard has to grow and the disk refuses. The index is as before.
    pub fn put(&mut self, key: IndexKey, address: RowAddress) -> io::Result<()> {
        let hash = key.hash(self.header.secret());
        let mut at = self.shard_of(hash);
        while self.shards[at].shard.is_full() {
            self.grow(at)?;
            at = self.shard_of(hash);
        }
        self.shards[at].shard.put(key.words(), hash, address.pack());
        Ok(())
    }

    /// Forgets `key`; its slot is free again.
    pub fn remove(&mut self, key: IndexKey) {
        let secret = self.header.secret();
        let hash = key.hash(secret);
        let at = self.shard_of(hash);
        self.shards[at].shard.remove(key.words(), hash, |words| IndexKey::from_words(words).hash(secret));
    }

    fn shard_of(&self, hash: u64) -> usize {
        self.directory[prefix_of(hash, self.depth) as usize]
    }

    fn grow(&mut self, at: usize) -> io::Result<()> {
        let secret = self.header.secret();
        let hash_of = |words: Words| IndexKey::from_words(words).hash(secret);
        if self.shards[at].shard.slots() < MAX_SLOTS {
            return self.shards[at].shard.double(hash_of);
        }
        let (depth, prefix) = (self.shards[at].depth + 1, self.shards[at].prefix << 1);
        let mut children = [
            Shard::create(self.folder.join(name(depth, prefix)).with_extension("new"), MAX_SLOTS)?,
            Shard::create(self.folder.join(name(depth, prefix | 1)).with_extension("new"), MAX_SLOTS)?,
        ];
        for (key, value) in self.shards[at].shard.entries() {
            let hash = hash_of(key);
            children[(prefix_of(hash, depth) & 1) as usize].put(key, hash, value);
        }
        let [left, right] = children;
        let left = left.rename(self.folder.join(name(depth, prefix)))?;
        let right = right.rename(self.folder.join(name(depth, prefix | 1)))?;
        let parent = std::mem::replace(&mut self.shards[at], Placed { shard: left, depth, prefix });
        self.shards.push(Placed { shard: right, depth, prefix: prefix | 1 });
        fs::remove_file(parent.shard.path())?;
        (self.depth, self.directory) = directory(&self.shards)?;
        Ok(())
    }
}

impl Drop for KeyIndex {
    /// Closes it in order. A process that is killed does not get here, and its index is opened as it is.
    fn drop(&mut self) {
        let checksum = checksum(&self.shards, &self.files);
        if let Err(error) = checksum.and_then(|checksum| self.header.close(&self.folder, checksum)) {
            tracing::debug!(folder = %self.folder.display(), %error, "the key index was not closed in order");
        }
    }
}

/// The shards in a folder. What growth that was cut short has left is removed.
fn open_shards(folder: &Path) -> io::Result<Vec<Placed>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some((depth, prefix)) = parse_name(&path) {
            found.push((depth, prefix, path));
        } else if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(path)?;
        }
    }
    // A split that was cut short left the parent and one or both children: the parent has every entry.
    found.sort();
    let mut shards: Vec<Placed> = Vec::with_capacity(found.len());
    for (depth, prefix, path) in found {
        let covered = shards
            .iter()
            .any(|parent| parent.depth < depth && prefix >> (depth - parent.depth) == parent.prefix);
        if covered {
            fs::remove_file(path)?;
        } else {
            shards.push(Placed { shard: Shard::open(path)?, depth, prefix });
        }
    }
    Ok(shards)
}

/// The most bits that a shard has, and which shard each prefix of so many belongs to.
fn directory(shards: &[Placed]) -> io::Result<(u32, Vec<usize>)> {
    let depth = shards.iter().map(|placed| placed.depth).max().unwrap_or(0);
    let mut directory = vec![usize::MAX; 1 << depth];
    for (at, placed) in shards.iter().enumerate() {
        let width = depth - placed.depth;
        let first = (placed.prefix << width) as usize;
        directory[first..first + (1 << width)].fill(at);
    }
    if directory.contains(&usize::MAX) { Err(damaged("a shard is missing")) } else { Ok((depth, directory)) }
}

/// A checksum of all entries, of where each is, and of the files that they name.
fn checksum(shards: &[Placed], files: &FileNumbers) -> io::Result<u64> {
    let of = |placed: &Placed| {
        fold(placed.shard.checksum() ^ u64::from(placed.depth), placed.prefix ^ 0xE703_7ED1_A0B4_28DB)
    };
    Ok(shards.iter().map(of).fold(files.checksum()?, u64::wrapping_add))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The top `depth` bits.
fn prefix_of(hash: u64, depth: u32) -> u64 {
    hash.checked_shr(64 - depth).unwrap_or(0)
}

fn name(depth: u32, prefix: u64) -> String {
    format!("shard-{depth:02}-{prefix:08x}.slots")
}

fn parse_name(path: &Path) -> Option<(u32, u64)> {
    let (depth, prefix) =
        path.file_name()?.to_str()?.strip_prefix("shard-")?.strip_suffix(".slots")?.split_once('-')?;
    let (depth, prefix) = (depth.parse().ok()?, u64::from_str_radix(prefix, 16).ok()?);
    // Deeper than this no table can get, and a damaged name must not make us allocate a directory for it.
    (depth <= 24 && prefix < 1_u64 << depth).then_some((depth, prefix))
}
