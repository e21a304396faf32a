//! Folding: reducing the changes of a table to the final state of each key they touch.
//!
//! The last change of a key wins. Absent columns of its row take the newest earlier value within the batch; where
//! there is none they stay absent, and the sink keeps what it has stored. A delete in between cuts that search: the
//! row after it is a replacement and inherits nothing from the row before. A truncate is a delete of everything: the
//! changes that it takes away are left out ([`truncate`](super::truncate)), and the sink is told to empty itself first.
//!
//! A sink may keep deleted rows ([`DeleteMode::Soft`]). Then a delete is a row as well, all of whose cells but the key
//! are absent: it takes the last values, of this batch or of the stored row, and never what its event says, which are
//! values made up by the connector wherever the source logs the key alone.
//!
//! Tables without key are counted instead ([`keyless`]).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanBufferBuilder, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, take};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::truncate::{self, Kept};
use super::{ChangeBatch, DeleteMode, Operation, TableSchema, Truncated, keyless};

/// The final state of each key that a batch touches. A key is either in `rows` or in `deletes`.
///
/// Without a key, `deletes` are rows of which one stored instance each goes, and `rows` are added to what is stored,
/// whether it has equal ones or not; an equal row may be in both, and more than once.
#[derive(Debug, Clone)]
pub struct Folded {
    /// The schema that rows and masks follow.
    pub schema: Arc<TableSchema>,
    /// Rows to insert or update, columns as in [`TableSchema::arrow`], in the order of their last change.
    pub rows: RecordBatch,
    /// For each column `None`, or a mask of the cells of `rows` that keep the stored value.
    pub absent: Vec<Option<BooleanBuffer>>,
    /// The last operation on each row of `rows`.
    pub operations: Vec<Operation>,
    /// Commit time in the source of each row's last change, microseconds since 1970 UTC.
    pub source_micros: Vec<i64>,
    /// Stored rows that go before anything else happens.
    pub truncated: Option<Truncated>,
    /// Indexes of the columns that say which row a delete means: those of the key, in key order; without a key all that
    /// the events have.
    pub compared: Vec<usize>,
    /// Keys to delete: the columns of `compared` only, in that order. Empty where deleted rows are kept.
    pub deletes: RecordBatch,
    /// Where deleted rows are kept, the rows that delete what is stored and nothing of this batch: they take the cells
    /// of a stored row even if it is marked as deleted, and where none is stored they are not to be written.
    pub of_stored: Option<BooleanBuffer>,
    /// Changes that went in.
    pub changes: usize,
    /// Cells whose value the batch says to be unchanged, of a row that the same batch says to be new: null in `rows`.
    pub unresolved_absent: u64,
}

impl Folded {
    /// Rows that exist in the source.
    pub fn upserted(&self) -> usize {
        self.operations.iter().filter(|operation| operation.is_upsert()).count()
    }

    /// Keys that do not, whether their rows go or stay as deleted ones.
    pub fn deleted(&self) -> usize {
        self.deletes.num_rows() + self.operations.len() - self.upserted()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0 && self.deletes.num_rows() == 0 && self.truncated.is_none()
    }

    /// Whether rows have no key, so that equal ones may be there several times.
    pub fn is_keyless(&self) -> bool {
        self.schema.key().is_empty()
    }
}

/// Folds the changes of one table, given in order, into rows of `schema`.
///
/// Columns are matched by name: a column that a batch lacks is null in its rows. `keep(partition index, offset)` says
/// which changes count; the others are in the sink already.
///
/// # Errors
/// Where a column of a batch has another Arrow type than `schema` says.
pub fn fold(
    schema: &Arc<TableSchema>,
    batches: &[&ChangeBatch],
    keep: impl Fn(u32, i64) -> bool,
) -> Result<Folded, ArrowError> {
    fold_with(DeleteMode::Hard, schema, batches, keep)
}

