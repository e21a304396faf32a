//! What the demonstration shows while it runs: live figures on a terminal, a line every few seconds elsewhere.
//!
//! It writes to the standard error stream, so that what a user redirects holds results only.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

/// How often a terminal is refreshed.
const REFRESH: Duration = Duration::from_millis(250);

/// How often a line is written elsewhere.
const LINE: Duration = Duration::from_secs(3);

/// The figures of one moment.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Records produced since the start, tombstones included.
    pub produced: u64,
    /// Those of them that every lane has stored.
    pub stored: u64,
    /// Bytes of keys and values produced since the start.
    pub bytes: u64,
    /// Time from the newest commit in the source to its commit in the lake, once there was one.
    pub freshness: Option<Duration>,
    /// Name and rows of each table.
    pub tables: Vec<(&'static str, u64)>,
}

/// A running display; it ends when this is dropped.
#[derive(Debug)]
pub struct Display {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Shows `figures` until it is dropped; `length` is how long the shop will be open. Without a thread to show
    /// them, nothing is shown.
    pub fn start(length: Duration, figures: impl Fn() -> Figures + Send + 'static) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("demo-display".into()).spawn(move || {
            if std::io::stderr().is_terminal() {
                on_terminal(length, &figures, &stopped);
            } else {
                in_lines(&figures, &stopped);
            }
        });
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A display that panicked has nothing left to show.
            let _ = thread.join();
        }
    }
}

fn on_terminal(length: Duration, figures: &impl Fn() -> Figures, stopped: &mpsc::Receiver<()>) {
    let bar = ProgressBar::new(length.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40.cyan/blue} {prefix}\n{msg}") {
        bar.set_style(style);
    }
    let mut rate = Rate::new();
    let started = Instant::now();
    let mut running = true;
    while running {
        running = stopped.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout);
        let now = figures();
        let second = rate.over_a_second(now.stored);
        let open = started.elapsed().min(length);
        bar.set_prefix(format!("open for {} of {} s", open.as_secs(), length.as_secs()));
        bar.set_message(lines_of(&now, second).join("\n"));
        bar.set_position(open.as_millis() as u64);
    }
    bar.finish();
}

fn in_lines(figures: &impl Fn() -> Figures, stopped: &mpsc::Receiver<()>) {
    let mut rate = Rate::new();
    let mut running = true;
    while running {
        running = stopped.recv_timeout(LINE) == Err(RecvTimeoutError::Timeout);
        let now = figures();
        let second = rate.over_a_second(now.stored);
        // Nobody reads a closed stream.
        let _ = writeln!(std::io::stderr(), "{}", lines_of(&now, second).join("; "));
    }
}

/// What was produced, what was stored, and the tables: a line each, short enough for 80 columns.
fn lines_of(figures: &Figures, rate: u64) -> [String; 3] {
    let produced =
        format!("produced {} records, {}", HumanCount(figures.produced), HumanBytes(figures.bytes));
    let mut stored = format!("stored {}, {}/s", HumanCount(figures.stored), HumanCount(rate));
    if let Some(freshness) = figures.freshness {
        let _ = write!(stored, ", {:.1} s behind the shop", freshness.as_secs_f64());
    }
    let tables: Vec<String> =
        figures.tables.iter().map(|(name, rows)| format!("{name} {}", HumanCount(*rows))).collect();
    [produced, stored, format!("rows: {}", tables.join(", "))]
}

/// A count's speed over the last second or so.
struct Rate {
    since: Instant,
    count: u64,
    per_second: u64,
}

impl Rate {
    fn new() -> Self {
        Self { since: Instant::now(), count: 0, per_second: 0 }
    }

    fn over_a_second(&mut self, count: u64) -> u64 {
        let elapsed = self.since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            self.per_second = (count.saturating_sub(self.count) as f64 / elapsed.as_secs_f64()) as u64;
            (self.since, self.count) = (Instant::now(), count);
        }
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_sentences() {
        let figures = Figures {
            produced: 12_345,
            stored: 12_000,
            bytes: 64 * 1024 * 1024,
            freshness: Some(Duration::from_millis(740)),
            tables: vec![("customers", 1_000), ("orders", 4_321)],
        };
        let expected = [
            "produced 12,345 records, 64.00 MiB",
            "stored 12,000, 5,000/s, 0.7 s behind the shop",
            "rows: customers 1,000, orders 4,321",
        ];
        assert_eq!(lines_of(&figures, 5_000), expected);
    }

    #[test]
    fn a_display_ends_when_it_is_dropped() {
        let started = Instant::now();
        drop(Display::start(Duration::from_mins(1), Figures::default));
        assert!(started.elapsed() < Duration::from_secs(2), "it took {:?}", started.elapsed());
    }
}
