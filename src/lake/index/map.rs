//! A file of slots in memory: the only place of the lake that needs `unsafe`.
//!
//! The file is mapped shared, so what is written survives the process (not the machine) at once. Slots are read and
//! written as atomic words: a process that is killed between two stores leaves a slot either unoccupied or whole,
//! because the word that marks it as occupied is written last and cleared first.
//!
//! Why the map is sound: the file is created by us with exactly its length and never truncated while it is mapped
//! (a shard that grows is another file), a slot is three words of [`AtomicU64`] for which every bit pattern is valid,
//! and a mapping is aligned to pages.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

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

/// A mapped file of slots.
pub(super) struct SlotFile {
    map: MmapRaw,
    slots: usize,
}

impl SlotFile {
    /// Creates `path` with `slots` unoccupied slots, replacing what is there.
    pub(super) fn create(path: &Path, slots: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len((slots * SLOT_BYTES) as u64)?;
        Self::map(&file, slots)
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

    #[allow(clippy::cast_ptr_alignment)] // a mapping is aligned to pages
    pub(super) fn slots(&self) -> &[Slot] {
        // SAFETY: the map is `slots * SLOT_BYTES` bytes long, page-aligned, lives as long as `self`, and is only
        // accessed through the atomics of `Slot`, whose layout is three words.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<Slot>(), self.slots) }
    }
}
