//! Upkeep that failed: counted, and not tried again at once.
//!
//! Upkeep comes round by itself, every two seconds and with every batch. A fault that stays would be met as often, at the
//! full cost of the work up to it, by a table that is written to all the while; so each failure in a row doubles the time
//! until the next attempt. One table has one for each kind of work: what ails one holds up no other.

use std::time::{Duration, Instant};

/// Time from the first failure to the next attempt.
const FIRST: Duration = Duration::from_secs(5);
/// The longest such time.
const CEILING: Duration = Duration::from_mins(10);

/// Failures of one kind of work on one table.
#[derive(Debug, Default)]
pub(super) struct Setback {
    /// Since the counter was last asked.
    failures: u64,
    wait: Duration,
    next: Option<Instant>,
}

impl Setback {
    /// Whether the work may be tried.
    pub(super) fn is_over(&self) -> bool {
        self.is_over_at(Instant::now())
    }

    fn is_over_at(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// The work was tried and failed.
    pub(super) fn failed(&mut self) {
        self.failed_at(Instant::now());
    }

    fn failed_at(&mut self, now: Instant) {
        self.failures += 1;
        self.wait = (self.wait * 2).clamp(FIRST, CEILING);
        self.next = Some(now + self.wait);
    }

    /// The work was done, or there was none.
    pub(super) fn done(&mut self) {
        (self.wait, self.next) = (Duration::ZERO, None);
    }

    /// Failures since the last call.
    pub(super) fn take_failures(&mut self) -> u64 {
        std::mem::take(&mut self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_failing_is_tried_ever_more_seldom_until_it_works() {
        let (mut setback, start) = (Setback::default(), Instant::now());
        let (mut now, mut attempts) = (start, 0);
        while now < start + Duration::from_hours(1) {
            if setback.is_over_at(now) {
                attempts += 1;
                setback.failed_at(now);
            }
            now += Duration::from_secs(2);
        }
        assert!((8..=14).contains(&attempts), "{attempts} attempts in an hour");
        assert_eq!((setback.take_failures(), setback.take_failures()), (attempts, 0));
        assert!(!setback.is_over_at(now), "it waits");
        setback.done();
        assert!(setback.is_over_at(start), "what works is not held up");
    }
}
