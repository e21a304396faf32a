//! A table while a snapshot is read into it: its files are left as they are until the snapshot is over.
//!
//! A snapshot appends full batches, which make files of a decent size, and none of its rows is changed again while it
//! lasts. Putting those files together meanwhile would write every row a second time, on the processors that the snapshot
//! needs, and the same is done afterwards in larger steps. Only where very many files have gathered is it done at once: each of them is in
//! memory, and readers open all of them.

use std::time::{Duration, Instant};

use crate::change::{ChangeBatch, Operation};

/// How long after its last batch a snapshot is taken to go on.
const PAUSE: Duration = Duration::from_secs(10);
/// Files with which a table does not wait any longer.
const FILES: usize = 500;

/// Whether a snapshot is being read into a table.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    last: Option<Instant>,
}

impl Snapshot {
    /// Takes note of what a batch was made of.
    pub(super) fn saw(&mut self, changes: &[&ChangeBatch]) {
        let mut operations = changes.iter().flat_map(|changes| &changes.operations);
        self.last = operations.all(|operation| *operation == Operation::Read).then(Instant::now);
    }

    /// Whether a table with that many files is to be left as it is.
    pub(super) fn holds_compaction(&self, files: usize) -> bool {
        files < FILES && self.last.is_some_and(|last| last.elapsed() < PAUSE)
    }
}
