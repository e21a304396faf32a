//! What a mirror remembers of rows that its tables refused.
//!
//! Between attempts at one batch: which tables are written row by row. Between batches: whose rows are missing. The
//! decoder learns of refused keys when the batch is committed, while it has decoded the next one already; so the next two
//! batches look for these keys here.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::attempt::{Failure, of_table};
use super::isolate::{Isolating, Isolation, KeyCells};
use super::session::Session;
use super::work;
use crate::change::quarantine::{Ledger, Limiter, Limits, RecordPlace, Waiting};
use crate::change::{Batch, ChangeBatch, CommitReport, OnError, Policies, Progress, RefusedChange, TableId};

/// Batches that may have been decoded before a refused key was known.
const BATCHES: u8 = 2;

struct Recent {
    table: TableId,
    key: KeyCells,
    place: RecordPlace,
    batches: u8,
}

/// What one attempt found, remembered once it is committed.
#[derive(Default)]
pub(super) struct Found {
    pub(super) refused: Vec<RefusedChange>,
    pub(super) superseded: Vec<RecordPlace>,
    missing: Vec<(TableId, KeyCells, RecordPlace)>,
    limiter: Option<Limiter>,
}

/// Refusals of one mirror.
pub(super) struct Refusals {
    policies: Policies,
    /// Tables that are written row by row in the next attempt.
    isolated: BTreeSet<TableId>,
    recent: Vec<Recent>,
    limiter: Limiter,
    /// Until the quarantine was first read, the limits that it begins with.
    unread: Option<Limits>,
    /// Refused in a commit whose reply has not come.
    unreported: (Vec<RefusedChange>, Vec<RecordPlace>),
}

impl Refusals {
    pub(super) fn new(policies: &Policies, limits: Limits) -> Self {
        Self {
            policies: policies.clone(),
            isolated: BTreeSet::new(),
            recent: Vec::new(),
            limiter: Limiter::new(limits, 0),
            unread: Some(limits),
            unreported: (Vec::new(), Vec::new()),
        }
    }

    /// The quarantine was read, with positions as they are stored: what earlier runs have left there counts.
    pub(super) fn read(&mut self, ledger: &Ledger, progress: &Progress) {
        if let Some(limits) = self.unread.take() {
            let waiting = Waiting::of(ledger, progress, chrono::Utc::now().timestamp_micros());
            self.limiter = Limiter::after(limits, 0, waiting);
        }
    }

    /// Whether a table whose rows were refused may go on without them; it is then written row by row.
    pub(super) fn isolate(&mut self, table: &TableId, batch: &Batch) -> bool {
        let wanted = batch.replay
            || (batch.originals.is_some() && self.policies.of(table).on_error == OnError::Quarantine);
        wanted && self.isolated.insert(table.clone())
    }

    /// Whether a table is written row by row.
    pub(super) fn isolates(&self, table: &TableId) -> bool {
        self.isolated.contains(table) || self.recent.iter().any(|recent| recent.table == *table)
    }

    /// Writes the parts of those tables.
    pub(super) async fn write(
        &self,
        session: &mut Session,
        batch: &Batch,
        starts: &[i64],
        report: &mut CommitReport,
    ) -> Result<Found, Failure> {
        let mut limiter = self.limiter.clone();
        let mut found = Found::default();
        let runs = work::runs(batch);
        let tables: BTreeSet<&TableId> =
            batch.changes.iter().map(|changes| &changes.table).filter(|table| self.isolates(table)).collect();
        for table in tables {
            let started = Instant::now();
            let of_table: Vec<Vec<&ChangeBatch>> = runs
                .iter()
                .filter(|run| run.first().is_some_and(|first| first.table == *table))
                .cloned()
                .collect();
            let mut isolating = Isolating {
                table,
                batch,
                starts,
                several_sources: self.policies.of(table).several_sources,
                limiter: &mut limiter,
                missing: self.missing(table),
                refused: Vec::new(),
                superseded: Vec::new(),
                report: report.tables.remove(&table.to_string()).unwrap_or_default(),
            };
            let written = isolating.write(session, &of_table).await;
            let Isolating { missing, refused, superseded, report: mut done, .. } = isolating;
            written.map_err(|isolation| failure(isolation, table))?;
            done.duration += started.elapsed();
            report.tables.insert(table.to_string(), done);
            for (key, places) in missing {
                found.missing.extend(places.into_iter().map(|place| (table.clone(), key.clone(), place)));
            }
            found.refused.extend(refused);
            found.superseded.extend(superseded);
        }
        found.limiter = Some(limiter);
        Ok(found)
    }

    fn missing(&self, table: &TableId) -> HashMap<KeyCells, Vec<RecordPlace>> {
        let mut missing: HashMap<KeyCells, Vec<RecordPlace>> = HashMap::new();
        for recent in self.recent.iter().filter(|recent| recent.table == *table) {
            missing.entry(recent.key.clone()).or_default().push(recent.place.clone());
        }
        missing
    }

    /// A commit with these refusals is about to be sent.
    pub(super) fn sending(&mut self, found: &Found) {
        self.unreported = (found.refused.clone(), found.superseded.clone());
    }

    /// What the lane has not been told of a commit whose reply was lost.
    pub(super) fn unreported(&mut self, report: &mut CommitReport) {
        let (refused, superseded) = std::mem::take(&mut self.unreported);
        report.refused.extend(refused);
        report.superseded.extend(superseded);
    }

    /// The batch is committed.
    pub(super) fn committed(&mut self, batch: &Batch, found: Found) {
        self.unreported = (Vec::new(), Vec::new());
        self.isolated.clear();
        if let Some(limiter) = found.limiter {
            self.limiter = limiter;
        }
        if batch.replay {
            return;
        }
        let changes: usize = batch.changes.iter().map(ChangeBatch::len).sum();
        self.limiter.good_many(changes.saturating_sub(found.refused.len()));
        let still: BTreeSet<&RecordPlace> = found.missing.iter().map(|(_, _, place)| place).collect();
        for recent in &mut self.recent {
            let seen = found.superseded.contains(&recent.place);
            recent.batches =
                if seen && !still.contains(&recent.place) { 0 } else { recent.batches.saturating_sub(1) };
        }
        self.recent.retain(|recent| recent.batches > 0);
        let new = |place: &RecordPlace| found.refused.iter().any(|refused| refused.place == *place);
        let entered = found.missing.iter().filter(|(_, _, place)| new(place));
        self.recent.extend(entered.map(|(table, key, place)| Recent {
            table: table.clone(),
            key: key.clone(),
            place: place.clone(),
            batches: BATCHES,
        }));
    }
}

fn failure(isolation: Isolation, table: &TableId) -> Failure {
    match isolation {
        Isolation::Trouble(trouble) => of_table(trouble, table),
        Isolation::Columns(error) => Failure::Table(table.clone(), error.to_string()),
        Isolation::TooMany(error) => Failure::Sink(error),
    }
}
