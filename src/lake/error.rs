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
    /// The Delta log of a table cannot be understood.
    #[error("the Delta log of {table} cannot be read: {message}")]
    Unreadable {
        /// The table.
        table: String,
        /// What is wrong with it.
        message: String,
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

    /// Whether the table stops while the others go on.
    pub(super) fn stops_table(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unreadable { .. })
    }
}

impl From<LakeError> for SinkError {
    fn from(error: LakeError) -> Self {
        let message = error.to_string();
        match error {
            LakeError::Storage { .. } => Self::Retry { class: "storage", message },
            LakeError::Busy { .. } => Self::Retry { class: "conflict", message },
            LakeError::Fenced { table, partition, expected, found } => {
                Self::Fenced { table, partition, expected, found }
            }
            LakeError::Refused(_) | LakeError::Settings(_) | LakeError::Unreadable { .. } => {
                Self::Stop { message }
            }
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
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
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
        next = cause.source();
    }
    if data { Class::Data } else { Class::Storage }
}
