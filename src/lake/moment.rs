//! How long ago something was done, also where the process or the machine stood still meanwhile.
//!
//! What a commit is about to name lies in the table's folder and belongs to nobody until then: after an hour a vacuum, of
//! this process or of another, takes it for what a commit left that never happened. So whoever has written files and comes
//! to commit them looks at the clock first. Two clocks, since one of them stops with a suspended machine and the other
//! one can be set: the later of the two is believed, for an age that is too great costs work and one that is too small
//! costs rows.

use std::time::{Duration, Instant, SystemTime};

use super::vacuum::BEING_WRITTEN;

/// Files that are older are not committed any more. Half of the time for which a vacuum leaves them alone: the other half
/// is for the commit, and for clocks that differ.
const TIMELY: Duration = Duration::from_secs(BEING_WRITTEN.as_secs() / 2);

/// When something was done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    instant: Instant,
    time: SystemTime,
}

impl Moment {
    /// This moment.
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), time: SystemTime::now() }
    }

    /// The moment of a file that was written so many milliseconds after 1970.
    pub(super) fn at(millis: i64) -> Self {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis.max(0) as u64);
        Self { time, ..Self::now() }
    }

    /// The time since then.
    pub(super) fn age(&self) -> Duration {
        self.instant.elapsed().max(self.time.elapsed().unwrap_or_default())
    }

    /// Whether files that were written then may not be committed any more.
    pub(super) fn is_long_ago(&self) -> bool {
        self.age() > TIMELY
    }

    /// An hour ago, by the clock on the wall.
    #[cfg(test)]
    pub(super) fn an_hour_ago() -> Self {
        Self { time: SystemTime::now() - Duration::from_hours(1), ..Self::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_stood_still_is_seen_by_the_clock_on_the_wall() {
        assert!(!Moment::now().is_long_ago());
        assert!(Moment::an_hour_ago().is_long_ago());
        assert!(Moment::at(0).is_long_ago() && !Moment::at(crate::lake::now_millis()).is_long_ago());
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_old() {
        let ahead = Moment { time: SystemTime::now() + Duration::from_hours(1), ..Moment::now() };
        assert!(!ahead.is_long_ago(), "{:?}", ahead.age());
    }
}
