//! What goes into a fold: all changes that count, aligned to one schema and put one behind the other.
//!
//! In front of them stand rows of which nothing is known but their key: those that have waited for a delete that is in
//! this batch, so that they get the values that only now are known.

// Indexes hold by construction. All vectors and columns of a [`ChangeBatch`] have one entry a change, `absent` has one a column,
// and so have those here; a row comes from `0..len`, from the batch's own key changes, or from the halves that were found
// among the rows. Rows in front come first: there are as many as deletes that they have waited for.
#![allow(clippy::indexing_slicing)]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, concat, take};
use arrow::error::ArrowError;

use super::ledger::{self, KeyChange, KeyLedger};
use super::pairs::{self, Half, Pairs};
use super::truncate;
use super::{ChangeBatch, Operation, TableSchema, Truncated};

/// The changes of a fold.
pub(super) struct Input<'a> {
    pub(super) schema: &'a TableSchema,
    pub(super) operations: Vec<Operation>,
    pub(super) source_micros: Vec<i64>,
    /// Places in the source's log; 0 where not known.
    pub(super) lsns: Vec<i64>,
    pub(super) places: Vec<(u32, i64)>,
    pub(super) columns: Vec<ArrayRef>,
    pub(super) absent: Vec<Option<BooleanBuffer>>,
    /// Rows in front that stand for waiting ones.
    pub(super) waited: usize,
    pub(super) halves: Vec<Half>,
    /// The other key of each half: key columns, in key order.
    pub(super) others: Vec<ArrayRef>,
    pub(super) pairs: Pairs,
    /// Changes that count, those that a truncate took away among them.
    pub(super) changes: usize,
    pub(super) truncated: Option<Truncated>,
}

/// A batch with the indexes of its changes that count; `None`: all of them.
type Kept<'a> = (&'a ChangeBatch, Option<UInt32Array>);

impl<'a> Input<'a> {
    /// A truncate takes away what `ledger` has of key changes before it.
    pub(super) fn concat(
        schema: &'a Arc<TableSchema>,
        batches: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
        ledger: &mut KeyLedger,
    ) -> Result<Self, ArrowError> {
        let mut input = Self {
            schema,
            operations: Vec::new(),
            source_micros: Vec::new(),
            lsns: Vec::new(),
            places: Vec::new(),
            columns: Vec::with_capacity(schema.columns().len()),
            absent: Vec::with_capacity(schema.columns().len()),
            waited: 0,
            halves: Vec::new(),
            others: Vec::new(),
            pairs: Pairs::default(),
            changes: 0,
            truncated: None,
        };
        let mut left: Vec<truncate::Kept<'_>> = Vec::with_capacity(batches.len());
        for batch in batches {
            let counts = |row: &usize| keep(batch.partitions[*row], batch.offsets[*row]);
            left.push((*batch, (0..batch.len()).filter(counts).map(|row| row as u32).collect()));
        }
        input.changes = left.iter().map(|(_, rows)| rows.len()).sum();
        if let Some((truncated, limit)) = truncate::cut(&mut left) {
            input.truncated = Some(truncated);
            ledger.forget(limit);
        }
        let kept = left.into_iter().map(|(batch, rows)| {
            let all = rows.len() == batch.len();
            (batch, (!all).then(|| UInt32Array::from(rows)))
        });
        let kept: Vec<Kept<'_>> = kept.collect();
        input.find_halves(&kept)?;
        input.pairs = pairs::pair(&input.halves, ledger);
        let waited = input.wait(ledger)?;
        for (batch, indices) in &kept {
            input.append(batch, indices.as_ref());
        }
        for (row, &(_, delete)) in input.pairs.fulfilled.iter().enumerate() {
            input.places[row] = input.places[delete as usize];
            input.source_micros[row] = input.source_micros[delete as usize];
        }
        input.align(&kept, &waited)?;
        Ok(input)
    }

    /// Whether a change leaves a row.
    pub(super) fn is_upsert(&self, change: u32) -> bool {
        self.operations[change as usize].is_upsert()
    }

