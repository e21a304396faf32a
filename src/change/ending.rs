//! Truncates in sinks that keep what is deleted: a row that a truncate takes does not go, it ends.
//!
//! Such a sink has to know of each row when it ended, and of the rows of a batch that came and ended in it as well. So
//! the truncates of a batch are spread: each becomes an end of every row of the batch that is there when it comes, after
//! the changes that it takes, and the fold (or the versions) see nothing but changes of keys. What it does to rows that
//! were stored before, of which the batch knows nothing, is left to the sink ([`Ending`]).
//!
//! Invariant: the result is what applying the changes one by one would give, in the order in which truncates take them.

// Indexes hold by construction: all vectors of a [`ChangeBatch`] have one entry a change, [`Keys`] has a batch for each of
// `batches` and `left`, and a row comes from `0..len` of its batch. `ranks` has each key whose first change is in `firsts`; groups
// of ends are never empty.
#![allow(clippy::indexing_slicing)]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::interleave;
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};

use super::folded::with_rows;
use super::truncate::{Kept, reach};
use super::{ChangeBatch, Operation, TableSchema, Truncated};

/// A truncate as stored rows see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TruncateTime {
    /// Which of them it takes.
    pub takes: Truncated,
    /// When it was committed in the source, microseconds since 1970 UTC; 0 where the event does not say.
    pub micros: i64,
}

/// What the truncates of a batch do to the stored rows.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The truncates, in order.
    pub truncates: Vec<TruncateTime>,
    /// Keys of which one of them takes a change: key columns, in key order.
    pub keys: RecordBatch,
    /// For each of these keys, the number of the truncate that takes its first change. A stored row that is still there
    /// then is changed by the batch and not by this truncate or a later one.
    pub ranks: Vec<usize>,
}

impl Ending {
    /// Whether nothing of what was stored before is there after one of them.
    pub fn takes_all(&self) -> bool {
        self.truncates.iter().any(|truncate| truncate.takes == Truncated::All)
    }

    /// The number of the truncate that ends a stored row, whose last change was committed at `began`, if one does: one before
    /// that of number `rank`, where the batch has changes of its key.
    pub fn of_row(&self, began: Option<i64>, rank: Option<usize>) -> Option<usize> {
        self.first(rank, |takes| takes.takes(began))
    }

    /// The number of the truncate at which a stored version had ended that another change ended at `until`, if there is one:
    /// read late, behind what came to the table after it.
    pub fn of_version(&self, began: Option<i64>, until: i64) -> Option<usize> {
        let between = |takes: Truncated| matches!(takes, Truncated::Before(limit) if limit < until);
        self.first(None, |takes| takes.takes(began) && between(takes))
    }

    fn first(&self, rank: Option<usize>, takes: impl Fn(Truncated) -> bool) -> Option<usize> {
        let before = self.truncates.iter().take(rank.unwrap_or(usize::MAX));
        before.enumerate().find(|(_, truncate)| takes(truncate.takes)).map(|(number, _)| number)
    }
}

/// The changes of a batch without its truncates.
pub(super) struct Spread {
    pub(super) batches: Vec<ChangeBatch>,
    pub(super) ending: Ending,
    /// Changes that went in, truncates included.
    pub(super) changes: usize,
    /// Up to where in the source's log a truncate takes changes away.
    pub(super) limit: i64,
}

/// Spreads the truncates of a batch; `None` where it has none that counts.
pub(super) fn spread(
    schema: &TableSchema,
    batches: &[&ChangeBatch],
    keep: impl Fn(u32, i64) -> bool,
) -> Result<Option<Spread>, ArrowError> {
    if batches.iter().all(|batch| batch.truncates.is_empty()) {
        return Ok(None);
    }
    let mut left: Vec<Kept<'_>> = Vec::with_capacity(batches.len());
    let (mut truncates, mut changes) = (Vec::new(), 0);
    for (at, batch) in batches.iter().enumerate() {
        let counts = |row: &usize| keep(batch.partitions[*row], batch.offsets[*row]);
        let kept = (0..batch.len()).filter(counts);
        let (ends, rows): (Vec<usize>, Vec<usize>) =
            kept.partition(|&row| batch.operations[row] == Operation::Truncate);
        changes += ends.len() + rows.len();
        truncates.extend(ends.into_iter().map(|row| (at, row)));
        left.push((batch, rows.into_iter().map(|row| row as u32).collect()));
    }
    if truncates.is_empty() {
        return Ok(None);
    }
    let mut spreading = Spreading {
        keys: Keys::of(schema, batches)?,
        out: Vec::new(),
        ranks: HashMap::new(),
        firsts: Vec::new(),
    };
    let (mut times, mut limit) = (Vec::with_capacity(truncates.len()), i64::MIN);
    for &(at, row) in &truncates {
        let (reaches, takes) = reach(batches[at], row);
        limit = limit.max(reaches);
        times.push(TruncateTime { takes, micros: batches[at].source_micros[row] });
        spreading.take(&mut left, (at, row), (times.len() - 1, reaches))?;
    }
    for (batch, rows) in &left {
        spreading.out.push(batch.only(rows)?);
    }
    let ending = Ending {
        truncates: times,
        keys: spreading.keys.at(schema, &spreading.firsts)?,
        ranks: spreading.firsts.iter().map(|place| spreading.ranks[&spreading.keys.row(*place)]).collect(),
    };
    Ok(Some(Spread { batches: spreading.out, ending, changes, limit }))
}

