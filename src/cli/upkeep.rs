//! `alluvium optimize` and `alluvium vacuum`: upkeep of the lake's tables by hand.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt64Array};
use arrow::error::ArrowError;

use super::lake::{failed, show};
use super::output::text;
use super::progress::Tables;
use super::{Exit, OptimizeArgs, VacuumArgs, output};
use crate::config::Settings;
use crate::lake::LakeError;
use crate::lake::upkeep::{Optimized, Upkeep, VacuumPlan, Vacuumed};
use crate::service::lake_options;

fn open(settings: &Settings) -> Result<Upkeep, LakeError> {
    if settings.lake.is_on() {
        Upkeep::open(lake_options(settings))
    } else {
        Err(LakeError::Settings("lake.uri is empty: these settings have no lake to look after".to_owned()))
    }
}

/// Puts small files together.
pub(super) async fn optimize(settings: &Settings, args: &OptimizeArgs) -> Exit {
    let done = match open(settings) {
        Ok(upkeep) => {
            let bar = Tables::start();
            upkeep.optimize(&args.tables, |step| bar.show(&step)).await
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(done) => show(optimized(&done), args.output),
        Err(error) => failed(&error),
    }
}

fn optimized(done: &[Optimized]) -> Result<RecordBatch, ArrowError> {
    let numbers =
        |of: fn(&Optimized) -> u64| Arc::new(done.iter().map(of).map(Some).collect::<UInt64Array>());
    output::batch(vec![
        ("table", text(done.iter().map(|table| Some(table.table.clone())))),
        ("steps", numbers(|table| table.steps)),
        ("files_before", numbers(|table| table.files.0)),
        ("files", numbers(|table| table.files.1)),
        ("bytes_before", numbers(|table| table.bytes.0)),
        ("bytes", numbers(|table| table.bytes.1)),
        ("skipped", text(done.iter().map(|table| table.skipped.clone()))),
    ])
}

/// Removes what nobody needs, or shows it.
pub(super) async fn vacuum(settings: &Settings, args: &VacuumArgs) -> Exit {
    let plan = VacuumPlan { retention: args.retention, force: args.force, dry_run: args.dry_run };
    let done = match open(settings) {
        Ok(upkeep) => {
            let bar = Tables::start();
            upkeep.vacuum(&args.tables, plan, |step| bar.show(&step)).await
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(done) => show(vacuumed(&done, args.dry_run), args.output),
        Err(error) => failed(&error),
    }
}

fn vacuumed(done: &[Vacuumed], dry_run: bool) -> Result<RecordBatch, ArrowError> {
    let numbers = |of: fn(&Vacuumed) -> u64| Arc::new(done.iter().map(of).map(Some).collect::<UInt64Array>());
    output::batch(vec![
        ("table", text(done.iter().map(|table| Some(table.table.clone())))),
        ("files", numbers(|table| table.data_files + table.vector_files + table.change_files)),
        ("bytes", numbers(|table| table.bytes)),
        ("data_files", numbers(|table| table.data_files)),
        ("vector_files", numbers(|table| table.vector_files)),
        ("change_files", numbers(|table| table.change_files)),
        ("log_files", numbers(|table| table.log_files)),
        ("skipped", text(done.iter().map(|table| table.skipped.clone()))),
        ("dry_run", Arc::new(BooleanArray::from(vec![dry_run; done.len()]))),
    ])
}
