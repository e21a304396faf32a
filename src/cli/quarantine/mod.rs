//! `alluvium quarantine`: what is kept aside, and what becomes of it.
//!
//! Commands read and append to the quarantine itself, beside a running daemon. A replay is only asked for here: the lane
//! that reads the record's partition does it, the running one or the next that runs, so that it cannot come between
//! other changes of the same key.

mod decide;
mod list;
mod show;
mod store;

use std::time::Duration;

use self::store::{Found, Store};
use super::args::{QuarantineCommand, Selection};
use super::{Exit, complain};
use crate::change::quarantine::RecordState;
use crate::config::Settings;

/// Runs one of the commands.
pub(super) async fn run(settings: &Settings, command: &QuarantineCommand) -> Exit {
    let done = match command {
        QuarantineCommand::List(args) => list::run(settings, args).await,
        QuarantineCommand::Show(args) => show::run(settings, args).await,
        QuarantineCommand::Replay(args) => decide::replay(settings, args).await,
        QuarantineCommand::Discard(args) => decide::discard(settings, args).await,
    };
    done.unwrap_or_else(|failed| {
        complain(&failed.message);
        failed.exit
    })
}

/// Why a command did not succeed.
pub(super) struct Failed {
    exit: Exit,
    message: String,
}

impl Failed {
    fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    fn failure(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failure, message: message.into() }
    }
}

/// The records that ids and filters select, of all stores.
async fn select(stores: &mut [Store], selection: &Selection) -> Result<Vec<Found>, Failed> {
    let mut found = Vec::new();
    for store in stores.iter_mut() {
        let ledger = store.look().await?;
        let records = ledger.records().map(|(place, record)| Found {
            id: place.id(store.lane()),
            lane: store.lane().to_owned(),
            place: place.clone(),
            pending: ledger.is_pending(place),
            record: record.clone(),
        });
        found.extend(records.filter(|found| matches(selection, found)));
    }
    let missing = selection.ids.iter().find(|id| !found.iter().any(|found| found.id == **id));
    match missing {
        Some(id) => Err(Failed::failure(format!(
            "no record {id} is in quarantine; `alluvium quarantine list --records --state all` names them all"
        ))),
        None => Ok(found),
    }
}

fn matches(selection: &Selection, found: &Found) -> bool {
    let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
    let table = found.record.table.as_ref().map(ToString::to_string).unwrap_or_default();
    (selection.ids.is_empty() || selection.ids.contains(&found.id))
        && is(&selection.table, &table)
        && is(&selection.code, &found.record.code)
        && is(&selection.lane, &found.lane)
}

/// Whether a record still waits for a decision.
fn is_open(found: &Found) -> bool {
    matches!(found.record.state, RecordState::Open | RecordState::Moved)
}

/// Between two looks at whether a replay has been done.
const LOOK_EVERY: Duration = Duration::from_millis(300);
