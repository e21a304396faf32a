//! The work between batches: positions that have moved without rows, compaction, checkpoints; the vacuum has a task of its own.
//!
//! The invariant: what ails one table is that table's affair. Its fault is said, counted and waited for ([`Setback`]), the
//! others get their turn, and the lane goes on. A table that is found damaged is stopped as it would be by a batch; the lane
//! never is, because nothing that is done here has to be done now.
//!
//! [`Setback`]: super::setback::Setback

use std::collections::BTreeSet;

use super::checkpointer::Pace;
use super::compaction::Pressure;
use super::error::LakeError;
use super::table::Table;
use super::{Lake, Stopped};
use crate::change::{Batch, TableId};

impl Lake {
    /// Does what is due while no batch is waiting.
    ///
    /// # Errors
    /// [`LakeError::Fenced`], and no other.
    pub(super) async fn look_after(&mut self) -> Result<(), LakeError> {
        match self.store_passed().await {
            Err(error @ LakeError::Fenced { .. }) => return Err(error),
            Err(error) => tracing::warn!(%error, "positions could not be stored, trying again later"),
            Ok(()) => {}
        }
        self.compact().await;
        self.checkpoints(1).await;
        Ok(())
    }

    /// Stores where batches without rows ended, now and then. Left where the last row was, a position would fall out
    /// of the log once retention has removed what lies behind it, and look like a loss.
    async fn store_passed(&mut self) -> Result<(), LakeError> {
        if self.passed.is_empty() {
            return Ok(());
        }
        let batch = Batch { spans: self.passed.clone(), ..Batch::default() };
        let stored = self.store_positions(&batch, &BTreeSet::new()).await;
        let of_raw = match &mut self.raw {
            Some(raw) => raw.store_positions(&batch, &self.writer).await,
            None => Ok(()),
        };
        match (stored, of_raw) {
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
            (Err(one), Err(other)) => Err(worse(Some(one), other)),
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    /// Stores the positions of a batch in the current tables that are not among `with_rows`. A table that refuses is stopped, and
    /// an error that may pass is told of when all have had their turn.
    pub(super) async fn store_positions(
        &mut self,
        batch: &Batch,
        with_rows: &BTreeSet<&TableId>,
    ) -> Result<(), LakeError> {
        let (mut worst, mut refused) = (None, Vec::new());
        for (id, table) in &mut self.tables {
            if with_rows.contains(id) || self.stopped.contains_key(id) {
                continue;
            }
            match table.store_positions(batch, &self.writer).await {
                Ok(()) => {}
                Err(error) if error.stops_table() => refused.push((id.clone(), error)),
                Err(error) => worst = Some(worse(worst, error)),
            }
        }
        for (id, error) in refused {
            self.stop(&id, &error);
        }
        worst.map_or(Ok(()), Err)
    }

    /// Makes a step of compaction in every table where one is due.
    async fn compact(&mut self) {
        let mut damaged = Vec::new();
        for (id, table) in &mut self.tables {
            if self.stopped.contains_key(id) {
                continue;
            }
            // What is missing of a table that others have changed meanwhile is not needed any more.
            if let Some(error) = table.tend(&self.writer, Pressure::Idle).await
                && error.stops_table()
                && table.table.is_newest().await
            {
                damaged.push((id.clone(), error));
            }
        }
        for (id, error) in damaged {
            self.stop(&id, &error);
        }
        if let Some(raw) = &mut self.raw {
            raw.tend(&self.writer, Pressure::Idle).await;
        }
        if let Some(quarantine) = &mut self.quarantine {
            quarantine.tend(&self.writer).await;
        }
        if let Some(audit) = &mut self.audit {
            audit.tend(&self.writer).await;
        }
    }

    /// Has the checkpoint written that is due `factor` times over.
    pub(super) async fn checkpoints(&mut self, factor: u64) {
        let pace = Pace {
            commits: self.options.checkpoint_interval.saturating_mul(factor),
            bytes: self.options.checkpoint_log_bytes.saturating_mul(factor),
        };
        let tables = self.tables.values_mut().map(|table| &mut table.table);
        let tables = tables.chain(self.raw.as_mut().map(|raw| &mut raw.table));
        let tables = tables.chain(self.quarantine.as_mut().map(|quarantine| &mut quarantine.table));
        let tables: Vec<&mut Table> =
            tables.chain(self.audit.as_mut().map(|audit| &mut audit.table)).collect();
        self.checkpointer.step(tables, pace).await;
    }

    /// Waits for checkpoints that have been begun, and has all written that are due.
    pub(super) async fn finish_checkpoints(&mut self) {
        self.checkpoints(1).await;
        while self.checkpointer.wait().await {
            self.checkpoints(1).await;
        }
    }

    /// Stops a table by an error that was met outside of its batches. The next batch's report names it.
    fn stop(&mut self, id: &TableId, error: &LakeError) {
        tracing::error!(table = %id, %error, "table stopped");
        let topics = self.tables.get(id).map(|table| table.topics().clone()).unwrap_or_default();
        let stopped = Stopped { reason: error.to_string(), topics, waits: false };
        self.stopped.insert(id.clone(), stopped);
    }
}

/// The error of two that decides: that another instance has written comes before everything else.
pub(super) fn worse(worst: Option<LakeError>, error: LakeError) -> LakeError {
    match worst {
        Some(fenced @ LakeError::Fenced { .. }) => fenced,
        _ => error,
    }
}
