//! The command line: one file per command, no logic beyond arguments and printing.

mod args;
pub mod check;
pub mod completions;
mod exit;

pub use args::{
    CheckArgs, Cli, Command, CompletionsArgs, ConfigArgs, DemoArgs, HistoryArgs, LogFormat, QueryArgs,
    ReportFormat, RowsFormat, RunArgs, StatusArgs, TablesArgs,
};
pub use exit::Exit;
