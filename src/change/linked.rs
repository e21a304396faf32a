//! The changes of a table put one behind the other, each linked to the one before it with the same key, and the create of a
//! key change to the delete of the old key.
//!
//! Links only ever go back, so that following them ends. A create that comes before its delete, which happens where the two
//! keys lie in different partitions, is linked to nothing.

// Indexes hold by construction: all vectors and columns of a [`ChangeBatch`] have one entry a change, `absent` has one a column,
// and so have those here. Changes are numbered from 0 on as they are linked, and one is linked only to a smaller number.
#![allow(clippy::indexing_slicing)]

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, take};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use super::{ChangeBatch, Operation, TableSchema};

/// All changes that count, aligned to one schema.
pub(super) struct Linked {
    pub(super) operations: Vec<Operation>,
    pub(super) source_micros: Vec<i64>,
    /// Partition, by its index in the batch, and offset.
    pub(super) places: Vec<(u32, i64)>,
    pub(super) columns: Vec<ArrayRef>,
    /// For each column the cells that are absent.
    pub(super) absent: Vec<Option<BooleanBuffer>>,
    /// For each change the one before it with the same key.
    pub(super) before: Vec<Option<usize>>,
    /// For creates of key changes, the delete of the old key.
    moved: HashMap<usize, usize>,
}

/// Where the cells are that a change leaves as they were.
enum Earlier {
    /// In this change.
    Change(usize),
    /// In the first stored row that there is, by changes with its key.
    Stored(Vec<usize>),
}

/// A column's cells of some changes, with those that are absent taken from changes before.
pub(super) struct Cells {
    pub(super) column: ArrayRef,
    /// Cells that are in no change of the batch: null here.
    pub(super) absent: Option<BooleanBuffer>,
    /// Absent cells of rows that the batch itself says to be new: null.
    pub(super) unresolved: u64,
}

/// A change of a key: the old one and the new one, as bytes, and its LSN.
type OneChange = (Box<[u8]>, Box<[u8]>, Option<i64>);

/// A batch with the indexes of its changes that count.
type Kept<'a> = (&'a ChangeBatch, UInt32Array);

