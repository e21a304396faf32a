//! Finding the rows that a table does not take, and writing all the others.
//!
//! Only a table whose part was refused for the sake of single rows comes here, in a second attempt at the batch. Its folded
//! rows are written in halves, each behind a savepoint, until those that are refused stand alone. The changes of a key
//! whose row was refused are then applied one by one, as they came: so exactly those that are to blame are refused, and
//! what came before or after them is applied. A later change that needs the row of a refused one is refused as well.
//! Without a key the records themselves are halved ([`in_order`](super::in_order)). What a truncate takes goes first, as when
//! the table is written as a whole, and the changes that it takes away are not written at all.
//!
//! A record that is refused is needed as it came: it is found among the originals of the batch.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::apply::{self, Part};
use super::session::Session;
use super::sqlstate::Trouble;
use crate::change::quarantine::{Limiter, RecordPlace};
use crate::change::{
    Batch, ChangeBatch, Folded, Operation, RecordErrorKind, RefusedChange, SinkError, TableId, TableReport,
    TableSchema, fold, survivors,
};

/// The cells of a key as they are displayed: equal for rows of one key. Never stored, other than [`crate::change::KeyText`].
pub(super) type KeyCells = Vec<String>;

/// Why a table could not be written even so.
pub(super) enum Isolation {
    Trouble(Trouble),
    /// Its columns are not what its schema says.
    Columns(ArrowError),
    /// Too many rows are refused.
    TooMany(SinkError),
}

impl From<Trouble> for Isolation {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<ArrowError> for Isolation {
    fn from(error: ArrowError) -> Self {
        Self::Columns(error)
    }
}

/// A change in a run.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) batch: usize,
    pub(super) row: usize,
}

/// Which changes of a run are written.
pub(super) struct Counting<'a> {
    starts: &'a [i64],
    /// Those that no truncate takes away; `None` where there is no truncate.
    left: Option<BTreeSet<(u32, i64)>>,
}

impl Counting<'_> {
    pub(super) fn has(&self, (partition, offset): (u32, i64)) -> bool {
        is_new(self.starts, partition, offset)
            && self.left.as_ref().is_none_or(|left| left.contains(&(partition, offset)))
    }
}

/// A folded row that was refused.
struct Bad {
    key: KeyCells,
    kind: RecordErrorKind,
    reason: String,
}

/// One table's part of a batch, row by row where that is needed.
pub(super) struct Isolating<'a> {
    pub(super) table: &'a TableId,
    pub(super) batch: &'a Batch,
    /// Offsets from which on records count, by index of their partition.
    pub(super) starts: &'a [i64],
    /// Whether the table takes the rows of several source tables: a record that is missing then concerns its own topic alone.
    pub(super) several_sources: bool,
    pub(super) limiter: &'a mut Limiter,
    /// Keys whose row is wrong, with the records that are missing in it.
    pub(super) missing: HashMap<KeyCells, Vec<RecordPlace>>,
    pub(super) refused: Vec<RefusedChange>,
    pub(super) superseded: Vec<RecordPlace>,
    pub(super) report: TableReport,
}

impl<'a> Isolating<'a> {
    /// Writes the table's runs of one schema each, in order.
    pub(super) async fn write(
        &mut self,
        session: &mut Session,
        runs: &[Vec<&'a ChangeBatch>],
    ) -> Result<(), Isolation> {
        for run in runs {
            let Some(first) = run.first() else { continue };
            let counting = self.emptied(session, &first.schema, run).await?;
            if first.schema.key().is_empty() {
                self.write_in_order(session, &first.schema, run, &counting).await?;
            } else {
                self.write_run(session, &first.schema, run, &counting).await?;
            }
        }
        Ok(())
    }

    /// Removes the stored rows that truncates of a run take, and says what is written after that.
    async fn emptied(
        &mut self,
        session: &mut Session,
        schema: &Arc<TableSchema>,
        run: &[&ChangeBatch],
    ) -> Result<Counting<'a>, Isolation> {
        let starts = self.starts;
        let Some((truncated, left)) = survivors(run, |partition, offset| is_new(starts, partition, offset))
        else {
            return Ok(Counting { starts, left: None });
        };
        let writer = session.table(self.table, schema).ok_or_else(|| not_ready(self.table))?;
        apply::empty(&writer, schema, truncated, &mut self.report).await?;
        Ok(Counting { starts, left: Some(left) })
    }

