//! What the commands about the lake's tables are told: `query`, `tables`, `history`, `optimize` and `vacuum`.
//!
//! All of them name tables by their folders, because they read the lake as anybody would, without the daemon and without
//! Kafka.

use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, RowsFormat};

/// `alluvium query`
#[derive(Debug, Args)]
#[command(
    long_about = "Ask the lake in SQL. Tables go by their folder's name; --at asks all of them as they were at a \
                  version, or at a time.",
    after_help = "EXAMPLES:\n  alluvium query 'SELECT status, count(*) FROM orders GROUP BY 1'\n  \
                  alluvium query 'SELECT * FROM orders LIMIT 5' --at 2026-01-31T12:00:00Z\n  \
                  alluvium query 'SELECT * FROM customers' --at 17 --output csv"
)]
pub struct QueryArgs {
    /// The statement
    #[arg(value_name = "SQL")]
    pub sql: String,

    /// Version number, or time (RFC 3339)
    #[arg(long, value_name = "VERSION|TIME")]
    pub at: Option<String>,

    /// Format of the rows [default: table on a terminal, else csv]
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<RowsFormat>,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `alluvium tables`
#[derive(Debug, Args)]
#[command(
    long_about = "List the lake's tables: rows, files, version, position in Kafka, freshness.",
    after_help = "EXAMPLES:\n  alluvium tables\n  alluvium tables --output json"
)]
pub struct TablesArgs {
    /// Format of the rows
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: RowsFormat,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `alluvium history`
#[derive(Debug, Args)]
#[command(
    long_about = "Show the newest 100 commits of a table, newest first: version, time, operation, files added and removed, \
                  position in Kafka.",
    after_help = "EXAMPLES:\n  alluvium history orders\n  alluvium history orders --output json"
)]
pub struct HistoryArgs {
    /// The table, by its folder's name
    #[arg(value_name = "TABLE")]
    pub table: String,

    /// Format of the rows
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: RowsFormat,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `alluvium optimize`
#[derive(Debug, Args)]
#[command(
    long_about = "Put small files of the lake's tables together, and leave deleted rows behind, until nothing is left to \
                  do. The daemon does so by itself between batches, except for copy-on-write tables; both may run at \
                  the same time. Versions stay readable, and what was replaced goes with the vacuum.",
    after_help = "EXAMPLES:\n  alluvium optimize\n  alluvium optimize orders cdc_events --output json"
)]
pub struct OptimizeArgs {
    /// The tables, by their folders' names [default: all]
    #[arg(value_name = "TABLE")]
    pub tables: Vec<String>,

    /// Format of the rows
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: RowsFormat,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `alluvium vacuum`
#[derive(Debug, Args)]
#[command(
    long_about = "Remove files of the lake's tables that no version within the retention needs any more: data files and \
                  deletion vectors that left the table before it, change data of older versions, what is left of commits that \
                  never happened, and expired log entries. The daemon does so by itself every \
                  `lake.vacuum_interval`; both may run at the same time.",
    after_help = "EXAMPLES:\n  alluvium vacuum --dry-run           what would be removed, of all tables\n  \
                  alluvium vacuum orders cdc_events\n  alluvium vacuum --retention 1h --force     nobody reads older versions"
)]
pub struct VacuumArgs {
    /// The tables, by their folders' names [default: all]
    #[arg(value_name = "TABLE")]
    pub tables: Vec<String>,

    /// Remove nothing, show what would be
    #[arg(long)]
    pub dry_run: bool,

    /// Keep what versions of this age need [default: lake.vacuum_retention]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub retention: Option<Duration>,

    /// Also with a retention that is shorter than the configured one
    #[arg(long, requires = "retention")]
    pub force: bool,

    /// Format of the rows
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: RowsFormat,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}
