//! What a record does to a copy of its table, as the source knows it: the truth that copies are compared with.
//!
//! An effect has every value, also those that the record leaves out. Where a copy cannot be expected to have one, that is
//! said ([`Sure`]), and only there.

use std::collections::BTreeMap;
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
    pub fn is_of_same_row(&self, other: &Self) -> bool {
        let row = |effect: &Self| match effect {
            Self::Set { table, key, .. } | Self::Remove { table, key } => Some((*table, *key)),
            _ => None,
        };
        row(self).is_some() && row(self) == row(other)
    }
}
