//! Tables with `mode = "history"`: what they are refused for, and how a batch gets into them.
//!
//! A history is written by deletion vectors only: it costs the batch, and a table that is rewritten with every batch has
//! no use for its history. What a table is was decided when it was created; another mode would make wrong rows of those
//! that are there, so a setting that differs stops the table.

use super::current::CurrentTable;
use super::error::LakeError;
use super::mor::{self, Upserted};
use super::table::{Advance, Writer};
use crate::change::{Batch, ChangeBatch, TableMode, TableReport, Versions};

impl CurrentTable {
    /// Refuses what the settings say the table is, where it is something else, or cannot be it.
    pub(super) fn check_mode(&self) -> Result<(), LakeError> {
        let (is_history, wants_history) = (self.shape.history, self.policy.mode == TableMode::History);
        if is_history != wants_history {
            let word = |history| if history { "history" } else { "current" };
            return Err(LakeError::Refused(format!(
                "table {} was created with mode = \"{}\" and is set to \"{}\" now; set it back, or move the folder {:?} away and let the \
                 table be built anew from a topic that still has everything",
                self.id,
                word(is_history),
                word(wants_history),
                self.table.log.table(),
            )));
        }
        if is_history && self.schema.key().is_empty() {
            return Err(LakeError::Refused(format!(
                "table {} has no key, by which its versions could be told apart; a history needs one: give it a primary key in the source, \
                 or set mode = \"current\" for it",
                self.id
            )));
        }
        Ok(())
    }

    /// Brings the versions that `changes` make into the table; `None` where another writer changed its definition.
    pub(super) async fn add_versions(
        &mut self,
        batch: &Batch,
        changes: &[&ChangeBatch],
        advances: &[Advance],
        writer: &Writer,
    ) -> Result<Option<(TableReport, u64)>, LakeError> {
        let keep = self.missing(batch, writer);
        let versions = Versions::of(&self.schema, changes, keep).map_err(|error| {
            LakeError::Refused(format!("table {} cannot take this batch: {error}", self.id))
        })?;
        if versions.changes == 0 || advances.is_empty() {
            return Ok(Some((TableReport::default(), 0)));
        }
        let obstacle = mor::obstacle(&self.table.state, &self.schema);
        let rows = match (&mut self.merge_on_read, obstacle) {
            (Some(rows), None) => rows,
            (_, obstacle) => {
                return Err(LakeError::Refused(format!(
                    "the history of table {} is written by deletion vectors, and that cannot be done: {}",
                    self.id,
                    obstacle.unwrap_or_else(|| "write is not \"merge-on-read\" for it".to_owned())
                )));
            }
        };
        let numbers: Vec<i32> = batch.partitions.iter().map(|partition| partition.partition).collect();
        let added = rows.add_versions(&mut self.table, (&versions, &numbers), advances, writer).await;
        self.read_schema()?;
        let Upserted::Committed { done, conflicts } = added? else { return Ok(None) };
        let report = TableReport {
            upserted: versions.begun.len() as u64,
            deleted: versions.deletes - done.unknown_deletes,
            unresolved_absent: done.unresolved_absent,
            unknown_deletes: done.unknown_deletes,
            truncated: versions.ending.is_some(),
            version: Some(self.table.state.version() as i64),
            ..TableReport::default()
        };
        Ok(Some((report, conflicts)))
    }
}
