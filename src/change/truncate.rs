//! Truncates: which rows they take away.
//!
//! A truncate has no key, so a topic with several partitions gives it no order among the changes of rows. The lane
//! therefore reads all that was in the other partitions when it arrived, and only then hands it on; of what was read
//! meanwhile, and before, some may be newer than the truncate. Within a batch the source's log decides: a truncate locks
//! its table, so for changes of that table the place in the log is the order in which they happened, whatever other
//! transactions do. For rows that earlier batches have stored, the commit time that is stored with them decides.
//!
//! Invariant: a row that was written after the truncate stays, whichever of the two is read first.

use std::collections::BTreeSet;

use super::{ChangeBatch, Operation};

/// A truncate of the source table, at its place among the changes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncate {
    /// Its index among the changes.
    pub row: usize,
    /// What it takes away.
    pub reach: TruncateReach,
}

/// Which of the rows before it in the batch, and in the sink, a truncate takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TruncateReach {
    /// All: the table's changes have one order, and those before it are older.
    Everything,
    /// All but newer ones: changes of the batch that lie behind it in the source's log stay. With `stored` the sink may
    /// hold newer rows as well, which are known by their commit time.
    Older {
        /// Whether rows of earlier batches may be newer.
        stored: bool,
    },
}

/// The rows of a sink that go before a folded batch is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncated {
    /// All.
    All,
    /// Those whose last change was committed in the source before this time (microseconds since 1970 UTC), and those of
    /// which that is not known.
    Before(i64),
}

impl Truncated {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Before(one), Self::Before(other)) => Self::Before(one.max(other)),
            _ => Self::All,
        }
    }

    /// Whether a stored row goes whose last change was committed at `micros`.
    pub fn takes(self, micros: Option<i64>) -> bool {
        match self {
            Self::All => true,
            Self::Before(limit) => micros.is_none_or(|micros| micros < limit),
        }
    }
}

/// Changes that count, as indexes into their batch.
pub(super) type Kept<'a> = (&'a ChangeBatch, Vec<u32>);

/// Leaves out the truncates and every change that one of them takes away; says which stored rows go, and up to which place in
/// the source's log.
pub(super) fn cut(kept: &mut [Kept<'_>]) -> Option<(Truncated, i64)> {
    if kept.iter().all(|(batch, _)| batch.truncates.is_empty()) {
        return None;
    }
    // From the newest to the oldest: a change has to survive every truncate behind it. `limit` is the place in the
    // source's log up to which they take changes away.
    let (mut limit, mut stored): (Option<i64>, Option<Truncated>) = (None, None);
    for (batch, rows) in kept.iter_mut().rev() {
        let mut left = Vec::with_capacity(rows.len());
        for &row in rows.iter().rev() {
            let at = row as usize;
            if batch.operations.get(at) == Some(&Operation::Truncate) {
                let (reaches, takes) = reach(batch, at);
                limit = limit.max(Some(reaches));
                stored = Some(stored.map_or(takes, |stored| stored.and(takes)));
                continue;
            }
            let lsn = batch.lsns.get(at).copied().unwrap_or(0);
            if limit.is_none_or(|limit| lsn > limit) {
                left.push(row);
            }
        }
        left.reverse();
        *rows = left;
    }
    stored.zip(limit)
}

/// The same for changes that are written one by one: which stored rows go before them, and the places (partition index and
/// offset) of the changes that no truncate takes away. `None` where no truncate is among those that `keep` lets count.
pub fn survivors(
    batches: &[&ChangeBatch],
    keep: impl Fn(u32, i64) -> bool,
) -> Option<(Truncated, BTreeSet<(u32, i64)>)> {
    let counted = |batch: &ChangeBatch| {
        let places = batch.partitions.iter().zip(&batch.offsets).zip(0_u32..);
        places.filter(|((partition, offset), _)| keep(**partition, **offset)).map(|(_, row)| row).collect()
    };
    let mut kept: Vec<Kept<'_>> = batches.iter().map(|batch| (*batch, counted(batch))).collect();
    let (truncated, _) = cut(&mut kept)?;
    let place = |batch: &ChangeBatch, row: u32| {
        Some((*batch.partitions.get(row as usize)?, *batch.offsets.get(row as usize)?))
    };
    let left = kept.iter().flat_map(|(batch, rows)| rows.iter().filter_map(move |&row| place(batch, row)));
    Some((truncated, left.collect()))
}

/// Up to where in the source's log a truncate takes changes of the batch, and which stored rows it takes.
pub(super) fn reach(batch: &ChangeBatch, row: usize) -> (i64, Truncated) {
    let of = |values: &[i64]| values.get(row).copied().filter(|&value| value > 0);
    let reach = batch.truncates.iter().find(|truncate| truncate.row == row).map(|truncate| truncate.reach);
    match reach {
        Some(TruncateReach::Older { stored }) => {
            let time = of(&batch.source_micros).filter(|_| stored);
            (of(&batch.lsns).unwrap_or(i64::MAX), time.map_or(Truncated::All, Truncated::Before))
        }
        _ => (i64::MAX, Truncated::All),
    }
}
