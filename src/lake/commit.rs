//! A batch into the lake: what is set aside first, then every current table, and the raw table last.
//!
//! Invariant: nothing says that a record is done before all that is kept of it is stored. So the quarantine commits before any
//! position covers its records, and the raw table, from whose position a lane starts where it is the smallest, after the
//! current tables. A table that refuses its part is stopped and its topics are held back from the raw table's positions,
//! while the other tables go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::{FutureExt, StreamExt, stream};

use super::compaction::Pressure;
use super::current::{CurrentTable, topics_of};
use super::error::LakeError;
use super::location::{collision, folder};
use super::maintenance::worse;
use super::quarantine::QuarantineTable;
use super::raw::RawTable;
use super::{CONCURRENCY, Lake, Stopped, sources};
use crate::change::{Batch, ChangeBatch, CommitReport, TableId, TableReport};

/// What became of one table's part of a batch.
struct Outcome {
    id: TableId,
    table: Option<CurrentTable>,
    result: Result<(TableReport, u64), LakeError>,
}

impl Lake {
    pub(super) async fn commit_batch(&mut self, batch: &Batch) -> Result<CommitReport, LakeError> {
        let mut report = CommitReport::default();
        if !batch.quarantined.is_empty() || !batch.settled.is_empty() {
            self.commit_quarantine(batch, &mut report).await?;
        }
        self.record_schema_changes().await?;
        self.commit_current(batch, &mut report).await?;
        self.record_schema_changes().await?;
        // Also those that were found damaged since the last batch.
        let reasons = self.stopped.iter().map(|(id, stopped)| (id.clone(), stopped.reason.clone()));
        report.stopped.extend(reasons);
        let stopped: BTreeSet<Arc<str>> =
            self.stopped.values().flat_map(|table| table.topics.iter().cloned()).collect();
        if let Some(rows) = batch.raw.as_ref().filter(|rows| rows.num_rows() > 0) {
            self.commit_raw(batch, rows, &stopped, &mut report).await?;
        }
        let reached = batch.spans.iter().filter(|(partition, _)| !stopped.contains(&partition.topic));
        self.passed.extend(reached.map(|(partition, span)| (partition.clone(), span.clone())));
        Ok(report)
    }

    /// Keeps what the batch sets aside, before anything says that its records are done.
    async fn commit_quarantine(&mut self, batch: &Batch, report: &mut CommitReport) -> Result<(), LakeError> {
        let mut quarantine = match self.quarantine.take() {
            Some(quarantine) => quarantine,
            None => {
                QuarantineTable::open_or_create(self.quarantine_log()?, &self.properties, &self.writer)
                    .await?
            }
        };
        let conflicts = quarantine.commit(batch, &self.writer).await;
        self.quarantine = Some(quarantine);
        report.conflicts += conflicts?;
        Ok(())
    }

    /// Commits all current tables' parts, several at a time.
    async fn commit_current(&mut self, batch: &Batch, report: &mut CommitReport) -> Result<(), LakeError> {
        let mut parts: BTreeMap<&TableId, Vec<&ChangeBatch>> = BTreeMap::new();
        let wanted = |changes: &&ChangeBatch| self.options.current_tables && !changes.is_empty();
        for changes in batch.changes.iter().filter(wanted) {
            parts.entry(&changes.table).or_default().push(changes);
        }
        let mut work = Vec::new();
        for (id, changes) in parts {
            if let Some(stopped) = self.stopped.get_mut(id) {
                stopped.topics.extend(topics_of(batch, &changes));
                report.stopped.insert(id.clone(), stopped.reason.clone());
                continue;
            }
            work.push((id.clone(), changes, self.tables.remove(id)));
        }
        let parallel = work.len().clamp(1, CONCURRENCY);
        let memory = self.options.merge_memory / parallel;
        let this = &*self;
        let mut tasks = Vec::with_capacity(work.len());
        for (id, changes, table) in work {
            tasks.push(this.commit_one(batch, id, changes, table, memory).boxed());
        }
        let outcomes: Vec<Outcome> = stream::iter(tasks).buffer_unordered(parallel).collect().await;
        self.settle(batch, outcomes, report)?;
        let with_rows: BTreeSet<&TableId> = batch.changes.iter().map(|changes| &changes.table).collect();
        self.store_positions(batch, &with_rows).await
    }

