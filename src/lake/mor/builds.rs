//! Readings of key columns that are under way, for whoever wants to show how far they are.
//!
//! A rebuild of a large table's index takes minutes, in which its lane commits nothing. Whoever reads says so here; a
//! reading is named until it ends, whichever way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The readings of one lake.
#[derive(Debug, Clone, Default)]
pub struct IndexBuilds(Arc<Mutex<BTreeMap<String, IndexBuild>>>);

/// How far a reading is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexBuild {
    /// The table's folder.
    pub table: String,
    /// Rows read.
    pub rows: u64,
    /// Rows in all, as far as the table's statistics say.
    pub of: u64,
}

impl IndexBuilds {
    /// The readings under way, in order of the tables.
    pub fn under_way(&self) -> Vec<IndexBuild> {
        self.lock().values().cloned().collect()
    }

    /// Says that a reading of about `of` rows has begun.
    pub(super) fn begin(&self, table: &str, of: u64) -> Reading {
        self.lock().insert(table.to_owned(), IndexBuild { table: table.to_owned(), rows: 0, of });
        Reading { builds: self.clone(), table: table.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, IndexBuild>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reading, for as long as it goes on.
pub(super) struct Reading {
    builds: IndexBuilds,
    table: String,
}

impl Reading {
    /// So many rows are read by now.
    pub(super) fn reached(&self, rows: u64) {
        if let Some(build) = self.builds.lock().get_mut(&self.table) {
            build.rows = rows;
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.builds.lock().remove(&self.table);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_reading_is_named_with_how_far_it_is_until_it_ends() {
        let builds = IndexBuilds::default();
        let orders = builds.begin("orders", 100);
        let items = builds.begin("items", 7);
        orders.reached(60);
        let named = |builds: &IndexBuilds| -> Vec<(String, u64, u64)> {
            builds.under_way().into_iter().map(|build| (build.table, build.rows, build.of)).collect()
        };
        assert_eq!(named(&builds), [("items".to_owned(), 0, 7), ("orders".to_owned(), 60, 100)]);
        drop(items);
        assert_eq!(named(&builds), [("orders".to_owned(), 60, 100)]);
        drop(orders);
        assert!(builds.under_way().is_empty());
    }
}
