//! Which halves of key changes belong together: the deletes and creates of a batch, and what the ledger has.
//!
//! A half whose key change is done already is a repetition by the source. It has no other half, and changes nothing in
//! the ledger: of a create it is only kept where it came first.

use std::collections::{HashMap, VecDeque};

use super::ledger::{KeyChange, KeyLedger};

/// Half of a key change in a batch.
#[derive(Debug)]
pub(super) struct Half {
    /// Index of the change.
    pub(super) change: u32,
    pub(super) is_create: bool,
    pub(super) of: KeyChange,
}

/// What belongs to a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The delete at this index of the batch.
    Delete(u32),
    /// This row of [`KeyLedger::departed`].
    Kept(u32),
    /// Nothing yet.
    Open,
}

/// Halves of key changes with their other halves.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Each create, with what belongs to it and its place among the halves.
    pub(super) creates: Vec<(u32, Link, usize)>,
    /// Rows of [`KeyLedger::waiting`] with the delete that they waited for.
    pub(super) fulfilled: Vec<(usize, u32)>,
    /// Rows of [`KeyLedger::waiting`] that have waited for nothing.
    pub(super) settled: Vec<usize>,
    /// Deletes without a create, with their place among the halves.
    pub(super) departing: Vec<(u32, usize)>,
    /// Creates that came before, with what they were then.
    pub(super) again: Vec<(u32, First)>,
    /// Places of halves whose key change is done with this batch, with the create, where it is of this batch.
    pub(super) done: Vec<(usize, Option<u32>)>,
}

/// Where a create that comes again came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// In this batch.
    In(u32),
    /// In an earlier one: this row of [`KeyLedger::done`].
    Earlier(usize),
}

impl Pairs {
    /// Moves the indexes of the batch's changes.
    pub(super) fn shift(&mut self, by: u32) {
        for (create, link, _) in &mut self.creates {
            *create += by;
            if let Link::Delete(delete) = link {
                *delete += by;
            }
        }
        self.fulfilled.iter_mut().for_each(|(_, delete)| *delete += by);
        self.departing.iter_mut().for_each(|(delete, _)| *delete += by);
        self.done.iter_mut().filter_map(|(_, create)| create.as_mut()).for_each(|create| *create += by);
        for (create, first) in &mut self.again {
            *create += by;
            if let First::In(first) = first {
                *first += by;
            }
        }
    }
}

/// What of one key change is without its other half, oldest first.
#[derive(Default)]
struct Unpaired {
    deletes: VecDeque<(Link, usize)>,
    creates: VecDeque<Created>,
}

/// A create without its delete.
enum Created {
    /// This change of the batch, with its place among the halves.
    InBatch(u32, usize),
    /// This row of [`KeyLedger::waiting`]. One that is complete has values of its own by now, or is gone: it needs nothing
    /// from the old row.
    Waiting { row: usize, is_complete: bool },
}

/// What became of a half.
enum Met {
    /// The other one has still to come.
    Nothing,
    /// The other one; where the create is of this batch, it is this change.
    Other(Option<u32>),
}

impl Unpaired {
    /// What of the ledger is without its other half.
    fn of(ledger: &KeyLedger) -> HashMap<&KeyChange, Self> {
        let mut all: HashMap<&KeyChange, Self> = HashMap::new();
        for (at, entry) in ledger.departed.iter().enumerate() {
            all.entry(&entry.change).or_default().deletes.push_back((Link::Kept(at as u32), usize::MAX));
        }
        for (row, entry) in ledger.waiting.iter().enumerate() {
            let is_complete = entry.columns.is_empty();
            all.entry(&entry.change).or_default().creates.push_back(Created::Waiting { row, is_complete });
        }
        all
    }

    fn create(&mut self, change: u32, at: usize, pairs: &mut Pairs) -> Met {
        let Some((link, _)) = self.deletes.pop_front() else {
            self.creates.push_back(Created::InBatch(change, at));
            return Met::Nothing;
        };
        pairs.creates.push((change, link, at));
        Met::Other(Some(change))
    }

    fn delete(&mut self, change: u32, at: usize, pairs: &mut Pairs) -> Met {
        match self.creates.pop_front() {
            Some(Created::InBatch(create, at)) => {
                pairs.creates.push((create, Link::Delete(change), at));
                Met::Other(Some(create))
            }
            Some(Created::Waiting { row, is_complete: true }) => {
                pairs.settled.push(row);
                Met::Other(None)
            }
            Some(Created::Waiting { row, is_complete: false }) => {
                pairs.fulfilled.push((row, change));
                Met::Other(None)
            }
            None => {
                self.deletes.push_back((Link::Delete(change), at));
                Met::Nothing
            }
        }
    }
}

/// Finds for each half the other one; of several between the same keys the first belong together.
pub(super) fn pair(halves: &[Half], ledger: &KeyLedger) -> Pairs {
    let mut unpaired = Unpaired::of(ledger);
    let mut pairs = Pairs::default();
    // Without an LSN two key changes between the same keys are not told apart.
    let mut whole: HashMap<&KeyChange, Option<First>> =
        ledger.done.iter().enumerate().map(|(at, entry)| (&entry.change, Some(First::Earlier(at)))).collect();
    for (at, half) in halves.iter().enumerate() {
        if let Some(first) = whole.get(&half.of) {
            pairs.again.extend(first.filter(|_| half.is_create).map(|first| (half.change, first)));
            continue;
        }
        let others = unpaired.entry(&half.of).or_default();
        let met = if half.is_create {
            others.create(half.change, at, &mut pairs)
        } else {
            others.delete(half.change, at, &mut pairs)
        };
        if let Met::Other(create) = met
            && half.of.lsn.is_some()
        {
            whole.insert(&half.of, create.map(First::In));
            pairs.done.push((at, create));
        }
    }
    for left in unpaired.into_values() {
        for created in left.creates {
            if let Created::InBatch(create, at) = created {
                pairs.creates.push((create, Link::Open, at));
            }
        }
        for (link, at) in left.deletes {
            if let Link::Delete(change) = link {
                pairs.departing.push((change, at));
            }
        }
    }
    pairs.creates.sort_unstable_by_key(|(create, ..)| *create);
    pairs.departing.sort_unstable();
    pairs
}
