//! A current table and the schemas of its events: looking at them, and following or refusing them.

use std::borrow::Cow;
use std::sync::Arc;

use super::audit::{Fate, SchemaChangeEntry};
use super::current::CurrentTable;
use super::error::LakeError;
use super::evolve::{self, Redefinition};
use super::log::Outcome;
use super::table::{Advance, Writer};
use crate::change::{Batch, ChangeBatch, Outlook, Pending, SchemaChange, look};
use crate::failpoint;

impl CurrentTable {
    /// The newest changes of its schema, and the table's id, under which they are counted.
    pub(super) fn schema_changes(&self) -> (&str, &[SchemaChangeEntry]) {
        (&self.table.state.metadata().id, &self.changes)
    }

    /// Whether it waits for somebody to say what becomes of a schema.
    pub(super) fn waits(&self) -> bool {
        self.lineage.pending.is_some()
    }

    /// Reads what others have committed, and says whether nothing is waited for any more.
    pub(super) async fn is_released(&mut self, writer: &Writer) -> Result<bool, LakeError> {
        self.table.catch_up(writer, &[]).await?;
        self.read_schema()?;
        Ok(!self.waits())
    }

    /// What the schemas of the changes ask for.
    pub(super) fn look<'a>(
        &self,
        batch: &Batch,
        changes: &[&'a ChangeBatch],
        writer: &Writer,
    ) -> Result<Outlook<'a>, LakeError> {
        let known = (&self.schema, &self.lineage);
        look(known, batch, changes, &self.policy, self.missing(batch, writer))
            .map_err(|unfit| LakeError::Refused(format!("table {}: {unfit}", self.id)))
    }

    /// Makes the table ready for the changes and gives them in its form; `None` where another writer came between.
    pub(super) async fn evolve<'a>(
        &mut self,
        outlook: Outlook<'a>,
        writer: &Writer,
        advances: &[Advance],
        done: &mut Vec<&'static str>,
    ) -> Result<Option<Vec<Cow<'a, ChangeBatch>>>, LakeError> {
        if let Some(pending) = outlook.refused {
            return self.refuse(&pending, writer, advances).await;
        }
        let ignored = self.policy.schema_change == SchemaChange::Ignore;
        let fate = if ignored { Fate::Ignored } else { Fate::Applied };
        let Some(redefinition) = Redefinition::of(outlook.steps, fate) else {
            return Ok(Some(outlook.aligned));
        };
        let kinds = redefinition.entries.iter().map(|entry| entry.difference.kind.name());
        if !self.redefine(&redefinition, writer, advances).await? {
            return Ok(None);
        }
        done.extend(kinds);
        for entry in &redefinition.entries {
            tracing::info!(table = %self.id, fate = ?entry.fate, "schema change: {}", entry.difference);
        }
        Ok(Some(outlook.aligned))
    }

    /// Gives the table another definition; `false` where another writer came between.
    async fn redefine(
        &mut self,
        redefinition: &Redefinition,
        writer: &Writer,
        advances: &[Advance],
    ) -> Result<bool, LakeError> {
        let schema = Arc::clone(&self.schema);
        let mut rows = self.merge_on_read.take();
        let index = rows.as_mut().map(|rows| (rows, &*schema, self.shape));
        let committed = redefinition.commit(&self.id, &mut self.table, writer, advances, index).await;
        if let (Some(rows), Ok(Some(done))) = (&mut rows, &committed) {
            failpoint::hit("lake.before_index");
            rows.rewritten(self.table.state.version(), &done.entry, &done.files);
        }
        self.merge_on_read = rows;
        self.snapshot = None;
        self.read_schema()?;
        Ok(committed.map_err(|error| evolve::misfit_text(&self.id, error))?.is_some())
    }

    /// Writes down why the table stops, once; `Ok` where another writer came between.
    async fn refuse<T>(
        &mut self,
        pending: &Pending,
        writer: &Writer,
        advances: &[Advance],
    ) -> Result<Option<T>, LakeError> {
        let known = self.lineage.pending.as_ref();
        if known.is_none_or(|known| known.events != pending.events) {
            let entry = evolve::refusal_entry(&self.table.state, &self.lineage, pending, &writer.id);
            if self.table.commit(entry).await? == Outcome::Conflict {
                self.table.catch_up(writer, advances).await?;
                self.read_schema()?;
                return Ok(None);
            }
            self.read_schema()?;
        }
        Err(LakeError::Refused(pending.text(&self.id)))
    }
}
