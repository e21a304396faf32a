//! The program: parse the command line, run the command, map its end to an exit code.

use std::process::ExitCode;

use alluvium::cli::{self, Cli};
use clap::Parser;

fn main() -> ExitCode {
    alluvium::memory::set_up();
    cli::main(Cli::parse()).into()
}
