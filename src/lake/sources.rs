//! Tables that take the rows of several source tables: which changes of a batch are late, by what is stored.
//!
//! The rule is that of [`sources`]; here the stored rows of a batch's keys are looked up, at the version that the batch is
//! committed on. Where another writer takes that version, the batch is compared anew.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::by_key;
use super::current::CurrentTable;
use super::error::LakeError;
use super::mor;
use super::schema::SOURCE_TIME;
use super::table::Writer;
use crate::change::sources::{self, LSN, LastChange, Settled, TOPIC_PARTITION, Touched};
use crate::change::{Batch, ChangeBatch, TableMode, TablePolicy, TableReport, TableSchema};

/// The changes of a table as they are written: with the columns that say where they came from, where it takes the rows of
/// several source tables. A history has every change, late or not; without a key there is no row to compare with.
pub(super) fn placed<'a>(
    policy: &TablePolicy,
    batch: &Batch,
    changes: &[&'a ChangeBatch],
) -> Result<Vec<Cow<'a, ChangeBatch>>, LakeError> {
    let is_placed = policy.several_sources && policy.mode == TableMode::Current;
    let one = |&changes: &&'a ChangeBatch| {
        if !is_placed || changes.schema.key().is_empty() {
            return Ok(Cow::Borrowed(changes));
        }
        let placed = sources::placed(changes, &batch.partitions);
        placed.map(Cow::Owned).map_err(|error| {
            LakeError::Refused(format!("table {} cannot take this batch: {error}", changes.table))
        })
    };
    changes.iter().map(one).collect()
}

impl CurrentTable {
    /// Leaves out the changes that are late; gives the others, and what is to be reported of those that were left out.
    pub(super) async fn without_late<'a>(
        &mut self,
        batch: &Batch,
        changes: Vec<Cow<'a, ChangeBatch>>,
        writer: &Writer,
        memory: usize,
    ) -> Result<(Vec<Cow<'a, ChangeBatch>>, TableReport), LakeError> {
        if !self.policy.several_sources || !sources::are_placed(&self.schema) {
            return Ok((changes, TableReport::default()));
        }
        let schema = Arc::clone(&self.schema);
        let parts: Vec<&ChangeBatch> = changes.iter().map(AsRef::as_ref).collect();
        let touched = Touched::of(&schema, &parts, self.missing(batch, writer));
        let touched = touched.map_err(|error| self.refused(&error))?;
        if touched.is_empty() {
            return Ok((changes, TableReport::default()));
        }
        let keys = touched.keys(&schema).map_err(|error| self.refused(&error))?;
        let stored = self.last_changes(&schema, &keys, memory).await?;
        let settled = touched.settle(&parts, batch, stored);
        let Settled { changes, late, late_replays } = settled.map_err(|error| self.refused(&error))?;
        let report = TableReport { late, late_replays, ..TableReport::default() };
        Ok((changes.into_iter().map(Cow::Owned).collect(), report))
    }

    fn refused(&self, error: &ArrowError) -> LakeError {
        LakeError::Refused(format!("table {} cannot take this batch: {error}", self.id))
    }

    /// The last changes of the stored rows with these keys.
    async fn last_changes(
        &mut self,
        schema: &TableSchema,
        keys: &RecordBatch,
        memory: usize,
    ) -> Result<Vec<Option<LastChange>>, LakeError> {
        let columns = wanted();
        let obstacle = mor::obstacle(&self.table.state, schema);
        let (batches, places) = match &mut self.merge_on_read {
            Some(rows) if obstacle.is_none() => {
                rows.stored_rows(&self.table, (schema, self.shape), keys, &columns).await?
            }
            _ => {
                let version = self.table.state.version();
                let name = self.table.log.table().to_owned();
                let failed = |error| LakeError::delta(&name, &error);
                let snapshot = self.snapshot_at(version).await.map_err(failed)?;
                let found = by_key::stored_rows(&snapshot, schema, keys, (&columns, None), memory).await;
                let found = found.map_err(failed)?;
                self.snapshot = Some(snapshot);
                found
            }
        };
        let last = |place: Option<(usize, usize)>| {
            place.and_then(|(batch, row)| Some(last_change(batches.get(batch)?, row)))
        };
        Ok(places.into_iter().map(last).collect())
    }
}

/// What is read of a stored row.
fn wanted() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new(TOPIC_PARTITION, DataType::Utf8, true),
        Field::new(LSN, DataType::Int64, true),
        Field::new(SOURCE_TIME, time, true),
    ]))
}

/// What a row of these columns says.
fn last_change(rows: &RecordBatch, row: usize) -> LastChange {
    let column = |name: &str| rows.column_by_name(name).filter(|column| column.is_valid(row));
    let partition = column(TOPIC_PARTITION).and_then(|names| names.as_string_opt::<i32>());
    let lsn = column(LSN).and_then(|lsns| lsns.as_primitive_opt::<Int64Type>());
    let micros = column(SOURCE_TIME).and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
    LastChange {
        partition: partition.map(|names| Arc::from(names.value(row))),
        lsn: lsn.map(|lsns| lsns.value(row)),
        micros: micros.map(|times| times.value(row)),
    }
}