    /// What some changes did, when they were committed in the source, and where they lie.
    pub(super) fn described(&self, changes: &[u32]) -> (Vec<Operation>, Vec<i64>, Vec<(u32, i64)>) {
        let at = || changes.iter().map(|&change| change as usize);
        (
            at().map(|change| self.operations[change]).collect(),
            at().map(|change| self.source_micros[change]).collect(),
            at().map(|change| self.places[change]).collect(),
        )
    }

    /// A column's mask with the cells of deletes added: they are absent, too.
    pub(super) fn cells_of_deletes(&self, mask: Option<&BooleanBuffer>) -> BooleanBuffer {
        let deletes: BooleanBuffer = self.operations.iter().map(|operation| !operation.is_upsert()).collect();
        mask.map_or(deletes.clone(), |mask| mask | &deletes)
    }

    /// The key columns, in key order.
    pub(super) fn keys(&self) -> Vec<ArrayRef> {
        self.schema.key().iter().map(|&key| Arc::clone(&self.columns[key])).collect()
    }

    /// Finds the key changes among the changes that are kept. Where a batch has another key than the table, its rows
    /// inherit nothing.
    fn find_halves(&mut self, kept: &[Kept<'_>]) -> Result<(), ArrowError> {
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.schema.key().len()];
        let mut first = 0;
        for (batch, indices) in kept {
            if batch.schema.key_names().eq(self.schema.key_names()) {
                for (part, other) in parts.iter_mut().zip(self.halves_of(batch, indices.as_ref(), first)?) {
                    part.push(other);
                }
            }
            first += indices.as_ref().map_or(batch.len(), UInt32Array::len) as u32;
        }
        for parts in parts.iter().filter(|parts| !parts.is_empty()) {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            self.others.push(concat(&parts)?);
        }
        Ok(())
    }

    /// Adds the halves of key changes in a batch whose changes that count begin at `first`; gives their other keys.
    fn halves_of(
        &mut self,
        batch: &ChangeBatch,
        indices: Option<&UInt32Array>,
        first: u32,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let Some(moves) = &batch.moves else { return Ok(Vec::new()) };
        // Index in the batch, index among the changes that count, row of the moves.
        let found = moves.changes.iter().zip(0_u32..).filter_map(|(&change, row)| {
            let among = match indices {
                None => change,
                Some(indices) => indices.values().binary_search(&change).ok()? as u32,
            };
            Some((change, first + among, row))
        });
        let found: Vec<(u32, u32, u32)> = found.collect();
        let changes: UInt32Array = found.iter().map(|(change, ..)| *change).collect();
        let rows: UInt32Array = found.iter().map(|(.., row)| *row).collect();
        let own = batch.schema.key().iter().map(|&key| take(batch.rows.column(key), &changes, None));
        let own = ledger::texts(&own.collect::<Result<Vec<_>, _>>()?)?;
        // The batch may have been written before a column of the key was widened.
        let types = self.schema.key().iter().map(|&key| self.schema.arrow().field(key).data_type());
        let others = moves.keys.columns().iter().zip(types);
        let others = others.map(|(column, to)| cast(&take(column, &rows, None)?, to));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        for ((&(change, at, row), own), other) in found.iter().zip(own).zip(ledger::texts(&others)?) {
            let is_create = batch.operations[change as usize].is_upsert();
            let (old, new) = if is_create { (other, own) } else { (own, other) };
            let lsn = moves.lsns.get(row as usize).copied().flatten();
            self.halves.push(Half { change: at, is_create, of: KeyChange { old, new, lsn } });
        }
        Ok(others)
    }