/// The same for a sink that does with deleted rows what `mode` says.
///
/// # Errors
/// As [`fold`].
pub fn fold_with(
    mode: DeleteMode,
    schema: &Arc<TableSchema>,
    batches: &[&ChangeBatch],
    keep: impl Fn(u32, i64) -> bool,
) -> Result<Folded, ArrowError> {
    let input = Input::concat(schema, batches, keep)?;
    let is_delete = |index: u32| !input.operations[index as usize].is_upsert();
    let (compared, chain, upserts, deletes) = if schema.key().is_empty() {
        let compared = keyless::compared(schema, batches);
        let cells: Vec<ArrayRef> =
            compared.iter().map(|&column| Arc::clone(&input.columns[column])).collect();
        let (upserts, deletes) = keyless::count(&input.operations, &cells)?;
        (compared, vec![NONE; input.operations.len()], upserts, deletes)
    } else {
        let Chain { chain, last_of_each_key } = input.chain()?;
        let (upserts, deletes): (Vec<u32>, Vec<u32>) =
            last_of_each_key.iter().partition(|&&index| mode == DeleteMode::Soft || !is_delete(index));
        (schema.key().to_vec(), chain, upserts, deletes)
    };
    let keeps_deleted = upserts.iter().any(|&index| is_delete(index));
    let of_stored = keeps_deleted
        .then(|| upserts.iter().map(|&index| deletes_what_is_stored(index, &input.operations, &chain)))
        .map(Iterator::collect);

    let mut unresolved_absent = 0;
    let mut columns = Vec::with_capacity(input.columns.len());
    let mut absent = Vec::with_capacity(input.columns.len());
    let plain = UInt32Array::from(upserts.clone());
    for (index, (column, mask)) in input.columns.iter().zip(&input.absent).enumerate() {
        let of_deletes =
            (keeps_deleted && !schema.key().contains(&index)).then(|| input.cells_of_deletes(mask.as_ref()));
        let Some(mask) = of_deletes.as_ref().or(mask.as_ref()) else {
            columns.push(take(column, &plain, None)?);
            absent.push(None);
            continue;
        };
        let source = resolve_absent(&upserts, &input.operations, &chain, mask);
        unresolved_absent += source.unresolved;
        columns.push(take(column, &source.indices, None)?);
        absent.push((source.absent.count_set_bits() > 0).then_some(source.absent));
    }
    let rows = with_rows(schema.arrow().clone(), columns, upserts.len())?;
    let deletes = UInt32Array::from(deletes);
    let key_columns = compared
        .iter()
        .map(|&key| take(&input.columns[key], &deletes, None))
        .collect::<Result<Vec<_>, _>>()?;
    let key_schema = Arc::new(schema.arrow().project(&compared)?);
    Ok(Folded {
        schema: Arc::clone(schema),
        absent,
        operations: upserts.iter().map(|&index| input.operations[index as usize]).collect(),
        source_micros: upserts.iter().map(|&index| input.source_micros[index as usize]).collect(),
        rows,
        truncated: input.truncated,
        compared,
        deletes: with_rows(key_schema, key_columns, deletes.len())?,
        of_stored,
        changes: input.changes,
        unresolved_absent,
    })
}

/// A batch that also works without columns.
pub(super) fn with_rows(
    schema: arrow::datatypes::SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// All changes that count, aligned to one schema and put one behind the other.
pub(super) struct Input<'a> {
    schema: &'a TableSchema,
    pub(super) operations: Vec<Operation>,
    pub(super) source_micros: Vec<i64>,
    pub(super) columns: Vec<ArrayRef>,
    pub(super) absent: Vec<Option<BooleanBuffer>>,
    /// Changes that count, those that a truncate took away among them.
    changes: usize,
    truncated: Option<Truncated>,
}

