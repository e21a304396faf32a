//! `alluvium quarantine list`: how many records of which kind, or each of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt64Array};
use arrow::error::ArrowError;
use chrono::{DateTime, SecondsFormat};

use super::store::{Found, Store};
use super::{Failed, is_open, select};
use crate::cli::Exit;
use crate::cli::args::{QuarantineListArgs, QuarantineState};
use crate::cli::output::{self, text};
use crate::config::Settings;

pub(super) async fn run(settings: &Settings, args: &QuarantineListArgs) -> Result<Exit, Failed> {
    let mut stores = Store::open_all(settings, args.selection.lane.as_deref()).await?;
    let mut found = select(&mut stores, &args.selection).await?;
    found.retain(|found| match args.state {
        QuarantineState::Open => is_open(found),
        QuarantineState::All => true,
        QuarantineState::Closed => !is_open(found),
    });
    let rows = if args.records { records(&found) } else { groups(&found) };
    rows.and_then(|rows| output::print(&[rows], args.output))
        .map_err(|error| Failed::failure(format!("the list cannot be printed: {error}")))?;
    Ok(Exit::Success)
}

/// One row a lane, table, code and state.
fn groups(found: &[Found]) -> Result<RecordBatch, ArrowError> {
    type Group<'a> = (&'a str, String, &'a str, &'a str);
    let mut groups: BTreeMap<Group<'_>, Vec<&Found>> = BTreeMap::new();
    for each in found {
        let group = (each.lane.as_str(), table(each), each.record.code.as_str(), each.record.state.word());
        groups.entry(group).or_default().push(each);
    }
    let names = |part: fn(&Group<'_>) -> String| text(groups.keys().map(|group| Some(part(group))));
    let example = |each: &Vec<&Found>| each.first().map(|first| first.id.clone());
    let newest = |each: &Vec<&Found>| each.iter().map(|found| found.record.at_micros).max().and_then(time);
    let reason = |each: &Vec<&Found>| each.first().map(|first| first.record.error.clone());
    output::batch(vec![
        ("lane", names(|group| group.0.to_owned())),
        ("table", names(|group| group.1.clone())),
        ("code", names(|group| group.2.to_owned())),
        ("state", names(|group| group.3.to_owned())),
        ("records", Arc::new(groups.values().map(|each| each.len() as u64).collect::<UInt64Array>())),
        ("newest", text(groups.values().map(newest))),
        ("example", text(groups.values().map(example))),
        ("its_error", text(groups.values().map(reason))),
    ])
}

/// One row a record.
fn records(found: &[Found]) -> Result<RecordBatch, ArrowError> {
    output::batch(vec![
        ("id", text(found.iter().map(|each| Some(each.id.clone())))),
        ("table", text(found.iter().map(|each| Some(table(each))))),
        ("code", text(found.iter().map(|each| Some(each.record.code.clone())))),
        ("error", text(found.iter().map(|each| Some(each.record.error.clone())))),
        ("state", text(found.iter().map(|each| Some(each.record.state.word().to_owned())))),
        ("reason", text(found.iter().map(|each| each.record.reason.clone()))),
        ("replay_refused", text(found.iter().map(|each| each.record.refusal().map(str::to_owned)))),
        ("replay_pending", Arc::new(found.iter().map(|each| Some(each.pending)).collect::<BooleanArray>())),
        ("at", text(found.iter().map(|each| time(each.record.at_micros)))),
    ])
}

fn table(found: &Found) -> String {
    found.record.table.as_ref().map(ToString::to_string).unwrap_or_default()
}

pub(super) fn time(micros: i64) -> Option<String> {
    Some(DateTime::from_timestamp_micros(micros)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}
