//! The lake: Delta tables that equal the source's tables, and the raw history of all changes.
//!
//! The invariant: a table's data and the positions it has reached are one commit, and a commit is a compare-and-set.
//! Each table stores its own positions as `txn` actions ([`progress`]); a commit is put at exactly the version after
//! the one whose positions were checked ([`table`]). From this follow exactly once (a replayed record lies before its
//! table's position and is skipped), fencing (a position that another instance moved is seen before the next commit),
//! and recovery without any state of our own: everything in memory is a function of the logs ([`state`]).
//!
//! | module | idea |
//! |---|---|
//! | [`options`], [`error`] | what a lake is told; what can go wrong, by what has to happen next |
//! | [`location`] | the root, the folders, `lake.layout` |
//! | [`log`], [`listing`], [`action`] | reading and writing `_delta_log`, nothing else does; the lines in it |
//! | [`state`] | a table at a version, brought forward by commits |
//! | [`table`] | log and state together: the rule of every commit |
//! | [`commit`] | a batch into the lake, table by table |
//! | [`current`], [`apply`] | a batch into a current table, and by which way |
//! | [`upsert`], [`inherit`], [`by_key`] | by MERGE: the merge, cells that it has to keep, stored rows by their keys |
//! | [`sources`] | tables that take the rows of several sources: which changes are late |
//! | [`mor`], [`index`] | by deletion vectors, and where each key's row lies |
//! | [`raw`], [`raw_compact`] | appends to `cdc_events`, and its small files put together |
//! | [`plain_compact`] | the same of the lake's own tables |
//! | [`schema`], [`types`], [`create`] | fields, types, new tables |
//! | [`follow`], [`evolve`], [`rewrite`], [`audit`] | schema changes, files under another type, the record of changes |
//! | [`schema_apply`] | what somebody decided about a table that waits with a schema |
//! | [`quarantine`] | records that could not become changes |
//! | [`shape`], [`soft`], [`history`] | what rows have besides the source's columns; deleted rows that stay; tables of versions |
//! | [`snapshot`] | a table while the source's snapshot is read into it |
//! | [`properties`] | what the settings say about tables that exist |
//! | [`maintenance`], [`setback`] | the work between batches, and when it fails |
//! | [`checkpointer`], [`checkpoint`] | writing checkpoints, and reading them |
//! | [`compaction`] | which files are put together, and when |
//! | [`moment`], [`work`] | how long files have waited for their commit; what commits wrote |
//! | [`vacuum`] | files that no version needs any more, and expired log entries |
//! | [`upkeep`] | the same by hand |
//! | [`read`] | the lake as a reader sees it: SQL, versions, history |

mod action;
mod apply;
mod audit;
mod by_key;
mod checkpoint;
mod checkpointer;
mod commit;
mod compaction;
mod create;
mod current;
mod error;
mod evolve;
mod follow;
mod history;
mod index;
mod inherit;
mod landing;
mod listing;
mod live_file;
mod location;
mod log;
mod maintenance;
mod missing;
mod moment;
mod mor;
mod options;
mod parallel_scan;
mod plain_compact;
mod progress;
mod properties;
mod quarantine;
mod raw;
mod raw_compact;
mod raw_file;
pub mod read;
mod rewrite;
mod schema;
mod schema_apply;
mod setback;
mod shape;
mod snapshot;
mod soft;
mod sources;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod types;
pub mod upkeep;
mod upsert;
mod vacuum;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::{StreamExt, stream};

pub use self::types::delta_type;
pub use error::LakeError;
pub use location::{DEFAULT_LAYOUT, check_layout, folder};
pub use mor::{IndexBuild, IndexBuilds, UpsertOptions};
pub use options::LakeOptions;
pub use progress::{app_id, parse_app_id};
pub use quarantine::LakeQuarantine;
pub use schema_apply::{LakeSchemas, WaitingTable};

use crate::change::quarantine::{Ledger, QuarantineRow, RecordPlace};
use crate::change::{
    Batch, CommitReport, KnownSchemas, KnownTables, Progress, Sink, SinkError, SinkFigures, Span,
    TableFigures, TableId, TableSchema, TopicPartition,
};
use audit::AuditTable;
use checkpointer::Checkpointer;
use create::TableProperties;
use current::CurrentTable;
use location::Location;
use log::Log;
use mor::Upserts;
use progress::Positions;
use quarantine::QuarantineTable;
use raw::RawTable;
use table::Writer;
use vacuum::Sweeper;

/// Tables that are opened or written at the same time; merges share their memory.
const CONCURRENCY: usize = 4;

