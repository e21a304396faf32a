//! A progress bar for work that has an end, on a terminal: `run --until-caught-up`, `vacuum`.
//!
//! Log lines and the bar share standard error: a line is written while the bar is taken away, so neither breaks the
//! other. Without a terminal there is no bar, and the log says the same.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::admin::status::StatusBoard;
use crate::lake::upkeep::Step;

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn bar() -> MutexGuard<'static, Option<ProgressBar>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard error, with the bar out of the way.
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bar().as_ref() {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Follows the lanes until it is dropped: records committed, of those that Kafka has.
pub(super) struct CatchUp(Option<tokio::task::JoinHandle<()>>);

impl CatchUp {
    /// Shows a bar, where standard error is a terminal.
    pub(super) fn follow(board: &StatusBoard) -> Self {
        const TICK: Duration = Duration::from_millis(200);
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let shown = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = "{spinner} {bar:30} {human_pos} of {human_len} records, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            shown.set_style(style);
        }
        *bar() = Some(shown.clone());
        let board = board.clone();
        Self(Some(tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                let (committed, behind) = counts(&board);
                shown.set_length(committed + behind);
                shown.set_position(committed);
            }
        })))
    }
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
        if let Some(bar) = bar().take() {
            bar.finish_and_clear();
        }
    }
}

/// Follows work that goes from table to table, until it is dropped.
pub(super) struct Tables(Option<ProgressBar>);

impl Tables {
    /// Shows a bar, where standard error is a terminal.
    pub(super) fn start() -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let shown = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:30} {pos} of {len} tables, {msg}") {
            shown.set_style(style);
        }
        *bar() = Some(shown.clone());
        Self(Some(shown))
    }

    /// Shows how far it is.
    pub(super) fn show(&self, step: &Step) {
        if let Some(bar) = &self.0 {
            bar.set_length(step.tables.1 as u64);
            bar.set_position(step.tables.0 as u64);
            bar.set_message(format!("{}: {} files", step.table, step.files));
        }
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        if let Some(bar) = bar().take() {
            bar.finish_and_clear();
        }
    }
}

/// Records committed by all lanes since the start, and records that they are behind.
fn counts(board: &StatusBoard) -> (u64, u64) {
    let lanes = board.snapshot().lanes;
    let committed = lanes.iter().map(|lane| lane.records).sum();
    let lags = lanes.iter().flat_map(|lane| lane.partitions.values()).filter_map(|partition| partition.lag);
    (committed, lags.map(|lag| u64::try_from(lag).unwrap_or(0)).sum())
}
