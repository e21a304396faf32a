//! Folding: reducing the changes of a table to the final state of each key they touch.
//!
//! The last change of a key wins. Absent columns of its row take the newest earlier value within the batch, through
//! key changes too ([`lineage`](super::lineage)); where there is none they stay absent, and the sink keeps what it has
//! stored. A delete in between cuts that search: the row after it is a replacement and inherits nothing from the row
//! before.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanBufferBuilder, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, take, take_record_batch};
use arrow::error::ArrowError;

use super::lineage::{Found, Lineage, Moves, Origins, OriginsBuilder};
use super::{Batch, ChangeBatch, OWN, Operation, TableSchema, UnresolvedRow};

/// Rows with unresolved cells that are named; all of them are counted.
const NAMED: usize = 20;

/// The final state of each key that a batch touches. A key is either in `rows` or in `deletes`.
#[derive(Debug, Clone)]
pub struct Folded {
    /// The schema that rows and masks follow.
    pub schema: Arc<TableSchema>,
    /// Rows to insert or update, columns as in [`TableSchema::arrow`], in the order of their last change.
    pub rows: RecordBatch,
    /// For each column `None`, or a mask of the cells of `rows` that keep a stored value.
    pub absent: Vec<Option<BooleanBuffer>>,
    /// Where those values are stored; `None` where all are in the stored row of the same key.
    pub origins: Option<Origins>,
    /// The last operation on each row of `rows`.
    pub operations: Vec<Operation>,
    /// Commit time in the source of each row's last change, microseconds since 1970 UTC.
    pub source_micros: Vec<i64>,
    /// Partition (its index in the batch) and offset of each row's last change.
    pub places: Vec<(u32, i64)>,
    /// Keys to delete: the key columns only, in key order.
    pub deletes: RecordBatch,
    /// Changes that went in.
    pub changes: usize,
    /// Row and column of the cells that the batch says to be unchanged, of a row that the same batch says to be new:
    /// null in `rows`.
    pub unresolved: Vec<(usize, usize)>,
}

impl Folded {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0 && self.deletes.num_rows() == 0
    }

    /// Names the newest rows of `cells`, which are rows and columns of this batch.
    pub fn named(&self, batch: &Batch, cells: &[(usize, usize)]) -> Vec<UnresolvedRow> {
        let mut cells = cells.to_vec();
        cells.sort_unstable();
        let mut named: Vec<UnresolvedRow> = Vec::new();
        for of_row in cells.chunk_by(|a, b| a.0 == b.0).rev().take(NAMED) {
            let place = of_row.first().and_then(|(row, _)| self.places.get(*row));
            let Some(&(partition, offset)) = place else { continue };
            let Some(partition) = batch.partitions.get(partition as usize).cloned() else { continue };
            let columns = of_row.iter().filter_map(|&(_, column)| self.schema.columns().get(column));
            let columns = columns.map(|column| Arc::clone(&column.name)).collect();
            named.push(UnresolvedRow { partition, offset, columns });
        }
        named
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
    let input = Input::concat(schema, batches, keep)?;
    let keys = input.keys();
    let lineage = Lineage::new(&input.operations, &keys, &input.moves)?;
    let (upserts, deletes): (Vec<u32>, Vec<u32>) =
        lineage.last_of_each_key.iter().partition(|&&index| input.operations[index as usize].is_upsert());

    let mut origins = OriginsBuilder::new(&lineage);
    let mut unresolved = Vec::new();
    let mut columns = Vec::with_capacity(input.columns.len());
    let mut absent = Vec::with_capacity(input.columns.len());
    let plain = UInt32Array::from(upserts.clone());
    for (index, (column, mask)) in input.columns.iter().zip(&input.absent).enumerate() {
        let Some(mask) = mask else {
            columns.push(take(column, &plain, None)?);
            absent.push(None);
            origins.column(None);
            continue;
        };
        let source = resolve_absent(&upserts, &lineage, mask, &mut origins);
        unresolved.extend(source.unresolved.iter().map(|&row| (row, index)));
        columns.push(take(column, &source.indices, None)?);
        absent.push((source.absent.count_set_bits() > 0).then_some(source.absent));
        origins.column(source.of);
    }
    let key_schema = Arc::new(schema.arrow().project(schema.key())?);
    let origins = origins.finish(Arc::clone(&key_schema), &keys, &input.moves)?;
    let deletes = UInt32Array::from(deletes);
    let key_columns = keys.iter().map(|key| take(key, &deletes, None)).collect::<Result<Vec<_>, _>>()?;
    Ok(Folded {
        schema: Arc::clone(schema),
        absent,
        origins,
        operations: upserts.iter().map(|&index| input.operations[index as usize]).collect(),
        source_micros: upserts.iter().map(|&index| input.source_micros[index as usize]).collect(),
        places: upserts.iter().map(|&index| input.places[index as usize]).collect(),
        rows: with_rows(schema.arrow().clone(), columns, upserts.len())?,
        deletes: with_rows(key_schema, key_columns, deletes.len())?,
        changes: input.operations.len(),
        unresolved,
    })
}

