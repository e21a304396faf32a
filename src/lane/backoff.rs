//! Waiting between attempts: doubling, with a ceiling, and reset by success.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const CEILING: Duration = Duration::from_secs(10);

/// The next wait.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The time to wait now; the next is twice as long, up to ten seconds.
    pub(super) fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(CEILING);
        now
    }

    /// Starts over, after something worked.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}
