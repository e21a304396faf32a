//! Ancestry: which earlier state of which row a change builds on.
//!
//! A change builds on the change before it with the same key. The create of a key change builds on the row of the old
//! key as it was before the delete that belongs to it; so a row may be followed through any number of keys, and two
//! rows may swap theirs. Deletes and creates that belong together name each other's key; of several between the same
//! two keys the first delete belongs to the first create, since each of the two keys has one partition and with it one
//! order. The create may come first, where the two keys lie in different partitions.
//!
//! A create of a key that has a row already is a repetition by the source (a row cannot be created twice): it builds on
//! that row, whatever its header says, because the row of the old key may be another one by now. So does one that is
//! known to come again, where a delete that came again has taken the row: it is what it was the first time.

// Indexes hold by construction. `operations`, `key` and `before` have an entry for each change, `newest` and `places` one for each
// number: changes come from the input that was linked here, numbers from `number`, which adds to both as it gives one, and
// [`NONE`] is compared before a change is used. `others` has an entry for each half, and behind them one for each key that
// waits.
#![allow(clippy::indexing_slicing)]

use std::collections::HashMap;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, take};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::Operation;
use super::input::Input;
use super::ledger::KeyLedger;
use super::origins::Candidate;
use super::pairs::{First, Link};

/// No change.
const NONE: u32 = u32::MAX;

/// What a row was before a change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Parent {
    /// As after this change.
    Change(u32),
    /// As stored under the key with this number.
    Stored(u32),
    /// As kept with this entry of the ledger.
    Kept(u32),
    /// There was no such row.
    Nothing,
}

/// Changes linked to what they build on. Keys are numbered.
pub(super) struct Ancestry {
    operations: Vec<Operation>,
    key: Vec<u32>,
    before: Vec<u32>,
    /// For each number the last change of its key.
    newest: Vec<u32>,
    parents: HashMap<u32, Parent>,
    /// Moved creates whose delete has not come, with the place of the half.
    open: HashMap<u32, usize>,
    /// For waiting rows that a delete of this batch settles, by the number of their key: their columns, and the row of
    /// the old key.
    settled: HashMap<u32, Vec<(Vec<usize>, Parent)>>,
    /// The numbers of the others' keys.
    others: Vec<u32>,
    /// For each number, where its key is: among the changes, and behind those among the others.
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
    /// In the first of these that there is; keys by their numbers.
    Stored(Vec<Candidate>),
    /// There was no row that had one.
    Nowhere,
}

/// What was passed on the way to a value.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Places of halves whose delete has not come.
    pub(super) open: Vec<usize>,
    /// Numbers of keys under which a row is stored.
    pub(super) stored: Vec<u32>,
}

impl Ancestry {
    /// Links the changes of `input`; `waiting` are keys of rows that wait, which get numbers too.
    pub(super) fn new(
        input: &Input<'_>,
        keys: &[ArrayRef],
        waiting: &[ArrayRef],
    ) -> Result<Self, ArrowError> {
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let own = converter.convert_columns(keys)?;
        let changes = input.operations.len();
        let mut numbers: HashMap<&[u8], u32> = HashMap::with_capacity(changes);
        let mut ancestry = Self {
            operations: input.operations.clone(),
            key: Vec::with_capacity(changes),
            before: Vec::with_capacity(changes),
            newest: Vec::with_capacity(changes),
            parents: HashMap::new(),
            open: HashMap::new(),
            settled: HashMap::new(),
            others: Vec::new(),
            places: Vec::with_capacity(changes),
            last_of_each_key: Vec::new(),
        };
        for index in 0..changes as u32 {
            let number = ancestry.number(&mut numbers, own.row(index as usize).data(), index);
            ancestry.key.push(number);
            ancestry.before.push(std::mem::replace(&mut ancestry.newest[number as usize], index));
        }
        let mut is_last = vec![true; changes];
        ancestry.before.iter().filter(|before| **before != NONE).for_each(|&at| is_last[at as usize] = false);
        ancestry.last_of_each_key = (0..changes as u32).filter(|&at| is_last[at as usize]).collect();
        if input.halves.is_empty() && waiting.is_empty() {
            return Ok(ancestry);
        }
        let others = converter.convert_columns(&behind(&input.others, waiting)?)?;
        let others = (0..others.num_rows())
            .map(|at| ancestry.number(&mut numbers, others.row(at).data(), (changes + at) as u32))
            .collect::<Vec<u32>>();
        ancestry.others = others;
        ancestry.link(input);
        Ok(ancestry)
    }

