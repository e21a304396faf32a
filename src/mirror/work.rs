//! What of a batch is still to be written: by partition, by table, by raw row.
//!
//! Pure: the batch, the positions this instance knows and the tables that have stopped go in; which positions move and
//! which rows are written comes out. A table that has stopped holds back every topic that feeds it, and a topic held
//! back holds back every table it feeds, for a position covers all records of its partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::error::ArrowError;

use super::ledger::Ledgers;
use super::progress::{Move, same_log};
use super::quarantine::QuarantineTable;
use crate::change::quarantine::{QuarantineEvent, QuarantineRow, Quarantined, RecordPlace, Settlement};
use crate::change::{
    Batch, ChangeBatch, DeleteMode, Folded, KeyLedger, Progress, RefusedChange, TableId, TableSchema,
    TopicPartition, fold_onto, raw,
};

/// Tables that refused their part, why, and the topics they hold back.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    pub(super) reasons: BTreeMap<TableId, String>,
    topics: BTreeSet<Arc<str>>,
}

impl Stopped {
    /// Stops a table.
    pub(super) fn stop(&mut self, table: &TableId, reason: String) {
        tracing::error!(%table, reason, "the table stopped");
        self.reasons.insert(table.clone(), reason);
    }

    /// Follows stopped tables to their topics, and those to the other tables they feed.
    pub(super) fn spread(&mut self, batch: &Batch) {
        loop {
            let before = (self.reasons.len(), self.topics.len());
            for change in &batch.changes {
                let topics: BTreeSet<&Arc<str>> = change
                    .partitions
                    .iter()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .filter_map(|&index| Some(&batch.partitions.get(index as usize)?.topic))
                    .collect();
                if self.reasons.contains_key(&change.table) {
                    self.topics.extend(topics.into_iter().cloned());
                } else if let Some(topic) = topics.into_iter().find(|topic| self.topics.contains(*topic)) {
                    let reason = format!("its topic {topic} also feeds a table that has stopped");
                    self.stop(&change.table, reason);
                }
            }
            if before == (self.reasons.len(), self.topics.len()) {
                return;
            }
        }
    }

    /// Whether the records of a topic wait for a table.
    pub(super) fn holds(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }
}

/// The first offset of a partition that is not in the sink yet, by what this instance knows.
fn start(partition: &TopicPartition, batch: &Batch, known: &Progress, stopped: &Stopped) -> i64 {
    if stopped.holds(&partition.topic) {
        return i64::MAX;
    }
    match (known.get(partition), batch.spans.get(partition)) {
        (Some(stored), Some(span)) if same_log(&stored.identity, &span.identity) => stored.next_offset,
        _ => i64::MIN,
    }
}

/// The positions that this batch moves.
pub(super) fn moves<'a>(batch: &'a Batch, known: &'a Progress, stopped: &Stopped) -> Vec<Move<'a>> {
    batch
        .spans
        .iter()
        .filter(|(partition, span)| start(partition, batch, known, stopped) < span.next)
        .map(|(partition, span)| Move { partition, known: known.get(partition), span })
        .collect()
}

/// Changes of one table with one schema, folded.
pub(super) struct Segment<'a> {
    pub(super) table: &'a TableId,
    pub(super) schema: &'a Arc<TableSchema>,
    pub(super) folded: Folded,
    /// What the names of rows begin with that are kept aside.
    pub(super) aside: String,
    /// The table's ledger after it.
    pub(super) ledger: KeyLedger,
}

/// Which changes of a batch are to be written, by partition index and offset.
pub(super) fn keeps(batch: &Batch, known: &Progress, stopped: &Stopped) -> impl Fn(u32, i64) -> bool + use<> {
    let starts = starts(batch, known, stopped);
    move |partition, offset| starts.get(partition as usize).is_none_or(|start| offset >= *start)
}

