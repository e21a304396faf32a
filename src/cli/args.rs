//! The command line as `clap` reads it: every command, flag and example.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::Sources;

/// Database change streams as Delta Lake tables and Postgres mirrors, exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "alluvium",
    version,
    long_about = "Alluvium turns the change stream of a database (Debezium events on Kafka) into tables that people \
                  can query: Delta Lake tables that equal the source, a raw history of every change, and Postgres \
                  mirrors.",
    after_help = "EXAMPLES:\n  alluvium demo                      see it work, with nothing else installed\n  \
                  alluvium check --connect           are the settings right, and is everything reachable?\n  \
                  alluvium run                       follow the source until told to stop\n  \
                  alluvium query 'SELECT count(*) FROM orders'\n\n\
                  EXIT CODES:\n  0 done   1 failed while running   2 wrong usage or settings   3 something could not \
                  be reached\n  4 a lane was still busy at the shutdown deadline"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the source: keep lake and mirrors equal to it
    Run(RunArgs),
    /// Show the whole path at work, with an embedded broker and a shop that changes
    Demo(DemoArgs),
    /// Check the settings, and with --connect everything they name
    Check(CheckArgs),
    /// Ask the lake in SQL, by table name
    Query(QueryArgs),
    /// List the lake's tables: rows, files, version, position, freshness
    Tables(TablesArgs),
    /// Show the commits of a table
    History(HistoryArgs),
    /// Put small files of the lake's tables together
    Optimize(OptimizeArgs),
    /// Remove files that no version needs which somebody may still read
    Vacuum(VacuumArgs),
    /// Ask the running daemon how it is
    Status(StatusArgs),
    /// Decide about schema changes that stopped a table
    Schema(SchemaArgs),
    /// Look at records that are kept aside, replay or discard them
    Quarantine(QuarantineArgs),
    /// Write shell completions to standard output
    Completions(CompletionsArgs),
}

/// Where the settings come from.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// Settings file, TOML or YAML [default: alluvium.toml, alluvium.yaml or alluvium.yml, where one is there]
    #[arg(long, short, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Override a setting; may be given more than once
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub overrides: Vec<String>,
}

impl ConfigArgs {
    /// These arguments with the environment of the process.
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.overrides.clone())
    }
}

/// How the daemon logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines to read
    Human,
    /// One JSON object a line
    Json,
}

/// How a command shows its findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Lines to read
    Human,
    /// One JSON document
    Json,
}

/// How a command shows rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowsFormat {
    /// A drawn table
    Table,
    /// A JSON array of objects
    Json,
    /// Comma-separated values with a header
    Csv,
}

/// `alluvium run`
#[derive(Debug, Args)]
#[command(
    long_about = "Follow the source: read its change events from Kafka, and keep the lake and every mirror equal to \
                  it, until SIGTERM or SIGINT. Running batches then get `shutdown.deadline` to finish. Killing it is \
                  safe at any instant.",
    after_help = "EXAMPLES:\n  alluvium run\n  alluvium run --config shop.toml --log-format json\n  \
                  alluvium run --until-caught-up     everything that is on Kafka now, then exit"
)]
pub struct RunArgs {
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Exit when everything that was on Kafka at the start is in every sink
    #[arg(long)]
    pub until_caught_up: bool,

    /// Format of the log [default: human on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// `alluvium demo`
#[derive(Debug, Args)]
#[command(
    long_about = "Show the whole path at work with nothing installed: an embedded broker, a shop that inserts, updates \
                  and deletes, the lake in a folder, then a query, a query of the past, and a check that each table \
                  equals the shop.",
    after_help = "EXAMPLES:\n  alluvium demo\n  alluvium demo --seconds 60 --rate 20000 --keep ./demo\n  \
                  alluvium demo --postgres postgres://user:password@localhost:5432/mirror"
)]
pub struct DemoArgs {
    /// How long the shop changes
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,

    /// Changes a second; 0 is as many as possible
    #[arg(long, value_name = "CHANGES", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub rate: u64,

    /// Keep the lake in this folder [default: a temporary one that is removed]
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,

    /// Mirror into this database too
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub postgres: Option<String>,
}

