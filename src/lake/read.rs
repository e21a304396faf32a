//! The lake as a reader sees it: tables by name, at a version or time, in SQL.
//!
//! Reading takes nothing from the running daemon: it opens the tables from their logs, as any other reader would.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use deltalake::DeltaTable;
use deltalake::datafusion::catalog::MemorySchemaProvider;
use deltalake::datafusion::common::TableReference;
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::action::{CommitInfo, Line};
use super::error::LakeError;
use super::location::{self, Location};
use super::log::Log;
use super::progress::parse_app_id;
use super::schema::PIPELINE;
use super::state::TableState;
use super::{LakeOptions, create, now_millis, parallel_scan};
use crate::change::quarantine::is_of_replays;

const CONCURRENCY: usize = 8;

/// A moment in each table's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest version.
    Latest,
    /// This version of each table that has it.
    Version(u64),
    /// The newest version that was committed at or before this time.
    Time(DateTime<Utc>),
}

/// One table, as `alluvium tables` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct TableInfo {
    /// Name in SQL: the folder, with `.` between its parts.
    pub name: String,
    /// `schema.table` of the source; `None` for the raw table and for tables of others.
    pub source: Option<String>,
    /// Pipeline that keeps it; `None` for tables of others.
    pub pipeline: Option<String>,
    /// Rows, where the statistics of all files say.
    pub rows: Option<i64>,
    /// Data files.
    pub files: usize,
    /// Bytes of the data files.
    pub bytes: i64,
    /// Version.
    pub version: u64,
    /// Time of the last commit.
    pub last_commit: Option<DateTime<Utc>>,
    /// `topic/partition` to next offset.
    pub positions: std::collections::BTreeMap<String, i64>,
}

/// One commit, as `alluvium history` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryEntry {
    /// Version.
    pub version: u64,
    /// Time of the commit, by the writer's clock.
    pub time: Option<DateTime<Utc>>,
    /// `MERGE`, `WRITE`, `CREATE TABLE`, `ADD COLUMN`, or what another writer calls it.
    pub operation: Option<String>,
    /// Files that became part of the table.
    pub files_added: usize,
    /// Files that ceased to be part of it.
    pub files_removed: usize,
    /// `topic/partition` to the next offset that the commit stored.
    pub positions: std::collections::BTreeMap<String, i64>,
}

/// A lake open for reading.
pub struct LakeReader {
    location: Location,
    layout_depth: usize,
    /// Age up to which the files of a version are there for certain.
    retention: Duration,
}

impl LakeReader {
    /// Opens the lake of `options`.
    ///
    /// # Errors
    /// [`LakeError::Settings`] for an address or option that cannot be used.
    pub fn open(options: &LakeOptions) -> Result<Self, LakeError> {
        let location = Location::open(&options.uri, &options.storage_options)?;
        let layout_depth = location::depth(&options.layout);
        Ok(Self { location, layout_depth, retention: options.vacuum_retention })
    }

    /// Folders of all tables.
    async fn folders(&self) -> Result<Vec<String>, LakeError> {
        self.location.all_tables(self.layout_depth).await
    }

    fn log(&self, folder: &str) -> Result<Log, LakeError> {
        Ok(Log::new(folder, self.location.table(folder)?))
    }

