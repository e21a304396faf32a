//! Copy-on-write: cells that a batch leaves as they are, looked up by the library before it merges.
//!
//! A merge keeps the value of the row that it matches by itself. What it cannot see is the row of a former key, and that a
//! row is not there whose cells are to be kept: both are read here, at the very version that the merge starts from.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, RecordBatch, UInt32Array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use deltalake::datafusion::functions::expr_fn::coalesce;
use deltalake::datafusion::logical_expr::{Expr, lit};
use deltalake::{DeltaResult, DeltaTable};

use super::by_key;
use super::error::LakeError;
use super::mor::DataFiles;
use super::schema::DELETED;
use super::shape::Shape;
use super::upsert::target_column;
use crate::change::{Candidate, Folded, KeyLedger};

/// Settles `folded` and the rows that depart with it, which are kept aside, against the version that `table` stands at.
pub(super) async fn settle_all(
    table: &DeltaTable,
    (folded, shape): (&Folded, Shape),
    files: &DataFiles,
    memory: usize,
) -> Result<(Settled, KeyLedger), LakeError> {
    let settled = settle(table, (folded, shape), files, memory).await?;
    let Some(departing) = &folded.departing else {
        return Ok((settled, folded.ledger_with(std::iter::empty())));
    };
    let of_departing = settle(table, (&departing.rows, shape), files, memory).await?;
    let columns = of_departing.folded.rows.columns().to_vec();
    let kept = files.keep_aside(departing, columns, &of_departing.unresolved).await?;
    Ok((settled, folded.ledger_with(kept.into_iter())))
}

/// A batch whose absent cells are all in the rows that a merge replaces.
pub(super) struct Settled {
    pub(super) folded: Folded,
    /// Row and column of cells that are stored nowhere.
    pub(super) unresolved: Vec<(usize, usize)>,
}

/// Settles `folded` against the version that `table` stands at.
async fn settle(
    table: &DeltaTable,
    (folded, shape): (&Folded, Shape),
    files: &DataFiles,
    memory: usize,
) -> Result<Settled, LakeError> {
    if folded.absent.iter().all(Option::is_none) {
        return Ok(Settled { folded: folded.clone(), unresolved: Vec::new() });
    }
    let refused = |error: ArrowError| LakeError::Refused(format!("stored cells of {}: {error}", files.table));
    let lookup = Lookup::of(folded).map_err(refused)?;
    let mut found = lookup
        .read(table, (folded, shape), memory)
        .await
        .map_err(|error| LakeError::delta(&files.table, &error))?;
    found.kept = lookup.read_kept(folded, files).await?;
    settled(folded, &lookup, &found).map_err(refused)
}

/// Keys to look for: first those of rows with absent cells, then those of origins.
struct Lookup {
    keys: RecordBatch,
    /// By row of the batch, the place of its own key.
    own: HashMap<usize, usize>,
    /// The place of the first key of the origins.
    first_origin: usize,
    /// Columns whose cells are read.
    columns: Vec<usize>,
}

/// The stored rows that there are.
struct Found {
    /// Cells in the columns of [`Lookup::columns`].
    batches: Vec<RecordBatch>,
    /// By place of the key: the batch with its row, and where it is there.
    places: Vec<Option<(usize, usize)>>,
    /// Rows kept aside with the same columns, one a name of the origins, as far as they are there.
    kept: Vec<Option<RecordBatch>>,
}

impl Lookup {
    fn of(folded: &Folded) -> Result<Self, ArrowError> {
        let rows = folded.rows.num_rows();
        let has_absent = |row: &usize| folded.absent.iter().flatten().any(|mask| mask.value(*row));
        let partial: Vec<usize> = (0..rows).filter(has_absent).collect();
        let indices: UInt32Array = partial.iter().map(|&row| row as u32).collect();
        let mut fields: Vec<Field> = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let origins = folded.origins.as_ref();
        for (at, &key) in folded.schema.key().iter().enumerate() {
            let own = take(folded.rows.column(key), &indices, None)?;
            fields.push(folded.schema.arrow().field(key).clone());
            columns.push(match origins.and_then(|origins| origins.keys.columns().get(at)) {
                Some(origin) => concat(&[own.as_ref(), origin.as_ref()])?,
                None => own,
            });
        }
        let with_cells = |column: &usize| folded.absent.get(*column).is_some_and(Option::is_some);
        Ok(Self {
            keys: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?,
            first_origin: partial.len(),
            own: partial.into_iter().zip(0..).collect(),
            columns: if origins.is_some() {
                (0..folded.absent.len()).filter(with_cells).collect()
            } else {
                Vec::new()
            },
        })
    }

