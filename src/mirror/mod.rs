//! The mirror: a Postgres database whose tables equal the source's.
//!
//! Each mirrored table has the source's columns in Postgres' types and `__cdc_operation`, `__cdc_timestamp` (commit
//! time in the source) and `__synced_at`. A batch is one transaction: the positions move by compare-and-set
//! ([`progress`]), rows go by binary COPY ([`copy`]) into temporary tables ([`staging`]), and from there by delete and
//! upsert ([`sql`], [`apply`]) into their tables. So the data and the progress that covers it are durable together.
//!
//! A reply to COMMIT that got lost leaves open whether it happened. The next attempt finds out by the same
//! compare-and-set: where the stored positions are those of the lost attempt, it was ours and is done.
//!
//! A batch is tried until it is in ([`attempt`]). Where a table refuses single rows, the transaction is done again with that
//! table written row by row where that is needed ([`isolate`]), and the records that are to blame go into quarantine. A table
//! whose part fails otherwise is rolled back, remembered as stopped with the topics that feed it, and the transaction is
//! done again without them.
//!
//! What the source's columns are is remembered beside the progress ([`schemas`]), so that a column which the source
//! dropped is told from one that somebody added by hand: the former is null in new rows, the latter is left alone.

mod absent;
mod apply;
mod assign;
mod attempt;
mod catalog;
mod cells;
mod command;
mod connection;
mod copy;
mod evolve;
mod in_order;
mod isolate;
mod ledger;
mod names;
mod native;
mod numeric;
mod options;
mod own_tables;
mod pairs;
mod plan;
mod postgis;
mod progress;
mod quarantine;
mod refusals;
mod schema_apply;
mod schemas;
mod session;
mod sources;
mod sql;
mod sqlstate;
mod staging;
mod tls;
mod types;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use catalog::columns_of;
pub use command::MirrorQuarantine;
pub use native::created_type;
pub use options::{ConnectionUrl, MirrorError, MirrorOptions};
pub use schema_apply::{ApplyError, MirrorSchemas, WaitingTable};
pub use types::{TargetType, oid};

use self::attempt::Failure;
use self::catalog::Catalog;
use self::connection::Endpoint;
use self::ledger::{LedgerTables, Ledgers};
use self::names::{TargetName, Targets};
use self::progress::ProgressTable;
use self::quarantine::QuarantineTable;
use self::refusals::Refusals;
use self::schemas::{Memory, SchemaTables};
use self::session::Session;
use self::sqlstate::Trouble;
use self::work::Stopped;
use crate::change::quarantine::{Ledger, QuarantineRow, RecordPlace};
use crate::change::{
    Batch, CommitReport, KnownSchemas, KnownTables, Policies, Progress, Sink, SinkError, Span,
    StoredPosition, TableId, TopicPartition,
};

/// Opens a session as a mirror would, for checks.
///
/// # Errors
/// What is wrong with the URL, or why the database does not answer.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client, String> {
    let endpoint =
        Endpoint::new(&MirrorOptions::new("check", "check", url)).map_err(|error| error.to_string())?;
    endpoint.connect().await.map_err(|trouble| trouble.into_sink_error().to_string())
}

/// Batches without a row to write move the stored positions at most this often: heartbeats alone must not keep the
/// target writing.
const IDLE_PROGRESS: Duration = Duration::from_secs(10);

/// A Postgres database as a sink.
pub struct Mirror {
    endpoint: Endpoint,
    progress: ProgressTable,
    ledger_tables: LedgerTables,
    schemas: SchemaTables,
    /// What is remembered of the tables' schemas, as this instance last knew it.
    memory: Memory,
    policies: Policies,
    quarantine: QuarantineTable,
    refusals: Refusals,
    schema: String,
    name: String,
    raw: Option<TargetName>,
    session: Option<Session>,
    /// Stored positions as this instance last knew them.
    known: Progress,
    /// Key changes that are half done, as this instance last knew them.
    ledgers: Ledgers,
    /// Positions of the last COMMIT that was sent.
    attempted: BTreeMap<TopicPartition, StoredPosition>,
    stopped: Stopped,
    targets: Targets,
    catalog: Catalog,
    last_move: Option<Instant>,
    /// Where batches without rows ended that came too soon after the last move.
    passed: BTreeMap<TopicPartition, Span>,
}