    /// All tables of the lake, by name.
    ///
    /// # Errors
    /// Storage errors. A table whose log cannot be read is left out, with a warning.
    pub async fn tables(&self) -> Result<Vec<TableInfo>, LakeError> {
        let folders = self.folders().await?;
        let logs = folders.iter().map(|folder| self.log(folder)).collect::<Result<Vec<_>, _>>()?;
        let states = stream::iter(logs).map(|log| async move { (log.table().to_owned(), log.read().await) });
        let states: Vec<_> = states.buffered(CONCURRENCY).collect().await;
        let mut tables = Vec::with_capacity(states.len());
        for (folder, state) in states {
            match state {
                Ok(Some(state)) => tables.push(info(&folder, &state)),
                Ok(None) => {}
                Err(error) if error.stops_table() => tracing::warn!(folder, %error, "table left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(tables)
    }

    /// A session in which every table of the lake has its name, at the given moment.
    ///
    /// A table that did not exist then is left out.
    ///
    /// # Errors
    /// Storage errors, and logs that the library cannot read.
    pub async fn session(&self, at: At) -> Result<SessionContext, LakeError> {
        let config = SessionConfig::new().with_information_schema(true);
        let parts = config.target_partitions();
        let context = SessionContext::new_with_config(config);
        for folder in self.folders().await? {
            let Some(table) = self.table_at(&folder, at).await? else { continue };
            let refused = |error: deltalake::datafusion::error::DataFusionError| {
                LakeError::Refused(format!("table {folder} cannot be registered: {error}"))
            };
            let provider = parallel_scan::provider(&table, parts).await.map_err(refused)?;
            let name = sql_name(&folder);
            if let Some(schema) = name.schema()
                && let Some(catalog) = context.catalog("datafusion")
                && catalog.schema(schema).is_none()
            {
                catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new())).map_err(refused)?;
            }
            context.register_table(name, provider).map_err(refused)?;
        }
        Ok(context)
    }

    async fn table_at(&self, folder: &str, at: At) -> Result<Option<DeltaTable>, LakeError> {
        let log = self.log(folder)?;
        let failed = |error: deltalake::DeltaTableError| LakeError::delta(folder, &error);
        let listing = if matches!(at, At::Latest) { log.recent().await? } else { log.list().await? };
        let Some(newest) = listing.newest() else { return Ok(None) };
        let version = match at {
            At::Latest => newest,
            At::Version(version) if version > newest => return Ok(None),
            At::Version(version) => version,
            At::Time(time) => match version_at(&log, newest, time).await? {
                Some(version) => version,
                None => return Ok(None),
            },
        };
        if !listing.reaches(version) {
            tracing::warn!(
                table = folder,
                version,
                "left out: the table's log does not reach back to this version any more"
            );
            return Ok(None);
        }
        self.warn_of_age(&log, version).await?;
        let mut table = DeltaTable::new(log.guarded());
        table.load_version(version).await.map_err(failed)?;
        Ok(Some(table))
    }

    /// Says so where the files of a version may be gone, which a query of them would only call missing.
    async fn warn_of_age(&self, log: &Log, version: u64) -> Result<(), LakeError> {
        let Some(next) = log.entry(version + 1).await? else { return Ok(()) };
        let replaced = commit_info(&next).timestamp.unwrap_or(i64::MAX);
        if replaced < now_millis().saturating_sub(self.retention.as_millis() as i64) {
            tracing::warn!(
                table = log.table(),
                version,
                retention = %humantime::format_duration(self.retention),
                "this version is older than lake.vacuum_retention: its files may have been removed"
            );
        }
        Ok(())
    }

    /// The last `limit` commits of a table, newest first. `name` is the one of [`TableInfo::name`].
    ///
    /// # Errors
    /// Where there is no such table, and storage errors.
    pub async fn history(&self, name: &str, limit: usize) -> Result<Vec<HistoryEntry>, LakeError> {
        let folder = name.replace('.', "/");
        let folder = if self.log(&folder)?.newest().await?.is_some() { folder } else { name.to_owned() };
        let log = self.log(&folder)?;
        let Some(newest) = log.newest().await? else {
            let names: Vec<String> =
                self.folders().await?.iter().map(|folder| folder.replace('/', ".")).collect();
            return Err(LakeError::Settings(format!(
                "the lake has no table {name:?}; it has {}",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            )));
        };
        let versions = (0..=newest).rev().take(limit);
        let entries = stream::iter(versions).map(|version| {
            let log = &log;
            async move { Ok::<_, LakeError>((version, log.entry(version).await?)) }
        });
        let mut entries = entries.buffered(CONCURRENCY);
        let mut history = Vec::new();
        while let Some((version, entry)) = entries.try_next().await? {
            // Older entries have expired.
            let Some(entry) = entry else { break };
            history.push(history_entry(version, &entry));
        }
        Ok(history)
    }
}

/// The newest version committed at or before `time`; `None` where the table is younger, or where the log no longer
/// reaches back so far.
async fn version_at(log: &Log, newest: u64, time: DateTime<Utc>) -> Result<Option<u64>, LakeError> {
    let (mut low, mut high) = (0, newest + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let committed = match log.entry(middle).await? {
            Some(entry) => commit_info(&entry).timestamp,
            // Expired entries are the oldest.
            None => Some(i64::MIN),
        };
        if committed.is_none_or(|millis| millis <= time.timestamp_millis()) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let Some(version) = low.checked_sub(1) else { return Ok(None) };
    Ok(log.entry(version).await?.is_some().then_some(version))
}

/// `table`, or `schema.table` where the layout has folders of tables.
fn sql_name(folder: &str) -> TableReference {
    match folder.rsplit_once('/') {
        Some((schema, table)) => TableReference::partial(schema.replace('/', "."), table),
        None => TableReference::bare(folder),
    }
}

fn commit_info(entry: &[u8]) -> CommitInfo {
    lines(entry).find_map(|line| line.commit_info).unwrap_or_default()
}

fn lines(entry: &[u8]) -> impl Iterator<Item = Line> {
    entry.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

fn history_entry(version: u64, entry: &[u8]) -> HistoryEntry {
    let mut history = HistoryEntry {
        version,
        time: None,
        operation: None,
        files_added: 0,
        files_removed: 0,
        positions: std::collections::BTreeMap::new(),
    };
    for line in lines(entry) {
        history.files_added += usize::from(line.add.is_some());
        history.files_removed += usize::from(line.remove.is_some());
        if let Some(info) = line.commit_info {
            history.time = info.timestamp.and_then(DateTime::from_timestamp_millis);
            history.operation = info.operation;
        }
        if let Some(txn) = line.txn {
            let pipeline = pipeline_of(&txn.app_id);
            if let Some((partition, _)) = pipeline.and_then(|pipeline| parse_app_id(pipeline, &txn.app_id)) {
                history.positions.insert(partition.to_string(), txn.version);
            }
        }
    }
    history
}

/// The first part of an application id.
fn pipeline_of(app_id: &str) -> Option<&str> {
    app_id.rsplitn(5, '/').nth(4)
}

fn info(folder: &str, state: &TableState) -> TableInfo {
    let configuration: &HashMap<String, String> = &state.metadata().configuration;
    let pipeline = configuration.get(PIPELINE).cloned();
    let positions = state.txns().values().filter_map(|txn| {
        let (partition, _) = parse_app_id(pipeline.as_deref()?, &txn.app_id)?;
        let is_read = !is_of_replays(&partition);
        is_read.then(|| (partition.to_string(), txn.version))
    });
    TableInfo {
        name: folder.replace('/', "."),
        source: create::source_of(configuration).map(|table| table.to_string()),
        positions: positions.collect(),
        pipeline,
        rows: state.rows(),
        files: state.files().len(),
        bytes: state.files().values().map(|file| file.size).sum(),
        version: state.version(),
        last_commit: state.last_commit().timestamp.and_then(DateTime::from_timestamp_millis),
    }
}
