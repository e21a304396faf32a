//! One attempt at a batch: what is still to be written of it, its tables made ready, and the transaction.
//!
//! Invariant: what this instance knows (positions, ledgers, the quarantine) changes only once COMMIT has been answered. A
//! transaction whose reply got lost therefore leaves it as it was, and the next attempt meets its own positions. What
//! concerns one table is told apart from what concerns the database ([`Failure`]): the batch is then done again without
//! that table, or with it row by row, and the others do not wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use arrow::array::RecordBatch;

use super::Mirror;
use super::apply::{self, Aside};
use super::evolve::Follower;
use super::ledger::{self, Ledgers};
use super::names::TargetName;
use super::progress::{self, Move};
use super::refusals::Found;
use super::session::Session;
use super::sqlstate::Trouble;
use super::work::{self, Segment};
use crate::change::quarantine::QuarantineRow;
use crate::change::{
    Batch, ChangeBatch, CommitReport, KeyLedger, SinkError, StoredPosition, TableId, TableReport,
    TopicPartition,
};
use crate::failpoint;

/// Why an attempt at a batch ended without commit.
pub(super) enum Failure {
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

/// What of a batch is still to be written.
struct Pending<'a> {
    /// The batch, with the changes of each table in the one form that its table has here.
    conformed: &'a Batch,
    segments: Vec<Segment<'a>>,
    /// Rows for the quarantine.
    kept: Vec<QuarantineRow>,
    raw: Option<PendingRaw<'a>>,
    /// Whether a table is written row by row.
    isolated: bool,
}

impl Pending<'_> {
    /// Whether only positions are to be moved.
    fn is_idle(&self) -> bool {
        self.segments.is_empty() && self.raw.is_none() && self.kept.is_empty()
    }
}

/// The raw rows of a batch, and which of them are missing.
struct PendingRaw<'a> {
    target: TargetName,
    rows: &'a RecordBatch,
    missing: Vec<usize>,
}

/// What a transaction has done and its commit makes true.
struct Written {
    reached: BTreeMap<TopicPartition, StoredPosition>,
    ledgers: Ledgers,
    found: Found,
}

impl Mirror {
    /// Tries a batch once, and ends the transaction where that fails.
    pub(super) async fn attempt(&mut self, batch: &Batch) -> Result<CommitReport, Failure> {
        // Taken, so that a call that is abandoned half-way takes its transaction with it.
        let mut session = self.session().await.map_err(Failure::Sink)?;
        let outcome = self.write(&mut session, batch).await;
        if outcome.is_ok() || session.roll_back().await.is_ok() {
            self.session = Some(session);
        }
        outcome
    }

    async fn write(&mut self, session: &mut Session, batch: &Batch) -> Result<CommitReport, Failure> {
        let mut report = CommitReport { stopped: self.stopped.reasons.clone(), ..CommitReport::default() };
        // Answers to replays come without a position.
        let answers = batch.spans.is_empty() && !batch.settled.is_empty();
        if !answers && work::moves(batch, &self.known, &self.stopped).is_empty() {
            self.refusals.unreported(&mut report);
            return Ok(report);
        }
        if ledger::is_needed(batch, &self.ledgers) {
            self.ledgers = self.ledger_tables.read(&session.client).await?;
        }
        let placed = self.placed(batch)?;
        let conformed = self.follow_schemas(session, &placed, &mut report).await?;
        let settled: Batch;
        let mut pending = self.pending(batch, &conformed)?;
        if pending.is_idle() && !self.enters_log(batch) && self.moved_just_now() {
            self.passed.extend(batch.spans.clone());
            return Ok(report);
        }
        self.make_ready(session, &pending).await?;
        self.begin(session, batch).await?;
        if let Some(without_late) = self.without_late(session, &conformed, &mut report).await? {
            settled = without_late;
            pending = self.pending(batch, &settled)?;
        }
        let written = self.write_uncommitted(session, batch, &mut pending, &mut report).await?;
        self.commit_transaction(session, batch, pending, written, &mut report).await?;
        Ok(report)
    }

    /// What of a batch is not in the mirror yet.
    fn pending<'a>(&self, batch: &'a Batch, conformed: &'a Batch) -> Result<Pending<'a>, Failure> {
        let kept = work::quarantine_rows(batch, &self.known, &self.stopped, &self.quarantine);
        let segments = work::segments(conformed, &self.known, &self.stopped, &self.ledgers)
            .map_err(|(table, error)| Failure::Table(table, error.to_string()))?;
        let raw = match (&self.raw, &batch.raw) {
            (Some(target), Some(rows)) => {
                let missing = work::raw_rows(rows, batch, &self.known, &self.stopped)
                    .map_err(|error| Failure::Sink(SinkError::Stop { message: error.to_string() }))?;
                (!missing.is_empty()).then(|| PendingRaw { target: target.clone(), rows, missing })
            }
            _ => None,
        };
        let isolated = segments.iter().any(|segment| self.refusals.isolates(segment.table));
        Ok(Pending { conformed, segments, kept, raw, isolated })
    }

    /// Whether a position moves into another log. That is stored at once: until then nothing says that the lane has left
    /// the former one.
    fn enters_log(&self, batch: &Batch) -> bool {
        work::moves(batch, &self.known, &self.stopped).iter().any(|step| {
            step.known.is_some_and(|known| !progress::same_log(&known.identity, &step.span.identity))
        })
    }

