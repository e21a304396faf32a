//! The rows of several files as one, by key.
//!
//! Each file gives its rows in batches, of which one is at hand; a heap says which file has the row that comes next. Where
//! a file has many rows before any other has one, they go as a slice of its batch, so files of ranges that do not overlap
//! cost what copying them costs. Of two rows with the same key the one of the file that was named first goes first. A file
//! that is not sorted gives its rows as it has them; all rows come once, whatever their order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use arrow::row::{Row, Rows as Keys};
use futures::TryStreamExt;

use super::key_order::KeyOrder;
use super::runs::{Rows, Runs, refused};
use super::went::Went;
use crate::lake::error::LakeError;

/// Rows of one file from which on they are not copied together with those of others.
const STRETCH: usize = 512;

/// Files that are being merged.
pub(super) struct Merge {
    table: Arc<str>,
    order: Arc<KeyOrder>,
    /// Those that have rows left.
    heads: BinaryHeap<Reverse<Box<Head>>>,
    /// Those that are still to be begun, the first one last.
    waiting: Vec<(usize, Rows)>,
    at_a_time: usize,
    /// Batches that rows which are copied together may come from.
    most_batches: usize,
    rows: u64,
    went: Vec<Went>,
}

/// The rows of one file that are at hand.
struct Head {
    number: usize,
    rest: Rows,
    batch: RecordBatch,
    keys: Keys,
    /// The row that comes next.
    at: usize,
    /// Where the batch is among those that rows are taken of, and since which write.
    held: Option<(u64, usize)>,
}

impl Head {
    fn next(&self) -> Row<'_> {
        self.keys.row(self.at)
    }

    /// Up to where its rows come before those of `other`: at least the next one.
    fn before(&self, other: Option<&Self>) -> usize {
        let rows = self.batch.num_rows();
        let Some(other) = other else { return rows };
        let bound = other.next();
        let precedes = |row: usize| match self.keys.row(row).cmp(&bound) {
            Ordering::Equal => self.number < other.number,
            order => order.is_lt(),
        };
        if precedes(rows - 1) {
            return rows;
        }
        (self.at + 1..rows).find(|&row| !precedes(row)).unwrap_or(rows)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.next().cmp(&other.next()).then(self.number.cmp(&other.number))
    }
}

/// Rows of several batches that are going to be one.
#[derive(Default)]
struct Together {
    batches: Vec<RecordBatch>,
    rows: Vec<(usize, usize)>,
}

impl Together {
    fn take(&mut self, head: &mut Head, rows: Range<usize>, since: u64) {
        let batch = match head.held {
            Some((when, batch)) if when == since => batch,
            _ => {
                self.batches.push(head.batch.clone());
                self.batches.len() - 1
            }
        };
        head.held = Some((since, batch));
        self.rows.extend(rows.map(|row| (batch, row)));
    }

    fn into_batch(self) -> Result<RecordBatch, ArrowError> {
        interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &self.rows)
    }
}

impl Merge {
    pub(super) fn new(table: &Arc<str>, order: Arc<KeyOrder>, runs: Runs) -> Self {
        let (rows, went): (Vec<Rows>, Vec<Went>) = runs.of_files.into_iter().unzip();
        let most_batches = 2 * rows.len();
        let waiting = rows.into_iter().enumerate().rev().collect();
        let (table, heads, at_a_time) = (Arc::clone(table), BinaryHeap::new(), runs.at_a_time);
        Self { table, order, heads, waiting, at_a_time, most_batches, rows: 0, went }
    }

    /// The next rows; `None` when all went by.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, LakeError> {
        while let Some((number, rows)) = self.waiting.pop() {
            self.advance(number, rows).await?;
        }
        let (mut together, since) = (Together::default(), self.rows);
        let stretch = STRETCH.min(self.at_a_time);
        while let Some(Reverse(mut head)) = self.heads.pop() {
            let rows = head.at..head.before(self.heads.peek().map(|Reverse(other)| other.as_ref()));
            if rows.len() >= stretch && !together.rows.is_empty() {
                self.heads.push(Reverse(head));
                break;
            }
            if let Some(went) = self.went.get_mut(head.number) {
                went.to(self.rows..self.rows + rows.len() as u64);
            }
            self.rows += rows.len() as u64;
            let whole = (rows.len() >= stretch).then(|| head.batch.slice(rows.start, rows.len()));
            if whole.is_none() {
                together.take(&mut head, rows.clone(), since);
            }
            head.at = rows.end;
            if head.at < head.batch.num_rows() {
                self.heads.push(Reverse(head));
            } else {
                self.advance(head.number, head.rest).await?;
            }
            if whole.is_some() {
                return Ok(whole);
            }
            if together.rows.len() >= self.at_a_time || together.batches.len() >= self.most_batches {
                break;
            }
        }
        if together.rows.is_empty() {
            return Ok(None);
        }
        together.into_batch().map(Some).map_err(|error| refused(&self.table, &error))
    }

    /// Takes the next batch of a file to hand, unless there is none.
    async fn advance(&mut self, number: usize, mut rest: Rows) -> Result<(), LakeError> {
        while let Some(batch) = rest.try_next().await? {
            if batch.num_rows() == 0 {
                continue;
            }
            let keys = self.order.keys(&batch).map_err(|error| refused(&self.table, &error))?;
            self.heads.push(Reverse(Box::new(Head { number, rest, batch, keys, at: 0, held: None })));
            break;
        }
        Ok(())
    }

    /// Where the rows of each file went.
    pub(super) fn went(self) -> Vec<Went> {
        self.went
    }
}

#[cfg(test)]
mod tests;
