//! What `alluvium schema` is told.
//!
//! Tables go by the source's names and a sink may be named, because each sink waits for itself and may be told something
//! else. What changes a table (`apply`) names one, while `plan` may show all.

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigArgs, ReportFormat};

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