impl Mirror {
    /// Checks the settings. The database is first reached by [`Sink::load`].
    ///
    /// # Errors
    /// A setting that cannot work, without its place: the caller knows which setting it is.
    pub fn new(options: &MirrorOptions) -> Result<Self, MirrorError> {
        let endpoint = Endpoint::new(options)?;
        let raw = match &options.raw {
            None => None,
            Some(text) => {
                Some(TargetName::parse(text).ok_or_else(|| MirrorError::RawTable { found: text.clone() })?)
            }
        };
        for schema in [&options.schema, &options.progress_schema] {
            if let Some(reason) = names::refused(schema) {
                return Err(MirrorError::Schema { found: schema.clone(), reason });
            }
        }
        Ok(Self {
            endpoint,
            progress: ProgressTable::new(&options.progress_schema, &options.pipeline, &options.name),
            ledger_tables: LedgerTables::new(&options.progress_schema, &options.pipeline, &options.name),
            ledgers: Ledgers::new(),
            schemas: SchemaTables::new(&options.progress_schema, &options.pipeline, &options.name),
            memory: Memory::new(),
            policies: options.policies.clone(),
            quarantine: QuarantineTable::new(&options.progress_schema, &options.pipeline, &options.name),
            refusals: Refusals::new(&options.policies, options.quarantine),
            schema: options.schema.clone(),
            name: options.name.clone(),
            targets: Targets::new(raw.as_ref()),
            raw,
            session: None,
            known: Progress::new(),
            attempted: BTreeMap::new(),
            stopped: Stopped::default(),
            catalog: Catalog::new(),
            last_move: None,
            passed: BTreeMap::new(),
        })
    }

    /// Takes the session, or opens one. A call that fails or is abandoned half-way takes it with it.
    async fn session(&mut self) -> Result<Session, SinkError> {
        match self.session.take() {
            Some(session) if !session.client.is_closed() => Ok(session),
            _ => Session::open(&self.endpoint, &self.progress, (&self.schemas, &self.ledger_tables))
                .await
                .map_err(Trouble::into_sink_error),
        }
    }

    fn moved_just_now(&self) -> bool {
        self.last_move.is_some_and(|at| at.elapsed() < IDLE_PROGRESS)
    }

    /// After positions turned out to have moved: `Ok` where our own commit, whose reply was lost, moved them.
    async fn recognise_lost_reply(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let session = self.session().await?;
        let stored = self.progress.read(&session.client).await.map_err(Trouble::into_sink_error)?;
        self.session = Some(session);
        let mut ours = Vec::new();
        for step in work::moves(batch, &self.known, &self.stopped) {
            let found = stored.get(step.partition);
            if found == step.known {
                continue;
            }
            match found {
                Some(position) if self.attempted.get(step.partition) == Some(position) => {
                    ours.push((step.partition.clone(), position.clone()));
                }
                _ => {
                    return Err(SinkError::Fenced {
                        table: format!("mirror {}", self.name),
                        partition: step.partition.to_string(),
                        expected: step.known.map_or(-1, |known| known.next_offset),
                        found: found.map_or(-1, |position| position.next_offset),
                    });
                }
            }
        }
        if ours.is_empty() {
            let message = "the stored positions moved and moved back".to_owned();
            return Err(SinkError::Retry { class: "conflict", message });
        }
        tracing::info!(mirror = self.name, "a commit whose reply was lost had happened");
        self.known.extend(ours);
        Ok(())
    }
}

impl Sink for Mirror {
    async fn load(&mut self) -> Result<Progress, SinkError> {
        self.session = None;
        self.stopped = Stopped::default();
        self.attempted.clear();
        self.last_move = None;
        self.passed.clear();
        let session = Session::open(&self.endpoint, &self.progress, (&self.schemas, &self.ledger_tables))
            .await
            .map_err(Trouble::into_sink_error)?;
        self.known = self.progress.read(&session.client).await.map_err(Trouble::into_sink_error)?;
        self.memory = self.schemas.read(&session.client).await.map_err(Trouble::into_sink_error)?;
        self.ledgers = self.ledger_tables.read(&session.client).await.map_err(Trouble::into_sink_error)?;
        let only = (!self.schema.contains('{')).then_some(self.schema.as_str());
        self.catalog = catalog::read(&session.client, only, None)
            .await
            .map_err(|error| Trouble::from(error).into_sink_error())?;
        self.session = Some(session);
        Ok(self.known.clone())
    }

