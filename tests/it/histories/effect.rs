//! What a record does to a copy of its table, as the source knows it: the truth that copies are compared with.
//!
//! An effect has every value, also those that the record leaves out. Where a copy cannot be expected to have one, that is
//! said ([`Sure`]), and only there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How sure it is that a copy can have a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sure {
    /// It has this value.
    Yes,
    /// It has this value, or null where the value was nowhere to be found: the event left it out, and the row that
    /// held it lies in another partition, whose delete came first.
    OrNull,
    /// Not looked at: a replay passes through older rows that the events no longer describe whole.
    No,
}

/// What a copy must show: by column name the text of a cell.
pub type Expected = BTreeMap<String, (Option<String>, Sure)>;

/// What the copy of a table is after a record, compared with before.
#[derive(Debug, Clone)]
pub enum Effect {
    Nothing,
    Set {
        table: usize,
        key: u8,
        row: Expected,
    },
    Remove {
        table: usize,
        key: u8,
    },
    Clear {
        table: usize,
    },
    /// The rows of a table without key, all of them.
    Bag {
        table: usize,
        rows: Vec<Expected>,
    },
}

/// What the raw table must have of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub operation: &'static str,
    pub absent: Vec<String>,
}

/// A record on its way to Kafka.
#[derive(Debug, Clone)]
pub struct Sent {
    pub topic: Arc<str>,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<(&'static str, String)>,
    pub effect: Effect,
    pub raw: Option<Raw>,
}

impl Effect {
    /// Whether it says what becomes of the row of another.
    pub fn is_of_same_row(&self, other: &Self) -> bool {
        let row = |effect: &Self| match effect {
            Self::Set { table, key, .. } | Self::Remove { table, key } => Some((*table, *key)),
            _ => None,
        };
        match (self, other) {
            (Self::Clear { table }, _) => row(other).is_some_and(|(of, _)| of == *table),
            _ => row(self).is_some() && row(self) == row(other),
        }
    }
}

/// Says of records that are sent again what a copy may not have of them, and gives what it may not have after them, by
/// table and key.
pub fn doubt(again: &mut [Sent]) -> BTreeMap<(usize, u8), BTreeSet<String>> {
    let newest: Vec<bool> = again
        .iter()
        .enumerate()
        .map(|(at, sent)| !again[at + 1..].iter().any(|later| later.effect.is_of_same_row(&sent.effect)))
        .collect();
    let mut doubtful: BTreeMap<(usize, u8), BTreeSet<String>> = BTreeMap::new();
    for (sent, newest) in again.iter_mut().zip(newest) {
        let of_key_change = sent.headers.iter().any(|(name, _)| *name == "__debezium.oldkey");
        match (&mut sent.effect, &sent.raw) {
            (Effect::Set { table, key, row }, Some(raw)) => {
                // A repeated key change finds neither the row of the old key nor, where rows follow one another under the
                // new one, always the one that it made.
                let doubtful = doubtful.entry((*table, *key)).or_default();
                if of_key_change {
                    doubtful.extend(raw.absent.iter().cloned());
                }
                doubtful.retain(|column| raw.absent.contains(column));
                for column in &raw.absent {
                    let sure = match newest {
                        true if doubtful.contains(column) => Sure::OrNull,
                        true => continue,
                        false => Sure::No,
                    };
                    row.entry(column.clone()).and_modify(|cell| cell.1 = sure);
                }
            }
            (Effect::Remove { table, key }, _) => drop(doubtful.remove(&(*table, *key))),
            _ => {}
        }
    }
    doubtful
}