/// `alluvium check`
#[derive(Debug, Args)]
#[command(
    long_about = "Check the settings and list every problem with its key and place. With --connect, also reach Kafka, \
                  the lake's storage, the mirrors and the source database, and report what will hurt later, each with \
                  the setting that cures it.",
    after_help = "EXAMPLES:\n  alluvium check\n  alluvium check --connect --output json\n  \
                  alluvium check --print             the settings in effect, secrets redacted\n\n\
                  EXIT CODES:\n  0 all well, warnings included   1 a check failed   2 the settings are wrong   \
                  3 something could not be reached"
)]
pub struct CheckArgs {
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Reach everything that the settings name
    #[arg(long)]
    pub connect: bool,

    /// Print the settings in effect, secrets redacted
    #[arg(long, conflicts_with = "connect")]
    pub print: bool,

    /// Print the reference of all settings, in Markdown
    #[arg(long, hide = true, conflicts_with_all = ["connect", "print"])]
    pub print_reference: bool,

    /// Print what becomes of each Postgres type, in Markdown
    #[arg(long, hide = true, conflicts_with_all = ["connect", "print", "print_reference"])]
    pub print_types: bool,

    /// Format of the findings
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub output: ReportFormat,
}

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
    long_about = "Show the commits of a table, newest first: version, time, operation, rows.",
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
    long_about = "Remove files of the lake's tables that no version needs which somebody may still read: data files and \
                  deletion vectors that left the table before the retention, change data of older versions, what is left \
                  of commits that never happened, and expired log entries. The daemon does so by itself every \
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

/// `alluvium status`
#[derive(Debug, Args)]
#[command(
    long_about = "Ask the running daemon for its lanes, tables, positions, lag and last errors.",
    after_help = "EXAMPLES:\n  alluvium status\n  alluvium status --url http://10.0.0.7:8090 --output json"
)]
pub struct StatusArgs {
    /// The daemon's address [default: that of admin.listen]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// Format of the answer
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub output: ReportFormat,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `alluvium schema`
#[derive(Debug, Args)]
#[command(
    long_about = "Decide about schema changes that a table could not follow by itself. It waits in each sink, with the \
                  schema that its events have, until it is told what to do; a running daemon then goes on without a \
                  restart.",
    after_help = "EXAMPLES:\n  alluvium schema plan                      every table that waits\n  \
                  alluvium schema plan public.orders --how text\n  alluvium schema apply public.orders --yes"
)]
pub struct SchemaArgs {
    /// What to do
    #[command(subcommand)]
    pub command: SchemaCommand,
}

/// What to do about schema changes.
#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Show what would be done, step by step; changes nothing
    #[command(
        after_help = "EXAMPLES:\n  alluvium schema plan\n  alluvium schema plan public.orders --how keep"
    )]
    Plan(SchemaPlanArgs),
    /// Do it
    #[command(
        after_help = "EXAMPLES:\n  alluvium schema apply public.orders\n  alluvium schema apply public.orders --sink lake --how text --yes"
    )]
    Apply(SchemaApplyArgs),
}

/// What becomes of a column whose new type does not hold every value of the former one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// Convert, checking each value; where there is no conversion, as `keep`
    Check,
    /// Make the column text
    Text,
    /// Keep the values in a column `<name>__old` and begin a new one
    Keep,
}

/// Which tables, and how.
#[derive(Debug, Args)]
pub struct SchemaPlanArgs {
    /// The table, as `schema.table` of the source; all that wait where none is given
    #[arg(value_name = "TABLE")]
    pub table: Option<String>,

    /// `lake`, or the name of a mirror; all sinks where none is given
    #[arg(long, value_name = "SINK")]
    pub sink: Option<String>,

    /// What becomes of a column whose new type does not hold every value of the former one
    #[arg(long, value_name = "HOW", default_value = "check")]
    pub how: How,

    /// Format of the plan
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub output: ReportFormat,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Which table, and how.
#[derive(Debug, Args)]
pub struct SchemaApplyArgs {
    /// The table, as `schema.table` of the source
    #[arg(value_name = "TABLE")]
    pub table: String,

    /// `lake`, or the name of a mirror; all sinks where none is given
    #[arg(long, value_name = "SINK")]
    pub sink: Option<String>,

