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

/// Finds for each half the other one; of several between the same keys the first belong together.
pub(super) fn pair(halves: &[Half], ledger: &KeyLedger) -> Pairs {
    #[derive(Default)]
    struct Side {
        deletes: VecDeque<(Link, usize)>,
        creates: VecDeque<Open>,
    }
    enum Open {
        InBatch(u32, usize),
        Waiting(usize),
    }
    let mut sides: HashMap<&KeyChange, Side> = HashMap::new();
    for (at, entry) in ledger.departed.iter().enumerate() {
        sides.entry(&entry.change).or_default().deletes.push_back((Link::Kept(at as u32), usize::MAX));
    }
    for (at, entry) in ledger.waiting.iter().enumerate() {
        sides.entry(&entry.change).or_default().creates.push_back(Open::Waiting(at));
    }
    let mut pairs = Pairs::default();
    // Without an LSN two key changes between the same keys are not told apart.
    let mut whole: HashMap<&KeyChange, Option<First>> =
        ledger.done.iter().enumerate().map(|(at, entry)| (&entry.change, Some(First::Earlier(at)))).collect();
    for (at, half) in halves.iter().enumerate() {
        if let Some(first) = whole.get(&half.of) {
            pairs.again.extend(first.filter(|_| half.is_create).map(|first| (half.change, first)));
            continue;
        }
        let side = sides.entry(&half.of).or_default();
        // The create, where it is of this batch.
        let create = if half.is_create {
            let Some((link, _)) = side.deletes.pop_front() else {
                side.creates.push_back(Open::InBatch(half.change, at));
                continue;
            };
            pairs.creates.push((half.change, link, at));
            Some(half.change)
        } else {
            match side.creates.pop_front() {
                Some(Open::InBatch(create, at)) => {
                    pairs.creates.push((create, Link::Delete(half.change), at));
                    Some(create)
                }
                // A row that has values of its own by now, or is gone, needs nothing from the old one.
                Some(Open::Waiting(entry)) if ledger.waiting[entry].columns.is_empty() => {
                    pairs.settled.push(entry);
                    None
                }
                Some(Open::Waiting(entry)) => {
                    pairs.fulfilled.push((entry, half.change));
                    None
                }
                None => {
                    side.deletes.push_back((Link::Delete(half.change), at));
                    continue;
                }
            }
        };
        if half.of.lsn.is_some() {
            whole.insert(&half.of, create.map(First::In));
            pairs.done.push((at, create));
        }
    }
    for side in sides.into_values() {
        for open in side.creates {
            if let Open::InBatch(create, at) = open {
                pairs.creates.push((create, Link::Open, at));
            }
        }
        for (link, at) in side.deletes {
            if let Link::Delete(change) = link {
                pairs.departing.push((change, at));
            }
        }
    }
    pairs.creates.sort_unstable_by_key(|(create, ..)| *create);
    pairs.departing.sort_unstable();
    pairs
}
