//! A source table whose rows are created, updated, deleted and given other keys, and the events that it makes of that.

// Absent and null are two things.
#![allow(clippy::option_option)]

use std::collections::BTreeMap;

use super::Operation;

pub(super) type Row = [Option<String>; 2];
pub(super) type Table = BTreeMap<i64, Row>;

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) operation: Operation,
    pub(super) key: i64,
    /// The other key and the LSN, of half of a key change.
    pub(super) other: Option<(i64, i64)>,
    pub(super) lsn: i64,
    /// `None` is absent.
    pub(super) cells: [Option<Option<String>>; 2],
}

/// What the source is told to do; what makes no sense at that moment it leaves out.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Put(i64, Row, [bool; 2]),
    Delete(i64),
    Move(i64, i64, [bool; 2]),
    Swap(i64, i64),
}

/// The key that a swap goes through.
const TEMPORARY: i64 = -1;

#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) table: Table,
    pub(super) events: Vec<Event>,
}

impl Source {
    pub(super) fn of(acts: &[Act]) -> Self {
        let mut source = Self::default();
        for act in acts {
            source.act(act);
        }
        source
    }

    pub(super) fn act(&mut self, act: &Act) {
        let there = |key: &i64| self.table.contains_key(key);
        match act {
            Act::Put(key, new, unchanged) => {
                let old = self.table.get(key).cloned();
                let mut row = new.clone();
                let mut cells = row.clone().map(Some);
                if let Some(old) = &old {
                    for at in (0..2).filter(|&at| unchanged[at]) {
                        (row[at], cells[at]) = (old[at].clone(), None);
                    }
                }
                let operation = if old.is_some() { Operation::Update } else { Operation::Create };
                self.events.push(Event { operation, key: *key, other: None, lsn: self.lsn(), cells });
                self.table.insert(*key, row);
            }
            Act::Delete(key) if there(key) => {
                self.table.remove(key);
                self.deleted(*key, None);
            }
            Act::Move(from, to, absent) if there(from) && !there(to) => self.change_key(*from, *to, *absent),
            Act::Swap(a, b) if a != b && there(a) && there(b) => {
                for (from, to) in [(*a, TEMPORARY), (*b, *a), (TEMPORARY, *b)] {
                    self.change_key(from, to, [true, true]);
                }
            }
            _ => {}
        }
    }

    /// The place of the next event in the log.
    pub(super) fn lsn(&self) -> i64 {
        self.events.len() as i64 + 1
    }

    fn deleted(&mut self, key: i64, other: Option<(i64, i64)>) {
        let cells = [Some(None), Some(None)];
        let lsn = other.map_or_else(|| self.lsn(), |(_, lsn)| lsn);
        self.events.push(Event { operation: Operation::Delete, key, other, lsn, cells });
    }

    fn change_key(&mut self, from: i64, to: i64, absent: [bool; 2]) {
        let row = self.table.remove(&from).unwrap();
        let lsn = self.lsn();
        self.deleted(from, Some((to, lsn)));
        let cells = [0, 1].map(|at| (!absent[at]).then(|| row[at].clone()));
        self.events.push(Event {
            operation: Operation::Create,
            key: to,
            other: Some((from, lsn)),
            lsn,
            cells,
        });
        self.table.insert(to, row);
    }
}
