//! The program: parse the command line, start the runtime, run the command, map its end to an exit code.

use std::process::ExitCode;

use alluvium::cli::{self, Cli, Exit};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return Exit::Failure.into();
        }
    };
    let exit = runtime.block_on(cli::run(cli));
    // Work that was abandoned at the shutdown deadline must not hold the process.
    runtime.shutdown_background();
    exit.into()
}