    /// The columns whose cells are read, as a stored row has them.
    fn cells(&self, folded: &Folded) -> SchemaRef {
        let fields = self.columns.iter().map(|&column| folded.schema.arrow().field(column).clone());
        Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
    }

    async fn read(
        &self,
        table: &DeltaTable,
        (folded, shape): (&Folded, Shape),
        memory: usize,
    ) -> DeltaResult<Found> {
        // A row that is marked as deleted is none.
        let is_there = || Expr::Not(Box::new(coalesce(vec![target_column(DELETED), lit(false)])));
        let rows = (&self.cells(folded), shape.keeps_deleted.then(is_there));
        let (batches, places) = by_key::stored_rows(table, &folded.schema, &self.keys, rows, memory).await?;
        Ok(Found { batches, places, kept: Vec::new() })
    }

    async fn read_kept(
        &self,
        folded: &Folded,
        files: &DataFiles,
    ) -> Result<Vec<Option<RecordBatch>>, LakeError> {
        let Some(origins) = &folded.origins else { return Ok(Vec::new()) };
        let schema = self.cells(folded);
        let mut kept = Vec::with_capacity(origins.kept.len());
        for place in files.places_aside(&origins.kept).await? {
            kept.push(match place {
                Some((path, row)) => Some(files.rows(&path, &schema, &[row]).await?),
                None => None,
            });
        }
        Ok(kept)
    }
}

impl Found {
    /// The stored row of a key.
    fn stored(&self, key: usize) -> Option<(usize, usize)> {
        self.places.get(key).copied().flatten()
    }

    /// Which source a cell is taken from, and the row in it: behind the batch itself come the stored rows, then those
    /// kept aside.
    fn place(&self, lookup: &Lookup, candidate: Candidate) -> Option<(usize, usize)> {
        match candidate {
            Candidate::Stored(key) => {
                let (batch, row) = self.stored(lookup.first_origin + key as usize)?;
                Some((1 + batch, row))
            }
            Candidate::Kept(name) => {
                self.kept.get(name as usize)?.as_ref()?;
                Some((1 + self.batches.len() + name as usize, 0))
            }
        }
    }
}

fn settled(folded: &Folded, lookup: &Lookup, found: &Found) -> Result<Settled, ArrowError> {
    let mut settled = folded.clone();
    let mut unresolved = Vec::new();
    let mut columns = folded.rows.columns().to_vec();
    for (column, mask) in folded.absent.iter().enumerate() {
        let Some(mask) = mask else { continue };
        let mut kept = BooleanBufferBuilder::new(mask.len());
        let mut picked = Vec::with_capacity(mask.len());
        for row in 0..mask.len() {
            let mut pick = (0, row);
            let mut keep = false;
            if mask.value(row) {
                let origins = folded.origins.as_ref().and_then(|origins| origins.candidates_of(column, row));
                let at = if let Some(list) = origins {
                    list.iter().find_map(|candidate| found.place(lookup, *candidate))
                } else {
                    keep = true;
                    let own = lookup.own.get(&row).and_then(|key| found.stored(*key));
                    own.map(|_| pick)
                };
                match at {
                    Some(at) => pick = at,
                    // A delete keeps the cells of a row that is marked already, and without one it is not written.
                    None if folded.of_stored.as_ref().is_some_and(|rows| rows.value(row)) => {}
                    None => unresolved.push((row, column)),
                }
            }
            kept.append(keep);
            picked.push(pick);
        }
        if let Some(at) = lookup.columns.iter().position(|known| *known == column)
            && let Some(slot) = columns.get_mut(column)
        {
            let empty = arrow::array::new_empty_array(slot.data_type());
            let read = found.batches.iter().map(Some).chain(found.kept.iter().map(Option::as_ref));
            let cells = read.map(|rows| {
                rows.and_then(|rows| rows.columns().get(at)).map_or(empty.as_ref(), AsRef::as_ref)
            });
            let sources: Vec<&dyn Array> = std::iter::once(slot.as_ref()).chain(cells).collect();
            let filled = interleave(&sources, &picked)?;
            *slot = filled;
        }
        let kept = kept.finish();
        if let Some(slot) = settled.absent.get_mut(column) {
            *slot = (kept.count_set_bits() > 0).then_some(kept);
        }
    }
    settled.rows = RecordBatch::try_new(folded.rows.schema(), columns)?;
    settled.origins = None;
    Ok(Settled { folded: settled, unresolved })
}
