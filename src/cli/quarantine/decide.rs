//! `alluvium quarantine replay` and `discard`: what becomes of records.

use std::time::{Duration, Instant};

use super::store::{Found, Store};
use super::{Failed, LOOK_EVERY, is_open, select};
use crate::change::quarantine::{QuarantineEvent, QuarantineRow, RecordState};
use crate::cli::args::{QuarantineDiscardArgs, QuarantineReplayArgs, Selection};
use crate::cli::{Exit, output};
use crate::config::Settings;

/// Records of one request at most: a request is done as one batch.
const REQUEST: usize = 5_000;

/// Marks records as discarded.
pub(super) async fn discard(settings: &Settings, args: &QuarantineDiscardArgs) -> Result<Exit, Failed> {
    let (mut stores, found) = chosen(settings, &args.selection, false).await?;
    let mut discarded = 0;
    for store in &mut stores {
        let rows: Vec<QuarantineRow> = of(store, &found)
            .map(|found| QuarantineRow {
                detail: Some(args.reason.clone()),
                ..row(found, QuarantineEvent::Discarded)
            })
            .collect();
        discarded += rows.len();
        if !rows.is_empty() {
            store.append(&rows).await?;
        }
    }
    say(&format!("discarded {discarded} records"))?;
    Ok(Exit::Success)
}

/// Asks for replays, and waits for them.
pub(super) async fn replay(settings: &Settings, args: &QuarantineReplayArgs) -> Result<Exit, Failed> {
    let (mut stores, found) = chosen(settings, &args.selection, args.force).await?;
    let mut asked = 0;
    for store in &mut stores {
        let of_store: Vec<&Found> = of(store, &found).filter(|found| !found.pending).collect();
        for request in of_store.chunks(REQUEST) {
            let rows: Vec<QuarantineRow> = request
                .iter()
                .map(|found| QuarantineRow {
                    force: args.force,
                    ..row(found, QuarantineEvent::ReplayRequested)
                })
                .collect();
            asked += store.request(&rows).await?;
        }
    }
    say(&format!("asked for the replay of {asked} records"))?;
    let patience = Duration::from_secs(args.wait);
    if patience.is_zero() || !daemon_answers(settings).await {
        say("they are replayed by the running daemon, or when it runs next (`alluvium run`)")?;
        return Ok(Exit::Success);
    }
    wait(&mut stores, &found, patience).await
}

/// Opens the stores and selects the records that something can be decided about.
async fn chosen(
    settings: &Settings,
    selection: &Selection,
    closed_too: bool,
) -> Result<(Vec<Store>, Vec<Found>), Failed> {
    if selection.is_empty() {
        return Err(Failed::usage("say which records: ids, or --table, --code or --lane"));
    }
    let mut stores = Store::open_all(settings, selection.lane.as_deref()).await?;
    let mut found = select(&mut stores, selection).await?;
    // Who names a record is told why nothing can be done about it; a filter means those that wait.
    found.retain(|found| is_open(found) || !selection.ids.is_empty() || closed_too);
    found.retain(|found| found.record.state != RecordState::Replayed);
    Ok((stores, found))
}

fn of<'a>(store: &Store, found: &'a [Found]) -> impl Iterator<Item = &'a Found> {
    let lane = store.lane().to_owned();
    found.iter().filter(move |found| found.lane == lane)
}

fn row(found: &Found, event: QuarantineEvent) -> QuarantineRow {
    QuarantineRow::new(event, chrono::Utc::now().timestamp_micros(), found.lane.as_str(), found.place.clone())
}

async fn daemon_answers(settings: &Settings) -> bool {
    let Some(address) = settings.admin.listen else { return false };
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build();
    let Ok(client) = client else { return false };
    client
        .get(format!("http://{address}/livez"))
        .send()
        .await
        .is_ok_and(|answer| answer.status().is_success())
}

/// Waits for the answers, and says those that are refusals.
async fn wait(stores: &mut [Store], found: &[Found], patience: Duration) -> Result<Exit, Failed> {
    let started = Instant::now();
    loop {
        let (mut pending, mut replayed, mut refused) = (0, 0, Vec::new());
        for store in stores.iter_mut() {
            let ledger = store.look().await?;
            for found in of(store, found) {
                let record = ledger.get(&found.place);
                if ledger.is_pending(&found.place) {
                    pending += 1;
                } else if record.is_some_and(|record| record.state == RecordState::Replayed) {
                    replayed += 1;
                } else {
                    let reason = record.and_then(|record| record.refusal()).unwrap_or_default();
                    refused.push(format!("{} was not replayed: {reason}", found.id));
                }
            }
        }
        let late = started.elapsed() >= patience;
        if pending > 0 && !late {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        for line in &refused {
            say(line)?;
        }
        say(&format!("replayed {replayed}, refused {}, still waiting {pending}", refused.len()))?;
        return Ok(if refused.is_empty() { Exit::Success } else { Exit::Failure });
    }
}

fn say(line: &str) -> Result<(), Failed> {
    output::line(line).map_err(|error| Failed::failure(format!("standard output: {error}")))
}
