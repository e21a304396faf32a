//! What commits of this instance wrote, for the metrics: rows and bytes, by what they were written for.
//!
//! It is read off the entries of the log, so that it counts what is in the table, and nothing of attempts that came to
//! nothing.

use super::action::Add;
use crate::change::Written;

/// What commits wrote, by what for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    pub batches: Written,
    pub compaction: Written,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.batches += other.batches;
        self.compaction += other.compaction;
    }
}

impl Work {
    /// Counts a file that a commit added, or one that it gave another vector.
    pub(super) fn count(&mut self, add: &Add, rows: Option<i64>, again: bool) {
        let part = if add.data_change { &mut self.batches } else { &mut self.compaction };
        let vector = add.deletion_vector.as_ref().map_or(0, |vector| i64::from(vector.size_in_bytes));
        let (rows, bytes) = if again { (0, vector) } else { (rows.unwrap_or(0), add.size + vector) };
        let of = |number: i64| number.max(0) as u64;
        *part += Written { rows: of(rows), bytes: of(bytes), vectors: of(vector) };
    }
}
