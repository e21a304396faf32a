//! A shard: an open-addressing hash table in one mapped file.
//!
//! Linear probing, at most three quarters full. Removal shifts later entries of the run back, so that slots are free
//! again at once. While entries shift, the hole is marked as vacated rather than unoccupied, so that the run is never
//! cut: a process killed in the middle leaves a vacated slot, which lookups pass and the next doubling drops, or an
//! entry twice, of which the copy that lookups do not reach first is stale, and that is harmless by the index's contract.

use std::io;
use std::path::{Path, PathBuf};

use super::map::SlotFile;

/// Slots of a new shard.
pub(super) const FIRST_SLOTS: usize = 256;

pub(super) type Words = [u64; 2];

pub(super) struct Shard {
    file: SlotFile,
    path: PathBuf,
    len: usize,
}

impl Shard {
    pub(super) fn create(path: PathBuf, slots: usize) -> io::Result<Self> {
        Ok(Self { file: SlotFile::create(&path, slots)?, path, len: 0 })
    }

    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = SlotFile::open(&path)?;
        let len = file.slots().iter().filter(|slot| slot.value() != 0).count();
        if len == file.slots().len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the shard has no free slot"));
        }
        Ok(Self { file, path, len })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name.
    pub(super) fn rename(mut self, path: PathBuf) -> io::Result<Self> {
        std::fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(self)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn slots(&self) -> usize {
        self.file.slots().len()
    }

    /// Whether one more entry would make it too full.
    pub(super) fn is_full(&self) -> bool {
        (self.len + 1) * 4 > self.slots() * 3
    }

    /// The slot that holds `key`, or the unoccupied one where it belongs. There is always an unoccupied one.
    fn find(&self, key: Words, hash: u64) -> usize {
        let slots = self.file.slots();
        let mask = slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = &slots[at];
            if slot.value() == 0 || (slot.holds_key() && slot.key() == key) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// The value of the slot where a key of that hash belongs, whatever key it holds.
    pub(super) fn home(&self, hash: u64) -> u64 {
        let slots = self.file.slots();
        slots[hash as usize & (slots.len() - 1)].value()
    }

    pub(super) fn get(&self, key: Words, hash: u64) -> u64 {
        self.file.slots()[self.find(key, hash)].value()
    }

    /// Sets the value of a key. The shard must not be full.
    pub(super) fn put(&mut self, key: Words, hash: u64, value: u64) {
        let slot = &self.file.slots()[self.find(key, hash)];
        if slot.value() == 0 {
            slot.occupy(key, value);
            self.len += 1;
        } else {
            slot.set_value(value);
        }
    }

    /// Removes a key. `hash_of` gives the hash of any key, for the entries that shift back.
    pub(super) fn remove(&mut self, key: Words, hash: u64, hash_of: impl Fn(Words) -> u64) {
        let slots = self.file.slots();
        let mask = slots.len() - 1;
        let mut hole = self.find(key, hash);
        if slots[hole].value() == 0 {
            return;
        }
        slots[hole].vacate();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let value = slots[at].value();
            if value == 0 {
                break;
            }
            if !slots[at].holds_key() {
                continue;
            }
            let moved = slots[at].key();
            let home = hash_of(moved) as usize & mask;
            // An entry may move into the hole unless its home lies behind the hole.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                slots[hole].occupy(moved, value);
                slots[at].vacate();
                hole = at;
            }
        }
        slots[hole].clear();
        self.len -= 1;
    }

    /// All entries, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Words, u64)> + '_ {
        self.file.slots().iter().filter(|slot| slot.holds_key()).map(|slot| (slot.key(), slot.value()))
    }

    /// The same entries in a file of twice as many slots, which takes this one's place.
    pub(super) fn double(&mut self, hash_of: impl Fn(Words) -> u64) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut larger = Self::create(beside.clone(), self.slots() * 2)?;
        for (key, value) in self.entries() {
            larger.put(key, hash_of(key), value);
        }
        std::fs::rename(&beside, &self.path)?;
        larger.path = std::mem::take(&mut self.path);
        *self = larger;
        Ok(())
    }
}
