//! `alluvium status`: what the running daemon says of its lanes, tables and partitions.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, UInt64Array};
use arrow::error::ArrowError;

use super::output::{self, text};
use super::{Exit, ReportFormat, RowsFormat, complain};
use crate::admin::status::{LaneStatus, REPAIR_UNRESOLVED, Status};
use crate::change::with_causes;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the daemon at `url` (for example `http://127.0.0.1:8090`) and prints its answer.
pub async fn run(url: &str, format: ReportFormat) -> Exit {
    let status = match ask(url).await {
        Ok(status) => status,
        Err(error) => {
            complain(&format!(
                "no answer from {url}/status: {error}\nhint: is `alluvium run` up, and is admin.listen the address it serves? (--url)"
            ));
            return Exit::Unreachable;
        }
    };
    if let Err(error) = show(&status, format) {
        complain(&format!("the status cannot be printed: {error}"));
        return Exit::Failure;
    }
    if status.ready { Exit::Success } else { Exit::Failure }
}

async fn ask(url: &str) -> Result<Status, String> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|error| error.to_string())?;
    let response = client.get(format!("{}/status", url.trim_end_matches('/'))).send().await;
    let body = response.and_then(reqwest::Response::error_for_status).map_err(|error| with_causes(&error))?;
    let body = body.bytes().await.map_err(|error| with_causes(&error))?;
    serde_json::from_slice(&body).map_err(|error| format!("the answer is not a status: {error}"))
}

fn show(status: &Status, format: ReportFormat) -> Result<(), ArrowError> {
    if format == ReportFormat::Json {
        return output::line(
            &serde_json::to_string_pretty(status)
                .map_err(|error| ArrowError::JsonError(error.to_string()))?,
        );
    }
    output::print(&[lanes(&status.lanes)?], RowsFormat::Table)?;
    output::print(&[tables(&status.lanes)?], RowsFormat::Table)?;
    output::print(&[partitions(&status.lanes)?], RowsFormat::Table)?;
    let unresolved = unresolved(&status.lanes)?;
    if unresolved.num_rows() > 0 {
        output::line(&format!("Values that did not change and were not found: {REPAIR_UNRESOLVED}."))?;
        output::print(&[unresolved], RowsFormat::Table)?;
    }
    Ok(())
}

fn unresolved(lanes: &[LaneStatus]) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<_> = lanes
        .iter()
        .flat_map(|lane| lane.tables.iter().map(move |(name, table)| (lane, name, table)))
        .flat_map(|(lane, name, table)| table.unresolved.iter().map(move |place| (lane, name, place)))
        .collect();
    output::batch(vec![
        ("lane", text(rows.iter().map(|(lane, ..)| Some(lane.lane.clone())))),
        ("table", text(rows.iter().map(|(_, name, _)| Some((*name).clone())))),
        ("record", text(rows.iter().map(|(.., place)| Some(place.record.clone())))),
        ("columns", text(rows.iter().map(|(.., place)| Some(place.columns.join(", "))))),
        ("at", text(rows.iter().map(|(.., place)| Some(place.at.clone())))),
    ])
}

fn lanes(lanes: &[LaneStatus]) -> Result<RecordBatch, ArrowError> {
    let errors = lanes
        .iter()
        .map(|lane| lane.last_error.as_ref().map(|error| format!("{} {}", error.at, error.message)));
    output::batch(vec![
        ("lane", text(lanes.iter().map(|lane| Some(lane.lane.clone())))),
        ("state", text(lanes.iter().map(|lane| Some(lane.state.name().to_owned())))),
        ("records", Arc::new(lanes.iter().map(|lane| lane.records).collect::<UInt64Array>())),
        (
            "quarantined",
            Arc::new(lanes.iter().map(|lane| lane.quarantine.values().sum::<u64>()).collect::<UInt64Array>()),
        ),
        ("last_commit", text(lanes.iter().map(|lane| lane.last_commit.clone()))),
        ("last_error", text(errors)),
    ])
}

fn tables(lanes: &[LaneStatus]) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<_> =
        lanes.iter().flat_map(|lane| lane.tables.iter().map(move |table| (lane, table))).collect();
    output::batch(vec![
        ("lane", text(rows.iter().map(|(lane, _)| Some(lane.lane.clone())))),
        ("table", text(rows.iter().map(|(_, (name, _))| Some((*name).clone())))),
        ("version", Arc::new(rows.iter().map(|(_, (_, table))| table.version).collect::<Int64Array>())),
        ("upserted", Arc::new(rows.iter().map(|(_, (_, table))| table.upserted).collect::<UInt64Array>())),
        ("deleted", Arc::new(rows.iter().map(|(_, (_, table))| table.deleted).collect::<UInt64Array>())),
        ("appended", Arc::new(rows.iter().map(|(_, (_, table))| table.appended).collect::<UInt64Array>())),
        (
            "freshness_ms",
            Arc::new(rows.iter().map(|(_, (_, table))| table.freshness_ms).collect::<UInt64Array>()),
        ),
        ("stopped", text(rows.iter().map(|(_, (_, table))| table.stopped.clone()))),
    ])
}

fn partitions(lanes: &[LaneStatus]) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<_> =
        lanes.iter().flat_map(|lane| lane.partitions.iter().map(move |each| (lane, each))).collect();
    output::batch(vec![
        ("lane", text(rows.iter().map(|(lane, _)| Some(lane.lane.clone())))),
        ("partition", text(rows.iter().map(|(_, (name, _))| Some((*name).clone())))),
        ("position", Arc::new(rows.iter().map(|(_, (_, each))| Some(each.position)).collect::<Int64Array>())),
        ("lag", Arc::new(rows.iter().map(|(_, (_, each))| each.lag).collect::<Int64Array>())),
    ])
}