/// A change: its batch and its row there.
type Place = (usize, u32);

/// The keys of all changes.
struct Keys {
    columns: Vec<Vec<ArrayRef>>,
    rows: Vec<Rows>,
}

impl Keys {
    fn of(schema: &TableSchema, batches: &[&ChangeBatch]) -> Result<Self, ArrowError> {
        let fields = || schema.key().iter().map(|&key| schema.arrow().field(key));
        let converter =
            RowConverter::new(fields().map(|field| SortField::new(field.data_type().clone())).collect())?;
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        for batch in batches {
            let of_batch = fields().map(|field| match batch.schema.index_of(field.name()) {
                Some(index) => Arc::clone(batch.rows.column(index)),
                None => new_null_array(field.data_type(), batch.len()),
            });
            let of_batch: Vec<ArrayRef> = of_batch.collect();
            rows.push(converter.convert_columns(&of_batch)?);
            columns.push(of_batch);
        }
        Ok(Self { columns, rows })
    }

    fn row(&self, (batch, row): Place) -> OwnedRow {
        self.rows[batch].row(row as usize).owned()
    }

    /// The keys of some changes, as columns.
    fn at(&self, schema: &TableSchema, places: &[Place]) -> Result<RecordBatch, ArrowError> {
        let places: Vec<(usize, usize)> = places.iter().map(|&(batch, row)| (batch, row as usize)).collect();
        let column = |at: usize| {
            let parts: Vec<&dyn Array> = self.columns.iter().map(|columns| &*columns[at]).collect();
            interleave(&parts, &places)
        };
        let columns = (0..schema.key().len()).map(column).collect::<Result<_, _>>()?;
        with_rows(Arc::new(schema.arrow().project(schema.key())?), columns, places.len())
    }
}

/// Truncates being spread.
struct Spreading {
    keys: Keys,
    out: Vec<ChangeBatch>,
    /// By key, the number of the truncate that takes its first change.
    ranks: HashMap<OwnedRow, usize>,
    /// The first change of each of these keys.
    firsts: Vec<Place>,
}

impl Spreading {
    /// Takes the changes before the truncate of that number, and ends the rows that they leave. A change that lies behind
    /// `reaches` in the source's log is newer, and so are all that follow it in its key.
    fn take(
        &mut self,
        left: &mut [Kept<'_>],
        (at, row): (usize, usize),
        (number, reaches): (usize, i64),
    ) -> Result<(), ArrowError> {
        let mut last: HashMap<OwnedRow, Place> = HashMap::new();
        for (index, (batch, rows)) in left.iter_mut().enumerate().take(at + 1) {
            let is_taken = |change: &u32| {
                (index < at || (*change as usize) < row) && batch.lsns[*change as usize] <= reaches
            };
            let (taken, stay): (Vec<u32>, Vec<u32>) = rows.iter().partition(|change| is_taken(change));
            *rows = stay;
            for &change in &taken {
                let key = self.keys.row((index, change));
                if !self.ranks.contains_key(&key) {
                    self.ranks.insert(key.clone(), number);
                    self.firsts.push((index, change));
                }
                last.insert(key, (index, change));
            }
            self.out.push(batch.only(&taken)?);
        }
        let mut ends: Vec<Place> = last.into_values().collect();
        ends.sort_unstable();
        let truncate = left[at].0;
        for of_batch in ends.chunk_by(|one, other| one.0 == other.0) {
            let batch = left[of_batch[0].0].0;
            let is_there = |change: &u32| batch.operations[*change as usize].is_upsert();
            let rows: Vec<u32> = of_batch.iter().map(|(_, change)| *change).filter(is_there).collect();
            let ended = ChangeBatch { moves: None, ..batch.only(&rows)? };
            let all = rows.len();
            // Their cells are those of the rows that end, and mean nothing, as those of every delete.
            self.out.push(ChangeBatch {
                operations: vec![Operation::Truncate; all],
                partitions: vec![truncate.partitions[row]; all],
                offsets: vec![truncate.offsets[row]; all],
                source_micros: vec![truncate.source_micros[row]; all],
                lsns: vec![truncate.lsns[row]; all],
                ..ended
            });
        }
        Ok(())
    }
}