    /// Makes the tables that are written ready for their rows, before the transaction.
    async fn make_ready(&mut self, session: &mut Session, pending: &Pending<'_>) -> Result<(), Failure> {
        if !pending.kept.is_empty() || pending.isolated {
            self.quarantine.ensure(&session.client).await?;
        }
        session.drop_old_schemas().await?;
        for segment in &pending.segments {
            let target = TargetName::of(&self.schema, segment.table);
            if let Err(reason) = self.targets.claim(&target, segment.table) {
                return Err(Failure::Table(segment.table.clone(), reason));
            }
            let ready = session.make_ready(segment.table, &target, segment.schema).await;
            if let Some(found) = ready.map_err(|trouble| of_table(trouble, segment.table))? {
                self.catalog.insert(target, found);
            }
        }
        if let Some(raw) = &pending.raw {
            session.make_raw_ready(&raw.target).await?;
        }
        Ok(())
    }

    /// Begins the transaction and moves the positions.
    async fn begin(&self, session: &mut Session, batch: &Batch) -> Result<(), Failure> {
        session.transaction += 1;
        session.client.batch_execute("BEGIN").await.map_err(Trouble::from)?;
        let moves = work::moves(batch, &self.known, &self.stopped);
        if !moves.is_empty() && !self.progress.advance(&session.client, &session.progress, &moves).await? {
            return Err(Failure::Moved);
        }
        Ok(())
    }

    /// Writes everything that the positions cover.
    async fn write_uncommitted(
        &self,
        session: &mut Session,
        batch: &Batch,
        pending: &mut Pending<'_>,
        report: &mut CommitReport,
    ) -> Result<Written, Failure> {
        let moves = work::moves(batch, &self.known, &self.stopped);
        let (segments, kept) = (&pending.segments, &mut pending.kept);
        self.write_whole(session, segments, batch, report).await?;
        let found = if pending.isolated {
            self.write_isolated(session, pending.conformed, kept, report).await?
        } else {
            Found::default()
        };
        let ledgers = self.store_ledgers(session, segments).await?;
        self.quarantine.insert(&session.client, kept).await?;
        if let Some(PendingRaw { target, rows, missing }) = &mut pending.raw {
            work::without_refused(rows, missing, &found.refused);
            let started = Instant::now();
            apply::append_raw(session, rows, missing).await.map_err(|trouble| of_raw(trouble, target))?;
            let appended = TableReport {
                appended: missing.len() as u64,
                duration: started.elapsed(),
                ..TableReport::default()
            };
            report.tables.insert(target.to_string(), appended);
        }
        Ok(Written { reached: positions(&moves), ledgers, found })
    }

    /// Ends the transaction, and then knows what it has changed.
    async fn commit_transaction(
        &mut self,
        session: &Session,
        batch: &Batch,
        pending: Pending<'_>,
        Written { reached, ledgers, found }: Written,
        report: &mut CommitReport,
    ) -> Result<(), Failure> {
        let tables: BTreeSet<&TableId> = pending.segments.iter().map(|segment| segment.table).collect();
        self.attempted.clone_from(&reached);
        self.refusals.sending(&found);
        failpoint::hit("mirror.before_commit");
        session
            .client
            .batch_execute("COMMIT")
            .await
            .map_err(|error| self.of_commit(error.into(), &tables))?;
        failpoint::hit("mirror.after_commit");
        self.quarantine.enter(&pending.kept);
        report.refused.clone_from(&found.refused);
        report.superseded.clone_from(&found.superseded);
        self.refusals.committed(batch, found);
        self.passed.retain(|partition, _| !reached.contains_key(partition));
        self.known.extend(reached);
        self.ledgers = ledgers;
        self.last_move = Some(Instant::now());
        Ok(())
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
            if !after.to_text().is_empty() {
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
                policy: self.policies.of(table),
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

    /// A constraint that is checked at the end names its table, not the statement.
    fn of_commit(&self, trouble: Trouble, tables: &BTreeSet<&TableId>) -> Failure {
        if let Trouble::Table { reason, target: Some(target) }
        | Trouble::Row { reason, target: Some(target), .. } = &trouble
            && let Some(table) = tables.iter().find(|table| TargetName::of(&self.schema, table) == *target)
        {
            return Failure::Table((*table).clone(), reason.clone());
        }
        match (&self.raw, &trouble) {
            (Some(raw), Trouble::Table { target, .. } | Trouble::Row { target, .. })
                if target.as_ref() == Some(raw) =>
            {
                of_raw(trouble, raw)
            }
            _ => trouble.into(),
        }
    }
}

pub(super) fn of_table(trouble: Trouble, table: &TableId) -> Failure {
    match trouble {
        Trouble::Table { reason, .. } => Failure::Table(table.clone(), reason),
        Trouble::Row { reason, .. } => Failure::Rows(table.clone(), reason),
        other => other.into(),
    }
}

/// Every record goes to the raw table as it came, so none is put aside for it: what it does not take stops the lane.
fn of_raw(trouble: Trouble, raw: &TargetName) -> Failure {
    match trouble {
        Trouble::Table { reason, .. } | Trouble::Row { reason, .. } => {
            let message = format!(
                "the raw table {raw} does not take the raw rows: {reason}. It has to take every event as it comes: change the column,                  constraint or trigger that refuses them, or set another table in `raw` of the mirror (\"\": none); then start again, and                  the mirror goes on where it stopped"
            );
            Failure::Sink(SinkError::Stop { message })
        }
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
