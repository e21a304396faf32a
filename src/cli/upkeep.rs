//! `alluvium vacuum`: upkeep of the lake's tables by hand.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt64Array};
use arrow::error::ArrowError;

use super::lake::{failed, show, text};
use super::progress::Tables;
use super::{Exit, VacuumArgs, output};
use crate::config::Settings;
use crate::lake::LakeError;
use crate::lake::upkeep::{Upkeep, VacuumPlan, Vacuumed};
use crate::service::lake_options;

fn open(settings: &Settings) -> Result<Upkeep, LakeError> {
    if settings.lake.is_on() {
        Upkeep::open(lake_options(settings))
    } else {
        Err(LakeError::Settings("lake.uri is empty: these settings have no lake to look after".to_owned()))
    }
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
