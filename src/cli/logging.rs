//! The log: for people on a terminal, JSON for collectors.
//!
//! One fact a line, with `key=value` fields; never row values, payloads or credentials. `RUST_LOG` overrides the
//! level, by module (`RUST_LOG=alluvium=debug`). The log goes to standard error: standard output is for results.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::LogFormat;
use super::progress::Stderr;

/// Starts logging at `level` (without a format: for people on a terminal, else JSON), unless `RUST_LOG` says otherwise. Later calls change nothing.
pub fn start(format: Option<LogFormat>, level: &str) {
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    // The libraries below speak at length of what our own lines say in one: warnings of theirs suffice.
    // A merge that skips no file warns of a figure that it derives another way.
    let quiet = format!("warn,deltalake_core::operations::merge=error,alluvium={level}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr);
    let started = match format {
        LogFormat::Human => builder.with_ansi(terminal).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Already started: a command that runs another within this process.
    drop(started);
}
