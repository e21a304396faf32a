//! From Kafka records to changes in Arrow: Debezium's JSON, with or without schema block.
//!
//! The [`Decoder`] is synchronous and knows no Kafka client. For each table and schema it compiles a layout (columns
//! with their encodings); a record is then one comparison of its schema's bytes and one guided pass over its row,
//! straight into growing Arrow columns.
//!
//! Invariants:
//! 1. A record becomes a change as a whole or leaves nothing behind.
//! 2. The placeholder for an unchanged TOASTed value never becomes a value.
//! 3. No value is rounded, clamped or replaced by a default; what a type cannot hold is an error.
//! 4. No input makes it panic, and no error text holds row values.

mod aside;
mod bare;
mod bits;
mod block;
mod cell;
mod changes;
mod columns;
mod configured;
mod connect;
mod decimal;
mod decoder;
mod envelope;
mod fault;
mod flattened;
mod geometric;
mod instant;
mod iso;
mod key;
mod modes;
mod order;
mod owner;
mod partitions;
mod placeholder;
mod raw_rows;
mod record;
mod refine;
mod routes;
mod row;
mod source_type;
mod structured;
mod suspects;
mod tables;
#[cfg(test)]
mod tests;
mod tombstone;
mod topic;
mod truncate;
mod wire;

pub use aside::KeyReader;
pub use configured::{ConfiguredType, ConfiguredTypeError};
pub use decoder::Decoder;
pub use flattened::{DEFAULT_PREFIX, FlattenedOptions, TopicNames};
pub use modes::{Binary, Decimals, Modes, Times};
pub use placeholder::DEFAULT_PLACEHOLDER;
pub use record::{DecoderOptions, KnownSchemas, Outcome, RecordHeaders, RecordRef, SourceTypes};
pub use routes::{RouteError, Routes};
pub use truncate::Drained;
