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
use crate::change::{
    Batch, ChangeBatch, DeleteMode, Folded, Ledger, Progress, TableId, TableSchema, TopicPartition,
    fold_onto, raw,
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
    pub(super) ledger: Ledger,
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
    let starts: Vec<i64> =
        batch.partitions.iter().map(|partition| start(partition, batch, known, stopped)).collect();
    let keep =
        |partition: u32, offset: i64| starts.get(partition as usize).is_none_or(|start| offset >= *start);
    let mut runs: Vec<Vec<&ChangeBatch>> = Vec::new();
    for change in &batch.changes {
        let last =
            runs.iter_mut().rev().find(|run| run.first().is_some_and(|first| first.table == change.table));
        match last {
            Some(run) if run.first().is_some_and(|first| first.schema == change.schema) => run.push(change),
            _ => runs.push(vec![change]),
        }
    }
    let mut segments: Vec<Segment<'a>> = Vec::with_capacity(runs.len());
    for run in runs {
        let Some(first) = run.first() else { continue };
        if first.schema.key().is_empty() && run.iter().any(|change| kept(change, keep)) {
            let reason = format!(
                "table {} has no key, so its rows cannot be told apart: give the source table a primary key",
                first.table
            );
            return Err((first.table.clone(), ArrowError::SchemaError(reason)));
        }
        let before = segments.iter().rev().find(|segment| *segment.table == first.table);
        let before = before.map(|segment| segment.ledger.clone());
        let before = before.unwrap_or_else(|| {
            Ledger::from_text(ledgers.get(&first.table.to_string()).map_or("", String::as_str))
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

fn kept(change: &ChangeBatch, keep: impl Fn(u32, i64) -> bool) -> bool {
    change.partitions.iter().zip(&change.offsets).any(|(&partition, &offset)| keep(partition, offset))
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