/// A lake as a sink.
#[derive(Debug)]
pub struct Lake {
    options: LakeOptions,
    location: Location,
    writer: Writer,
    properties: TableProperties,
    upserts: Upserts,
    sweeper: Sweeper,
    checkpointer: Checkpointer,
    tables: HashMap<TableId, CurrentTable>,
    raw: Option<RawTable>,
    /// The record of schema changes, once there was one.
    audit: Option<AuditTable>,
    quarantine: Option<QuarantineTable>,
    stopped: HashMap<TableId, Stopped>,
    /// Where the newest batch of each partition ended, of topics that are not held back.
    passed: BTreeMap<TopicPartition, Span>,
}

/// A table that refused its part of a batch.
#[derive(Debug)]
struct Stopped {
    reason: String,
    topics: BTreeSet<Arc<str>>,
    /// It waits for somebody to say what becomes of a schema.
    waits: bool,
}

impl Lake {
    /// Opens a lake; tables are read by [`Sink::load`].
    ///
    /// # Errors
    /// [`LakeError::Settings`] for an address, layout or option that cannot be used.
    pub async fn open(options: LakeOptions) -> Result<Self, LakeError> {
        check_layout(&[], &options.layout)?;
        if options.pipeline.is_empty() {
            return Err(LakeError::Settings("pipeline.name is empty; give the pipeline a name".to_owned()));
        }
        let (uri, storage_options) = (options.uri.clone(), options.storage_options.clone());
        let location = tokio::task::spawn_blocking(move || Location::open_or_create(&uri, &storage_options))
            .await
            .map_err(|error| LakeError::Settings(format!("lake.uri cannot be opened: {error}")))??;
        Ok(Self {
            writer: Writer { pipeline: options.pipeline.clone(), id: uuid::Uuid::new_v4().to_string() },
            properties: TableProperties::of(&options),
            sweeper: Sweeper::new(&options),
            checkpointer: Checkpointer::default(),
            upserts: Upserts::new(
                options.upserts.clone(),
                options.policies.clone(),
                location.root(),
                location.local(),
            ),
            location,
            options,
            tables: HashMap::new(),
            raw: None,
            audit: None,
            quarantine: None,
            stopped: HashMap::new(),
            passed: BTreeMap::new(),
        })
    }

    fn log(&self, folder: &str) -> Result<Log, LakeError> {
        Ok(Log::new(folder, self.location.table(folder)?))
    }

    fn raw_log(&self) -> Result<Option<Log>, LakeError> {
        let folder = self.options.raw_table.as_deref().filter(|folder| !folder.is_empty());
        folder.map(|folder| Ok(self.log(folder)?.with_failpoint("lake.before_raw_commit"))).transpose()
    }

    async fn load_tables(&mut self) -> Result<Progress, LakeError> {
        let mut before: HashMap<TableId, CurrentTable> = self.tables.drain().collect();
        self.audit = None;
        self.stopped.clear();
        self.passed.clear();
        let raw_log = self.raw_log()?;
        // Tables that are no longer kept must not hold the lane back.
        let folders = if self.options.current_tables {
            self.location.tables(location::depth(&self.options.layout)).await?
        } else {
            Vec::new()
        };
        let logs = folders
            .into_iter()
            .filter(|folder| Some(folder) != self.options.raw_table.as_ref())
            .filter(|folder| *folder != self.options.quarantine_table)
            .map(|folder| self.log(&folder))
            .collect::<Result<Vec<_>, _>>()?;
        let mut opened = stream::iter(logs)
            .map(|log| async move { (log.table().to_owned(), table::Table::open(log).await) })
            .buffer_unordered(CONCURRENCY);
        let mut tables = HashMap::new();
        while let Some((folder, result)) = opened.next().await {
            match result.and_then(|table| {
                table.map(|table| CurrentTable::new(table, &self.upserts, &self.writer)).transpose()
            }) {
                Ok(Some(mut table)) => {
                    if let Some(before) = before.remove(&table.id) {
                        table.take_over(before);
                    }
                    tables.insert(table.id.clone(), table);
                }
                Ok(None) => {}
                // Tables of other writers may share the root. If it is one of ours after all, it stops when it gets rows.
                Err(error) if error.stops_table() => {
                    tracing::debug!(folder, %error, "folder is not a table of this pipeline");
                }
                Err(error) => return Err(error),
            }
        }
        drop(opened);
        self.tables = tables;
        self.raw = match raw_log {
            Some(log) => RawTable::open(log, &self.writer).await?,
            None => None,
        };
        self.quarantine = QuarantineTable::open(self.quarantine_log()?, &self.writer).await?;
        let positions = |table: &table::Table| Positions::of(&self.writer.pipeline, table.state.txns());
        let current: Vec<Positions> = self.tables.values().map(|table| positions(&table.table)).collect();
        let raw = match (&self.raw, self.has_raw()) {
            (Some(raw), _) => Some(positions(&raw.table)),
            (None, true) => Some(Positions::default()),
            (None, false) => None,
        };
        Ok(progress::starting_points(&current, raw.as_ref()))
    }

