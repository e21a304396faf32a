//! The command line as `clap` reads it: every command, flag and example.
//!
//! Every command has examples, and the exit codes in the help are the ones that the program ends with: the tests hold both,
//! because the help is what people read instead of the manual.

mod lake;
mod quarantine;
mod schema;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use self::lake::{HistoryArgs, OptimizeArgs, QueryArgs, TablesArgs, VacuumArgs};
pub use self::quarantine::{
    QuarantineArgs, QuarantineCommand, QuarantineDiscardArgs, QuarantineListArgs, QuarantineReplayArgs,
    QuarantineShowArgs, QuarantineState, Selection,
};
pub use self::schema::{How, SchemaApplyArgs, SchemaArgs, SchemaCommand, SchemaPlanArgs};
use super::Exit;
use crate::config::Sources;

/// Database change streams as Delta Lake tables and Postgres mirrors, exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "alluvium",
    version,
    long_about = "Alluvium turns the change stream of a database (Debezium events on Kafka) into tables that people \
                  can query: Delta Lake tables that equal the source, a raw table with every change, and Postgres \
                  mirrors.",
    after_help = examples_and_exit_codes()
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

fn examples_and_exit_codes() -> String {
    let examples = "EXAMPLES:\n  alluvium demo                      see it work, with nothing else installed\n  \
                    alluvium check --connect           are the settings right, and is everything reachable?\n  \
                    alluvium run                       follow the source until told to stop\n  \
                    alluvium query 'SELECT count(*) FROM orders'\n\n\
                    EXIT CODES:\n";
    let codes = Exit::ALL.map(|exit| format!("  {} {}", exit.code(), exit.meaning()));
    format!("{examples}{}", codes.join("\n"))
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
    /// Remove files that no version within the retention needs any more
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

    /// Mirror into this database too, without TLS; its schema alluvium_demo is dropped and made anew
    #[arg(long, value_name = "URL")]
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

/// `alluvium status`
#[derive(Debug, Args)]
#[command(
    long_about = "Ask the running daemon for its lanes, tables, positions, lag and last errors.",
    after_help = "EXAMPLES:\n  alluvium status\n  alluvium status --url http://10.0.0.7:8090 --output json\n\n\
                  EXIT CODES:\n  0 ready   1 not ready: it starts, a sink is away, or a table has stopped   2 the settings \
                  are wrong\n  3 the daemon could not be reached"
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
        let document = include_str!("../../../docs/operations.md");
        let help = Cli::command().get_after_help().map(ToString::to_string).unwrap_or_default();
        for exit in Exit::ALL {
            let (code, meaning) = (exit.code(), exit.meaning());
            assert!(help.contains(&format!("\n  {code} {meaning}")), "the help has no {exit:?}: {help}");
            let row = format!("| {code} | {meaning} |");
            assert!(document.contains(&row), "docs/operations.md has no row {row}");
        }
    }
}
