//! `alluvium query`, `tables` and `history`: the lake as it is, or was.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, UInt64Array};
use arrow::error::ArrowError;
use chrono::{DateTime, Utc};
use deltalake::datafusion::execution::context::SQLOptions;

use super::output::{self, text};
use super::{Exit, QueryArgs, RowsFormat, complain};
use crate::config::Settings;
use crate::lake::LakeError;
use crate::lake::read::{At, HistoryEntry, LakeReader, TableInfo};
use crate::service::lake_options;

/// Commits that `history` shows.
const HISTORY_LIMIT: usize = 100;

/// Answers a statement.
pub(super) async fn query(settings: &Settings, args: &QueryArgs) -> Exit {
    let at = match args.at.as_deref().map(parse_at).transpose() {
        Ok(at) => at.unwrap_or(At::Latest),
        Err(message) => {
            complain(&message);
            return Exit::Usage;
        }
    };
    let session = match open(settings) {
        Ok(lake) => lake.session(at).await,
        Err(error) => Err(error),
    };
    let session = match session {
        Ok(session) => session,
        Err(error) => return failed(&error),
    };
    // The lake is written by the pipeline alone; a statement that writes must not look as if it had.
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let answer = match session.sql_with_options(&args.sql, reading).await {
        Ok(frame) => {
            let schema = Arc::new(frame.schema().as_arrow().clone());
            frame.collect().await.map(|batches| {
                if batches.is_empty() { vec![RecordBatch::new_empty(schema)] } else { batches }
            })
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok(batches) => print(&batches, format_of(args.output)),
        Err(error) => {
            complain(&format!("the query failed: {}", error.strip_backtrace()));
            Exit::Failure
        }
    }
}

/// Lists the tables.
pub(super) async fn tables(settings: &Settings, format: RowsFormat) -> Exit {
    let tables = match open(settings) {
        Ok(lake) => lake.tables().await,
        Err(error) => Err(error),
    };
    match tables {
        Ok(tables) => show(table_rows(&tables), format),
        Err(error) => failed(&error),
    }
}

/// Shows the commits of a table.
pub(super) async fn history(settings: &Settings, table: &str, format: RowsFormat) -> Exit {
    let entries = match open(settings) {
        Ok(lake) => lake.history(table, HISTORY_LIMIT).await,
        Err(error) => Err(error),
    };
    match entries {
        Ok(entries) => show(history_rows(&entries), format),
        Err(error) => failed(&error),
    }
}

fn open(settings: &Settings) -> Result<LakeReader, LakeError> {
    if settings.lake.is_on() {
        LakeReader::open(&lake_options(settings))
    } else {
        Err(LakeError::Settings("lake.uri is empty: these settings have no lake to look at".to_owned()))
    }
}

/// A version number, or an RFC 3339 time.
fn parse_at(text: &str) -> Result<At, String> {
    if let Ok(version) = text.parse() {
        return Ok(At::Version(version));
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| At::Time(time.with_timezone(&Utc)))
        .map_err(|_| format!("--at {text}: neither a version number nor a time such as 2026-01-31T12:00:00Z"))
}

fn format_of(asked: Option<RowsFormat>) -> RowsFormat {
    use std::io::IsTerminal;
    let terminal = std::io::stdout().is_terminal();
    asked.unwrap_or(if terminal { RowsFormat::Table } else { RowsFormat::Csv })
}

/// The exit of a command that the lake refused, after saying why.
pub(super) fn failed(error: &LakeError) -> Exit {
    complain(&error.to_string());
    error.into()
}

/// Prints rows.
pub(super) fn show(rows: Result<RecordBatch, ArrowError>, format: RowsFormat) -> Exit {
    match rows {
        Ok(rows) => print(&[rows], format),
        Err(error) => {
            complain(&error.to_string());
            Exit::Failure
        }
    }
}

fn print(batches: &[RecordBatch], format: RowsFormat) -> Exit {
    match output::print(batches, format) {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(&format!("the result cannot be printed: {error}"));
            Exit::Failure
        }
    }
}

fn table_rows(tables: &[TableInfo]) -> Result<RecordBatch, ArrowError> {
    let now = Utc::now();
    let age = |table: &TableInfo| table.last_commit.map(|time| (now - time).num_milliseconds().max(0));
    output::batch(vec![
        ("table", text(tables.iter().map(|table| Some(table.name.clone())))),
        ("source", text(tables.iter().map(|table| table.source.clone()))),
        ("rows", Arc::new(tables.iter().map(|table| table.rows).collect::<Int64Array>())),
        ("files", Arc::new(tables.iter().map(|table| table.files as u64).map(Some).collect::<UInt64Array>())),
        ("bytes", Arc::new(tables.iter().map(|table| Some(table.bytes)).collect::<Int64Array>())),
        ("version", Arc::new(tables.iter().map(|table| Some(table.version)).collect::<UInt64Array>())),
        ("last_commit", text(tables.iter().map(|table| table.last_commit.map(rfc3339)))),
        ("age_ms", Arc::new(tables.iter().map(age).collect::<Int64Array>())),
        ("positions", text(tables.iter().map(|table| Some(positions(&table.positions))))),
    ])
}

fn history_rows(entries: &[HistoryEntry]) -> Result<RecordBatch, ArrowError> {
    output::batch(vec![
        ("version", Arc::new(entries.iter().map(|entry| Some(entry.version)).collect::<UInt64Array>())),
        ("time", text(entries.iter().map(|entry| entry.time.map(rfc3339)))),
        ("operation", text(entries.iter().map(|entry| entry.operation.clone()))),
        (
            "files_added",
            Arc::new(entries.iter().map(|entry| entry.files_added as u64).map(Some).collect::<UInt64Array>()),
        ),
        (
            "files_removed",
            Arc::new(
                entries.iter().map(|entry| entry.files_removed as u64).map(Some).collect::<UInt64Array>(),
            ),
        ),
        ("positions", text(entries.iter().map(|entry| Some(positions(&entry.positions))))),
    ])
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn positions(positions: &BTreeMap<String, i64>) -> String {
    positions.iter().map(|(partition, next)| format!("{partition}={next}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_is_a_version_or_a_time() {
        assert_eq!(parse_at("17"), Ok(At::Version(17)));
        let time = DateTime::parse_from_rfc3339("2026-01-31T12:00:00Z").unwrap().with_timezone(&Utc);
        assert_eq!(parse_at("2026-01-31T13:00:00+01:00"), Ok(At::Time(time)));
        let error = parse_at("yesterday").unwrap_err();
        assert_eq!(error, "--at yesterday: neither a version number nor a time such as 2026-01-31T12:00:00Z");
    }
}
