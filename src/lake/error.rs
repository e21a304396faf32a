//! What can go wrong in the lake, sorted by what has to happen next: wait, stop one table, stop the lane, read again.
//!
//! The library reports a full disk, a lost connection and a wrong cast through the same few types. Only the chain of
//! causes tells them apart, and a wrong guess is costly in one direction only: a table that stops because the disk was
//! full for a minute needs a human. So what cannot be told is retried.

use std::error::Error;

use deltalake::datafusion::error::DataFusionError;
use deltalake::{DeltaTableError, ObjectStoreError};

use crate::change::{SinkError, with_causes};

/// An error of the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The storage did not answer, or refused: the same call may succeed later.
    #[error("storage of {table} failed: {message}")]
    Storage {
        /// Table, or the root of the lake.
        table: String,
        /// What the storage said.
        message: String,
    },
    /// Other writers were faster several times in a row.
    #[error("table {table} changed during each of {attempts} attempts to commit; other writers keep it busy")]
    Busy {
        /// The table.
        table: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// Another instance of this pipeline moved a position.
    #[error(
        "another instance has written to {table}: expected position {expected} of {partition}, found {found}"
    )]
    Fenced {
        /// The table.
        table: String,
        /// `topic/partition`
        partition: String,
        /// What this instance knew.
        expected: i64,
        /// What the table holds.
        found: i64,
    },
    /// The table cannot take the changes; waiting does not help.
    #[error("{0}")]
    Refused(String),
    /// A setting cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The Delta log of a table, or a file that it names, cannot be understood.
    #[error("table {table} cannot be read: {message}")]
    Unreadable {
        /// The table.
        table: String,
        /// What is wrong with it.
        message: String,
    },
    /// A file that a table needs is not there.
    #[error(
        "table {table} cannot be read: its file {path} is gone. Bring it back from a copy, or have RESTORE take the table back to a \
         version without it, or move the table's folder away and let it be built anew; then restart"
    )]
    Missing {
        /// The table.
        table: String,
        /// The file, as its log or the storage names it.
        path: String,
    },
    /// Files were written so long before their commit that a vacuum may have removed them.
    #[error(
        "files for {table} were written {minutes} minutes before their commit, and a vacuum may take them for left behind; they are \
         written again"
    )]
    Late {
        /// The table.
        table: String,
        /// How long before.
        minutes: u64,
    },
}

impl LakeError {
    /// An object store's error, as a storage error of `table`.
    pub(super) fn store(table: &str, error: &ObjectStoreError) -> Self {
        Self::Storage { table: table.to_owned(), message: with_causes(error) }
    }

    /// An error of the Delta library, classified by its causes.
    pub(super) fn delta(table: &str, error: &DeltaTableError) -> Self {
        let message = with_causes(error);
        match classify(error) {
            Class::Memory => Self::Refused(format!(
                "table {table}: merging this batch needs more memory than allowed ({message}); raise lake.merge_memory or lower \
                 batch.max_rows, then restart"
            )),
            Class::Data => Self::Refused(format!("table {table} cannot take this batch: {message}")),
            Class::Storage => Self::Storage { table: table.to_owned(), message },
        }
    }

    /// What reading the file `path` of a table ended with. Only what the storage says may pass: a file that is gone, or
    /// that no reader understands, is the same the next time.
    pub(super) fn reading(table: &str, path: &str, error: &(dyn Error + 'static)) -> Self {
        let (table, message) = (table.to_owned(), with_causes(error));
        match causes(error).find_map(|cause| cause.downcast_ref::<ObjectStoreError>()) {
            Some(ObjectStoreError::NotFound { .. }) => Self::Missing { table, path: path.to_owned() },
            Some(_) => Self::Storage { table, message: format!("{path}: {message}") },
            None => Self::Unreadable { table, message: format!("its file {path} is damaged: {message}") },
        }
    }

    /// What writing the file `path` of a table ended with.
    pub(super) fn writing(table: &str, path: &str, error: &(dyn Error + 'static)) -> Self {
        let message = with_causes(error);
        if causes(error).any(|cause| cause.is::<ObjectStoreError>() || cause.is::<std::io::Error>()) {
            Self::Storage { table: table.to_owned(), message: format!("{path}: {message}") }
        } else {
            Self::Refused(format!("the file {path} of table {table} cannot be written: {message}"))
        }
    }

    /// Whether the table stops while the others go on.
    pub(super) fn stops_table(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unreadable { .. } | Self::Missing { .. })
    }
}

impl From<LakeError> for SinkError {
    fn from(error: LakeError) -> Self {
        let message = error.to_string();
        match error {
            LakeError::Storage { .. } => Self::Retry { class: "storage", message },
            LakeError::Busy { .. } => Self::Retry { class: "conflict", message },
            LakeError::Late { .. } => Self::Retry { class: "late", message },
            LakeError::Fenced { table, partition, expected, found } => {
                Self::Fenced { table, partition, expected, found }
            }
            LakeError::Refused(_)
            | LakeError::Settings(_)
            | LakeError::Unreadable { .. }
            | LakeError::Missing { .. } => Self::Stop { message },
        }
    }
}

enum Class {
    Storage,
    Memory,
    Data,
}

fn classify(error: &DeltaTableError) -> Class {
    let mut data = matches!(
        error,
        DeltaTableError::SchemaMismatch { .. }
            | DeltaTableError::InvalidData { .. }
            | DeltaTableError::Arrow { .. }
    );
    for cause in causes(error) {
        if cause.is::<ObjectStoreError>() || cause.is::<std::io::Error>() {
            return Class::Storage;
        }
        match cause.downcast_ref::<DataFusionError>().map(DataFusionError::find_root) {
            Some(DataFusionError::ResourcesExhausted(_)) => return Class::Memory,
            Some(DataFusionError::ObjectStore(_) | DataFusionError::IoError(_)) => return Class::Storage,
            Some(
                DataFusionError::ArrowError(..)
                | DataFusionError::Plan(_)
                | DataFusionError::SchemaError(..)
                | DataFusionError::NotImplemented(_),
            ) => data = true,
            _ => {}
        }
    }
    if data { Class::Data } else { Class::Storage }
}

/// The error and its causes, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}
