//! Writing one table's part, and the raw rows, inside the batch's transaction.
//!
//! What a truncate takes goes first. Deletes come before upserts, so that a row may take over a unique value of one that is gone.

use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use tokio_postgres::SimpleQueryMessage;

use super::copy::RowEncoder;
use super::session::{RawPath, Session, Writer};
use super::sql::Statements;
use super::sqlstate::Trouble;
use super::staging;
use crate::change::{Folded, TableReport, raw};

/// Which of the folded changes of a table are written, by index.
pub(super) struct Part {
    pub(super) deletes: Vec<usize>,
    pub(super) rows: Vec<usize>,
}

impl Part {
    /// All of them.
    pub(super) fn all(folded: &Folded) -> Self {
        Self {
            deletes: (0..folded.deletes.num_rows()).collect(),
            rows: (0..folded.rows.num_rows()).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.deletes.len() + self.rows.len()
    }

    /// The same in two parts, where there is more than one change.
    pub(super) fn halves(&self) -> Option<[Self; 2]> {
        let split = |indexes: &[usize]| {
            let (first, second) = indexes.split_at(indexes.len() / 2);
            (first.to_vec(), second.to_vec())
        };
        let ((first_deletes, second_deletes), (first_rows, second_rows)) =
            (split(&self.deletes), split(&self.rows));
        (self.len() > 1).then_some([
            Self { deletes: first_deletes, rows: first_rows },
            Self { deletes: second_deletes, rows: second_rows },
        ])
    }
}

/// Writes folded changes of a table.
pub(super) async fn write(
    writer: Writer<'_>,
    folded: &Folded,
    part: &Part,
    report: &mut TableReport,
) -> Result<(), Trouble> {
    let Writer { client, buffer, transaction, prepared } = writer;
    let source_columns = folded.schema.columns().len();
    let statements = Statements::new(&prepared.plan, source_columns);
    let unknown_before = report.unknown_deletes;
    if let Some(truncated) = folded.truncated {
        client.batch_execute(&statements.empty(truncated)).await?;
        report.truncated = true;
    }
    let deletes = part.deletes.len();
    if deletes > 0 {
        let encoder = delete_encoder(&statements, folded)?;
        prepared.keys.fill(client, transaction, &encoder, part.deletes.iter().copied(), buffer).await?;
        if folded.is_keyless() {
            let deleted = client.simple_query(&statements.delete_rows(&prepared.keys.name)).await?;
            report.unknown_deletes += (deletes as u64).saturating_sub(affected(&deleted));
        } else {
            client.batch_execute(&statements.delete(&prepared.keys.name)).await?;
        }
    }
    let rows = part.rows.len();
    if rows > 0 {
        let masks: Vec<(i16, BooleanBuffer)> = folded
            .absent
            .iter()
            .enumerate()
            .filter_map(|(index, mask)| Some((i16::try_from(index).ok()?, mask.clone()?)))
            .collect();
        let encoder = row_encoder(&statements, source_columns, folded, &masks)?;
        prepared.rows.fill(client, transaction, &encoder, part.rows.iter().copied(), buffer).await?;
        // Without a key there is no stored row to keep cells of.
        let kept = if folded.is_keyless() { &[] } else { masks.as_slice() };
        let absent: Vec<i16> = kept.iter().map(|(field, _)| *field).collect();
        if folded.is_keyless() {
            report.unresolved_absent +=
                masks.iter().map(|(_, mask)| mask.count_set_bits() as u64).sum::<u64>();
        } else if !absent.is_empty() {
            report.unresolved_absent +=
                first_number(&client.simple_query(&statements.count_unresolved(&prepared.rows.name)).await?);
        }
        client.batch_execute(&statements.upsert(&prepared.rows.name, &absent)).await?;
    }
    report.upserted += rows as u64;
    report.deleted += (deletes as u64).saturating_sub(report.unknown_deletes - unknown_before);
    report.unresolved_absent += folded.unresolved_absent;
    Ok(())
}

/// The columns that say which rows are deleted.
fn delete_encoder<'a>(statements: &Statements<'a>, folded: &'a Folded) -> Result<RowEncoder<'a>, Trouble> {
    let mut encoder = RowEncoder::default();
    for column in statements.compared() {
        let at = folded.compared.iter().position(|&field| field == column.field);
        if let Some(array) = at.and_then(|at| folded.deletes.columns().get(at)) {
            encoder.column(&column.name, &column.wire, column.limit, array)?;
        }
    }
    Ok(encoder)
}

fn row_encoder<'a>(
    statements: &Statements<'a>,
    source_columns: usize,
    folded: &'a Folded,
    masks: &'a [(i16, BooleanBuffer)],
) -> Result<RowEncoder<'a>, Trouble> {
    let mut encoder = RowEncoder::default();
    for column in statements.staged() {
        match folded.rows.columns().get(column.field) {
            Some(array) => encoder.column(&column.name, &column.wire, column.limit, array)?,
            None if column.field == source_columns => encoder.operations(&folded.operations),
            None => encoder.source_times(&folded.source_micros),
        }
    }
    encoder.absent(masks);
    Ok(encoder)
}

/// Rows that a statement says it has changed.
fn affected(messages: &[SimpleQueryMessage]) -> u64 {
    let rows = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    };
    messages.iter().filter_map(rows).sum()
}

fn first_number(messages: &[SimpleQueryMessage]) -> u64 {
    messages
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        })
        .unwrap_or(0)
}

/// Appends the raw rows whose indexes are given.
pub(super) async fn append_raw(
    session: &mut Session,
    batch: &RecordBatch,
    rows: &[usize],
) -> Result<(), Trouble> {
    let Some((client, buffer, transaction, prepared)) = session.raw() else { return Ok(()) };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0);
    let statements = Statements::new(&prepared.plan, batch.num_columns());
    let mut encoder = RowEncoder::default();
    for column in statements.staged() {
        if column.field == raw::column::INGESTED_AT {
            encoder.instant(&column.name, now);
        } else if let Some(array) = batch.columns().get(column.field) {
            encoder.column(&column.name, &column.wire, column.limit, array)?;
        }
    }
    let rows = rows.iter().copied();
    match &mut prepared.into {
        RawPath::Direct(statement) => staging::copy(client, statement, &encoder, rows, buffer).await,
        RawPath::Staged(stage) => {
            encoder.absent(&[]);
            stage.fill(client, transaction, &encoder, rows, buffer).await?;
            Ok(client.batch_execute(&statements.append(&stage.name)).await?)
        }
    }
}
