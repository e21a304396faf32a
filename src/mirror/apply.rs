//! Writing one table's part, and the raw rows, inside the batch's transaction.
//!
//! What a truncate takes goes first. Deletes come before upserts, so that a row may take over a unique value of one that is gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use tokio_postgres::SimpleQueryMessage;

use super::absent::Absent;
use super::assign::Limit;
use super::copy::RowEncoder;
use super::plan::PlannedColumn;
use super::session::{RawPath, Session, Writer};
use super::sql::Statements;
use super::sqlstate::Trouble;
use super::staging;
use super::types::Wire;
use crate::change::{Batch, Candidate, Folded, Origins, TableReport, TableSchema, Truncated, raw};

/// Rows that are kept aside for key changes: the table that has them, whose they are, and what names begin with.
pub(super) struct Aside<'a> {
    pub(super) kept: &'a str,
    pub(super) owner: String,
    pub(super) name: String,
}

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

/// Writes all folded changes of a table, and keeps aside the rows that depart by them.
pub(super) async fn write_all(
    mut writer: Writer<'_>,
    folded: &Folded,
    aside: &Aside<'_>,
    batch: &Batch,
    report: &mut TableReport,
) -> Result<(), Trouble> {
    // Before anything is looked up: no row takes values of those that a truncate takes away.
    if let Some(truncated) = folded.truncated {
        empty(&writer, &folded.schema, truncated, report).await?;
    }
    if let Some(departing) = &folded.departing {
        keep_aside(&mut writer, &departing.rows, aside).await?;
    }
    let origins = inherit(&mut writer, folded, Some(aside.kept)).await?;
    write(writer, folded, &Part::all(folded), origins.as_deref(), batch, report).await
}

/// Removes the stored rows that a truncate takes.
pub(super) async fn empty(
    writer: &Writer<'_>,
    schema: &TableSchema,
    truncated: Truncated,
    report: &mut TableReport,
) -> Result<(), Trouble> {
    let statements = Statements::new(&writer.prepared.plan, schema.columns().len());
    writer.client.batch_execute(&statements.empty(truncated)).await?;
    report.truncated = true;
    Ok(())
}

/// Writes folded changes of a table; `origins` is what [`inherit`] said of them.
pub(super) async fn write(
    writer: Writer<'_>,
    folded: &Folded,
    part: &Part,
    origins: Option<&str>,
    batch: &Batch,
    report: &mut TableReport,
) -> Result<(), Trouble> {
    let rows_of_part: HashSet<usize> = part.rows.iter().copied().collect();
    let mut unresolved = folded.unresolved.clone();
    unresolved.retain(|(row, _)| rows_of_part.contains(row));
    let absent = Absent::of(folded);
    let fields = if folded.is_keyless() { Vec::new() } else { absent.fields() };
    let Writer { client, buffer, transaction, prepared } = writer;
    let source_columns = folded.schema.columns().len();
    let statements = Statements::new(&prepared.plan, source_columns);
    let unknown_before = report.unknown_deletes;
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
        let encoder = row_encoder(&statements, source_columns, folded, &absent)?;
        prepared.rows.fill(client, transaction, &encoder, part.rows.iter().copied(), buffer).await?;
        if folded.is_keyless() {
            // Without a key there is no stored row to keep cells of.
            for (column, mask) in folded.absent.iter().enumerate() {
                let Some(mask) = mask else { continue };
                unresolved.extend(part.rows.iter().filter(|&&row| mask.value(row)).map(|&row| (row, column)));
            }
        } else if !fields.is_empty() {
            let found = client.simple_query(&statements.unresolved(&prepared.rows.name, origins)).await?;
            unresolved.extend(cells(&found));
        }
        client.batch_execute(&statements.upsert(&prepared.rows.name, &fields, origins)).await?;
    }
    report.upserted += rows as u64;
    report.deleted += (deletes as u64).saturating_sub(report.unknown_deletes - unknown_before);
    report.unresolved_absent += unresolved.len() as u64;
    report.unresolved.extend(folded.named(batch, &unresolved));
    Ok(())
}

/// Keeps, before anything is deleted, the values that rows take from elsewhere than the stored row of their key: of other
/// stored rows, or of `kept`. Gives the name of the stage that they were looked up by, if there are any.
pub(super) async fn inherit(
    writer: &mut Writer<'_>,
    folded: &Folded,
    kept: Option<&str>,
) -> Result<Option<String>, Trouble> {
    let Some(origins) = &folded.origins else { return Ok(None) };
    let Writer { client, buffer, transaction, prepared } = writer;
    let statements = Statements::new(&prepared.plan, folded.schema.columns().len());
    let staged = StagedOrigins::new(origins)?;
    let encoder = staged.encoder(&prepared.plan.columns, &prepared.plan.key)?;
    prepared.origins.fill(client, *transaction, &encoder, 0..staged.len(), buffer).await?;
    let fields = Absent::of(folded).fields();
    client.batch_execute(&statements.inherit(&prepared.origins.name, &fields, kept)).await?;
    Ok(Some(prepared.origins.name.clone()))
}

