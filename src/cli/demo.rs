//! `alluvium demo`: the whole flow on this machine, with nothing to install, and the proof that the copy is right.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::error::ArrowError;

use super::{DemoArgs, Exit, RowsFormat, complain, output};
use crate::demo::events::topic;
use crate::demo::run::{Answer, DemoError, DemoOptions, DemoReport, run as demonstrate};
use crate::demo::tables::TABLES;

/// Runs the demonstration and prints what it showed.
pub(super) async fn run(args: DemoArgs) -> Exit {
    let temporary = std::env::temp_dir().join(format!("alluvium-demo-{}", std::process::id()));
    let keep = args.keep.is_some();
    let folder = args.keep.unwrap_or(temporary);
    let options = DemoOptions {
        length: Duration::from_secs(args.seconds),
        rate: u32::try_from(args.rate).unwrap_or(u32::MAX),
        folder: folder.clone(),
        postgres: args.postgres,
        seed: SEED,
    };
    let shown = demonstrate(options, interrupted()).await;
    let exit = match &shown {
        Ok(report) => show(report, keep.then_some(folder.as_path())),
        Err(error) => {
            complain(&error.to_string());
            exit_of(error)
        }
    };
    if !keep && let Err(error) = std::fs::remove_dir_all(&folder) {
        complain(&format!("the temporary folder {} cannot be removed: {error}", folder.display()));
    }
    exit
}

/// The shop that is invented: everyone sees the same one.
const SEED: u64 = 2_026;

/// Ends at the first SIGINT; without signals it never does.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn exit_of(error: &DemoError) -> Exit {
    match error {
        DemoError::NotEmpty(_) | DemoError::Settings(_) => Exit::Usage,
        DemoError::Postgres(_) => Exit::Unreachable,
        _ => Exit::Failure,
    }
}

fn show(report: &DemoReport, kept: Option<&Path>) -> Exit {
    if let Err(error) = print(report, kept) {
        complain(&format!("the result cannot be printed: {error}"));
        return Exit::Failure;
    }
    if report.is_equal() { Exit::Success } else { Exit::Failure }
}

fn print(report: &DemoReport, kept: Option<&Path>) -> Result<(), ArrowError> {
    let outcome = &report.outcome;
    output::line(&format!(
        "\nThe shop made {} changes in {} transactions in {:.1} s; {:.1} s after it closed, all were stored.",
        outcome.events,
        outcome.transactions,
        outcome.elapsed.as_secs_f64(),
        report.catch_up.as_secs_f64(),
    ))?;
    for answer in &report.answers {
        output::line(&format!("\n{}", question(answer)))?;
        output::print(&answer.batches, RowsFormat::Table)?;
    }
    output::line("\nDoes every table equal the shop's?")?;
    for (place, comparisons) in [("lake", &report.lake), ("postgres", &report.mirror)] {
        for comparison in comparisons {
            let mark = if comparison.is_equal() { '✓' } else { '✗' };
            output::line(&format!("  {mark} {place} {comparison}"))?;
        }
    }
    if let Some(folder) = kept {
        let settings = write_settings(folder)?;
        output::line(&format!(
            "\nThe lake is in {}. Ask it:\n  alluvium query --config {} \"SELECT count(*) FROM orders\"",
            folder.display(),
            settings.display()
        ))?;
    }
    Ok(())
}

/// Writes the settings by which the other commands find the lake that was kept.
fn write_settings(folder: &Path) -> std::io::Result<PathBuf> {
    let folder = folder.canonicalize()?;
    let path = folder.join("alluvium.toml");
    let uri = serde_json::Value::from(folder.to_string_lossy()).to_string();
    let topics = TABLES.map(|table| format!("\"{}\"", topic(table))).join(", ");
    let text = format!(
        "# To look at what `alluvium demo` left here: `alluvium query`, `tables` and `history`.\n\
         # The broker it came from is gone.\n\n[kafka]\ntopics = [{topics}]\n\n[lake]\nuri = {uri}\n"
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

fn question(answer: &Answer) -> String {
    match answer.at {
        Some(at) => format!("-- the same as of {}\n{}", at.format("%H:%M:%S%.3f UTC"), answer.sql),
        None => answer.sql.to_owned(),
    }
}
