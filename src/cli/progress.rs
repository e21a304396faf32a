//! A progress bar for work that has an end, on a terminal: `run --until-caught-up`, an index that is built, `vacuum`.
//!
//! Log lines and the bar share standard error: a line is written while the bar is taken away, so neither breaks the
//! other. Without a terminal there is no bar, and the log says the same.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::admin::status::StatusBoard;
use crate::lake::IndexBuild;
use crate::lake::upkeep::Step;
use crate::service::Service;

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

/// A bar on standard error that takes the place of the one before.
fn start(style: &str) -> ProgressBar {
    let shown = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(style) {
        shown.set_style(style);
    }
    shown
}

/// What the bar of a run shows.
#[derive(Debug, PartialEq, Eq)]
struct View {
    style: &'static str,
    done: u64,
    of: u64,
    what: String,
}

const RECORDS: &str = "{spinner} {bar:30} {human_pos} of {human_len} records, {per_sec}, {eta} left";
const KEYS: &str = "{spinner} {bar:30} {human_pos} of {human_len} keys for the index of {msg}, {eta} left";
/// Rows of a table whose index is built before anybody could read a bar.
const SOON: u64 = 100_000;

/// An index that is being built holds its lane back, so it comes before the records.
fn view(builds: &[IndexBuild], records: Option<(u64, u64)>) -> Option<View> {
    let builds: Vec<&IndexBuild> = builds.iter().filter(|build| build.of >= SOON).collect();
    if builds.is_empty() {
        let (committed, behind) = records?;
        return Some(View { style: RECORDS, done: committed, of: committed + behind, what: String::new() });
    }
    let tables: Vec<&str> = builds.iter().map(|build| build.table.as_str()).collect();
    Some(View {
        style: KEYS,
        done: builds.iter().map(|build| build.rows).sum(),
        of: builds.iter().map(|build| build.of).sum(),
        what: tables.join(", "),
    })
}

/// Follows the lanes until it is dropped: indexes that are being built, and in a run that ends by itself the records
/// committed, of those that Kafka has.
pub(super) struct Lanes(Option<tokio::task::JoinHandle<()>>);

impl Lanes {
    /// Shows a bar, where standard error is a terminal.
    pub(super) fn follow(service: &Service, until_caught_up: bool) -> Self {
        const TICK: Duration = Duration::from_millis(200);
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (board, builds) = (service.board().clone(), service.index_builds().clone());
        Self(Some(tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            let mut style = None;
            loop {
                tick.tick().await;
                show(view(&builds.under_way(), until_caught_up.then(|| counts(&board))), &mut style);
            }
        })))
    }
}

/// Shows a view in the bar of its style, or no bar; `shown` is the style of the bar that is there.
fn show(view: Option<View>, shown: &mut Option<&'static str>) {
    let mut bar = bar();
    let style = view.as_ref().map(|view| view.style);
    if *shown != style {
        if let Some(former) = bar.take() {
            former.finish_and_clear();
        }
        *bar = style.map(start);
        *shown = style;
    }
    if let (Some(bar), Some(view)) = (bar.as_ref(), view) {
        bar.set_length(view.of);
        bar.set_position(view.done);
        bar.set_message(view.what);
    }
}

impl Drop for Lanes {
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
        let shown = start("{spinner} {bar:30} {pos} of {len} tables, {msg}");
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn build(table: &str, rows: u64, of: u64) -> IndexBuild {
        IndexBuild { table: table.to_owned(), rows, of }
    }

    #[test]
    fn indexes_that_are_built_are_shown_together_and_before_the_records() {
        let builds = [build("orders", 200_000, 1_000_000), build("items", 5, 100_000), build("small", 1, 9)];
        let shown = View { style: KEYS, done: 200_005, of: 1_100_000, what: "orders, items".to_owned() };
        assert_eq!(view(&builds, Some((7, 3))), Some(shown));
        let records = View { style: RECORDS, done: 7, of: 10, what: String::new() };
        assert_eq!(view(&builds[2..], Some((7, 3))), Some(records));
        assert_eq!(view(&[], None), None, "a run without end shows no records");
    }
}