/// By index of each partition, the first offset that is not in the sink yet.
pub(super) fn starts(batch: &Batch, known: &Progress, stopped: &Stopped) -> Vec<i64> {
    batch.partitions.iter().map(|partition| start(partition, batch, known, stopped)).collect()
}

/// The changes of each table with one schema, in order.
pub(super) fn runs(batch: &Batch) -> Vec<Vec<&ChangeBatch>> {
    let mut runs: Vec<Vec<&ChangeBatch>> = Vec::new();
    for change in &batch.changes {
        let last =
            runs.iter_mut().rev().find(|run| run.first().is_some_and(|first| first.table == change.table));
        match last {
            Some(run) if run.first().is_some_and(|first| first.schema == change.schema) => run.push(change),
            _ => runs.push(vec![change]),
        }
    }
    runs
}

/// Folds what is to be written, in order. A table whose schema changes within the batch has several segments.
///
/// # Errors
/// The table whose columns are not what its schema says.
pub(super) fn segments<'a>(
    batch: &'a Batch,
    known: &Progress,
    stopped: &Stopped,
    ledgers: &Ledgers,
) -> Result<Vec<Segment<'a>>, (TableId, ArrowError)> {
    let starts = starts(batch, known, stopped);
    let keep =
        |partition: u32, offset: i64| starts.get(partition as usize).is_none_or(|start| offset >= *start);
    let runs = runs(batch);
    let mut segments: Vec<Segment<'a>> = Vec::with_capacity(runs.len());
    for run in runs {
        let Some(first) = run.first() else { continue };
        let before = segments.iter().rev().find(|segment| *segment.table == first.table);
        let before = before.map(|segment| segment.ledger.clone());
        let before = before.unwrap_or_else(|| {
            KeyLedger::from_text(ledgers.get(&first.table.to_string()).map_or("", String::as_str))
        });
        let folded = fold_onto(DeleteMode::Hard, &first.schema, &run, keep, &before)
            .map_err(|error| (first.table.clone(), error))?;
        if folded.changes > 0 {
            let aside = format!("{}#", uuid::Uuid::new_v4());
            let ledger = folded.ledger_with((0..).map(|row: usize| Some(format!("{aside}{row}"))));
            segments.push(Segment { table: &first.table, schema: &first.schema, folded, aside, ledger });
        }
    }
    Ok(segments)
}

/// Rows for the quarantine: its records behind the known positions, and what is new about records that are there.
pub(super) fn quarantine_rows(
    batch: &Batch,
    known: &Progress,
    stopped: &Stopped,
    quarantine: &QuarantineTable,
) -> Vec<QuarantineRow> {
    let now = chrono::Utc::now().timestamp_micros();
    let ledger = quarantine.ledger();
    let is_new = |record: &&Quarantined| {
        record.place.offset >= start(&record.place.partition, batch, known, stopped)
            && ledger.get(&record.place).is_none()
    };
    let records = batch.quarantined.iter().filter(is_new);
    let records = records.map(|record| record.clone().into_row(quarantine.lane(), now));
    let settled = batch.settled.iter().map(|settled| settled.clone().into_row(quarantine.lane(), now));
    records.chain(settled.filter(|row| ledger.is_changed_by(row))).collect()
}

/// Rows for the quarantine of changes that were refused, as their records came, and of records that are superseded.
///
/// # Errors
/// The place of a record that the lane did not keep.
pub(super) fn refused_rows(
    batch: &Batch,
    refused: &[RefusedChange],
    superseded: &[RecordPlace],
    lane: &Arc<str>,
) -> Result<Vec<QuarantineRow>, RecordPlace> {
    let now = chrono::Utc::now().timestamp_micros();
    let mut rows = Vec::new();
    for change in refused.iter().filter(|_| !batch.replay) {
        let RefusedChange { place, table, kind, detail, .. } = change;
        let original = batch.originals.as_ref().and_then(|all| all.find(&place.partition, place.offset));
        let Some(original) = original else { return Err(place.clone()) };
        let record = Quarantined {
            place: place.clone(),
            table: Some(table.clone()),
            row_key: original.row_key,
            kind: *kind,
            detail: detail.clone(),
            payload: original.payload,
        };
        rows.push(record.into_row(lane, now));
    }
    let here = refused.iter().filter(|change| change.superseded && !batch.replay).map(|change| &change.place);
    rows.extend(here.chain(superseded).map(|place| {
        let settlement = Settlement {
            place: place.clone(),
            event: QuarantineEvent::Superseded,
            row_key: None,
            detail: "by a later change of its key".to_owned(),
            replay: None,
        };
        settlement.into_row(lane, now)
    }));
    Ok(rows)
}

