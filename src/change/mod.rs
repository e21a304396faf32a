//! The domain: what a change of a row is, free of I/O.
//!
//! Everything between the Kafka client and the sinks speaks these types. A [`Batch`] holds the changes of a
//! contiguous range of offsets per partition, as Arrow columns, one [`ChangeBatch`] for each run of records with one
//! table schema; [`fold`](mod@fold) reduces the changes of a table to the final state of each key.
//!
//! Invariant: an *absent* cell (Debezium's placeholder for an unchanged TOASTed value) is null in the Arrow column
//! and set in the column's absent mask. No sink can mistake it for a value, because the placeholder itself never
//! gets here.

mod align;
mod ancestry;
#[cfg(test)]
mod ancestry_source;
#[cfg(test)]
mod ancestry_tests;
mod batch;
mod causes;
mod convert;
#[cfg(test)]
mod convert_tests;
mod difference;
mod ending;
#[cfg(test)]
mod ending_tests;
mod evolution;
#[cfg(test)]
mod evolution_tests;
pub mod fold;
#[cfg(test)]
mod fold_tests;
#[cfg(test)]
mod fold_whole_tests;
mod folded;
mod input;
mod keyless;
mod ledger;
mod lineage;
mod linked;
mod origins;
mod outlook;
#[cfg(test)]
mod outlook_tests;
mod pairs;
mod passage;
pub mod policy;
mod position;
pub mod quarantine;
pub mod raw;
mod resolution;
mod sink;
pub mod sources;
#[cfg(test)]
pub(crate) mod sources_tests;
mod table;
mod text_form;
mod truncate;
pub mod versions;
#[cfg(test)]
mod versions_tests;

pub use align::conform;
pub use batch::{Batch, ChangeBatch, KeyMoves, Operation, RecordError, RecordErrorKind, Regression};
pub use causes::with_causes;
pub use convert::{Misfit, convert};
pub use difference::{Difference, DifferenceKind, type_words};
pub use ending::{Ending, TruncateTime};
pub use evolution::SchemaStep;
pub use fold::{fold, fold_onto, fold_with};
pub use folded::{Departing, Folded};
pub use ledger::{Departed, Done, KeyChange, KeyLedger, KeyText, Waiting};
pub use lineage::{Described, Lineage, Pending};
pub use origins::{Candidate, OWN, Origins};
pub use outlook::{EventPlace, Met, Outlook, UnfitAt, look};
pub use passage::{Passage, passage};
pub use policy::{
    Choice, DeleteMode, Keyless, OnError, OnTruncate, Policies, SchemaChange, TableMode, TablePolicy,
    WriteMode,
};
pub use position::{Progress, Span, StoredPosition, TopicIdentity, TopicPartition};
pub use resolution::{Action, Resolution, Resolve, resolve};
pub use sink::{
    CommitReport, IndexFigures, KnownSchemas, KnownTables, RefusedChange, Sink, SinkError, SinkFigures,
    TableFigures, TableReport, UnresolvedRow, Written,
};
pub use table::{Column, ColumnType, Shape, TableId, TableSchema};
pub use truncate::{Truncate, TruncateReach, Truncated, survivors};
pub use versions::Versions;
