//! Versions: what a batch adds to the history of each key, every change of it and not only the last.
//!
//! A create or an update begins a version and ends the one before it; a delete ends it. The version before is one of the
//! batch or the stored one, which a sink has to look up: so this comes in two steps. [`Versions::of`] links the changes of
//! a batch, [`Versions::complete`] is told the stored versions and says which rows are to be written and which stored
//! versions have ended.
//!
//! A truncate ends every version that is there ([`ending`]).
//!
//! Absent cells take the value of the version before, and nothing reaches over a delete. The first version under a changed
//! key takes them of the last one under the key before, where both are in the batch, as they are unless the two keys lie in
//! different partitions. A row that a snapshot reads
//! begins no version where it equals the one before: it says that the row is there, not that it changed.

// Indexes hold by construction. Changes are those of [`Linked`], whose vectors have an entry for each. A key is a number that
// [`Links::touch`] gave as it added an entry for it, a version one that [`Links::begin`] did, and `begun` grows with the latter.
#![allow(clippy::indexing_slicing)]

use std::sync::Arc;

use arrow::array::{ArrayRef, DynComparator, RecordBatch, UInt32Array, make_comparator};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{SortOptions, interleave, take};
use arrow::error::ArrowError;

use super::ending::{self, Ending};
use super::linked::Linked;
use super::{ChangeBatch, Operation, TableSchema};

/// The versions that begin and end in a batch of one table.
#[derive(Debug)]
pub struct Versions {
    /// The schema that the cells follow.
    pub schema: Arc<TableSchema>,
    /// What began each version, in the order of the changes.
    pub begun: Vec<Begun>,
    /// The keys that the batch touches, their key columns.
    pub keys: RecordBatch,
    /// Changes that went in.
    pub changes: usize,
    /// Deletes among them.
    pub deletes: u64,
    /// What truncates do to the stored versions.
    pub ending: Option<Ending>,
    /// Cells of the versions that begin, those absent are null.
    columns: Vec<ArrayRef>,
    /// Cells that are those of a stored version.
    absent: Vec<Option<BooleanBuffer>>,
    /// For each version with such cells, the keys whose stored version has them; the first that there is counts.
    origins: Vec<Vec<usize>>,
    links: Links,
    unresolved_absent: u64,
}

/// The change that began a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// What it did.
    pub operation: Operation,
    /// Commit time in the source, microseconds since 1970 UTC; 0 where the event does not say.
    pub source_micros: i64,
    /// Index of its partition in the batch.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
    /// Its key, an index into [`Versions::keys`].
    pub key: usize,
}

/// What a sink has to do, now that the stored versions are known.
#[derive(Debug)]
pub struct Completed {
    /// For each key, when its stored version ended (0: unknown when); `None` where it goes on.
    pub stored_ends: Vec<Option<i64>>,
    /// The cells of the versions that begin, all of them.
    pub columns: Vec<ArrayRef>,
    /// Those of them that are to be written, with the time at which they ended in the same batch.
    pub written: Vec<(usize, Option<i64>)>,
    /// Keys that have no version when the batch is over.
    pub gone: Vec<usize>,
    /// Absent cells without a version before them: null.
    pub unresolved_absent: u64,
    /// Deletes of keys that had no version: nothing was to be done.
    pub unknown_deletes: u64,
}

/// What a version, or the end of one, follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// The stored version, if there is one.
    Stored,
    /// A version of the batch.
    Version(usize),
    Nothing,
}

/// How the changes of each key hang together.
#[derive(Debug, Default)]
struct Links {
    /// For each version, what it follows.
    follows: Vec<Open>,
    /// For each version, when it ended.
    ends: Vec<Option<i64>>,
    /// For each key, when the stored version ended.
    stored_ends: Vec<Option<i64>>,
    /// For each key, what is open after the batch.
    open: Vec<Open>,
    /// Keys whose stored version was deleted.
    deleted_stored: Vec<usize>,
    /// Deletes behind another delete.
    unknown_deletes: u64,
}