    /// Puts the rows in front that have waited for a delete of this batch; gives their keys.
    fn wait(&mut self, ledger: &KeyLedger) -> Result<Vec<ArrayRef>, ArrowError> {
        let rows = self.pairs.fulfilled.iter().filter_map(|(entry, _)| ledger.waiting.get(*entry));
        let keys: Vec<_> = rows.map(|entry| entry.row.clone()).collect();
        self.waited = keys.len();
        self.pairs.shift(keys.len() as u32);
        self.operations = vec![Operation::Update; keys.len()];
        self.source_micros = vec![0; keys.len()];
        self.lsns = vec![0; keys.len()];
        self.places = vec![(u32::MAX, 0); keys.len()];
        ledger::columns(self.schema, &keys)
    }

    fn append(&mut self, batch: &ChangeBatch, indices: Option<&UInt32Array>) {
        let all = || (0..batch.len() as u32).collect();
        let indices: Vec<u32> = indices.map_or_else(all, |indices| indices.values().to_vec());
        let at = || indices.iter().map(|&row| row as usize);
        self.operations.extend(at().map(|row| batch.operations[row]));
        self.source_micros.extend(at().map(|row| batch.source_micros[row]));
        self.lsns.extend(at().map(|row| batch.lsns[row]));
        self.places.extend(at().map(|row| (batch.partitions[row], batch.offsets[row])));
    }

    /// Builds the columns; `waited` are the keys of the rows in front.
    fn align(&mut self, kept: &[Kept<'_>], waited: &[ArrayRef]) -> Result<(), ArrowError> {
        for (index, (column, field)) in
            self.schema.columns().iter().zip(self.schema.arrow().fields()).enumerate()
        {
            let mut parts = Vec::with_capacity(kept.len() + 1);
            let mut mask = AbsentMask::default();
            if self.waited > 0 {
                let key = self.schema.key().iter().position(|&key| key == index);
                parts.push(match key.and_then(|key| waited.get(key)) {
                    Some(key) => Arc::clone(key),
                    None => new_null_array(field.data_type(), self.waited),
                });
                let absent = BooleanBuffer::new_set(self.waited);
                mask.extend(key.is_none().then_some(&absent), None, self.waited);
            }
            for (batch, indices) in kept {
                let rows = indices.as_ref().map_or(batch.len(), UInt32Array::len);
                let source = batch.schema.index_of(&column.name);
                let part = match source {
                    None => new_null_array(field.data_type(), rows),
                    Some(index) => match indices {
                        None => Arc::clone(batch.rows.column(index)),
                        Some(indices) => take(batch.rows.column(index), indices, None)?,
                    },
                };
                if part.data_type() != field.data_type() {
                    return Err(ArrowError::SchemaError(format!(
                        "column {} is {} in the events and {} in the table",
                        column.name,
                        part.data_type(),
                        field.data_type()
                    )));
                }
                mask.extend(source.and_then(|index| batch.absent[index].as_ref()), indices.as_ref(), rows);
                parts.push(part);
            }
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            self.columns.push(if parts.is_empty() {
                new_null_array(field.data_type(), 0)
            } else {
                concat(&parts)?
            });
            self.absent.push(mask.finish());
        }
        Ok(())
    }
}

/// The absent mask of a column over several batches, built only once one of them has one.
#[derive(Default)]
struct AbsentMask {
    rows: usize,
    bits: Option<BooleanBufferBuilder>,
}

impl AbsentMask {
    fn extend(&mut self, mask: Option<&BooleanBuffer>, indices: Option<&UInt32Array>, rows: usize) {
        if let Some(mask) = mask {
            let before = self.rows;
            let bits = self.bits.get_or_insert_with(|| {
                let mut bits = BooleanBufferBuilder::new(before + rows);
                bits.append_n(before, false);
                bits
            });
            match indices {
                None => bits.append_buffer(mask),
                Some(indices) => {
                    indices.values().iter().for_each(|&row| bits.append(mask.value(row as usize)));
                }
            }
        } else if let Some(bits) = &mut self.bits {
            bits.append_n(rows, false);
        }
        self.rows += rows;
    }

    fn finish(self) -> Option<BooleanBuffer> {
        self.bits.map(|mut bits| bits.finish())
    }
}