impl Linked {
    /// Columns are matched by name: a column that a batch lacks is null in its rows.
    pub(super) fn of(
        schema: &TableSchema,
        batches: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Self, ArrowError> {
        let kept: Vec<Kept<'_>> = batches
            .iter()
            .map(|batch| {
                let counts = |row: &usize| keep(batch.partitions[*row], batch.offsets[*row]);
                let rows = (0..batch.len()).filter(counts).map(|row| Some(row as u32));
                (*batch, rows.collect())
            })
            .collect();
        let at = || {
            kept.iter().flat_map(|(batch, rows)| rows.values().iter().map(move |&row| (*batch, row as usize)))
        };
        let mut linked = Self {
            operations: at().map(|(batch, row)| batch.operations[row]).collect(),
            source_micros: at().map(|(batch, row)| batch.source_micros[row]).collect(),
            places: at().map(|(batch, row)| (batch.partitions[row], batch.offsets[row])).collect(),
            columns: Vec::with_capacity(schema.columns().len()),
            absent: Vec::with_capacity(schema.columns().len()),
            before: Vec::new(),
            moved: HashMap::new(),
        };
        for column in 0..schema.columns().len() {
            linked.align(schema, column, &kept)?;
        }
        linked.link(schema, &kept)?;
        Ok(linked)
    }

    fn align(&mut self, schema: &TableSchema, index: usize, kept: &[Kept<'_>]) -> Result<(), ArrowError> {
        let (column, data_type) = (&schema.columns()[index], schema.arrow().field(index).data_type());
        let mut parts = vec![new_null_array(data_type, 0)];
        let mut mask = BooleanBufferBuilder::new(self.operations.len());
        for (batch, rows) in kept {
            let source = batch.schema.index_of(&column.name);
            let part = match source {
                None => new_null_array(data_type, rows.len()),
                Some(source) => take(batch.rows.column(source), rows, None)?,
            };
            if part.data_type() != data_type {
                return Err(ArrowError::SchemaError(format!(
                    "column {} is {} in the events and {data_type} in the table",
                    column.name,
                    part.data_type(),
                )));
            }
            match source.and_then(|source| batch.absent[source].as_ref()) {
                None => mask.append_n(rows.len(), false),
                Some(absent) => rows.values().iter().for_each(|&row| mask.append(absent.value(row as usize))),
            }
            parts.push(part);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        self.columns.push(concat(&parts)?);
        let mask = mask.finish();
        self.absent.push((mask.count_set_bits() > 0).then_some(mask));
        Ok(())
    }

    fn link(&mut self, schema: &TableSchema, kept: &[Kept<'_>]) -> Result<(), ArrowError> {
        let keys: Vec<ArrayRef> = schema.key().iter().map(|&key| Arc::clone(&self.columns[key])).collect();
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let encoded = converter.convert_columns(&keys)?;
        let mut newest: HashMap<&[u8], usize> = HashMap::with_capacity(self.operations.len());
        self.before =
            (0..self.operations.len()).map(|index| newest.insert(encoded.row(index).data(), index)).collect();
        self.link_moved(&converter, &encoded, kept)
    }

    /// Links creates of key changes to their deletes; of several between the same two keys the first belong together.
    fn link_moved(
        &mut self,
        converter: &RowConverter,
        encoded: &Rows,
        kept: &[Kept<'_>],
    ) -> Result<(), ArrowError> {
        let mut deletes: HashMap<OneChange, VecDeque<usize>> = HashMap::new();
        let mut first = 0;
        for (batch, rows) in kept {
            let Some(moves) = &batch.moves else {
                first += rows.len();
                continue;
            };
            let others = converter.convert_columns(moves.keys.columns())?;
            for (at, change) in moves.changes.iter().enumerate() {
                let Ok(row) = rows.values().binary_search(change) else { continue };
                let (index, lsn) = (first + row, moves.lsns[at]);
                let own: Box<[u8]> = encoded.row(index).data().into();
                let other: Box<[u8]> = others.row(at).data().into();
                if self.operations[index].is_upsert() {
                    let delete = deletes.get_mut(&(other, own, lsn)).and_then(VecDeque::pop_front);
                    self.moved.extend(delete.map(|delete| (index, delete)));
                } else {
                    deletes.entry((own, other, lsn)).or_default().push_back(index);
                }
            }
            first += rows.len();
        }
        Ok(())
    }

    /// Where the cells are that a change leaves as they were: a row that is there goes before that of the old key, since a
    /// create of it is a repetition. Nothing reaches over a delete.
    fn earlier(&self, change: usize) -> Earlier {
        let before = self.before[change];
        if let Some(before) = before.filter(|&before| self.operations[before].is_upsert()) {
            return Earlier::Change(before);
        }
        let mut stored: Vec<usize> = before.is_none().then_some(change).into_iter().collect();
        if let Some(&delete) = self.moved.get(&change) {
            match self.before[delete] {
                Some(before) if self.operations[before].is_upsert() => return Earlier::Change(before),
                Some(_) => {}
                None => stored.push(delete),
            }
        }
        Earlier::Stored(stored)
    }

    /// Changes with the keys of the stored rows that have the cells which neither `change` nor those before it have; the
    /// first that there is counts.
    pub(super) fn origins(&self, mut change: usize) -> Vec<usize> {
        let mut origins = Vec::new();
        loop {
            match self.earlier(change) {
                Earlier::Change(before) => {
                    origins.extend(self.before[change].is_none().then_some(change));
                    change = before;
                }
                Earlier::Stored(stored) => {
                    origins.extend(stored);
                    return origins;
                }
            }
        }
    }

    /// The cells of a column of `changes`, all of which leave a row. Nothing is taken over from before a delete.
    pub(super) fn cells(&self, column: usize, changes: &[usize]) -> Result<Cells, ArrowError> {
        let Some(mask) = &self.absent[column] else {
            let changes: UInt32Array = changes.iter().map(|&change| Some(change as u32)).collect();
            return Ok(Cells {
                column: take(&self.columns[column], &changes, None)?,
                absent: None,
                unresolved: 0,
            });
        };
        let (mut absent, mut unresolved) = (BooleanBufferBuilder::new(changes.len()), 0);
        let sources: UInt32Array = changes
            .iter()
            .map(|&change| {
                let mut at = change;
                while mask.value(at) {
                    match self.earlier(at) {
                        Earlier::Change(before) => at = before,
                        Earlier::Stored(rows) => {
                            absent.append(!rows.is_empty());
                            unresolved += u64::from(rows.is_empty());
                            return Some(change as u32);
                        }
                    }
                }
                absent.append(false);
                Some(at as u32)
            })
            .collect();
        let absent = absent.finish();
        Ok(Cells {
            column: take(&self.columns[column], &sources, None)?,
            absent: (absent.count_set_bits() > 0).then_some(absent),
            unresolved,
        })
    }
}
