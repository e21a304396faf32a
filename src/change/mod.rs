//! The domain: what a change of a row is, free of I/O.
//!
//! Everything between the Kafka client and the sinks speaks these types. A [`Batch`] holds the changes of a
//! contiguous range of offsets per partition, as Arrow columns, one [`ChangeBatch`] for each run of records with one
//! table schema; [`fold`](mod@fold) reduces the changes of a table to the final state of each key.
//!
//! Invariant: an *absent* cell (Debezium's placeholder for an unchanged TOASTed value) is null in the Arrow column
//! and set in the column's absent mask. No sink can mistake it for a value, because the placeholder itself never
//! gets here.

mod batch;
pub mod fold;
#[cfg(test)]
mod fold_tests;
mod input;
mod ledger;
mod lineage;
#[cfg(test)]
mod lineage_tests;
mod linked;
pub mod policy;
mod position;
pub mod quarantine;
pub mod raw;
mod sink;
mod table;
pub mod versions;
#[cfg(test)]
mod versions_tests;

pub use batch::{Batch, ChangeBatch, KeyMoves, Operation, RecordError, RecordErrorKind, Regression};
pub use fold::{Departing, Folded, fold, fold_onto, fold_with};
pub use ledger::{Departed, KeyChange, KeyText, Ledger, Waiting};
pub use lineage::{Candidate, OWN, Origins};
pub use policy::{
    DeleteMode, Keyless, OnError, OnTruncate, Policies, SchemaChange, TableMode, TablePolicy, WriteMode,
};
pub use position::{Progress, Span, StoredPosition, TopicIdentity, TopicPartition};
pub use sink::{
    CommitReport, KnownSchemas, RefusedChange, Sink, SinkError, SinkFigures, TableFigures, TableReport,
    UnresolvedRow, Written,
};
pub use table::{Column, ColumnType, Shape, TableId, TableSchema};
pub use versions::Versions;
