//! The log: for people on a terminal, JSON for collectors.
//!
//! One fact a line, with `key=value` fields; never row values, payloads or credentials. `RUST_LOG` overrides the
//! level, by module (`RUST_LOG=alluvium=debug`). The log goes to standard error: standard output is for results.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging at `level`, unless `RUST_LOG` says otherwise. Later calls change nothing.
pub fn start(format: LogFormat, level: &str) {
    // The libraries below speak at length of what our own lines say in one: warnings of theirs suffice.
    let quiet = format!("warn,alluvium={level}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Already started: a command that runs another within this process.
    drop(started);
}
