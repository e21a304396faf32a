//! Finding the records that a table without key does not take.
//!
//! Without a key nothing says which of several changes concern the same row, so the records are halved instead of their
//! folded rows: first half before second half, each behind a savepoint, until those that are refused stand alone. Applied
//! one after the other the halves give what all of them give at once, for a delete takes an equal row wherever it comes
//! from. Both halves of an update are one record, and are applied or refused together.
//!
//! What is refused leaves no mark, for it has no key: a later delete of its row finds none, and is counted as such.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::error::ArrowError;

use super::apply::Part;
use super::isolate::{At, Counting, Isolating, Isolation, place_of};
use super::session::Session;
use crate::change::{ChangeBatch, TableSchema, fold};

impl Isolating<'_> {
    /// Writes a run of a table without key.
    pub(super) async fn write_in_order(
        &mut self,
        session: &mut Session,
        schema: &Arc<TableSchema>,
        run: &[&ChangeBatch],
        counting: &Counting<'_>,
    ) -> Result<(), Isolation> {
        // The last is taken first.
        let mut parts = vec![counted(run, counting)?];
        while let Some(part) = parts.pop() {
            let changes: Vec<&ChangeBatch> = part.iter().collect();
            let folded = fold(schema, &changes, |_, _| true)?;
            let written = self.attempt(session, schema, (&folded, None), &Part::all(&folded)).await?;
            let Some((kind, reason)) = written else {
                self.limiter.good_many(records(&changes).len());
                continue;
            };
            match halves(&changes)? {
                Some([first, second]) => parts.extend([second, first]),
                None => self.refuse(&changes, At { batch: 0, row: 0 }, None, kind, reason)?,
            }
        }
        Ok(())
    }
}

/// The changes of a run that count.
fn counted(run: &[&ChangeBatch], counting: &Counting<'_>) -> Result<Vec<ChangeBatch>, ArrowError> {
    let mut counted = Vec::with_capacity(run.len());
    for (batch, changes) in run.iter().enumerate() {
        let counts = |row: &u32| {
            place_of(run, At { batch, row: *row as usize }).is_some_and(|place| counting.has(place))
        };
        let rows: Vec<u32> = (0..changes.len() as u32).filter(counts).collect();
        if !rows.is_empty() {
            counted.push(changes.only(&rows)?);
        }
    }
    Ok(counted)
}

/// The first change of each record.
fn records(part: &[&ChangeBatch]) -> Vec<At> {
    let (mut records, mut last) = (Vec::new(), None);
    for (batch, changes) in part.iter().enumerate() {
        for row in 0..changes.len() {
            let at = At { batch, row };
            let place = place_of(part, at);
            if place != last {
                records.push(at);
            }
            last = place;
        }
    }
    records
}

/// A part in two, between two of its records; `None` where it has no more than one.
fn halves(part: &[&ChangeBatch]) -> Result<Option<[Vec<ChangeBatch>; 2]>, ArrowError> {
    let records = records(part);
    let Some(cut) = records.get(records.len() / 2).filter(|_| records.len() > 1) else { return Ok(None) };
    let mut halves = [Vec::new(), Vec::new()];
    for (batch, changes) in part.iter().enumerate() {
        let rows = changes.len() as u32;
        let before = match batch.cmp(&cut.batch) {
            Ordering::Less => rows,
            Ordering::Equal => cut.row as u32,
            Ordering::Greater => 0,
        };
        for (half, rows) in halves.iter_mut().zip([0..before, before..rows]) {
            if !rows.is_empty() {
                half.push(changes.only(&rows.collect::<Vec<_>>())?);
            }
        }
    }
    Ok(Some(halves))
}
