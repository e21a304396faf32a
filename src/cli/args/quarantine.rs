//! What `alluvium quarantine` is told.
//!
//! Records are selected in one way by all of its commands, so that what `list` shows is what `replay` and `discard` then
//! do something about.

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigArgs, ReportFormat, RowsFormat};

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
