//! The command line: one file per command, no logic beyond arguments and printing.

mod exit;

pub use exit::Exit;
