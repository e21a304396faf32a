//! How many records may go into quarantine before somebody has to look.
//!
//! One bad record is the source's exception; thousands in a row are a wrong setting, and a lane that quarantines them
//! drains its topic into a place that nobody asked for.

use std::fmt;

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
                write!(f, "{limit} records went into quarantine since the start (quarantine.max_records)")
            }
            Self::Percent(limit) => {
                write!(f, "{limit} % of the newest {WINDOW} records are bad (quarantine.max_percent)")
            }
        }
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
    fn no_limits_take_everything() {
        let mut limiter = Limiter::new(Limits { max_records: 0, max_percent: 100 }, 0);
        for _ in 0..5000 {
            assert_eq!(limiter.bad(), Ok(()));
        }
    }
}