    fn number<'a>(&mut self, numbers: &mut HashMap<&'a [u8], u32>, key: &'a [u8], place: u32) -> u32 {
        *numbers.entry(key).or_insert_with(|| {
            self.places.push(place);
            self.newest.push(NONE);
            self.places.len() as u32 - 1
        })
    }

    /// Links creates that come again to what they were the first time; `ledger` is the one before the batch.
    pub(super) fn link_again(&mut self, input: &Input<'_>, ledger: &KeyLedger) {
        for &(create, first) in &input.pairs.again {
            if !matches!(self.before(create), Parent::Nothing) {
                continue;
            }
            let parent = match first {
                First::In(first) => Parent::Change(first),
                First::Earlier(entry) if ledger.done.get(entry).is_some_and(|entry| entry.overtaken) => {
                    continue;
                }
                First::Earlier(_) => Parent::Stored(self.key[create as usize]),
            };
            self.parents.insert(create, parent);
        }
    }

    /// The number of the key of a change.
    pub(super) fn key_of(&self, change: u32) -> u32 {
        self.key[change as usize]
    }

    /// Whether the batch has, behind the change `after`, a row of a key, given by its number, that lies before `lsn` in the
    /// source's log.
    pub(super) fn has_older(&self, number: u32, after: Option<u32>, lsn: i64, lsns: &[i64]) -> bool {
        let mut change = self.newest[number as usize];
        while change != NONE && after.is_none_or(|after| change > after) {
            let at = lsns.get(change as usize).copied().unwrap_or(0);
            if self.operations[change as usize].is_upsert() && at > 0 && at < lsn {
                return true;
            }
            change = self.before[change as usize];
        }
        false
    }

    /// Links moved creates to the rows that they continue.
    fn link(&mut self, input: &Input<'_>) {
        for &(create, link, half) in &input.pairs.creates {
            let parent = match link {
                Link::Delete(delete) => self.before(delete),
                Link::Kept(entry) => Parent::Kept(entry),
                Link::Open => {
                    self.open.insert(create, half);
                    let old = self.others[half];
                    let mut newest = self.newest[old as usize];
                    while newest != NONE && newest >= create {
                        newest = self.before[newest as usize];
                    }
                    self.state_after(newest, old)
                }
            };
            self.parents.insert(create, parent);
        }
    }

    /// Says that the row in front with index `row` has waited for `delete`, and with which columns.
    pub(super) fn settle(&mut self, row: u32, columns: Vec<usize>, delete: u32) {
        let parent = self.before(delete);
        self.settled.entry(self.key[row as usize]).or_default().push((columns, parent));
    }

    /// What a change takes absent cells from that is of its own key. A delete that is kept as a row takes those of the
    /// delete before it.
    fn builds_on(&self, change: u32) -> Parent {
        let before = self.before[change as usize];
        if before != NONE && !self.operations[change as usize].is_upsert() {
            return Parent::Change(before);
        }
        self.before(change)
    }

    /// Whether a change is a delete with nothing but deletes of its key before it in the batch.
    pub(super) fn deletes_what_is_stored(&self, mut change: u32) -> bool {
        while change != NONE {
            if self.operations[change as usize].is_upsert() {
                return false;
            }
            change = self.before[change as usize];
        }
        true
    }

    /// The row as it was before a change.
    pub(super) fn before(&self, change: u32) -> Parent {
        self.state_after(self.before[change as usize], self.key[change as usize])
    }

    /// The number of the key at `place` among the others, and whether the batch has changes of it.
    pub(super) fn other(&self, place: usize) -> (u32, bool) {
        let number = self.others[place];
        (number, self.newest[number as usize] != NONE)
    }

    fn state_after(&self, change: u32, key: u32) -> Parent {
        match change {
            NONE => Parent::Stored(key),
            change if self.operations[change as usize].is_upsert() => Parent::Change(change),
            _ => Parent::Nothing,
        }
    }

    /// Finds the value of a column in the row that `change` leaves; `absent` says for which changes it is absent.
    pub(super) fn find(
        &self,
        change: u32,
        column: usize,
        absent: &BooleanBuffer,
        trail: &mut Trail,
    ) -> Found {
        let found = self.walk(Parent::Change(change), column, absent, trail);
        match &found {
            Found::Stored(list) if *list == [Candidate::Stored(self.key[change as usize])] => Found::Own,
            _ => found,
        }
    }

    /// Finds the value of a column in a row.
    pub(super) fn walk(
        &self,
        from: Parent,
        column: usize,
        absent: &BooleanBuffer,
        trail: &mut Trail,
    ) -> Found {
        let mut at = from;
        let mut list = Vec::new();
        let mut last = Vec::new();
        // Links lead backwards, but those through key changes are as the source sent them: never follow a circle.
        for _ in 0..=2 * self.operations.len() {
            match at {
                Parent::Nothing => break,
                Parent::Kept(entry) => {
                    list.push(Candidate::Kept(entry));
                    break;
                }
                Parent::Stored(key) => {
                    let settled = self.settled.get(&key).into_iter().flatten();
                    let settled = settled.rev().find(|(columns, _)| columns.contains(&column));
                    if let Some((_, parent)) = settled.filter(|_| !last.contains(&Candidate::Stored(key))) {
                        last.insert(0, Candidate::Stored(key));
                        at = *parent;
                    } else {
                        trail.stored.push(key);
                        list.push(Candidate::Stored(key));
                        break;
                    }
                }
                Parent::Change(change) => {
                    if !absent.value(change as usize) {
                        return Found::In(change);
                    }
                    let own = self.builds_on(change);
                    at = match (own, self.parents.get(&change)) {
                        (Parent::Change(_), _) | (_, None) => own,
                        (own, Some(parent)) => {
                            if let Parent::Stored(key) = own {
                                list.push(Candidate::Stored(key));
                            }
                            trail.open.extend(self.open.get(&change));
                            *parent
                        }
                    };
                }
            }
        }
        list.extend(last);
        if list.is_empty() { Found::Nowhere } else { Found::Stored(list) }
    }

    /// Keys by their numbers, given the key columns of changes and others.
    pub(super) fn keys(
        &self,
        numbers: &[u32],
        keys: &[ArrayRef],
        others: &[ArrayRef],
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let places: UInt32Array = numbers.iter().map(|&number| self.places[number as usize]).collect();
        let all = behind(keys, others)?;
        all.iter().map(|column| take(column, &places, None)).collect()
    }
}

/// Columns one behind the other; those that are not there are left out.
pub(super) fn behind(first: &[ArrayRef], second: &[ArrayRef]) -> Result<Vec<ArrayRef>, ArrowError> {
    match (first, second) {
        ([], columns) | (columns, []) => Ok(columns.to_vec()),
        _ => first.iter().zip(second).map(|(a, b)| concat(&[a.as_ref(), b.as_ref()])).collect(),
    }
}
