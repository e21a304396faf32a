//! The ways by which a folded batch gets into a current table: by deletion vectors, by files that are written anew, or by the
//! MERGE of the library.
//!
//! Which way it is depends on the settings and on what others ask of the table, and is decided anew for each batch, because
//! both may change. The promise is the same for all: rows, positions and ledger are one commit, at the version after the
//! one that was looked at, or nothing has happened.

use deltalake::DeltaTable;

use super::action::Entry;
use super::current::CurrentTable;
use super::error::LakeError;
use super::log::Outcome;
use super::mor::{self, DataFiles, Done, Upserted};
use super::table::{Advance, Writer, txns};
use super::{inherit, missing, upsert};
use crate::change::Folded;

impl CurrentTable {
    /// Brings the folded batch into the table by the way that the table is written.
    pub(super) async fn apply(
        &mut self,
        folded: &Folded,
        advances: &[Advance],
        writer: &Writer,
        merge_memory: usize,
    ) -> Result<Upserted, LakeError> {
        if let Some(merge_on_read) = &mut self.merge_on_read {
            let obstacle = mor::obstacle(&self.table.state, &self.schema);
            if obstacle.is_none() {
                self.snapshot = None;
                let upserted =
                    merge_on_read.upsert(&mut self.table, (folded, self.shape), advances, writer).await;
                self.read_schema()?;
                return upserted;
            }
            if self.obstacle != obstacle {
                let reason = obstacle.as_deref().unwrap_or_default();
                tracing::info!(table = %self.id, reason, "the table is written by rewriting files, not by deletion vectors");
                self.obstacle = obstacle;
            }
        }
        if folded.is_keyless() || folded.truncates() {
            return self.rewrite(folded, advances, writer).await;
        }
        self.merge(folded, advances, writer, merge_memory).await
    }

    /// Writes touched files anew: what the library's MERGE, which compares keys, cannot do.
    async fn rewrite(
        &mut self,
        folded: &Folded,
        advances: &[Advance],
        writer: &Writer,
    ) -> Result<Upserted, LakeError> {
        if let Some(reason) = mor::foreign_demand(&self.table.state, &self.schema) {
            let what = if folded.is_keyless() { "has no key" } else { "was truncated in the source" };
            return Err(LakeError::Refused(format!(
                "table {} {what}, and its files cannot be written anew here: {reason}. Undo that, or move the table's folder away \
                 and rebuild it",
                self.id
            )));
        }
        self.snapshot = None;
        let rows = (folded, self.shape);
        let upserted = mor::rewrite::upsert(&mut self.table, rows, advances, writer).await;
        self.read_schema()?;
        upserted
    }

    /// Merges by the library, as the next version.
    async fn merge(
        &mut self,
        folded: &Folded,
        advances: &[Advance],
        writer: &Writer,
        merge_memory: usize,
    ) -> Result<Upserted, LakeError> {
        let version = self.table.state.version();
        let (mut unresolved, shape) = (Vec::new(), self.shape);
        let mut ledger = String::new();
        let files = DataFiles { table: self.table.log.table().into(), store: self.table.log.files() };
        let merged = async {
            let failed = |error| LakeError::delta(&files.table, &error);
            let snapshot = self.snapshot_at(version).await.map_err(failed)?;
            let (settled, after) =
                inherit::settle_all(&snapshot, (folded, shape), &files, merge_memory).await?;
            unresolved.extend(settled.unresolved);
            ledger = after.to_text();
            let info = (writer.id.as_str(), ledger.as_str());
            let rows = (&settled.folded, shape);
            upsert::merge(snapshot, rows, txns(advances), info, merge_memory).await.map_err(failed)
        };
        let merged = merged.await;
        let done = Done { unresolved_absent: unresolved.len() as u64, unresolved, ..Done::default() };
        let committed = Ok(Upserted::Committed { done, conflicts: 0 });
        let found = self.table.catch_up(writer, advances).await?;
        if found.metadata {
            self.read_schema()?;
        }
        if self.table.has(advances) {
            // Also where the reply was lost: the positions stand in the log, written by this instance.
            self.snapshot = merged.ok();
            return committed;
        }
        match merged {
            // Keys that were not there were deleted: nothing changed, and the library commits nothing.
            Ok(snapshot) if found.commits == 0 => {
                self.snapshot = Some(snapshot);
                let entry = Entry::of_batch("MERGE", &writer.id, super::now_millis(), &ledger);
                let entry = txns(advances).fold(entry, |entry, txn| entry.txn(&txn));
                match self.table.commit(entry.into_bytes()).await? {
                    Outcome::Committed => committed,
                    Outcome::Conflict => {
                        self.table.catch_up(writer, advances).await?;
                        self.read_schema()?;
                        Ok(Upserted::Changed)
                    }
                }
            }
            Err(error) if found.commits == 0 => Err(missing::or_gone(&self.table, error).await),
            _ => Ok(Upserted::Changed),
        }
    }

    /// The library's view of a version.
    pub(super) async fn snapshot_at(
        &mut self,
        version: u64,
    ) -> Result<DeltaTable, deltalake::DeltaTableError> {
        let mut snapshot = match self.snapshot.take() {
            Some(snapshot) if snapshot.version().is_some_and(|at| at <= version) => snapshot,
            _ => DeltaTable::new(self.table.log.guarded()),
        };
        if snapshot.version() != Some(version) {
            snapshot.update_incremental(Some(version)).await?;
        }
        Ok(snapshot)
    }
}