impl Versions {
    /// Links the changes of one table, given in order; columns and `keep` are as in [`fold`](super::fold()).
    ///
    /// # Errors
    /// Where a column of a batch has another Arrow type than `schema` says.
    pub fn of(
        schema: &Arc<TableSchema>,
        batches: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Self, ArrowError> {
        if let Some(spread) = ending::spread(schema, batches, &keep)? {
            let batches: Vec<&ChangeBatch> = spread.batches.iter().collect();
            let versions = Self::of_rows(schema, &batches, |_, _| true)?;
            return Ok(Self { changes: spread.changes, ending: Some(spread.ending), ..versions });
        }
        Self::of_rows(schema, batches, keep)
    }

    /// Links changes that are all of single rows.
    fn of_rows(
        schema: &Arc<TableSchema>,
        batches: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Self, ArrowError> {
        let changes = Linked::of(schema, batches, keep)?;
        let mut links = Links::default();
        let (mut begun, mut upserts, mut first, mut key_of) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, &operation) in changes.operations.iter().enumerate() {
            let source_micros = changes.source_micros[index];
            let key = changes.before[index].map_or_else(
                || {
                    first.push(Some(index as u32));
                    links.touch()
                },
                |before| key_of[before],
            );
            key_of.push(key);
            if operation.is_upsert() {
                links.begin(key, source_micros);
                upserts.push(index);
                let (partition, offset) = changes.places[index];
                begun.push(Begun { operation, source_micros, partition, offset, key });
            } else {
                links.delete(key, source_micros);
            }
        }
        let (mut columns, mut absent, mut unresolved_absent) = (Vec::new(), Vec::new(), 0);
        for column in 0..changes.columns.len() {
            let cells = changes.cells(column, &upserts)?;
            columns.push(cells.column);
            absent.push(cells.absent);
            unresolved_absent += cells.unresolved;
        }
        let has_absent = |version: usize| absent.iter().flatten().any(|mask| mask.value(version));
        let origins = upserts.iter().enumerate().map(|(version, &change)| {
            let changes = if has_absent(version) { changes.origins(change) } else { Vec::new() };
            changes.into_iter().map(|change| key_of[change]).collect()
        });
        let origins = origins.collect();
        let first = UInt32Array::from(first);
        let key_columns = schema.key().iter().map(|&key| take(&changes.columns[key], &first, None));
        let key_schema = Arc::new(schema.arrow().project(schema.key())?);
        Ok(Self {
            schema: Arc::clone(schema),
            keys: RecordBatch::try_new(key_schema, key_columns.collect::<Result<_, _>>()?)?,
            changes: changes.operations.len(),
            deletes: changes.operations.iter().filter(|&&each| each == Operation::Delete).count() as u64,
            ending: None,
            begun,
            columns,
            absent,
            origins,
            links,
            unresolved_absent,
        })
    }

    /// Decides everything that hangs on stored versions: `stored` holds them, with the columns of the schema first, and
    /// `of_key` says for each key which of its rows is the key's.
    ///
    /// # Errors
    /// Where a stored column has another Arrow type than the schema says.
    pub fn complete(&self, stored: &RecordBatch, of_key: &[Option<usize>]) -> Result<Completed, ArrowError> {
        let stored_of = |key: usize| of_key.get(key).copied().flatten();
        let mut unresolved_absent = self.unresolved_absent;
        let mut columns = Vec::with_capacity(self.columns.len());
        for (at, (column, mask)) in self.columns.iter().zip(&self.absent).enumerate() {
            let Some(mask) = mask else {
                columns.push(Arc::clone(column));
                continue;
            };
            let mut pick = |(version, origins): (usize, &Vec<usize>)| {
                if !mask.value(version) {
                    return (0, version);
                }
                let stored = origins.iter().find_map(|&key| stored_of(key));
                unresolved_absent += u64::from(stored.is_none());
                stored.map_or((0, version), |row| (1, row))
            };
            let picked: Vec<(usize, usize)> = self.origins.iter().enumerate().map(&mut pick).collect();
            columns.push(interleave(&[&**column, &**stored.column(at)], &picked)?);
        }
        let repeats = self.repeats(&columns, stored, &stored_of)?;
        let (mut ends, mut stored_ends) = (self.links.ends.clone(), self.links.stored_ends.clone());
        let mut open = self.links.open.clone();
        // From the last to the first, so that the end of a run of repetitions gets to the version that they repeat.
        for &version in repeats.iter().rev() {
            match self.links.follows[version] {
                Open::Version(before) => ends[before] = ends[version],
                Open::Stored => stored_ends[self.begun[version].key] = ends[version],
                Open::Nothing => {}
            }
            let key = self.begun[version].key;
            if open[key] == Open::Version(version) {
                open[key] = self.links.follows[version];
            }
        }
        let is_unknown = |key: &&usize| stored_of(**key).is_none();
        let unknown = self.links.deleted_stored.iter().filter(is_unknown).count() as u64;
        Ok(Completed {
            columns,
            written: (0..self.begun.len())
                .filter(|version| repeats.binary_search(version).is_err())
                .map(|version| (version, ends[version]))
                .collect(),
            gone: (0..open.len()).filter(|&key| open[key] == Open::Nothing).collect(),
            stored_ends,
            unresolved_absent,
            unknown_deletes: self.links.unknown_deletes + unknown,
        })
    }

    /// Versions that a snapshot read and that equal the one before, in their order.
    fn repeats(
        &self,
        columns: &[ArrayRef],
        stored: &RecordBatch,
        stored_of: &impl Fn(usize) -> Option<usize>,
    ) -> Result<Vec<usize>, ArrowError> {
        let mut candidates = Vec::new();
        for (version, begun) in self.begun.iter().enumerate() {
            let before = match self.links.follows[version] {
                Open::Version(before) => Some((false, before)),
                Open::Stored => stored_of(begun.key).map(|row| (true, row)),
                Open::Nothing => None,
            };
            candidates.extend(before.filter(|_| begun.operation == Operation::Read).map(|at| (version, at)));
        }
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let mut same = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            let with = |other: &ArrayRef| make_comparator(column, other, SortOptions::default());
            same.push((with(column)?, with(stored.column(at))?));
        }
        let equals = |&(version, (is_stored, before)): &(usize, (bool, usize))| {
            let compare = |(batch, stored): &(DynComparator, DynComparator)| {
                if is_stored { stored(version, before) } else { batch(version, before) }
            };
            same.iter().all(|column| compare(column).is_eq())
        };
        Ok(candidates.iter().filter(|candidate| equals(candidate)).map(|(version, _)| *version).collect())
    }
}

impl Links {
    /// A key that was not touched before.
    fn touch(&mut self) -> usize {
        self.open.push(Open::Stored);
        self.stored_ends.push(None);
        self.open.len() - 1
    }

    fn begin(&mut self, key: usize, micros: i64) {
        self.end(key, micros);
        self.follows.push(self.open[key]);
        self.ends.push(None);
        self.open[key] = Open::Version(self.follows.len() - 1);
    }

    fn delete(&mut self, key: usize, micros: i64) {
        self.end(key, micros);
        match self.open[key] {
            Open::Nothing => self.unknown_deletes += 1,
            Open::Stored => self.deleted_stored.push(key),
            Open::Version(_) => {}
        }
        self.open[key] = Open::Nothing;
    }

    /// Ends what is open of a key.
    fn end(&mut self, key: usize, micros: i64) {
        match self.open[key] {
            Open::Stored => self.stored_ends[key] = Some(micros),
            Open::Version(version) => self.ends[version] = Some(micros),
            Open::Nothing => {}
        }
    }
}
