//! How many records may go into quarantine before somebody has to look.
//!
//! One bad record is the source's exception; thousands in a row are a wrong setting, and a lane that quarantines them
//! drains its topic into a place that nobody asked for. A restart is no cure: whoever restarts a process that has stopped at
//! its limit may be a machine. So a run begins with what the last hour has left in quarantine and nobody has decided about.

use std::collections::BTreeMap;
use std::fmt;

use super::{Ledger, RecordPlace};
use crate::change::{Progress, TopicIdentity, TopicPartition};

/// How far back a run looks at what earlier ones have left, in microseconds: an hour.
const LOOKS_BACK: i64 = 3_600_000_000;

/// Records that the share is taken of.
const WINDOW: usize = 1000;

/// The limits of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records in one run; 0: no limit.
    pub max_records: u64,
    /// Share of the newest thousand records, in per cent; 100: no limit.
    pub max_percent: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_records: 10_000, max_percent: 50 }
    }
}

/// Which limit a record would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// `quarantine.max_records`
    Records(u64),
    /// `quarantine.max_percent`
    Percent(u64),
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(limit) => {
                write!(
                    f,
                    "{limit} records went into quarantine since the start, or wait there since the hour before it \
                     (quarantine.max_records)"
                )
            }
            Self::Percent(limit) => {
                write!(f, "{limit} % of the newest {WINDOW} records are bad (quarantine.max_percent)")
            }
        }
    }
}

/// What earlier runs have left in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Records that came within the last hour and that nobody has decided about.
    pub records: u64,
    /// The newest records of their partitions, up to where these are read on: a thousand of each, but none before the first
    /// bad one.
    pub newest: u64,
    /// How many of those are bad.
    pub bad: u64,
}

impl Waiting {
    /// What a ledger has at `now`, microseconds since 1970, where partitions are read on from `progress`.
    pub fn of(ledger: &Ledger, progress: &Progress, now: i64) -> Self {
        let mut logs: BTreeMap<(&TopicPartition, &TopicIdentity), Vec<i64>> = BTreeMap::new();
        for RecordPlace { partition, identity, offset } in
            ledger.waiting_since(now.saturating_sub(LOOKS_BACK))
        {
            logs.entry((partition, identity)).or_default().push(*offset);
        }
        logs.into_iter().fold(Self::default(), |sum, ((partition, identity), offsets)| {
            let next = progress.get(partition).filter(|stored| stored.identity == *identity);
            let (first, last) = offsets
                .iter()
                .fold((i64::MAX, i64::MIN), |(first, last), &offset| (first.min(offset), last.max(offset)));
            // What is in quarantine already may lie behind the stored position.
            let end = next.map_or(0, |stored| stored.next_offset).max(last.saturating_add(1));
            let from = first.max(end.saturating_sub(WINDOW as i64));
            Self {
                records: sum.records + offsets.len() as u64,
                newest: sum.newest + end.saturating_sub(from).unsigned_abs(),
                bad: sum.bad + offsets.iter().filter(|offset| **offset >= from).count() as u64,
            }
        })
    }
}

/// Counts good and bad records.
#[derive(Debug, Clone)]
pub struct Limiter {
    limits: Limits,
    taken: u64,
    window: Vec<bool>,
    next: usize,
    bad: usize,
}

impl Limiter {
    /// A counter of a run in which `taken` records went into quarantine already.
    pub fn new(limits: Limits, taken: u64) -> Self {
        Self { limits, taken, window: Vec::with_capacity(WINDOW), next: 0, bad: 0 }
    }

    /// The same, beginning with what earlier runs have left in quarantine: the number, and the share, evenly spread.
    pub fn after(limits: Limits, taken: u64, waiting: Waiting) -> Self {
        let mut limiter = Self::new(limits, taken.max(waiting.records));
        let newest = waiting.newest.min(WINDOW as u64);
        let bad_before = |record: u64| record.saturating_mul(waiting.bad) / waiting.newest.max(1);
        for record in 0..newest {
            limiter.note(bad_before(record + 1) > bad_before(record));
        }
        limiter
    }

    fn note(&mut self, bad: bool) {
        if let Some(oldest) = self.window.get_mut(self.next) {
            self.bad -= usize::from(*oldest);
            *oldest = bad;
        } else {
            self.window.push(bad);
        }
        self.bad += usize::from(bad);
        self.next = (self.next + 1) % WINDOW;
    }

    /// One more record was sound.
    pub fn good(&mut self) {
        self.note(false);
    }

    /// So many more records were sound.
    pub fn good_many(&mut self, records: usize) {
        for _ in 0..records.min(WINDOW) {
            self.note(false);
        }
    }

