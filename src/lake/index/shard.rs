//! A shard: an open-addressing hash table in one mapped file.
//!
//! Linear probing, at most three quarters full. Removal shifts later entries of the run back, so that slots are free
//! again at once. While entries shift, the hole is marked as vacated rather than unoccupied, so that the run is never
//! cut: a process killed in the middle leaves a vacated slot, which lookups pass and the next doubling drops, or an
//! entry twice, of which the copy that lookups do not reach first is stale, and that is harmless by the index's contract.

use std::io;
use std::path::{Path, PathBuf};

use super::key::fold;
use super::map::{SLOT_BYTES, SlotFile};

/// Slots of a new shard.
pub(super) const FIRST_SLOTS: usize = 256;

pub(super) type Words = [u64; 2];

pub(super) struct Shard {
    file: SlotFile,
    path: PathBuf,
    len: usize,
    /// The sum of what each slot that holds a key adds to it ([`trace`]).
    checksum: u64,
}

/// What a slot adds to the checksum of its shard. A sum, so that a change of one slot costs no look at the others; and with
/// the slot's place in it, since an entry at another place is not found.
fn trace(at: usize, key: Words, value: u64) -> u64 {
    let key = fold(key[0] ^ 0x9E37_79B9_7F4A_7C15, key[1] ^ 0xD1B5_4A32_D192_ED03);
    fold(key ^ value, at as u64 ^ 0xA076_1D64_78BD_642F)
}

impl Shard {
    pub(super) fn create(path: PathBuf, slots: usize) -> io::Result<Self> {
        let file = SlotFile::create(&path, slots)?;
        file.expect_scattered();
        Ok(Self { file, path, len: 0, checksum: 0 })
    }

    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = SlotFile::open(&path)?;
        let (mut len, mut checksum) = (0, 0_u64);
        for (at, slot) in file.slots().iter().enumerate() {
            len += usize::from(slot.value() != 0);
            if slot.holds_key() {
                checksum = checksum.wrapping_add(trace(at, slot.key(), slot.value()));
            }
        }
        if len == file.slots().len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the shard has no free slot"));
        }
        file.expect_scattered();
        Ok(Self { file, path, len, checksum })
    }

    /// A checksum of all entries and their places.
    pub(super) fn checksum(&self) -> u64 {
        self.checksum
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

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        (self.slots() * SLOT_BYTES) as u64
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

    /// Something of each cache line of the slot where a key of that hash belongs: one slot in four lies in two.
    pub(super) fn home(&self, hash: u64) -> u64 {
        let slots = self.file.slots();
        let slot = &slots[hash as usize & (slots.len() - 1)];
        slot.value() ^ slot.key()[0]
    }

    pub(super) fn get(&self, key: Words, hash: u64) -> u64 {
        self.file.slots()[self.find(key, hash)].value()
    }

    /// Sets the value of a key. The shard must not be full.
    pub(super) fn put(&mut self, key: Words, hash: u64, value: u64) {
        let at = self.find(key, hash);
        let slot = &self.file.slots()[at];
        let before = slot.value();
        if before == 0 {
            slot.occupy(key, value);
            self.len += 1;
        } else {
            slot.set_value(value);
            self.checksum = self.checksum.wrapping_sub(trace(at, key, before));
        }
        self.checksum = self.checksum.wrapping_add(trace(at, key, value));
    }

    /// Removes a key. `hash_of` gives the hash of any key, for the entries that shift back.
    pub(super) fn remove(&mut self, key: Words, hash: u64, hash_of: impl Fn(Words) -> u64) {
        let slots = self.file.slots();
        let mask = slots.len() - 1;
        let mut hole = self.find(key, hash);
        if slots[hole].value() == 0 {
            return;
        }
        let mut checksum = self.checksum.wrapping_sub(trace(hole, key, slots[hole].value()));
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
                checksum =
                    checksum.wrapping_sub(trace(at, moved, value)).wrapping_add(trace(hole, moved, value));
                hole = at;
            }
        }
        slots[hole].clear();
        self.len -= 1;
        self.checksum = checksum;
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
