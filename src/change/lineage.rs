//! Lineage: which earlier state of which row a change builds on.
//!
//! A change builds on the change before it with the same key. The create of a key change builds on the row of the old
//! key as it was before the delete that belongs to it; so a row may be followed through any number of keys, and two
//! rows may swap theirs. Deletes and creates that belong together name each other's key; of several between the same
//! two keys the first delete belongs to the first create, since each of the two keys has one partition and with it one
//! order. The create may come first, where the two keys lie in different partitions.
//!
//! A create of a key that has a row already is a repetition by the source (a row cannot be created twice): it builds on
//! that row, whatever its header says, because the row of the old key may be another one by now.

use std::collections::{HashMap, VecDeque};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, take};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::Operation;

/// No change.
const NONE: u32 = u32::MAX;
/// In [`Origins::of`]: the stored row with the row's own key.
pub const OWN: u32 = u32::MAX;

/// Where absent cells of folded rows are stored, as far as that is not the stored row of the same key.
///
/// All of it is about what is stored *before* the batch.
#[derive(Debug, Clone)]
pub struct Origins {
    /// Keys of stored rows: key columns, in key order.
    pub keys: RecordBatch,
    /// Lists of rows of `keys`: the cell is that of the first one that is stored.
    pub candidates: Vec<Vec<u32>>,
    /// For each column `None`, or for each row the list in `candidates` that its absent cell follows, or [`OWN`].
    pub of: Vec<Option<Vec<u32>>>,
}

impl Origins {
    /// The list that an absent cell follows; `None` where it keeps the value of the stored row of its key.
    pub fn candidates_of(&self, column: usize, row: usize) -> Option<&[u32]> {
        let list = *self.of.get(column)?.as_ref()?.get(row)?;
        self.candidates.get(usize::try_from(list).ok()?).map(Vec::as_slice)
    }
}

/// Halves of key changes: the index of each change, ascending, and the other keys.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) changes: Vec<u32>,
    /// Key columns in key order, one row for each of `changes`.
    pub(super) keys: Vec<ArrayRef>,
}

/// What the row of a moved create was before.
#[derive(Debug, Clone, Copy)]
enum Parent {
    /// As after this change.
    Change(u32),
    /// As stored under the key with this number.
    Stored(u32),
    /// There was no such row.
    Nothing,
}

/// Changes linked to what they build on. Keys are numbered.
pub(super) struct Lineage {
    operations: Vec<Operation>,
    key: Vec<u32>,
    before: Vec<u32>,
    /// For each number the last change of its key.
    newest: Vec<u32>,
    parents: HashMap<u32, Parent>,
    /// For each number, where its key is: among the changes, and behind those among the moves.
    places: Vec<u32>,
    pub(super) last_of_each_key: Vec<u32>,
}

/// Where the value of an absent cell is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// In this change of the batch.
    In(u32),
    /// In the stored row of the same key.
    Own,
    /// In the first of these stored rows that there is, by the numbers of their keys.
    Stored(Vec<u32>),
    /// There was no row that had one.
    Nowhere,
}

impl Lineage {
    /// Links changes with the key columns `keys`.
    pub(super) fn new(
        operations: &[Operation],
        keys: &[ArrayRef],
        moves: &Moves,
    ) -> Result<Self, ArrowError> {
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let own = converter.convert_columns(keys)?;
        let mut numbers: HashMap<&[u8], u32> = HashMap::with_capacity(operations.len());
        let mut lineage = Self {
            operations: operations.to_vec(),
            key: Vec::with_capacity(operations.len()),
            before: Vec::with_capacity(operations.len()),
            newest: Vec::with_capacity(operations.len()),
            parents: HashMap::new(),
            places: Vec::with_capacity(operations.len()),
            last_of_each_key: Vec::new(),
        };
        for index in 0..operations.len() as u32 {
            let number = lineage.number(&mut numbers, own.row(index as usize).data(), index);
            lineage.key.push(number);
            lineage.before.push(std::mem::replace(&mut lineage.newest[number as usize], index));
        }
        let mut is_last = vec![true; operations.len()];
        lineage.before.iter().filter(|before| **before != NONE).for_each(|&at| is_last[at as usize] = false);
        lineage.last_of_each_key = (0..operations.len() as u32).filter(|&at| is_last[at as usize]).collect();
        if !moves.changes.is_empty() {
            let others = converter.convert_columns(&moves.keys)?;
            let others = moves.changes.iter().zip(0..).map(|(&change, at): (_, u32)| {
                let place = operations.len() as u32 + at;
                (change, lineage.number(&mut numbers, others.row(at as usize).data(), place))
            });
            let others: Vec<(u32, u32)> = others.collect();
            lineage.pair(&others);
        }
        Ok(lineage)
    }

