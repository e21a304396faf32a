//! Cells that a batch leaves as they are: read from the stored rows that have them, and put into the batch's rows.
//!
//! A row keeps cells of the row it replaces, or, where its key changed, of the row of its former key, which the same
//! commit deletes. Only the rows and columns that are needed are read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::files::DataFiles;
use super::plan::{Place, Plan};
use crate::change::{Candidate, Folded};
use crate::lake::error::LakeError;
use crate::lake::schema::DELETED;
use crate::lake::shape::Shape;

/// Files that are read at the same time.
const READERS: usize = 8;

/// The columns of a batch with absent cells filled in.
pub(super) struct Cells {
    pub(super) columns: Vec<ArrayRef>,
    /// Whether there were absent cells: then the columns hold at one version of the table only.
    pub(super) depends: bool,
    /// Row and column of absent cells that are stored nowhere.
    pub(super) unresolved: Vec<(usize, usize)>,
}

/// Where the rows of origins lie, as far as there are such rows.
#[derive(Debug, Default)]
pub(super) struct OriginPlaces {
    /// By key of the origins: a live row.
    pub(super) stored: Vec<Option<Place>>,
    /// By name of the origins: a row that was kept aside.
    pub(super) kept: Vec<Option<Place>>,
}

/// Takes absent cells from the rows that the batch replaces, or from `origins`, the places of [`Folded::origins`].
///
/// A row that is marked as deleted is none: what comes after it replaces it whole. Only another delete keeps its cells.
pub(super) async fn with_stored_cells(
    (folded, shape): (&Folded, Shape),
    plan: &Plan,
    origins: &OriginPlaces,
    files: &DataFiles,
) -> Result<Cells, LakeError> {
    let partial: Vec<usize> = (0..folded.absent.len())
        .filter(|&column| folded.absent.get(column).is_some_and(Option::is_some))
        .collect();
    let mut columns = folded.rows.columns().to_vec();
    if partial.is_empty() {
        return Ok(Cells { columns, depends: false, unresolved: Vec::new() });
    }
    let fields = partial.iter().filter_map(|&column| folded.schema.arrow().fields().get(column).cloned());
    let mark = shape.keeps_deleted.then(|| Arc::new(Field::new(DELETED, DataType::Boolean, true)));
    let wanted: SchemaRef = Arc::new(Schema::new(fields.chain(mark).collect::<Vec<_>>()));
    let mut stored = Stored::read(folded, plan, origins, files, &wanted).await?;
    let of_stored = |row: usize| folded.of_stored.as_ref().is_some_and(|rows| rows.value(row));
    if shape.keeps_deleted {
        stored.forget_deleted(of_stored);
    }
    let mut unresolved = Vec::new();
    for (at, &column) in partial.iter().enumerate() {
        let Some((Some(mask), rows)) = folded.absent.get(column).zip(columns.get(column).cloned()) else {
            continue;
        };
        let mut sources: Vec<&dyn Array> = vec![&*rows];
        sources.extend(stored.batches.iter().map(|batch| &**batch.column(at)));
        let picked: Vec<(usize, usize)> = (0..rows.len())
            .map(|row| {
                if !mask.value(row) {
                    return (0, row);
                }
                if let Some((batch, place)) = stored.of(folded, column, row) {
                    return (batch + 1, place);
                }
                if !of_stored(row) {
                    unresolved.push((row, column));
                }
                (0, row)
            })
            .collect();
        let filled = interleave(&sources, &picked)
            .map_err(|error| LakeError::Refused(format!("stored cells of {}: {error}", files.table)))?;
        if let Some(slot) = columns.get_mut(column) {
            *slot = filled;
        }
    }
    Ok(Cells { columns, depends: true, unresolved })
}

/// Stored rows that have cells to keep. A row is given as one of `batches` and its place in it.
struct Stored {
    batches: Vec<RecordBatch>,
    /// By row of the folded batch: the stored row that it replaces.
    own: HashMap<usize, (usize, usize)>,
    /// By key of the origins.
    by_key: Vec<Option<(usize, usize)>>,
    /// By name of the origins.
    kept: Vec<Option<(usize, usize)>>,
}

impl Stored {
    async fn read(
        folded: &Folded,
        plan: &Plan,
        origins: &OriginPlaces,
        files: &DataFiles,
        columns: &SchemaRef,
    ) -> Result<Self, LakeError> {
        let has_absent = |row: usize| folded.absent.iter().flatten().any(|mask| mask.value(row));
        let replaced: Vec<(usize, &str, u32)> = plan.replaced().filter(|&(by, ..)| has_absent(by)).collect();
        let mut wanted: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for &(_, path, row) in &replaced {
            wanted.entry(path).or_default().insert(row);
        }
        for (path, row) in origins.stored.iter().chain(&origins.kept).flatten() {
            wanted.entry(path).or_default().insert(*row);
        }
        let mut reads = Vec::with_capacity(wanted.len());
        for (&path, rows) in &wanted {
            let ordinals: Vec<u32> = rows.iter().copied().collect();
            reads.push(async move { files.rows(path, columns, &ordinals).await }.boxed());
        }
        let batches: Vec<RecordBatch> = futures::stream::iter(reads).buffered(READERS).try_collect().await?;
        let mut places: HashMap<(&str, u32), (usize, usize)> = HashMap::new();
        for (batch, (&path, rows)) in wanted.iter().enumerate() {
            places.extend(rows.iter().enumerate().map(|(place, &row)| ((path, row), (batch, place))));
        }
        let at = |path: &str, row: u32| places.get(&(path, row)).copied();
        let all = |places: &[Option<Place>]| {
            places.iter().map(|place| place.as_ref().and_then(|(path, row)| at(path, *row))).collect()
        };
        Ok(Self {
            own: replaced.iter().filter_map(|&(by, path, row)| Some((by, at(path, row)?))).collect(),
            by_key: all(&origins.stored),
            kept: all(&origins.kept),
            batches,
        })
    }

    /// Leaves out rows that are marked as deleted, but for rows of the batch that delete them again.
    fn forget_deleted(&mut self, keep: impl Fn(usize) -> bool) {
        let batches = &self.batches;
        let is_deleted = |(batch, place): (usize, usize)| {
            let marks = batches.get(batch).and_then(|batch: &RecordBatch| batch.column_by_name(DELETED));
            marks
                .and_then(|marks| marks.as_boolean_opt())
                .is_some_and(|marks| marks.is_valid(place) && marks.value(place))
        };
        self.own.retain(|&row, &mut place| keep(row) || !is_deleted(place));
        for place in &mut self.by_key {
            *place = place.filter(|place| !is_deleted(*place));
        }
    }

    /// The stored row that has an absent cell.
    fn of(&self, folded: &Folded, column: usize, row: usize) -> Option<(usize, usize)> {
        let Some(keys) = folded.origins.as_ref().and_then(|origins| origins.candidates_of(column, row))
        else {
            return self.own.get(&row).copied();
        };
        keys.iter().find_map(|candidate| match candidate {
            Candidate::Stored(key) => self.by_key.get(*key as usize).copied().flatten(),
            Candidate::Kept(name) => self.kept.get(*name as usize).copied().flatten(),
        })
    }
}
