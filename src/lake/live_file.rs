//! A data file of a table at a version, as the log describes it.

use std::collections::HashMap;

use super::action::{DeletionVector, Remove};

/// A file of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveFile {
    /// Bytes.
    pub size: i64,
    /// Rows that are not deleted, where the statistics say.
    pub rows: Option<i64>,
    /// Milliseconds since 1970.
    pub modification_time: i64,
    /// The statistics as they stand in the log; not kept for files of partitioned tables, which are never changed here.
    pub stats: Option<Box<str>>,
    /// The rows that are deleted.
    pub vector: Option<Box<DeletionVector>>,
    /// The values of the partition columns, where there are any.
    // Nearly no file has any: boxed, it costs a word.
    #[allow(clippy::box_collection)]
    pub partition: Option<Box<HashMap<String, Option<String>>>>,
}

impl LiveFile {
    /// Rows in the file, deleted ones included, where the statistics say.
    pub(super) fn physical_rows(&self) -> Option<i64> {
        Some(self.rows? + self.vector.as_ref().map_or(0, |vector| vector.cardinality))
    }

    /// Bytes of its vector, as a commit writes them.
    pub(super) fn vector_bytes(&self) -> i64 {
        self.vector.as_ref().map_or(0, |vector| i64::from(vector.size_in_bytes))
    }

    /// The action that takes this file out of the table, or its present vector.
    pub(super) fn remove(&self, path: &str, millis: i64, data_change: bool) -> Remove {
        Remove {
            path: path.to_owned(),
            deletion_timestamp: Some(millis),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition.as_deref().cloned().unwrap_or_default()),
            size: Some(self.size),
            deletion_vector: self.vector.as_deref().cloned(),
        }
    }
}