    async fn reload(&mut self) -> Result<Progress, SinkError> {
        let stopped = std::mem::take(&mut self.stopped);
        let loaded = self.load().await;
        self.stopped = stopped;
        loaded
    }

    async fn commit(&mut self, batch: &Batch) -> Result<CommitReport, SinkError> {
        loop {
            self.stopped.spread(batch);
            match self.attempt(batch).await {
                Ok(report) => return Ok(report),
                Err(Failure::Rows(table, _)) if self.refusals.isolate(&table, batch) => {}
                Err(Failure::Rows(table, reason) | Failure::Table(table, reason)) => {
                    self.stopped.stop(&table, reason);
                }
                Err(Failure::Moved) => self.recognise_lost_reply(batch).await?,
                Err(Failure::Sink(error)) => return Err(error),
            }
        }
    }

    async fn quarantine(&mut self) -> Result<Arc<Ledger>, SinkError> {
        let session = self.session().await?;
        self.quarantine.look(&session.client).await.map_err(Trouble::into_sink_error)?;
        self.session = Some(session);
        self.refusals.read(self.quarantine.ledger(), &self.known);
        Ok(Arc::clone(self.quarantine.ledger()))
    }

    async fn quarantined(&mut self, places: &[RecordPlace]) -> Result<Vec<QuarantineRow>, SinkError> {
        let session = self.session().await?;
        let records = self.quarantine.records(&session.client, places).await;
        self.session = Some(session);
        records.map_err(Trouble::into_sink_error)
    }

    fn release(&mut self, partitions: &[TopicPartition]) {
        self.passed.retain(|partition, _| !partitions.contains(partition));
    }

    fn known_schemas(&self) -> KnownSchemas {
        let (catalog, schema) = (self.catalog.clone(), self.schema.clone());
        Box::new(move |table| Some(Arc::new(catalog.get(&TargetName::of(&schema, table))?.table_schema())))
    }

    fn known_tables(&self) -> KnownTables {
        // A table whose events were flattened once is remembered without database, too: under that name it is gone.
        let same = |one: &TableId, other: &TableId| one.schema == other.schema && one.table == other.table;
        let is_second = |table: &TableId| {
            table.database.is_empty() && self.memory.keys().any(|other| other != table && same(other, table))
        };
        let tables = self.memory.keys().filter(|table| !is_second(table)).map(|table| (table.clone(), None));
        let read = self.known.keys().map(|partition| Arc::clone(&partition.topic));
        KnownTables { tables: tables.collect(), read: read.collect() }
    }

    /// A stopped table goes on when nothing is waited for any more: that is how `alluvium schema apply` says so.
    async fn look_again(&mut self) -> Result<bool, SinkError> {
        let waits = |table: &&TableId| {
            self.memory.get(*table).is_some_and(|remembered| remembered.lineage.pending.is_some())
        };
        let waiting: Vec<&TableId> = self.stopped.reasons.keys().filter(waits).collect();
        let Some(session) = self.session.as_ref().filter(|_| !waiting.is_empty()) else { return Ok(false) };
        let now = self.schemas.read(&session.client).await.map_err(Trouble::into_sink_error)?;
        let released =
            |table: &&TableId| now.get(*table).is_some_and(|remembered| remembered.lineage.pending.is_none());
        Ok(waiting.iter().any(released))
    }

    /// Stores where the last batches without rows ended. Left where the last row was, the position would fall out of
    /// the log once retention has removed what lies behind it, and look like a loss.
    async fn maintain(&mut self) -> Result<(), SinkError> {
        if self.passed.is_empty() || self.moved_just_now() {
            return Ok(());
        }
        let batch = Batch { spans: std::mem::take(&mut self.passed), ..Batch::default() };
        let stored = self.commit(&batch).await;
        if stored.is_err() {
            self.passed = batch.spans;
        }
        stored.map(drop)
    }
}