    async fn write_run(
        &mut self,
        session: &mut Session,
        schema: &Arc<TableSchema>,
        run: &[&'a ChangeBatch],
        counting: &Counting<'_>,
    ) -> Result<(), Isolation> {
        let by_key = by_key(schema, run, counting)?;
        let mut aside: BTreeSet<(u32, i64)> = BTreeSet::new();
        let mut single: Vec<KeyCells> =
            self.missing.keys().filter(|key| by_key.contains_key(*key)).cloned().collect();
        for at in single.iter().filter_map(|key| by_key.get(key)).flatten() {
            aside.extend(place_of(run, *at));
        }
        let folded = fold(schema, run, |partition, offset| {
            counting.has((partition, offset)) && !aside.contains(&(partition, offset))
        })?;
        for bad in self.halves(session, schema, &folded).await? {
            match by_key.get(&bad.key).map(Vec::as_slice) {
                Some([only]) => self.refuse(run, *only, Some(&bad.key), bad.kind, bad.reason)?,
                _ => single.push(bad.key),
            }
        }
        for key in &single {
            for at in by_key.get(key).into_iter().flatten() {
                self.one(session, schema, run, key, *at).await?;
            }
        }
        Ok(())
    }

    /// Writes folded rows in ever smaller parts, and gives those that are refused alone.
    async fn halves(
        &mut self,
        session: &mut Session,
        schema: &Arc<TableSchema>,
        folded: &Folded,
    ) -> Result<Vec<Bad>, Isolation> {
        let (deletes, rows) = (folded.deletes.num_rows(), folded.rows.num_rows());
        // Deletes first: a row may take over a unique value of one that is gone. The last is taken first.
        let mut parts = vec![
            Part { deletes: Vec::new(), rows: (0..rows).collect() },
            Part { deletes: (0..deletes).collect(), rows: Vec::new() },
        ];
        let mut bad = Vec::new();
        let origins = match session.table(self.table, schema) {
            Some(mut writer) => apply::inherit(&mut writer, folded, None).await?,
            None => None,
        };
        let origins = origins.as_deref();
        while let Some(part) = parts.pop() {
            let Some((kind, reason)) = self.attempt(session, schema, (folded, origins), &part).await? else {
                self.limiter.good_many(part.len());
                continue;
            };
            if let Some([first, second]) = part.halves() {
                parts.extend([second, first]);
                continue;
            }
            bad.extend(key_of(schema, folded, &part)?.map(|key| Bad { key, kind, reason }));
        }
        Ok(bad)
    }

    /// Writes a part behind a savepoint; says why where it was refused for its rows' sake.
    pub(super) async fn attempt(
        &mut self,
        session: &mut Session,
        schema: &Arc<TableSchema>,
        (folded, origins): (&Folded, Option<&str>),
        part: &Part,
    ) -> Result<Option<(RecordErrorKind, String)>, Trouble> {
        if part.len() == 0 {
            return Ok(None);
        }
        session.client.batch_execute("SAVEPOINT part").await?;
        let mut report = TableReport::default();
        let written = match session.table(self.table, schema) {
            Some(writer) => apply::write(writer, folded, part, origins, self.batch, &mut report).await,
            None => Err(not_ready(self.table)),
        };
        match written {
            Ok(()) => {
                session.client.batch_execute("RELEASE SAVEPOINT part").await?;
                self.report.upserted += report.upserted;
                self.report.deleted += report.deleted;
                self.report.unknown_deletes += report.unknown_deletes;
                self.report.unresolved_absent += report.unresolved_absent;
                self.report.unresolved.extend(report.unresolved);
                Ok(None)
            }
            Err(Trouble::Row { kind, reason, .. }) => {
                session.client.batch_execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part").await?;
                Ok(Some((kind, reason)))
            }
            Err(other) => Err(other),
        }
    }

    /// Applies one change of a key on its own.
    async fn one(
        &mut self,
        session: &mut Session,
        schema: &Arc<TableSchema>,
        run: &[&'a ChangeBatch],
        key: &KeyCells,
        at: At,
    ) -> Result<(), Isolation> {
        let Some(place) = place_of(run, at) else { return Ok(()) };
        let folded = fold(schema, run, |partition, offset| (partition, offset) == place)?;
        let whole = folded.absent.iter().all(Option::is_none);
        let missing = self.missing_for(key, place).next().cloned();
        if !whole && let Some(missing) = missing {
            let reason = format!(
                "it leaves columns as they are in a row that is wrong: record {missing} of its key is in quarantine"
            );
            return self.refuse(run, at, Some(key), RecordErrorKind::BaseQuarantined, reason);
        }
        let part = Part::all(&folded);
        let origins = match session.table(self.table, schema) {
            Some(mut writer) => apply::inherit(&mut writer, &folded, None).await?,
            None => None,
        };
        let rows = (&folded, origins.as_deref());
        if let Some((kind, reason)) = self.attempt(session, schema, rows, &part).await? {
            return self.refuse(run, at, Some(key), kind, reason);
        }
        self.limiter.good_many(1);
        let settled: Vec<RecordPlace> = self.missing_for(key, place).cloned().collect();
        if let Some(missing) = self.missing.get_mut(key) {
            missing.retain(|record| !settled.contains(record));
        }
        for missing in settled {
            match self.refused.iter_mut().find(|refused| refused.place == missing) {
                Some(refused) => refused.superseded = true,
                None => self.superseded.push(missing),
            }
        }
        Ok(())
    }

    /// The records that are missing in the row of a key, for a change from that place.
    fn missing_for(&self, key: &KeyCells, (partition, _): (u32, i64)) -> impl Iterator<Item = &RecordPlace> {
        let topic = self.batch.partitions.get(partition as usize).map(|partition| &partition.topic);
        let of_key = self.missing.get(key).into_iter().flatten();
        of_key.filter(move |record| !self.several_sources || Some(&record.partition.topic) == topic)
    }

    /// Notes that a record is refused, and that the row of its key is wrong from here on.
    pub(super) fn refuse(
        &mut self,
        run: &[&ChangeBatch],
        at: At,
        key: Option<&KeyCells>,
        kind: RecordErrorKind,
        detail: String,
    ) -> Result<(), Isolation> {
        let Some((place, operation)) = self.record_at(run, at) else { return Ok(()) };
        if !self.batch.replay {
            self.limiter.bad().map_err(|exceeded| {
                let message = format!(
                    "{exceeded}, and table {} refuses the next one, {place}: {detail}; cure the cause and restart, replay or discard \
                     what waits in quarantine, or raise the limit",
                    self.table
                );
                Isolation::TooMany(SinkError::Stop { message })
            })?;
        }
        if let Some(key) = key {
            self.missing.entry(key.clone()).or_default().push(place.clone());
        }
        let row_key = self
            .batch
            .originals
            .as_ref()
            .and_then(|originals| originals.find(&place.partition, place.offset)?.row_key);
        let table = self.table.clone();
        self.refused.push(RefusedChange {
            place,
            table,
            operation,
            kind,
            detail,
            row_key,
            superseded: false,
        });
        Ok(())
    }

    fn record_at(&self, run: &[&ChangeBatch], at: At) -> Option<(RecordPlace, Operation)> {
        let (index, offset) = place_of(run, at)?;
        let partition = self.batch.partitions.get(index as usize)?.clone();
        let identity = self.batch.spans.get(&partition)?.identity.clone();
        let operation = *run.get(at.batch)?.operations.get(at.row)?;
        Some((RecordPlace { partition, identity, offset }, operation))
    }
}

fn is_new(starts: &[i64], partition: u32, offset: i64) -> bool {
    starts.get(partition as usize).is_none_or(|start| offset >= *start)
}

/// A table that is left out of a transaction which moves its positions would lose its rows.
fn not_ready(table: &TableId) -> Trouble {
    Trouble::Retry { class: "session", message: format!("table {table} was not made ready for its rows") }
}

/// The changes that count, by key, in order.
fn by_key(
    schema: &TableSchema,
    run: &[&ChangeBatch],
    counting: &Counting<'_>,
) -> Result<HashMap<KeyCells, Vec<At>>, ArrowError> {
    let mut by_key: HashMap<KeyCells, Vec<At>> = HashMap::new();
    for (batch, changes) in run.iter().enumerate() {
        let columns: Vec<ArrayRef> =
            schema.key().iter().filter_map(|&index| changes.rows.columns().get(index)).cloned().collect();
        for (row, key) in texts(&columns)?.into_iter().enumerate() {
            let at = At { batch, row };
            if place_of(run, at).is_some_and(|place| counting.has(place)) {
                by_key.entry(key).or_default().push(at);
            }
        }
    }
    Ok(by_key)
}

pub(super) fn place_of(run: &[&ChangeBatch], at: At) -> Option<(u32, i64)> {
    let changes = run.get(at.batch)?;
    Some((*changes.partitions.get(at.row)?, *changes.offsets.get(at.row)?))
}

/// The key of the one row of a part.
fn key_of(schema: &TableSchema, folded: &Folded, part: &Part) -> Result<Option<KeyCells>, ArrowError> {
    let (columns, row) = match (part.deletes.as_slice(), part.rows.as_slice()) {
        ([row], _) => (folded.deletes.columns().to_vec(), *row),
        (_, [row]) => {
            let of = |&index: &usize| folded.rows.columns().get(index).cloned();
            (schema.key().iter().filter_map(of).collect(), *row)
        }
        _ => return Ok(None),
    };
    let one: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
    Ok(texts(&one)?.pop())
}

/// The texts of each row's cells.
fn texts(columns: &[ArrayRef]) -> Result<Vec<KeyCells>, ArrowError> {
    let options = FormatOptions::default();
    let cells = columns
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()?;
    let rows = columns.first().map_or(0, |column| column.len());
    Ok((0..rows).map(|row| cells.iter().map(|cells| cells.value(row).to_string()).collect()).collect())
}
