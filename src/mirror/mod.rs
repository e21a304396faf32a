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
//! Where a table refuses single rows, the transaction is done again with that table written row by row where that is needed
//! ([`isolate`]), and the records that are to blame go into quarantine. A table whose part fails otherwise is rolled back, remembered as stopped with the topics that feed
//! it, and the transaction is done again without them.
//!
//! What the source's columns are is remembered beside the progress ([`schemas`]), so that a column which the source
//! dropped is told from one that somebody added by hand: the former is null in new rows, the latter is left alone.

mod absent;
mod apply;
mod assign;
mod catalog;
mod command;
mod connection;
mod copy;
mod evolve;
mod isolate;
mod ledger;
mod names;
mod native;
mod numeric;
mod options;
mod pairs;
mod plan;
mod progress;
mod quarantine;
mod refusals;
mod schema_apply;
mod schemas;
mod session;
mod sql;
mod sqlstate;
mod staging;
mod tls;
mod types;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use catalog::columns_of;
pub use command::MirrorQuarantine;
pub use native::created_type;
pub use options::{ConnectionUrl, MirrorError, MirrorOptions};
pub use schema_apply::{ApplyError, MirrorSchemas, WaitingTable};
pub use types::{TargetType, oid};

use self::apply::Aside;
use self::catalog::Catalog;
use self::connection::Endpoint;
use self::evolve::Follower;
use self::ledger::{LedgerTables, Ledgers};
use self::names::{TargetName, Targets};
use self::progress::{Move, ProgressTable};
use self::quarantine::QuarantineTable;
use self::refusals::{Found, Refusals};
use self::schemas::{Memory, SchemaTables};
use self::session::Session;
use self::sqlstate::Trouble;
use self::work::{Segment, Stopped};
use crate::change::quarantine::{Ledger, QuarantineRow, RecordPlace};
use crate::change::{
    Batch, ChangeBatch, CommitReport, KnownSchemas, Ledger as KeyLedger, Policies, Progress, Sink, SinkError,
    Span, StoredPosition, TableId, TableReport, TopicPartition,
};
use crate::failpoint;

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