    fn number<'a>(&mut self, numbers: &mut HashMap<&'a [u8], u32>, key: &'a [u8], place: u32) -> u32 {
        *numbers.entry(key).or_insert_with(|| {
            self.places.push(place);
            self.newest.push(NONE);
            self.places.len() as u32 - 1
        })
    }

    /// Finds the delete of each moved create, given each half of a key change with the number of its other key.
    fn pair(&mut self, halves: &[(u32, u32)]) {
        let mut open: HashMap<(u32, u32), (VecDeque<u32>, VecDeque<u32>)> = HashMap::new();
        let mut parents = HashMap::with_capacity(halves.len());
        for &(change, other) in halves {
            let own = self.key[change as usize];
            if self.operations[change as usize].is_upsert() {
                let (deletes, creates) = open.entry((other, own)).or_default();
                match deletes.pop_front() {
                    Some(delete) => drop(parents.insert(change, self.state_before(delete))),
                    None => creates.push_back(change),
                }
            } else {
                let (deletes, creates) = open.entry((own, other)).or_default();
                match creates.pop_front() {
                    Some(create) => drop(parents.insert(create, self.state_before(change))),
                    None => deletes.push_back(change),
                }
            }
        }
        for ((old, _), (_, creates)) in open {
            for create in creates {
                let mut newest = self.newest[old as usize];
                while newest != NONE && newest >= create {
                    newest = self.before[newest as usize];
                }
                parents.insert(create, self.state_after(newest, old));
            }
        }
        self.parents = parents;
    }

    fn state_before(&self, change: u32) -> Parent {
        self.state_after(self.before[change as usize], self.key[change as usize])
    }

    fn state_after(&self, change: u32, key: u32) -> Parent {
        match change {
            NONE => Parent::Stored(key),
            change if self.operations[change as usize].is_upsert() => Parent::Change(change),
            _ => Parent::Nothing,
        }
    }

    /// Finds the value of a column in the row that `change` leaves; `absent` says for which changes it is absent.
    pub(super) fn find(&self, change: u32, absent: &BooleanBuffer) -> Found {
        let mut at = change;
        let mut stored = Vec::new();
        // Links lead backwards, but those through moves are as the source sent them: never follow a circle.
        for _ in 0..=self.operations.len() {
            if !absent.value(at as usize) {
                return Found::In(at);
            }
            let before = self.before[at as usize];
            let own = match self.state_after(before, self.key[at as usize]) {
                Parent::Change(before) => {
                    at = before;
                    continue;
                }
                own => own,
            };
            if let Parent::Stored(key) = own {
                stored.push(key);
            }
            match self.parents.get(&at) {
                Some(Parent::Change(parent)) => at = *parent,
                Some(Parent::Stored(key)) => {
                    stored.push(*key);
                    break;
                }
                Some(Parent::Nothing) | None => break,
            }
        }
        match stored.as_slice() {
            [] => Found::Nowhere,
            [key] if *key == self.key[change as usize] => Found::Own,
            _ => Found::Stored(stored),
        }
    }

    /// Keys by their numbers, given the key columns of changes and moves.
    fn keys(&self, numbers: &[u32], keys: &[ArrayRef], moves: &Moves) -> Result<Vec<ArrayRef>, ArrowError> {
        let places: UInt32Array = numbers.iter().map(|&number| self.places[number as usize]).collect();
        let mut columns = Vec::with_capacity(keys.len());
        for (own, other) in keys.iter().zip(&moves.keys) {
            let all = concat(&[own.as_ref(), other.as_ref()])?;
            columns.push(take(&all, &places, None)?);
        }
        Ok(columns)
    }
}

/// Collects the origins of absent cells while they are found.
pub(super) struct OriginsBuilder<'a> {
    lineage: &'a Lineage,
    numbers: Vec<u32>,
    rows: HashMap<u32, u32>,
    candidates: Vec<Vec<u32>>,
    known: HashMap<Vec<u32>, u32>,
    of: Vec<Option<Vec<u32>>>,
}

impl<'a> OriginsBuilder<'a> {
    pub(super) fn new(lineage: &'a Lineage) -> Self {
        Self {
            lineage,
            numbers: Vec::new(),
            rows: HashMap::new(),
            candidates: Vec::new(),
            known: HashMap::new(),
            of: Vec::new(),
        }
    }

    /// The list of these keys.
    pub(super) fn list(&mut self, stored: Vec<u32>) -> u32 {
        if let Some(&list) = self.known.get(&stored) {
            return list;
        }
        let rows = stored.iter().map(|&number| {
            *self.rows.entry(number).or_insert_with(|| {
                self.numbers.push(number);
                self.numbers.len() as u32 - 1
            })
        });
        let rows = rows.collect();
        self.candidates.push(rows);
        let list = self.candidates.len() as u32 - 1;
        self.known.insert(stored, list);
        list
    }

    /// Says which list each row's cell of the next column follows.
    pub(super) fn column(&mut self, of: Option<Vec<u32>>) {
        self.of.push(of);
    }

    /// `None` where every absent cell is in the stored row of its own key.
    pub(super) fn finish(
        self,
        schema: arrow::datatypes::SchemaRef,
        keys: &[ArrayRef],
        moves: &Moves,
    ) -> Result<Option<Origins>, ArrowError> {
        if self.candidates.is_empty() {
            return Ok(None);
        }
        let keys = RecordBatch::try_new(schema, self.lineage.keys(&self.numbers, keys, moves)?)?;
        Ok(Some(Origins { keys, candidates: self.candidates, of: self.of }))
    }
}
