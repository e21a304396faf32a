//! Origins: where the absent cells of folded rows are stored, for a sink to fetch.
//!
//! A fold finds for each absent cell a list of rows that may hold it, in the order in which they count. Most cells are in
//! the stored row of their own key and need no list; lists that are equal are kept once. Keys are collected once, too, so
//! that a sink looks each of them up once, and before the batch changes anything: all of it is about what is stored before.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::ancestry::Ancestry;
use super::ledger::KeyLedger;

/// In [`Origins::of`]: the stored row with the row's own key.
pub const OWN: u32 = u32::MAX;

/// Where an absent cell may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Candidate {
    /// In the row that is stored under this row of [`Origins::keys`].
    Stored(u32),
    /// In the row that was kept under this name of [`Origins::kept`].
    Kept(u32),
}

/// Where absent cells of folded rows are, as far as that is not the stored row of the same key.
///
/// All of it is about what is stored *before* the batch.
#[derive(Debug, Clone)]
pub struct Origins {
    /// Keys of stored rows: key columns, in key order.
    pub keys: RecordBatch,
    /// Where the sink has kept rows aside.
    pub kept: Vec<String>,
    /// Lists: the cell is that of the first one that there is.
    pub candidates: Vec<Vec<Candidate>>,
    /// For each column `None`, or for each row the list in `candidates` that its absent cell follows, or [`OWN`].
    pub of: Vec<Option<Vec<u32>>>,
}

impl Origins {
    /// The list that an absent cell follows; `None` where it keeps the value of the stored row of its key.
    pub fn candidates_of(&self, column: usize, row: usize) -> Option<&[Candidate]> {
        let list = *self.of.get(column)?.as_ref()?.get(row)?;
        self.candidates.get(usize::try_from(list).ok()?).map(Vec::as_slice)
    }
}

/// Collects the origins of absent cells while they are found.
pub(super) struct OriginsBuilder<'a> {
    ancestry: &'a Ancestry,
    numbers: Vec<u32>,
    rows: HashMap<u32, u32>,
    kept: Vec<u32>,
    candidates: Vec<Vec<Candidate>>,
    known: HashMap<Vec<Candidate>, u32>,
    of: Vec<Option<Vec<u32>>>,
}

impl<'a> OriginsBuilder<'a> {
    pub(super) fn new(ancestry: &'a Ancestry) -> Self {
        Self {
            ancestry,
            numbers: Vec::new(),
            rows: HashMap::new(),
            kept: Vec::new(),
            candidates: Vec::new(),
            known: HashMap::new(),
            of: Vec::new(),
        }
    }

    /// The list of these, whose keys are given by their numbers.
    pub(super) fn list(&mut self, found: Vec<Candidate>) -> u32 {
        if let Some(&list) = self.known.get(&found) {
            return list;
        }
        let rows = found.iter().map(|candidate| match candidate {
            Candidate::Kept(entry) => {
                self.kept.push(*entry);
                Candidate::Kept(self.kept.len() as u32 - 1)
            }
            Candidate::Stored(number) => Candidate::Stored(*self.rows.entry(*number).or_insert_with(|| {
                self.numbers.push(*number);
                self.numbers.len() as u32 - 1
            })),
        });
        let rows = rows.collect();
        self.candidates.push(rows);
        let list = self.candidates.len() as u32 - 1;
        self.known.insert(found, list);
        list
    }

    /// Says which list each row's cell of the next column follows.
    pub(super) fn column(&mut self, of: Option<Vec<u32>>) {
        self.of.push(of);
    }

    /// `None` where every absent cell is in the stored row of its own key.
    pub(super) fn finish(
        self,
        schema: SchemaRef,
        keys: &[ArrayRef],
        others: &[ArrayRef],
        ledger: &KeyLedger,
    ) -> Result<Option<Origins>, ArrowError> {
        if self.candidates.is_empty() {
            return Ok(None);
        }
        let keys = RecordBatch::try_new(schema, self.ancestry.keys(&self.numbers, keys, others)?)?;
        let kept = self.kept.iter().map(|&entry| {
            ledger.departed.get(entry as usize).map_or(String::new(), |entry| entry.kept.clone())
        });
        Ok(Some(Origins { keys, kept: kept.collect(), candidates: self.candidates, of: self.of }))
    }
}
