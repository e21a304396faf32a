//! Folding: reducing the changes of a table to the final state of each key they touch.
//!
//! The last change of a key wins. Absent columns of its row take the newest earlier value within the batch, through
//! key changes too ([`ancestry`](super::ancestry)); where there is none they stay absent, and the sink keeps what it has
//! stored. A delete in between cuts that search: the row after it is a replacement and inherits nothing from the row
//! before. A truncate is a delete of everything: the changes that it takes away are left out
//! ([`truncate`](super::truncate)), and the sink is told to empty itself first.
//!
//! A sink may keep deleted rows ([`DeleteMode::Soft`]). Then a delete is a row as well, all of whose cells but the key
//! are absent: it takes the last values, of this batch or of the stored row, and never what its event says, which are
//! values made up by the connector wherever the source logs the key alone. A truncate is a delete of each row that is
//! there ([`ending`]).
//!
//! Tables without key are counted instead ([`keyless`]), and have no key changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBufferBuilder, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::error::ArrowError;

use super::ancestry::{Ancestry, Found, Parent, Trail};
use super::ending;
use super::folded::{Departing, Folded, now, with_rows};
use super::input::Input;
use super::ledger::{self, Done, KeyChange, KeyLedger, Waiting};
use super::origins::OriginsBuilder;
use super::pairs::{First, Link};
use super::{ChangeBatch, DeleteMode, OWN, TableSchema, keyless};

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
    fold_onto(mode, schema, batches, keep, &KeyLedger::default())
}

/// The same for a table with key changes that are half done: `ledger` is the one that was stored with it.
///
/// # Errors
/// As [`fold`].
pub fn fold_onto(
    mode: DeleteMode,
    schema: &Arc<TableSchema>,
    batches: &[&ChangeBatch],
    keep: impl Fn(u32, i64) -> bool,
    ledger: &KeyLedger,
) -> Result<Folded, ArrowError> {
    if schema.key().is_empty() {
        return keyless::fold(
            schema,
            batches,
            &Input::concat(schema, batches, keep, &mut KeyLedger::default())?,
        );
    }
    if mode == DeleteMode::Soft
        && let Some(spread) = ending::spread(schema, batches, &keep)?
    {
        let mut before = ledger.clone();
        before.forget_waiting(spread.limit);
        let batches: Vec<&ChangeBatch> = spread.batches.iter().collect();
        let mut folded = fold_keyed(mode, schema, &batches, |_, _| true, before)?;
        folded.ledger.forget(spread.limit);
        folded.changes = spread.changes;
        folded.ending = Some(Box::new(spread.ending));
        return Ok(folded);
    }
    fold_keyed(mode, schema, batches, keep, ledger.clone())
}

/// Folds the changes of a table with key. Truncates among them take rows away.
fn fold_keyed(
    mode: DeleteMode,
    schema: &Arc<TableSchema>,
    batches: &[&ChangeBatch],
    keep: impl Fn(u32, i64) -> bool,
    mut before: KeyLedger,
) -> Result<Folded, ArrowError> {
    before.retain_key(schema);
    let input = Input::concat(schema, batches, keep, &mut before)?;
    let keys = input.keys();
    let waiting = before.waiting.iter().map(|entry| entry.row.clone());
    let waiting: Vec<_> = waiting.chain(before.done.iter().map(|entry| entry.change.new.clone())).collect();
    let waiting = if waiting.is_empty() { Vec::new() } else { ledger::columns(schema, &waiting)? };
    let mut ancestry = Ancestry::new(&input, &keys, &waiting)?;
    ancestry.link_again(&input, &before);
    for (row, &(entry, delete)) in (0..).zip(&input.pairs.fulfilled) {
        let names = before.waiting.get(entry).map(|entry| entry.columns.as_slice()).unwrap_or_default();
        let columns = names.iter().filter_map(|name| schema.index_of(name)).collect();
        ancestry.settle(row, columns, delete);
    }
    let fold = Fold { schema, input, keys, others_behind: waiting, ancestry, before };
    let is_delete = |index: u32| !fold.input.is_upsert(index);
    let last = &fold.ancestry.last_of_each_key;
    let (upserts, deletes): (Vec<u32>, Vec<u32>) =
        last.iter().partition(|&&index| mode == DeleteMode::Soft || !is_delete(index));
    let keeps_deleted = upserts.iter().any(|&index| is_delete(index));
    let mut marks = Marks::default();
    let from: Vec<Parent> = upserts.iter().map(|&change| Parent::Change(change)).collect();
    let mut folded = fold.rows(&from, &upserts, false, &mut marks)?;
    folded.deletes = fold.keys_of(&deletes)?;
    folded.of_stored = keeps_deleted
        .then(|| upserts.iter().map(|&change| fold.ancestry.deletes_what_is_stored(change)).collect());
    folded.departing = fold.departing()?.map(Box::new);
    folded.ledger = fold.ledger(&upserts, &marks)?;
    folded.truncated = fold.input.truncated;
    Ok(folded)
}