    fn has_raw(&self) -> bool {
        self.options.raw_table.as_deref().is_some_and(|folder| !folder.is_empty())
    }

    fn quarantine_log(&self) -> Result<Log, LakeError> {
        Ok(self.log(&self.options.quarantine_table)?.with_failpoint("lake.before_quarantine_commit"))
    }

    /// Copies changes of schemas into their table, where the tables have some that are not there yet.
    async fn record_schema_changes(&mut self) -> Result<(), LakeError> {
        let folder = self.options.schema_changes_table.clone();
        for (id, table) in &self.tables {
            let (table_id, changes) = table.schema_changes();
            if folder.is_empty() || changes.is_empty() {
                continue;
            }
            let audit = match &mut self.audit {
                Some(audit) => audit,
                none => {
                    let log = Log::new(&folder, self.location.table(&folder)?);
                    none.insert(AuditTable::open_or_create(log, &self.properties, &self.writer).await?)
                }
            };
            if audit.lacks(table_id, changes) {
                audit.copy((id, table.table.log.table(), table_id), changes, &self.writer).await?;
            }
        }
        Ok(())
    }
}

impl Sink for Lake {
    async fn load(&mut self) -> Result<Progress, SinkError> {
        let progress = self.load_tables().await?;
        // What a former process could not copy any more.
        self.record_schema_changes().await?;
        Ok(progress)
    }

    async fn reload(&mut self) -> Result<Progress, SinkError> {
        let stopped = std::mem::take(&mut self.stopped);
        let loaded = self.load_tables().await;
        self.stopped = stopped;
        Ok(loaded?)
    }

    /// Each current table commits its part, then the raw table. A batch that fails between two tables is given again
    /// and skipped by those that have it.
    async fn commit(&mut self, batch: &Batch) -> Result<CommitReport, SinkError> {
        let report = self.commit_batch(batch).await?;
        // While batches are waiting, nobody calls `maintain`.
        self.sweeper.run_if_due(&self.location, &self.options);
        self.checkpoints(2).await;
        Ok(report)
    }

    fn release(&mut self, partitions: &[TopicPartition]) {
        self.passed.retain(|partition, _| !partitions.contains(partition));
    }

    async fn quarantine(&mut self) -> Result<Arc<Ledger>, SinkError> {
        match &mut self.quarantine {
            Some(quarantine) => quarantine.look(&self.writer).await?,
            None => self.quarantine = QuarantineTable::open(self.quarantine_log()?, &self.writer).await?,
        }
        Ok(self.quarantine.as_ref().map(QuarantineTable::ledger).unwrap_or_default())
    }

    async fn quarantined(&mut self, places: &[RecordPlace]) -> Result<Vec<QuarantineRow>, SinkError> {
        match &self.quarantine {
            Some(quarantine) => Ok(quarantine.records(places).await?),
            None => Ok(Vec::new()),
        }
    }

    fn known_schemas(&self) -> KnownSchemas {
        let known: HashMap<TableId, Arc<TableSchema>> =
            self.tables.iter().map(|(id, table)| (id.clone(), Arc::clone(table.schema()))).collect();
        Box::new(move |table| known.get(table).cloned())
    }

    fn known_tables(&self) -> KnownTables {
        let tables = self.tables.iter().map(|(id, table)| (id.clone(), Some(table.topics().clone())));
        KnownTables { tables: tables.collect(), ..KnownTables::default() }
    }

    /// A stopped table goes on when somebody else has committed to it: that is how `alluvium schema apply` says so.
    async fn look_again(&mut self) -> Result<bool, SinkError> {
        for (id, _) in self.stopped.iter().filter(|(_, stopped)| stopped.waits) {
            if let Some(table) = self.tables.get_mut(id)
                && table.is_released(&self.writer).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn maintain(&mut self) -> Result<(), SinkError> {
        self.sweeper.run_if_due(&self.location, &self.options);
        Ok(self.look_after().await?)
    }

    async fn finish(&mut self) {
        self.finish_checkpoints().await;
    }

    fn figures(&mut self) -> SinkFigures {
        let current = self.tables.iter_mut().map(|(id, table)| (id.to_string(), table.figures()));
        let mut tables: BTreeMap<String, TableFigures> = current.collect();
        let raw = self.raw.as_mut().map(|raw| &mut raw.table);
        let quarantine = self.quarantine.as_mut().map(|quarantine| &mut quarantine.table);
        let audit = self.audit.as_mut().map(|audit| &mut audit.table);
        let own = raw.into_iter().chain(quarantine).chain(audit);
        tables.extend(own.map(|table| (table.log.table().to_owned(), table.figures())));
        let swept = self.sweeper.take_swept();
        SinkFigures {
            tables,
            vacuumed_files: swept.files,
            vacuumed_bytes: swept.bytes,
            failed_vacuums: swept.failures,
        }
    }
}

fn now_millis() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