    async fn commit_one(
        &self,
        batch: &Batch,
        id: TableId,
        changes: Vec<&ChangeBatch>,
        table: Option<CurrentTable>,
        memory: usize,
    ) -> Outcome {
        let placed = match sources::placed(self.options.policies.of(&id), batch, &changes) {
            Ok(placed) => placed,
            Err(error) => return Outcome { id, table, result: Err(error) },
        };
        let changes: Vec<&ChangeBatch> = placed.iter().map(AsRef::as_ref).collect();
        let opened = match table {
            Some(table) => Ok(table),
            None => self.open_current(&id, &changes).await,
        };
        match opened {
            Ok(mut table) => {
                let feed = self.options.policies.of(&id).change_data_feed;
                if let Err(error) = table.keep_properties(&self.properties, feed, &self.writer).await {
                    return Outcome { id, table: Some(table), result: Err(error) };
                }
                let result = table.commit(batch, &changes, &self.writer, memory).await;
                // The batch is in the table; what fails now is tried again later.
                if result.is_ok() {
                    table.tend(&self.writer, Pressure::Busy).await;
                }
                Outcome { id, table: Some(table), result }
            }
            Err(error) => Outcome { id, table: None, result: Err(error) },
        }
    }

    async fn open_current(&self, id: &TableId, changes: &[&ChangeBatch]) -> Result<CurrentTable, LakeError> {
        let folder = folder(id, &self.options.layout)?;
        if Some(&folder) == self.options.raw_table.as_ref() {
            return Err(collision(id, "of the raw history", &folder));
        }
        if folder == self.options.quarantine_table {
            return Err(collision(id, "of the quarantine", &folder));
        }
        if folder == self.options.schema_changes_table {
            return Err(collision(id, "of the record of schema changes", &folder));
        }
        let first = changes
            .first()
            .ok_or_else(|| LakeError::Refused(format!("table {id} has no schema in its events")))?;
        let since = first.source_micros.first().copied().unwrap_or(0);
        let how = (&self.properties, &self.upserts);
        CurrentTable::open_or_create(self.log(&folder)?, id, (&first.schema, since), how, &self.writer).await
    }

    /// Puts the tables back and sorts the results: the worst error decides, tables that refused are remembered.
    fn settle(
        &mut self,
        batch: &Batch,
        outcomes: Vec<Outcome>,
        report: &mut CommitReport,
    ) -> Result<(), LakeError> {
        let mut worst: Option<LakeError> = None;
        for Outcome { id, table, result } in outcomes {
            match result {
                Ok((table_report, conflicts)) => {
                    report.conflicts += conflicts;
                    report.tables.insert(id.to_string(), table_report);
                }
                Err(error) if error.stops_table() => {
                    let reason = error.to_string();
                    let of_table = |changes: &&ChangeBatch| changes.table == id;
                    let changes: Vec<&ChangeBatch> = batch.changes.iter().filter(of_table).collect();
                    let mut topics = topics_of(batch, &changes);
                    topics.extend(table.iter().flat_map(|table| table.topics().iter().cloned()));
                    report.stopped.insert(id.clone(), reason.clone());
                    let waits = table.as_ref().is_some_and(CurrentTable::waits);
                    self.stopped.insert(id.clone(), Stopped { reason, topics, waits });
                }
                Err(error) => {
                    worst = Some(worse(worst, error));
                }
            }
            if let Some(table) = table {
                self.tables.insert(id, table);
            }
        }
        worst.map_or(Ok(()), Err)
    }

    async fn commit_raw(
        &mut self,
        batch: &Batch,
        rows: &RecordBatch,
        stopped: &BTreeSet<Arc<str>>,
        report: &mut CommitReport,
    ) -> Result<(), LakeError> {
        let Some(log) = self.raw_log()? else { return Ok(()) };
        let mut raw = match self.raw.take() {
            Some(raw) => raw,
            None => RawTable::open_or_create(log, &self.properties, &self.writer).await?,
        };
        let name = raw.table.log.table().to_owned();
        if let Err(error) = raw.table.keep_properties(&self.properties, false, &self.writer).await {
            self.raw = Some(raw);
            return Err(error);
        }
        let result = raw.commit(batch, rows, stopped, &self.writer).await;
        // The batch is in the table; what fails now is tried again later.
        if result.is_ok() {
            raw.tend(&self.writer, Pressure::Busy).await;
        }
        self.raw = Some(raw);
        let (table, conflicts) = result?;
        report.tables.insert(name, table);
        report.conflicts += conflicts;
        Ok(())
    }
}