/// Cells that were passed on the way to values of folded rows, by what waits for them: row and column.
#[derive(Default)]
struct Marks {
    /// By place of the half whose delete has not come.
    open: BTreeMap<usize, BTreeSet<(usize, usize)>>,
    /// By number of the key under which the row is stored.
    stored: BTreeMap<u32, BTreeSet<(usize, usize)>>,
}

/// A fold at work.
struct Fold<'a> {
    schema: &'a Arc<TableSchema>,
    input: Input<'a>,
    keys: Vec<ArrayRef>,
    /// Keys that are numbered behind those of the halves: of waiting rows, and of key changes that are done.
    others_behind: Vec<ArrayRef>,
    ancestry: Ancestry,
    /// The ledger before.
    before: KeyLedger,
}

impl Fold<'_> {
    /// Builds one row from each of `from`, described by the change of the same place in `changes`. With `lists` each
    /// absent cell has one, also where it is in the stored row of the same key.
    fn rows(
        &self,
        from: &[Parent],
        changes: &[u32],
        lists: bool,
        marks: &mut Marks,
    ) -> Result<Folded, ArrowError> {
        let input = &self.input;
        let mut origins = OriginsBuilder::new(&self.ancestry);
        let mut unresolved = Vec::new();
        let mut columns = Vec::with_capacity(input.columns.len());
        let mut absent = Vec::with_capacity(input.columns.len());
        let plain = UInt32Array::from(changes.to_vec());
        let has_deletes = changes.iter().any(|&change| !input.is_upsert(change));
        for (index, (column, mask)) in input.columns.iter().zip(&input.absent).enumerate() {
            // The rows of deletes have their keys only: all else is absent in them.
            let is_key = self.schema.key().contains(&index);
            let with_deletes =
                ((has_deletes || lists) && !is_key).then(|| input.cells_of_deletes(mask.as_ref()));
            let Some(mask) = with_deletes.as_ref().or(mask.as_ref().filter(|_| !is_key)) else {
                columns.push(take(column, &plain, None)?);
                absent.push(None);
                origins.column(None);
                continue;
            };
            let source = self.resolve((from, changes), (index, mask), lists, &mut origins, marks);
            unresolved.extend(source.unresolved.iter().map(|&row| (row, index)));
            columns.push(take(column, &source.indices, None)?);
            absent.push((source.absent.count_set_bits() > 0).then_some(source.absent));
            origins.column(source.of);
        }
        let others = super::ancestry::behind(&input.others, &self.others_behind)?;
        let (operations, source_micros, places) = input.described(changes);
        Ok(Folded {
            schema: Arc::clone(self.schema),
            absent,
            origins: origins.finish(self.key_schema()?, &self.keys, &others, &self.before)?,
            operations,
            source_micros,
            places,
            rows: with_rows(self.schema.arrow().clone(), columns, changes.len())?,
            deletes: RecordBatch::new_empty(self.key_schema()?),
            truncated: None,
            ending: None,
            compared: self.schema.key().to_vec(),
            of_stored: None,
            changes: input.changes,
            unresolved,
            departing: None,
            ledger: KeyLedger::default(),
        })
    }

    /// For each row the change that its cell is taken from.
    fn resolve(
        &self,
        (from, changes): (&[Parent], &[u32]),
        (column, mask): (usize, &BooleanBuffer),
        lists: bool,
        origins: &mut OriginsBuilder<'_>,
        marks: &mut Marks,
    ) -> Resolved {
        let mut still_absent = BooleanBufferBuilder::new(changes.len());
        let mut of: Option<Vec<u32>> = None;
        let mut unresolved = Vec::new();
        let mut trail = Trail::default();
        let indices = from.iter().zip(changes).enumerate().map(|(row, (&from, &change))| {
            let found = match from {
                Parent::Change(change) if !lists => self.ancestry.find(change, column, mask, &mut trail),
                from => self.ancestry.walk(from, column, mask, &mut trail),
            };
            for half in trail.open.drain(..) {
                marks.open.entry(half).or_default().insert((row, column));
            }
            for key in trail.stored.drain(..) {
                if !self.before.waiting.is_empty() {
                    marks.stored.entry(key).or_default().insert((row, column));
                }
            }
            still_absent.append(matches!(found, Found::Own | Found::Stored(_)));
            match found {
                Found::In(at) => return at,
                Found::Own => {}
                Found::Stored(list) => {
                    let of = of.get_or_insert_with(|| vec![OWN; changes.len()]);
                    if let Some(of) = of.get_mut(row) {
                        *of = origins.list(list);
                    }
                }
                Found::Nowhere => unresolved.push(row),
            }
            change
        });
        let indices = indices.collect();
        Resolved { indices, absent: still_absent.finish(), of, unresolved }
    }

    fn key_schema(&self) -> Result<arrow::datatypes::SchemaRef, ArrowError> {
        Ok(Arc::new(self.schema.arrow().project(self.schema.key())?))
    }

    fn keys_of(&self, changes: &[u32]) -> Result<RecordBatch, ArrowError> {
        let at = UInt32Array::from(changes.to_vec());
        let columns = self.keys.iter().map(|key| take(key, &at, None)).collect::<Result<Vec<_>, _>>()?;
        with_rows(self.key_schema()?, columns, changes.len())
    }

    fn has_values_to_lose(&self) -> bool {
        let columns = self.schema.columns().iter().enumerate();
        let mut others = columns.filter(|(index, _)| !self.schema.key().contains(index));
        others.any(|(_, column)| ledger::may_be_absent(&column.column_type))
    }

    /// The rows that leave by a key change whose create has not come.
    fn departing(&self) -> Result<Option<Departing>, ArrowError> {
        if self.input.pairs.departing.is_empty() || !self.has_values_to_lose() {
            return Ok(None);
        }
        let there = |&&(delete, _): &&(u32, usize)| !matches!(self.ancestry.before(delete), Parent::Nothing);
        let leaving: Vec<(u32, usize)> = self.input.pairs.departing.iter().filter(there).copied().collect();
        let from: Vec<Parent> = leaving.iter().map(|&(delete, _)| self.ancestry.before(delete)).collect();
        let changes: Vec<u32> = leaving.iter().map(|&(delete, _)| delete).collect();
        let rows = self.rows(&from, &changes, true, &mut Marks::default())?;
        let halves = leaving.iter().filter_map(|&(_, half)| self.input.halves.get(half));
        Ok((!leaving.is_empty())
            .then(|| Departing { rows, changes: halves.map(|half| half.of.clone()).collect() }))
    }

    /// The ledger after the batch, as far as it does not depend on what is stored.
    fn ledger(&self, upserts: &[u32], marks: &Marks) -> Result<KeyLedger, ArrowError> {
        let (pairs, before) = (&self.input.pairs, &self.before);
        let used: BTreeSet<usize> = pairs
            .creates
            .iter()
            .filter_map(|(_, link, _)| match link {
                Link::Kept(entry) => usize::try_from(*entry).ok(),
                _ => None,
            })
            .collect();
        let departed = before.departed.iter().enumerate().filter(|(at, _)| !used.contains(at));
        let departed = departed.map(|(_, entry)| entry.clone()).collect();
        let mut after = KeyLedger { departed, ..KeyLedger::default() };
        if !self.has_values_to_lose() {
            return Ok(after);
        }
        after.done = self.done();
        let fulfilled = pairs.fulfilled.iter().map(|(entry, _)| *entry);
        let fulfilled: BTreeSet<usize> = fulfilled.chain(pairs.settled.iter().copied()).collect();
        for (at, entry) in before.waiting.iter().enumerate().filter(|(at, _)| !fulfilled.contains(at)) {
            let (number, touched) = self.ancestry.other(self.input.halves.len() + at);
            if !touched {
                after.waiting.push(entry.clone());
                continue;
            }
            let passed = marks.stored.get(&number);
            let still = passed.into_iter().flatten().filter(|(_, column)| {
                self.schema
                    .columns()
                    .get(*column)
                    .is_some_and(|column| entry.columns.iter().any(|name| *name == *column.name))
            });
            after.waiting.push(self.waiting(entry, upserts, still)?);
        }
        for &(create, link, half) in &pairs.creates {
            let Some(half_of) = self.input.halves.get(half).filter(|_| link == Link::Open) else {
                continue;
            };
            let row = ledger::texts(self.keys_of(&[create])?.columns())?.into_iter().next();
            let entry = Waiting {
                change: half_of.of.clone(),
                row: row.unwrap_or_default(),
                columns: Vec::new(),
                at: now(),
            };
            let passed = marks.open.get(&half).into_iter().flatten();
            after.waiting.push(self.waiting(&entry, upserts, passed)?);
        }
        Ok(after)
    }

    /// The key changes that are done after the batch.
    fn done(&self) -> Vec<Done> {
        let (pairs, halves) = (&self.input.pairs, &self.input.halves);
        let first = halves.len() + self.before.waiting.len();
        // The last of each create that came again: what lies before it does not matter any more.
        let again = |of: First| pairs.again.iter().rev().find(|(_, first)| *first == of).map(|(at, _)| *at);
        let overtaken = |number, after, change: &KeyChange| {
            self.ancestry.has_older(number, after, change.lsn.unwrap_or(0), &self.input.lsns)
        };
        let before = self.before.done.iter().enumerate().map(|(at, entry)| {
            let ((number, _), again) = (self.ancestry.other(first + at), again(First::Earlier(at)));
            let overtaken = (entry.overtaken && again.is_none()) || overtaken(number, again, &entry.change);
            Done { overtaken, ..entry.clone() }
        });
        let new = pairs.done.iter().filter_map(|&(half, create)| Some((half, create, halves.get(half)?)));
        let new = new.map(|(at, create, half)| {
            let number =
                create.map_or_else(|| self.ancestry.other(at).0, |create| self.ancestry.key_of(create));
            let newest = create.and_then(|create| again(First::In(create))).or(create);
            Done { overtaken: overtaken(number, newest, &half.of), change: half.of.clone(), at: now() }
        });
        before.chain(new).collect()
    }

    /// What waits like `entry`, now with these cells of folded rows, which are cells of one row.
    fn waiting<'c>(
        &self,
        entry: &Waiting,
        upserts: &[u32],
        cells: impl Iterator<Item = &'c (usize, usize)>,
    ) -> Result<Waiting, ArrowError> {
        let mut after = Waiting { columns: Vec::new(), ..entry.clone() };
        for &(row, column) in cells {
            if let Some(column) = self.schema.columns().get(column) {
                after.columns.push(column.name.to_string());
            }
            if after.columns.len() == 1
                && let Some(&change) = upserts.get(row)
            {
                let key = ledger::texts(self.keys_of(&[change])?.columns())?.into_iter().next();
                after.row = key.unwrap_or_default();
            }
        }
        Ok(after)
    }
}

struct Resolved {
    indices: UInt32Array,
    absent: BooleanBuffer,
    /// Where the absent cells are, if not all are in the stored row of their key.
    of: Option<Vec<u32>>,
    /// Rows whose cell is nowhere.
    unresolved: Vec<usize>,
}