    /// One more record is bad: whether it may go into quarantine.
    ///
    /// # Errors
    /// The limit that it would exceed.
    pub fn bad(&mut self) -> Result<(), Exceeded> {
        let Limits { max_records, max_percent } = self.limits;
        if max_records > 0 && self.taken >= max_records {
            return Err(Exceeded::Records(max_records));
        }
        self.note(true);
        let full = self.window.len() == WINDOW;
        if full && max_percent < 100 && self.bad as u64 * 100 >= max_percent * WINDOW as u64 {
            return Err(Exceeded::Percent(max_percent));
        }
        self.taken += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::StoredPosition;
    use crate::change::quarantine::{QuarantineEvent, QuarantineRow};

    #[test]
    fn the_record_after_the_most_is_one_too_many() {
        let mut limiter = Limiter::new(Limits { max_records: 3, max_percent: 100 }, 1);
        assert_eq!((limiter.bad(), limiter.bad()), (Ok(()), Ok(())));
        limiter.good();
        assert_eq!(limiter.bad(), Err(Exceeded::Records(3)));
    }

    #[test]
    fn the_share_counts_among_the_newest_thousand_and_not_before_there_are_as_many() {
        let mut limiter = Limiter::new(Limits { max_records: 0, max_percent: 50 }, 0);
        for _ in 0..900 {
            assert_eq!(limiter.bad(), Ok(()), "fewer than a thousand records say nothing");
        }
        for _ in 0..700 {
            limiter.good();
        }
        // 300 of the newest thousand are bad now; each bad one more pushes an old bad one out first.
        for _ in 0..300 {
            assert_eq!(limiter.bad(), Ok(()));
        }
        for added in 0..200 {
            let expected = if added == 199 { Err(Exceeded::Percent(50)) } else { Ok(()) };
            assert_eq!(limiter.bad(), expected, "after {added} more");
        }
    }

    #[test]
    fn a_run_goes_on_where_the_last_one_has_stopped() {
        let limits = Limits { max_records: 0, max_percent: 50 };
        // 999 of 999 are bad, as after a run that stopped before the thousandth.
        let mut limiter = Limiter::after(limits, 0, Waiting { records: 999, newest: 999, bad: 999 });
        assert_eq!(limiter.bad(), Err(Exceeded::Percent(50)));
        // One in a hundred is no reason to stop, however many there are.
        let mut limiter = Limiter::after(limits, 0, Waiting { records: 5_000, newest: 2_000, bad: 20 });
        assert_eq!((limiter.bad(), limiter.bad), (Ok(()), 11));
        let limits = Limits { max_records: 3, max_percent: 100 };
        let mut limiter = Limiter::after(limits, 1, Waiting { records: 2, newest: 1_000, bad: 2 });
        assert_eq!((limiter.bad(), limiter.bad()), (Ok(()), Err(Exceeded::Records(3))));
    }

    #[test]
    fn what_waits_is_counted_among_the_records_that_were_read_since() {
        let row = |partition: i32, offset: i64, at_micros: i64| {
            let partition = TopicPartition::new("t", partition);
            let place = RecordPlace { partition, identity: TopicIdentity::unknown(), offset };
            QuarantineRow::new(QuarantineEvent::Quarantined, at_micros, "lake", place)
        };
        let now = 10 * LOOKS_BACK;
        let mut ledger = Ledger::default();
        let rows = [
            row(0, 1, now - LOOKS_BACK - 1),
            row(0, 90, now - 5),
            row(0, 95, now),
            row(1, 7, now),
            row(2, 5, now),
            row(2, 9_990, now),
        ];
        for record in &rows {
            ledger.apply(record);
        }
        let stored = |partition, next_offset| {
            let identity = TopicIdentity::unknown();
            (TopicPartition::new("t", partition), StoredPosition { identity, next_offset })
        };
        let progress = Progress::from([stored(0, 100), stored(2, 10_000)]);
        // Of partition 0 ten records, of partition 1, whose position is not known, the bad one alone, of partition 2 the
        // newest thousand.
        let expected = Waiting { records: 5, newest: 10 + 1 + 1_000, bad: 2 + 1 + 1 };
        assert_eq!(Waiting::of(&ledger, &progress, now), expected);
    }

    #[test]
    fn no_limits_take_everything() {
        let mut limiter = Limiter::new(Limits { max_records: 0, max_percent: 100 }, 0);
        for _ in 0..5000 {
            assert_eq!(limiter.bad(), Ok(()));
        }
    }
}