/// Why an attempt at a batch ended without commit.
enum Failure {
    /// Without this table it may succeed.
    Table(TableId, String),
    /// Without some rows of this table it may succeed.
    Rows(TableId, String),
    /// A stored position is not what was known.
    Moved,
    /// What the lane has to know.
    Sink(SinkError),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Sink(trouble.into_sink_error())
    }
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

    /// Tries a batch once, and ends the transaction where that fails.
    async fn attempt(&mut self, batch: &Batch) -> Result<CommitReport, Failure> {
        // Taken, so that a call that is abandoned half-way takes its transaction with it.
        let mut session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => Session::open(&self.endpoint, &self.progress, (&self.schemas, &self.ledger_tables)).await?,
        };
        let outcome = self.write(&mut session, batch).await;
        if outcome.is_ok() || session.roll_back().await.is_ok() {
            self.session = Some(session);
        }
        outcome
    }

    async fn write(&mut self, session: &mut Session, batch: &Batch) -> Result<CommitReport, Failure> {
        let mut report = CommitReport { stopped: self.stopped.reasons.clone(), ..CommitReport::default() };
        let moves = work::moves(batch, &self.known, &self.stopped);
        // Answers to replays come without a position.
        let answers = batch.spans.is_empty() && !batch.settled.is_empty();
        if moves.is_empty() && !answers {
            self.refusals.unreported(&mut report);
            return Ok(report);
        }
        if ledger::is_needed(batch, &self.ledgers) {
            self.ledgers = self.ledger_tables.read(&session.client).await?;
        }
        drop(moves);
        let conformed = self.follow_schemas(session, batch, &mut report).await?;
        let moves = work::moves(batch, &self.known, &self.stopped);
        let mut kept = work::quarantine_rows(batch, &self.known, &self.stopped, &self.quarantine);
        let segments = work::segments(&conformed, &self.known, &self.stopped, &self.ledgers)
            .map_err(|(table, error)| Failure::Table(table, error.to_string()))?;
        let mut raw = match (&self.raw, &batch.raw) {
            (Some(target), Some(rows)) => {
                let missing = work::raw_rows(rows, batch, &self.known, &self.stopped)
                    .map_err(|error| Failure::Sink(SinkError::Stop { message: error.to_string() }))?;
                (!missing.is_empty()).then_some((target, rows, missing))
            }
            _ => None,
        };
        let idle = segments.is_empty() && raw.is_none() && kept.is_empty();
        // Into another log at once: until that is stored, nothing says that the lane has left the former one.
        let new_log = moves.iter().any(|step| {
            step.known.is_some_and(|known| !progress::same_log(&known.identity, &step.span.identity))
        });
        if idle && !new_log && self.moved_just_now() {
            self.passed.extend(batch.spans.clone());
            return Ok(report);
        }
        let isolated = segments.iter().any(|segment| self.refusals.isolates(segment.table));
        if !kept.is_empty() || isolated {
            self.quarantine.ensure(&session.client).await?;
        }
        session.drop_old_schemas().await?;
        for segment in &segments {
            let target = TargetName::of(&self.schema, segment.table);
            if let Err(reason) = self.targets.claim(&target, segment.table) {
                return Err(Failure::Table(segment.table.clone(), reason));
            }
            let ready = session.make_ready(segment.table, &target, segment.schema).await;
            if let Some(found) = ready.map_err(|trouble| of_table(trouble, segment.table))? {
                self.catalog.insert(target, found);
            }
        }
        if let Some((target, ..)) = &raw {
            session.make_raw_ready(target).await?;
        }

        session.transaction += 1;
        session.client.batch_execute("BEGIN").await.map_err(Trouble::from)?;
        if !moves.is_empty() && !self.progress.advance(&session.client, &session.progress, &moves).await? {
            return Err(Failure::Moved);
        }
        self.write_whole(session, &segments, batch, &mut report).await?;
        let found = if isolated {
            self.write_isolated(session, &conformed, &mut kept, &mut report).await?
        } else {
            Found::default()
        };
        let ledgers = self.store_ledgers(session, &segments).await?;
        self.quarantine.insert(&session.client, &kept).await?;
        if let Some((_, rows, missing)) = &mut raw {
            work::without_refused(rows, missing, &found.refused);
        }
        if let Some((target, rows, missing)) = &raw {
            let started = Instant::now();
            apply::append_raw(session, rows, missing).await?;
            let appended = TableReport {
                appended: missing.len() as u64,
                duration: started.elapsed(),
                ..TableReport::default()
            };
            report.tables.insert(target.to_string(), appended);
        }
        let reached = positions(&moves);
        let tables: BTreeSet<&TableId> = segments.iter().map(|segment| segment.table).collect();
        self.attempted.clone_from(&reached);
        self.refusals.sending(&found);
        failpoint::hit("mirror.before_commit");
        session
            .client
            .batch_execute("COMMIT")
            .await
            .map_err(|error| self.of_commit(error.into(), &tables))?;
        failpoint::hit("mirror.after_commit");
        self.quarantine.enter(&kept);
        report.refused.clone_from(&found.refused);
        report.superseded.clone_from(&found.superseded);
        self.refusals.committed(batch, found);
        self.passed.retain(|partition, _| !reached.contains_key(partition));
        self.known.extend(reached);
        self.ledgers = ledgers;
        self.last_move = Some(Instant::now());
        Ok(report)
    }

    /// Stores the ledgers after the batch, and gives them as they will be known then.
    async fn store_ledgers(&self, session: &Session, segments: &[Segment<'_>]) -> Result<Ledgers, Failure> {
        let newest: BTreeMap<String, &KeyLedger> =
            segments.iter().map(|segment| (segment.table.to_string(), &segment.ledger)).collect();
        let mut ledgers = self.ledgers.clone();
        for (table, after) in newest {
            let before = ledgers.remove(&table).unwrap_or_default();
            if !self.ledger_tables.store(&session.client, &table, &before, after).await? {
                let message =
                    format!("another instance has applied half of a key change of {table} meanwhile");
                return Err(Failure::Sink(SinkError::Retry { class: "conflict", message }));
            }
            if !after.is_empty() {
                ledgers.insert(table, after.to_text());
            }
        }
        Ok(ledgers)
    }

    /// Writes the parts of tables that are written as a whole.
    async fn write_whole(
        &self,
        session: &mut Session,
        segments: &[Segment<'_>],
        batch: &Batch,
        report: &mut CommitReport,
    ) -> Result<(), Failure> {
        for segment in segments.iter().filter(|segment| !self.refusals.isolates(segment.table)) {
            let started = Instant::now();
            let table = report.tables.entry(segment.table.to_string()).or_default();
            // To leave it out and commit would lose its rows.
            let Some(writer) = session.table(segment.table, segment.schema) else {
                let message = format!("table {} was not made ready for its rows", segment.table);
                return Err(Failure::Sink(SinkError::Retry { class: "session", message }));
            };
            let aside = Aside {
                kept: &self.ledger_tables.kept(),
                owner: self.ledger_tables.owner(segment.table),
                name: segment.aside.clone(),
            };
            if let Err(trouble) = apply::write_all(writer, &segment.folded, &aside, batch, table).await {
                session.forget(segment.table);
                return Err(of_table(trouble, segment.table));
            }
            table.duration += started.elapsed();
            failpoint::hit("mirror.in_transaction");
        }
        Ok(())
    }

    /// Writes the parts of tables that refuse single rows, and adds those rows to what is `kept` in quarantine.
    async fn write_isolated(
        &self,
        session: &mut Session,
        batch: &Batch,
        kept: &mut Vec<QuarantineRow>,
        report: &mut CommitReport,
    ) -> Result<Found, Failure> {
        let starts = work::starts(batch, &self.known, &self.stopped);
        let found = self.refusals.write(session, batch, &starts, report).await?;
        let rows = work::refused_rows(batch, &found.refused, &found.superseded, self.quarantine.lane());
        let rows = rows.map_err(|place| {
            let message =
                format!("record {place} was refused, and is not kept as it came: restart to read it again");
            Failure::Sink(SinkError::Retry { class: "quarantine", message })
        })?;
        let decoded = kept.len();
        kept.extend(rows);
        work::drop_repeated(kept, decoded);
        Ok(found)
    }

    /// The batch with the changes of each table in the one form that its table has here, which is changed before where
    /// it has to be.
    async fn follow_schemas(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        report: &mut CommitReport,
    ) -> Result<Batch, Failure> {
        let keep = work::keeps(batch, &self.known, &self.stopped);
        let mut by_table: BTreeMap<&TableId, Vec<&ChangeBatch>> = BTreeMap::new();
        for change in &batch.changes {
            by_table.entry(&change.table).or_default().push(change);
        }
        let mut changes = Vec::with_capacity(batch.changes.len());
        for (table, parts) in by_table {
            let target = TargetName::of(&self.schema, table);
            let mut follower = Follower {
                tables: &self.schemas,
                session,
                memory: &mut self.memory,
                table,
                target: &target,
                policy: self.policies.of(table).schema_change,
            };
            let conformed = follower.follow(batch, &parts, &keep).await;
            let conformed = conformed.map_err(|trouble| of_table(trouble, table))?;
            if !conformed.kinds.is_empty() {
                let entry = report.tables.entry(table.to_string()).or_default();
                entry.schema_changes.extend(conformed.kinds);
            }
            changes.extend(conformed.changes);
        }
        Ok(Batch { changes, ..batch.clone() })
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

    /// A constraint that is checked at the end names its table, not the statement.
    fn of_commit(&self, trouble: Trouble, tables: &BTreeSet<&TableId>) -> Failure {
        if let Trouble::Table { reason, target: Some(target) }
        | Trouble::Row { reason, target: Some(target), .. } = &trouble
            && let Some(table) = tables.iter().find(|table| TargetName::of(&self.schema, table) == *target)
        {
            return Failure::Table((*table).clone(), reason.clone());
        }
        trouble.into()
    }

    /// After positions turned out to have moved: `Ok` where our own commit, whose reply was lost, moved them.
    async fn look_again(&mut self, batch: &Batch) -> Result<(), SinkError> {
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

fn of_table(trouble: Trouble, table: &TableId) -> Failure {
    match trouble {
        Trouble::Table { reason, .. } => Failure::Table(table.clone(), reason),
        Trouble::Row { reason, .. } => Failure::Rows(table.clone(), reason),
        other => other.into(),
    }
}

fn positions(moves: &[Move<'_>]) -> BTreeMap<TopicPartition, StoredPosition> {
    moves
        .iter()
        .map(|step| {
            let identity = step.span.identity.clone();
            (step.partition.clone(), StoredPosition { identity, next_offset: step.span.next })
        })
        .collect()
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
                Err(Failure::Moved) => self.look_again(batch).await?,
                Err(Failure::Sink(error)) => return Err(error),
            }
        }
    }

    async fn quarantine(&mut self) -> Result<Arc<Ledger>, SinkError> {
        let session = self.session().await?;
        self.quarantine.look(&session.client).await.map_err(Trouble::into_sink_error)?;
        self.session = Some(session);
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

    fn known_tables(&self) -> HashSet<TableId> {
        // Earlier versions took tombstones for those of a table without database.
        let same = |one: &TableId, other: &TableId| one.schema == other.schema && one.table == other.table;
        let is_second = |table: &TableId| {
            table.database.is_empty() && self.memory.keys().any(|other| other != table && same(other, table))
        };
        self.memory.keys().filter(|table| !is_second(table)).cloned().collect()
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
