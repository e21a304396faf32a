//! A file of slots in memory: the only place of the lake that needs `unsafe`.
//!
//! The file is mapped shared, so what is written survives the process (not the machine) at once. Slots are read and
//! written as atomic words: a process that is killed between two stores leaves a slot either unoccupied or whole,
//! because the word that marks it as occupied is written last and cleared first.
//!
//! Why the map is sound: the file is created by us with exactly its length and never truncated while it is mapped
//! (a shard that grows is another file), a slot is three words of [`AtomicU64`] for which every bit pattern is valid,
//! and a mapping is aligned to pages. Its room on the disk is taken when it is created, so that no store finds the disk full.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

/// Bytes of a slot: two words of key, one of value.
pub(super) const SLOT_BYTES: usize = 24;

/// Value of a slot that is being emptied. No address packs to it.
const VACATED: u64 = 1;

/// One slot. A value of zero means unoccupied.
#[repr(C)]
pub(super) struct Slot {
    key: [AtomicU64; 2],
    value: AtomicU64,
}

impl Slot {
    pub(super) fn value(&self) -> u64 {
        self.value.load(Ordering::Acquire)
    }

    pub(super) fn key(&self) -> [u64; 2] {
        [self.key[0].load(Ordering::Relaxed), self.key[1].load(Ordering::Relaxed)]
    }

    /// Changes the value of an occupied slot.
    pub(super) fn set_value(&self, value: u64) {
        self.value.store(value, Ordering::Release);
    }

    /// Occupies an unoccupied slot.
    pub(super) fn occupy(&self, key: [u64; 2], value: u64) {
        self.key[0].store(key[0], Ordering::Relaxed);
        self.key[1].store(key[1], Ordering::Relaxed);
        self.value.store(value, Ordering::Release);
    }

    /// Leaves the slot occupied by no key: lookups pass it.
    pub(super) fn vacate(&self) {
        self.value.store(VACATED, Ordering::Release);
    }

    /// Whether the slot holds a key.
    pub(super) fn holds_key(&self) -> bool {
        !matches!(self.value(), 0 | VACATED)
    }

    /// Leaves the slot unoccupied.
    pub(super) fn clear(&self) {
        self.value.store(0, Ordering::Release);
    }
}

/// Gives a new file its length, and its room on the disk with it. A file with holes gets its room when a slot is written,
/// and where the disk is full by then the kernel has no other way to say so than to kill the process (SIGBUS).
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        done => Ok(done?),
    }
}

/// The same on a file system that cannot allocate.
fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(bytes), &mut file).map(drop)
}

/// A mapped file of slots.
pub(super) struct SlotFile {
    map: MmapRaw,
    slots: usize,
}

impl SlotFile {
    /// Creates `path` with `slots` unoccupied slots, replacing what is there.
    pub(super) fn create(path: &Path, slots: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let created = allocate(&file, (slots * SLOT_BYTES) as u64).and_then(|()| Self::map(&file, slots));
        if created.is_err() {
            // What room it got may be the last of the disk. Where it cannot be removed, the next open does it.
            let _ = fs::remove_file(path);
        }
        created
    }

    /// Maps an existing file. Its length must be a power of two of slots.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let slots = bytes / SLOT_BYTES;
        if bytes % SLOT_BYTES != 0 || !slots.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the length is not that of a shard"));
        }
        Self::map(&file, slots)
    }

    fn map(file: &File, slots: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(slots * SLOT_BYTES).map_raw(file)?;
        Ok(Self { map, slots })
    }

    /// Says that slots are looked at in no order from now on. Where memory is short, the kernel would else read 32 pages for
    /// each one that is missing, of which nobody looks at the others.
    pub(super) fn expect_scattered(&self) {
        // It is advice: without it the file is as good.
        let _ = self.map.advise(Advice::Random);
    }

    #[allow(clippy::cast_ptr_alignment)] // a mapping is aligned to pages
    pub(super) fn slots(&self) -> &[Slot] {
        // SAFETY: the map is `slots * SLOT_BYTES` bytes long, page-aligned, lives as long as `self`, and is only
        // accessed through the atomics of `Slot`, whose layout is three words.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<Slot>(), self.slots) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_new_file_has_its_room_on_the_disk_before_a_slot_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        let slots = SlotFile::create(&path, 1 << 12).unwrap();
        assert!(slots.slots().iter().all(|slot| slot.value() == 0));
        let (length, room) = (path.metadata().unwrap().len(), path.metadata().unwrap().blocks() * 512);
        assert_eq!(length, (SLOT_BYTES << 12) as u64);
        assert!(room >= length, "a file of {length} bytes has room for {room}");
    }

    #[test]
    fn zeros_are_as_good_as_an_allocation() {
        let file = tempfile::tempfile().unwrap();
        write_zeros(&file, 100_000).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 100_000);
        assert!(metadata.blocks() * 512 >= 100_000, "{} blocks", metadata.blocks());
    }

    #[test]
    fn a_file_that_gets_no_room_is_an_error_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        // No file can be as large as this.
        assert!(SlotFile::create(&path, 1 << 58).is_err());
        assert!(!path.exists());
    }
}
