//! Waiting: always for a condition, never for a time.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// The deadline of conditions that the program itself brings about. Far beyond what they take, because a test
/// machine may stall, and short enough that a hanging test ends with its message.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks `condition` until it holds, and returns what it found. Panics with its last refusal at the deadline.
pub async fn eventually<T, E: Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        match condition().await {
            Ok(found) => return found,
            Err(refusal) if start.elapsed() > deadline => {
                panic!("not within {} s: {what}\n{refusal}", deadline.as_secs());
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        // Conditions that read whole tables must not take the machine from the program they wait for.
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
    }
}