/// Leaves out rows behind the first `decoded` that say what one of those says.
pub(super) fn drop_repeated(rows: &mut Vec<QuarantineRow>, decoded: usize) {
    let (first, rest) = rows.split_at(decoded.min(rows.len()));
    let said =
        |row: &QuarantineRow| first.iter().any(|one| (&one.place, one.event) == (&row.place, row.event));
    let new: Vec<QuarantineRow> = rest.iter().filter(|row| !said(row)).cloned().collect();
    rows.truncate(decoded);
    rows.extend(new);
}

/// Leaves out the raw rows of records that are in quarantine: they get theirs when they are replayed.
pub(super) fn without_refused(rows: &RecordBatch, kept: &mut Vec<usize>, refused: &[RefusedChange]) {
    let columns = rows.columns();
    let topics = columns.get(raw::column::TOPIC).and_then(|column| column.as_string_opt::<i32>());
    let numbers =
        columns.get(raw::column::PARTITION).and_then(|column| column.as_primitive_opt::<Int32Type>());
    let offsets = columns.get(raw::column::OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let (Some(topics), Some(numbers), Some(offsets)) = (topics, numbers, offsets) else { return };
    let places: BTreeSet<(&str, i32, i64)> = refused
        .iter()
        .map(|refused| &refused.place)
        .map(|place| (place.partition.topic.as_ref(), place.partition.partition, place.offset))
        .collect();
    kept.retain(|&row| !places.contains(&(topics.value(row), numbers.value(row), offsets.value(row))));
}

/// Rows of the raw batch that are to be written.
pub(super) fn raw_rows(
    rows: &RecordBatch,
    batch: &Batch,
    known: &Progress,
    stopped: &Stopped,
) -> Result<Vec<usize>, ArrowError> {
    let mismatch = || ArrowError::SchemaError("the raw rows lack topic, partition or offset".to_owned());
    let column = |index: usize| rows.columns().get(index).ok_or_else(mismatch);
    let topics = column(raw::column::TOPIC)?.as_string_opt::<i32>().ok_or_else(mismatch)?;
    let numbers = column(raw::column::PARTITION)?.as_primitive_opt::<Int32Type>().ok_or_else(mismatch)?;
    let offsets = column(raw::column::OFFSET)?.as_primitive_opt::<Int64Type>().ok_or_else(mismatch)?;
    let starts: Vec<(&str, i32, i64)> = batch
        .spans
        .keys()
        .map(|at| (at.topic.as_ref(), at.partition, start(at, batch, known, stopped)))
        .collect();
    let nothing_skipped =
        starts.iter().zip(batch.spans.values()).all(|((_, _, start), span)| *start <= span.first);
    if nothing_skipped {
        return Ok((0..topics.len()).collect());
    }
    let mut last = starts.first();
    let mut kept = Vec::with_capacity(topics.len());
    for row in 0..topics.len() {
        let (topic, number) = (topics.value(row), numbers.value(row));
        let is_it = |entry: &&(&str, i32, i64)| entry.0 == topic && entry.1 == number;
        // Records of a partition come in runs.
        last = last.filter(is_it).or_else(|| starts.iter().find(is_it));
        if last.is_none_or(|(_, _, start)| offsets.value(row) >= *start) {
            kept.push(row);
        }
    }
    Ok(kept)
}
