//! Tables that take the rows of several source tables: which changes of a batch are late, by what is stored.
//!
//! The rule is that of [`sources`]. It is asked inside the batch's transaction, after a lock that every instance takes
//! which writes this table: two instances may read different topics of it, and what one looked up has to hold until its
//! commit. It is an advisory lock, so that readers and other writers of the table do not notice.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, new_null_array};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use tokio_postgres::SimpleQueryMessage;

use super::Mirror;
use super::assign::Limit;
use super::attempt::{Failure, of_table};
use super::copy::RowEncoder;
use super::ledger::literal;
use super::names::TargetName;
use super::session::{Session, Writer};
use super::sql::Statements;
use super::sqlstate::Trouble;
use super::types::Wire;
use super::work;
use crate::change::sources::{self, LastChange, Settled, Touched};
use crate::change::{Batch, ChangeBatch, CommitReport, SinkError, TableId, TableSchema};

impl Mirror {
    /// The batch as it is written: with the columns that say where changes came from, in tables with several sources.
    pub(super) fn placed<'a>(&self, batch: &'a Batch) -> Result<Cow<'a, Batch>, Failure> {
        let wants = |changes: &ChangeBatch| {
            self.policies.of(&changes.table).several_sources && !changes.schema.key().is_empty()
        };
        if !batch.changes.iter().any(wants) {
            return Ok(Cow::Borrowed(batch));
        }
        let place = |changes: &ChangeBatch| {
            if !wants(changes) {
                return Ok(changes.clone());
            }
            let placed = sources::placed(changes, &batch.partitions);
            placed.map_err(|error| Failure::Table(changes.table.clone(), error.to_string()))
        };
        let changes = batch.changes.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Cow::Owned(Batch { changes, ..batch.clone() }))
    }

    /// The batch without the changes that are late; `None` where it has no table in which there are such.
    pub(super) async fn without_late(
        &self,
        session: &mut Session,
        batch: &Batch,
        report: &mut CommitReport,
    ) -> Result<Option<Batch>, Failure> {
        let keep = work::keeps(batch, &self.known, &self.stopped);
        let mut parts: BTreeMap<&TableId, Vec<&ChangeBatch>> = BTreeMap::new();
        for changes in &batch.changes {
            if self.policies.of(&changes.table).several_sources && sources::are_placed(&changes.schema) {
                parts.entry(&changes.table).or_default().push(changes);
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let of_others = |changes: &&ChangeBatch| !parts.contains_key(&changes.table);
        let mut changes: Vec<ChangeBatch> = batch.changes.iter().filter(of_others).cloned().collect();
        for (table, parts) in parts {
            let settled = self.settle(session, (table, &parts), batch, &keep).await?;
            let of_table = report.tables.entry(table.to_string()).or_default();
            of_table.late += settled.late;
            of_table.late_replays.extend(settled.late_replays);
            changes.extend(settled.changes.into_iter().filter(|changes| !changes.is_empty()));
        }
        Ok(Some(Batch { changes, ..batch.clone() }))
    }

    async fn settle(
        &self,
        session: &mut Session,
        (table, parts): (&TableId, &[&ChangeBatch]),
        batch: &Batch,
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Settled, Failure> {
        let failed = |error: ArrowError| Failure::Table(table.clone(), error.to_string());
        // Only the schemas of changes that count were made ready.
        let counts = |changes: &&&ChangeBatch| {
            changes
                .partitions
                .iter()
                .zip(&changes.offsets)
                .any(|(partition, offset)| keep(*partition, *offset))
        };
        let Some(schema) = parts.iter().rfind(counts).map(|changes| Arc::clone(&changes.schema)) else {
            let changes = parts.iter().copied().cloned().collect();
            return Ok(Settled { changes, late: 0, late_replays: Vec::new() });
        };
        let touched = Touched::of(&schema, parts, &keep).map_err(failed)?;
        let keys = touched.keys(&schema).map_err(failed)?;
        let name = TargetName::of(&self.schema, table).sql();
        let lock = format!(
            "SELECT pg_advisory_xact_lock(hashtextextended({}, 0))",
            literal(&format!("alluvium {name}"))
        );
        session.client.batch_execute(&lock).await.map_err(Trouble::from)?;
        let Some(writer) = session.table(table, &schema) else {
            let message = format!("table {table} was not made ready for its rows");
            return Err(Failure::Sink(SinkError::Retry { class: "session", message }));
        };
        let stored = match last_changes(writer, &schema, &keys).await {
            Ok(stored) => stored,
            Err(trouble) => {
                session.forget(table);
                return Err(of_table(trouble, table));
            }
        };
        touched.settle(parts, batch, stored).map_err(failed)
    }
}

/// The last changes of the stored rows with these keys.
async fn last_changes(
    writer: Writer<'_>,
    schema: &TableSchema,
    keys: &RecordBatch,
) -> Result<Vec<Option<LastChange>>, Trouble> {
    let Writer { client, buffer, transaction, prepared } = writer;
    let rows = keys.num_rows();
    let numbers: ArrayRef = Arc::new((0_i32..).take(rows).collect::<Int32Array>());
    let kept = new_null_array(&DataType::Utf8, rows);
    let mut encoder = RowEncoder::default();
    encoder.column("__list", &Wire::Int4, Limit::default(), &numbers)?;
    encoder.column("__rank", &Wire::Int4, Limit::default(), &numbers)?;
    encoder.column("__kept", &Wire::Text, Limit::default(), &kept)?;
    let columns = prepared.plan.key.iter().filter_map(|&at| prepared.plan.columns.get(at));
    for (column, array) in columns.zip(keys.columns()) {
        encoder.column(&column.name, &column.wire, column.limit, array)?;
    }
    prepared.origins.fill(client, transaction, &encoder, 0..rows, buffer).await?;
    let statements = Statements::new(&prepared.plan, schema.columns().len());
    let mut stored = vec![None; rows];
    for message in client.simple_query(&statements.last_changes(&prepared.origins.name)).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let number = |column: usize| row.get(column).and_then(|text| text.parse::<i64>().ok());
        let place = number(0).and_then(|number| usize::try_from(number).ok());
        if let Some(slot) = place.and_then(|place| stored.get_mut(place)) {
            *slot =
                Some(LastChange { partition: row.get(1).map(Arc::from), lsn: number(2), micros: number(3) });
        }
    }
    Ok(stored)
}