/// Keeps departing rows aside.
async fn keep_aside(writer: &mut Writer<'_>, rows: &Folded, aside: &Aside<'_>) -> Result<(), Trouble> {
    let absent = Absent::of(rows).numbered();
    let fields = absent.fields();
    let origins = inherit(writer, rows, Some(aside.kept)).await?;
    let Writer { client, buffer, transaction, prepared } = writer;
    let source_columns = rows.schema.columns().len();
    let statements = Statements::new(&prepared.plan, source_columns);
    let encoder = row_encoder(&statements, source_columns, rows, &absent)?;
    prepared.rows.fill(client, *transaction, &encoder, 0..rows.rows.num_rows(), buffer).await?;
    let place = (aside.kept, aside.owner.as_str(), aside.name.as_str());
    let sql = statements.keep_aside(&prepared.rows.name, &fields, origins.as_deref(), place);
    Ok(client.batch_execute(&sql).await?)
}

/// Keys under which absent values are stored, one row for each place in a list.
struct StagedOrigins {
    lists: ArrayRef,
    ranks: ArrayRef,
    kept: ArrayRef,
    keys: Vec<ArrayRef>,
}

impl StagedOrigins {
    fn new(origins: &Origins) -> Result<Self, Trouble> {
        let places = || {
            let numbered = origins.candidates.iter().zip(0_i32..);
            numbered.flat_map(|(list, number)| {
                list.iter().zip(0_i32..).map(move |(candidate, rank)| (number, rank, *candidate))
            })
        };
        let key = |candidate| match candidate {
            Candidate::Stored(key) => Some(key),
            Candidate::Kept(_) => None,
        };
        let kept = |candidate| match candidate {
            Candidate::Stored(_) => None,
            Candidate::Kept(name) => origins.kept.get(name as usize),
        };
        let rows: UInt32Array = places().map(|(.., candidate)| key(candidate)).collect();
        let keys = origins.keys.columns().iter().map(|column| take(column, &rows, None));
        Ok(Self {
            lists: Arc::new(places().map(|(list, ..)| list).collect::<Int32Array>()),
            ranks: Arc::new(places().map(|(_, rank, _)| rank).collect::<Int32Array>()),
            kept: Arc::new(places().map(|(.., candidate)| kept(candidate)).collect::<StringArray>()),
            keys: keys
                .collect::<Result<_, _>>()
                .map_err(|error| Trouble::Table { reason: error.to_string(), target: None })?,
        })
    }

    fn len(&self) -> usize {
        self.lists.len()
    }

    fn encoder<'a>(&'a self, columns: &'a [PlannedColumn], key: &[usize]) -> Result<RowEncoder<'a>, Trouble> {
        let mut encoder = RowEncoder::default();
        encoder.column("__list", &Wire::Int4, Limit::default(), &self.lists)?;
        encoder.column("__rank", &Wire::Int4, Limit::default(), &self.ranks)?;
        encoder.column("__kept", &Wire::Text, Limit::default(), &self.kept)?;
        for (column, array) in key.iter().filter_map(|&at| columns.get(at)).zip(&self.keys) {
            encoder.column(&column.name, &column.wire, column.limit, array)?;
        }
        Ok(encoder)
    }
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
    absent: &'a Absent<'a>,
) -> Result<RowEncoder<'a>, Trouble> {
    let mut encoder = RowEncoder::default();
    for column in statements.staged() {
        match folded.rows.columns().get(column.field) {
            Some(array) => encoder.column(&column.name, &column.wire, column.limit, array)?,
            None if column.field == source_columns => encoder.operations(&folded.operations),
            None => encoder.source_times(&folded.source_micros),
        }
    }
    encoder.absent(absent);
    Ok(encoder)
}

/// Rows and columns of the folded batch, from a query that lists them.
fn cells(messages: &[SimpleQueryMessage]) -> impl Iterator<Item = (usize, usize)> {
    messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0)?.parse().ok()?, row.get(1)?.parse().ok()?)),
        _ => None,
    })
}

/// Rows that a statement says it has changed.
fn affected(messages: &[SimpleQueryMessage]) -> u64 {
    let rows = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    };
    messages.iter().filter_map(rows).sum()
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
    let absent = Absent::default();
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
            encoder.absent(&absent);
            stage.fill(client, transaction, &encoder, rows, buffer).await?;
            Ok(client.batch_execute(&statements.append(&stage.name)).await?)
        }
    }
}