    /// What becomes of a column whose new type does not hold every value of the former one
    #[arg(long, value_name = "HOW", default_value = "check")]
    pub how: How,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `alluvium quarantine`
#[derive(Debug, Args)]
#[command(
    long_about = "Look at records that could not be decoded or applied, and decide what becomes of them. A replay goes the \
                  ordinary way, by the lane that reads the record's partition: the running daemon, or the next `alluvium \
                  run`. Where a later change of the same key has been applied, nothing is done without --force.",
    after_help = "EXAMPLES:\n  alluvium quarantine list\n  alluvium quarantine list --records --table public.orders --output json\n  \
                  alluvium quarantine show lake/cdc.public.orders/0@4711 --payload\n  \
                  alluvium quarantine replay --code invalid_value\n  \
                  alluvium quarantine discard lake/cdc.public.orders/0@4711 --reason 'a test of the producer'"
)]
pub struct QuarantineArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: QuarantineCommand,

    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `alluvium quarantine …`
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// How many records of which kind are there
    List(QuarantineListArgs),
    /// One record; its bytes only with --payload
    Show(QuarantineShowArgs),
    /// Have records applied, after their cause is cured
    Replay(QuarantineReplayArgs),
    /// Do without records
    Discard(QuarantineDiscardArgs),
}

/// Which records are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Records, as `list --records` names them: `lane/topic/partition@offset`
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,

    /// Those of one table, `schema.table`
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,

    /// Those with one error code
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,

    /// Those of one lane: `lake`, or the name of a mirror
    #[arg(long, value_name = "LANE")]
    pub lane: Option<String>,
}

impl Selection {
    /// Whether it names nothing and so means everything.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.table.is_none() && self.code.is_none() && self.lane.is_none()
    }
}

/// Records by what has become of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuarantineState {
    /// Those that wait for a decision
    Open,
    /// Those that were replayed, superseded or discarded
    Closed,
    /// All
    All,
}

/// `alluvium quarantine list`
#[derive(Debug, Args)]
pub struct QuarantineListArgs {
    /// Which records.
    #[command(flatten)]
    pub selection: Selection,

    /// One row a record, instead of one a lane, table, code and state
    #[arg(long)]
    pub records: bool,

    /// By what has become of them
    #[arg(long, value_name = "STATE", default_value = "open")]
    pub state: QuarantineState,

    /// Format of the rows
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: RowsFormat,
}

/// `alluvium quarantine show`
#[derive(Debug, Args)]
pub struct QuarantineShowArgs {
    /// The record: `lane/topic/partition@offset`
    #[arg(value_name = "ID")]
    pub id: String,

    /// Show key, value and headers, which may hold personal data
    #[arg(long)]
    pub payload: bool,

    /// Format of the answer
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub output: ReportFormat,
}

/// `alluvium quarantine replay`
#[derive(Debug, Args)]
pub struct QuarantineReplayArgs {
    /// Which records.
    #[command(flatten)]
    pub selection: Selection,

    /// Also where a later change of the key has been applied, which the record then overwrites
    #[arg(long)]
    pub force: bool,

    /// How long to wait for a running daemon to do it; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub wait: u64,
}

/// `alluvium quarantine discard`
#[derive(Debug, Args)]
pub struct QuarantineDiscardArgs {
    /// Which records.
    #[command(flatten)]
    pub selection: Selection,

    /// Why; kept with the record
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `alluvium completions`
#[derive(Debug, Args)]
#[command(
    long_about = "Write completions for a shell to standard output.",
    after_help = "EXAMPLES:\n  alluvium completions bash > /etc/bash_completion.d/alluvium\n  \
                  alluvium completions zsh > \"${fpath[1]}/_alluvium\""
)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("EXAMPLES:\n"), "{} has no examples", command.get_name());
        }
    }

    #[test]
    fn the_exit_codes_of_the_help_are_the_documented_ones() {
        let help = Cli::command().get_after_help().map(ToString::to_string).unwrap_or_default();
        for exit in super::super::Exit::ALL {
            assert!(help.contains(&format!("{} ", exit.code())), "{exit:?} is missing");
        }
    }
}