/// A batch that also works without columns.
fn with_rows(
    schema: arrow::datatypes::SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// All changes that count, aligned to one schema and put one behind the other.
struct Input<'a> {
    schema: &'a TableSchema,
    operations: Vec<Operation>,
    source_micros: Vec<i64>,
    places: Vec<(u32, i64)>,
    columns: Vec<ArrayRef>,
    absent: Vec<Option<BooleanBuffer>>,
    moves: Moves,
}

impl<'a> Input<'a> {
    fn concat(
        schema: &'a Arc<TableSchema>,
        batches: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Self, ArrowError> {
        let mut operations = Vec::new();
        let mut source_micros = Vec::new();
        let mut places = Vec::new();
        let mut kept = Vec::with_capacity(batches.len());
        for batch in batches {
            let indices: Vec<u32> = (0..batch.len())
                .filter(|&row| keep(batch.partitions[row], batch.offsets[row]))
                .map(|row| row as u32)
                .collect();
            operations.extend(indices.iter().map(|&row| batch.operations[row as usize]));
            source_micros.extend(indices.iter().map(|&row| batch.source_micros[row as usize]));
            places.extend(
                indices.iter().map(|&row| (batch.partitions[row as usize], batch.offsets[row as usize])),
            );
            let all = indices.len() == batch.len();
            kept.push((*batch, (!all).then(|| UInt32Array::from(indices))));
        }
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
        let moves = moves(schema, &kept)?;
        Ok(Self { schema, operations, source_micros, places, columns, absent, moves })
    }

    /// The key columns, in key order.
    fn keys(&self) -> Vec<ArrayRef> {
        self.schema.key().iter().map(|&key| Arc::clone(&self.columns[key])).collect()
    }
}

/// The key changes among the changes that are kept, by their index among those. Where a batch has another key than the
/// table, its rows inherit nothing.
fn moves(schema: &TableSchema, kept: &[(&ChangeBatch, Option<UInt32Array>)]) -> Result<Moves, ArrowError> {
    let mut changes = Vec::new();
    let mut parts: Vec<RecordBatch> = Vec::new();
    let mut first = 0;
    for (batch, indices) in kept {
        let same_key = batch.schema.key_names().eq(schema.key_names());
        if let Some(moves) = batch.moves.as_ref().filter(|_| same_key) {
            let mut rows = Vec::with_capacity(moves.changes.len());
            for (&change, row) in moves.changes.iter().zip(0_u32..) {
                let among_kept = match indices {
                    None => Some(change),
                    Some(indices) => indices.values().binary_search(&change).ok().map(|at| at as u32),
                };
                if let Some(at) = among_kept {
                    changes.push(first + at);
                    rows.push(row);
                }
            }
            parts.push(take_record_batch(&moves.keys, &UInt32Array::from(rows))?);
        }
        first += indices.as_ref().map_or(batch.len(), UInt32Array::len) as u32;
    }
    let mut keys = Vec::with_capacity(schema.key().len());
    for column in 0..schema.key().len() {
        let parts: Vec<&dyn Array> =
            parts.iter().filter_map(|part| part.columns().get(column)).map(AsRef::as_ref).collect();
        keys.extend((!parts.is_empty()).then(|| concat(&parts)).transpose()?);
    }
    Ok(Moves { changes, keys })
}

struct Resolved {
    indices: UInt32Array,
    absent: BooleanBuffer,
    /// Where the absent cells are, if not all are in the stored row of their key.
    of: Option<Vec<u32>>,
    /// Rows whose cell is nowhere.
    unresolved: Vec<usize>,
}

/// For each row the change that its cell is taken from.
fn resolve_absent(
    upserts: &[u32],
    lineage: &Lineage,
    mask: &BooleanBuffer,
    origins: &mut OriginsBuilder<'_>,
) -> Resolved {
    let mut still_absent = BooleanBufferBuilder::new(upserts.len());
    let mut of: Option<Vec<u32>> = None;
    let mut unresolved = Vec::new();
    let indices = upserts.iter().enumerate().map(|(row, &change)| {
        let found = lineage.find(change, mask);
        still_absent.append(matches!(found, Found::Own | Found::Stored(_)));
        match found {
            Found::In(at) => return at,
            Found::Own => {}
            Found::Stored(keys) => {
                of.get_or_insert_with(|| vec![OWN; upserts.len()])[row] = origins.list(keys);
            }
            Found::Nowhere => unresolved.push(row),
        }
        change
    });
    let indices = indices.collect();
    Resolved { indices, absent: still_absent.finish(), of, unresolved }
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