impl<'a> Input<'a> {
    pub(super) fn concat(
        schema: &'a Arc<TableSchema>,
        batches: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Self, ArrowError> {
        let mut kept: Vec<Kept<'_>> = Vec::with_capacity(batches.len());
        for batch in batches {
            let counts = |row: &usize| keep(batch.partitions[*row], batch.offsets[*row]);
            kept.push((*batch, (0..batch.len()).filter(counts).map(|row| row as u32).collect()));
        }
        let changes = kept.iter().map(|(_, rows)| rows.len()).sum();
        let truncated = truncate::cut(&mut kept);
        let mut operations = Vec::with_capacity(changes);
        let mut source_micros = Vec::with_capacity(changes);
        for (batch, rows) in &kept {
            operations.extend(rows.iter().map(|&row| batch.operations[row as usize]));
            source_micros.extend(rows.iter().map(|&row| batch.source_micros[row as usize]));
        }
        let all = |batch: &ChangeBatch, rows: &[u32]| rows.len() == batch.len();
        let kept: Vec<(&ChangeBatch, Option<UInt32Array>)> = kept
            .into_iter()
            .map(|(batch, rows)| (batch, (!all(batch, &rows)).then(|| UInt32Array::from(rows))))
            .collect();
        let mut columns = Vec::with_capacity(schema.columns().len());
        let mut absent = Vec::with_capacity(schema.columns().len());
        for (column, field) in schema.columns().iter().zip(schema.arrow().fields()) {
            let mut parts = Vec::with_capacity(kept.len());
            let mut mask = AbsentMask::default();
            for (batch, indices) in &kept {
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
            columns.push(if parts.is_empty() {
                new_null_array(field.data_type(), 0)
            } else {
                concat(&parts)?
            });
            absent.push(mask.finish());
        }
        Ok(Self { schema, operations, source_micros, columns, absent, changes, truncated })
    }

    /// A column's mask with the cells of deletes added: they are absent, too.
    fn cells_of_deletes(&self, mask: Option<&BooleanBuffer>) -> BooleanBuffer {
        let deletes: BooleanBuffer = self.operations.iter().map(|operation| !operation.is_upsert()).collect();
        mask.map_or(deletes.clone(), |mask| mask | &deletes)
    }

    /// Links each change to the one before it with the same key.
    pub(super) fn chain(&self) -> Result<Chain, ArrowError> {
        let keys: Vec<ArrayRef> =
            self.schema.key().iter().map(|&key| Arc::clone(&self.columns[key])).collect();
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let encoded = RowConverter::new(fields)?.convert_columns(&keys)?;
        let mut newest: HashMap<&[u8], u32> = HashMap::with_capacity(self.operations.len());
        let mut chain = vec![NONE; self.operations.len()];
        let mut is_last = vec![true; self.operations.len()];
        for (index, link) in chain.iter_mut().enumerate() {
            if let Some(before) = newest.insert(encoded.row(index).data(), index as u32) {
                *link = before;
                is_last[before as usize] = false;
            }
        }
        let last_of_each_key =
            is_last.iter().enumerate().filter(|(_, last)| **last).map(|(index, _)| index as u32).collect();
        Ok(Chain { chain, last_of_each_key })
    }
}

/// No earlier change of that key in the batch.
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Chain {
    pub(super) chain: Vec<u32>,
    last_of_each_key: Vec<u32>,
}

pub(super) struct Resolved {
    pub(super) indices: UInt32Array,
    pub(super) absent: BooleanBuffer,
    pub(super) unresolved: u64,
}

/// For each row the change that its cell is taken from.
pub(super) fn resolve_absent(
    upserts: &[u32],
    operations: &[Operation],
    chain: &[u32],
    mask: &BooleanBuffer,
) -> Resolved {
    let mut still_absent = BooleanBufferBuilder::new(upserts.len());
    let mut unresolved = 0;
    let indices = upserts
        .iter()
        .map(|&row| {
            let mut at = row;
            loop {
                if !mask.value(at as usize) {
                    still_absent.append(false);
                    return at;
                }
                let before = chain[at as usize];
                if before == NONE {
                    still_absent.append(true);
                    return row;
                }
                if operations[at as usize].is_upsert() && !operations[before as usize].is_upsert() {
                    unresolved += 1;
                    still_absent.append(false);
                    return row;
                }
                at = before;
            }
        })
        .collect();
    Resolved { indices, absent: still_absent.finish(), unresolved }
}

/// Whether a change is a delete with nothing but deletes of its key before it in the batch.
fn deletes_what_is_stored(mut at: u32, operations: &[Operation], chain: &[u32]) -> bool {
    while at != NONE {
        if operations[at as usize].is_upsert() {
            return false;
        }
        at = chain[at as usize];
    }
    true
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
