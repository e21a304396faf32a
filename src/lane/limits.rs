//! How large and how old a batch becomes.
//!
//! Memory is bounded by batches, so a batch that waits for the rest of a key change waits within bounds, too.

use std::time::Duration;

/// Records that a full batch may always get for the rest of a key change, if they are more than half of its limit.
const ROOM_ROWS: u64 = 1_000;
/// The same in bytes.
const ROOM_BYTES: usize = 1 << 20;

/// When a batch closes.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Age of its first record in this process, from which on it closes as soon as the committing stage is free.
    pub max_delay: Duration,
    /// Records.
    pub max_rows: u64,
    /// Bytes of keys and values.
    pub max_bytes: usize,
}

impl BatchLimits {
    /// Whether a batch of so many records and bytes is full.
    pub(super) fn are_reached_by(&self, (rows, bytes): (u64, usize)) -> bool {
        rows >= self.max_rows || bytes >= self.max_bytes
    }

    /// Whether it must not grow any more, whatever is under way.
    pub(super) fn are_far_exceeded_by(&self, (rows, bytes): (u64, usize)) -> bool {
        rows >= self.max_rows.saturating_add((self.max_rows / 2).max(ROOM_ROWS))
            || bytes >= self.max_bytes.saturating_add((self.max_bytes / 2).max(ROOM_BYTES))
    }

    /// The age at which a batch waits for nothing any more.
    pub(super) fn longest_delay(&self) -> Duration {
        self.max_delay.saturating_mul(2)
    }
}
