//! The command line: one file per command, no logic beyond arguments and printing.

mod args;
pub mod check;
pub mod completions;
mod demo;
mod exit;
mod lake;
mod logging;
mod output;
mod progress;
mod quarantine;
mod reach;
mod run;
mod schema;
mod status;
mod upkeep;

use std::io::Write;

pub use args::{
    CheckArgs, Cli, Command, CompletionsArgs, ConfigArgs, DemoArgs, HistoryArgs, How, LogFormat,
    OptimizeArgs, QuarantineArgs, QuarantineCommand, QueryArgs, ReportFormat, RowsFormat, RunArgs,
    SchemaApplyArgs, SchemaArgs, SchemaCommand, SchemaPlanArgs, StatusArgs, TablesArgs, VacuumArgs,
};
pub use exit::Exit;

use crate::config::{self, Purpose, Settings};

/// Runs a command on a runtime of its own, and says how it ended.
///
/// Not `async`: the compiler would then generate all of the program's asynchronous code once more for the binary.
pub fn main(cli: Cli) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime cannot start: {error}"));
            return Exit::Failure;
        }
    };
    let exit = runtime.block_on(run(cli));
    // Work that was abandoned at the shutdown deadline must not hold the process.
    runtime.shutdown_background();
    exit
}

async fn run(cli: Cli) -> Exit {
    match cli.command {
        Command::Run(args) => {
            logging::start(args.log_format, "info");
            match load(&args.config, Purpose::Run) {
                Ok(settings) => run::run(&settings, args.until_caught_up).await,
                Err(exit) => exit,
            }
        }
        Command::Query(args) => {
            with_settings(&args.config, async |settings| lake::query(settings, &args).await).await
        }
        Command::Tables(args) => {
            with_settings(&args.config, async |settings| lake::tables(settings, args.output).await).await
        }
        Command::History(args) => {
            with_settings(&args.config, async |settings| {
                lake::history(settings, &args.table, args.output).await
            })
            .await
        }
        Command::Quarantine(args) => {
            with_settings(&args.config, async |settings| quarantine::run(settings, &args.command).await).await
        }
        Command::Optimize(args) => {
            with_settings(&args.config, async |settings| upkeep::optimize(settings, &args).await).await
        }
        Command::Vacuum(args) => {
            with_settings(&args.config, async |settings| upkeep::vacuum(settings, &args).await).await
        }
        Command::Status(args) => ask_status(&args).await,
        Command::Schema(SchemaArgs { command: SchemaCommand::Plan(args) }) => {
            with_settings(&args.config, async |settings| schema::plan(settings, &args).await).await
        }
        Command::Schema(SchemaArgs { command: SchemaCommand::Apply(args) }) => {
            with_settings(&args.config, async |settings| schema::apply(settings, &args).await).await
        }
        Command::Check(args) => {
            logging::start(None, "warn");
            // Not locked for the whole of the check: it may wait for the network.
            written(check::run(&args, &reach::Outside, &mut std::io::stdout()).await)
        }
        Command::Completions(args) => {
            written(completions::write(args.shell, &mut std::io::stdout()).map(|()| Exit::Success))
        }
        Command::Demo(args) => {
            logging::start(None, "warn");
            demo::run(args).await
        }
    }
}

/// Runs a command that looks at the result.
async fn with_settings(args: &ConfigArgs, command: impl AsyncFnOnce(&Settings) -> Exit) -> Exit {
    logging::start(None, "warn");
    match load(args, Purpose::Look) {
        Ok(settings) => command(&settings).await,
        Err(exit) => exit,
    }
}

async fn ask_status(args: &StatusArgs) -> Exit {
    logging::start(None, "warn");
    if let Some(url) = &args.url {
        return status::run(url, args.output).await;
    }
    let settings = match load(&args.config, Purpose::Look) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let Some(address) = settings.admin.listen else {
        complain("admin.listen is empty, so the daemon has no endpoint to ask: set it, or give --url");
        return Exit::Usage;
    };
    status::run(&format!("http://{address}"), args.output).await
}

/// The exit of a command that wrote its result itself.
fn written(result: std::io::Result<Exit>) -> Exit {
    result.unwrap_or_else(|error| {
        complain(&format!("standard output: {error}"));
        Exit::Failure
    })
}

/// The settings, or every problem with them on standard error.
fn load(args: &ConfigArgs, purpose: Purpose) -> Result<Settings, Exit> {
    config::load(&args.sources(), purpose).map_err(|problems| {
        complain(&problems.to_string());
        Exit::Usage
    })
}

/// An error for the person at the terminal.
fn complain(message: &str) {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {message}");
}
