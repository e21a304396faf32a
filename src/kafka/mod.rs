//! The consumer side of a lane: records from Kafka, each partition from the position that the sink has stored.
//!
//! A [`Consumer`] polls on one OS thread of its own, copies records into [`Chunk`]s and hands them over in a queue that
//! is bounded in bytes. Kafka's group only decides who reads what: where a partition starts is asked from the sink
//! ([`Positions`]), and offsets committed to Kafka are written for lag tools and never read back.
//!
//! Invariants, each kept in one place:
//! 1. The offsets of a partition strictly increase between two [`Event::Assigned`] that name it (`poller`).
//! 2. A position is used only in the log that it was counted in, and only if that log still has the record behind it;
//!    otherwise the consumer fails, or goes on where [`OnDataLoss::Continue`] says so (`start`).
//! 3. Events arrive in the order in which they happened: what was read before a revocation stands before it.
//!
//! No type of the Kafka client leaves this module.

mod accepted;
mod backpressure;
mod caught_up;
mod chunk;
mod consumer;
mod context;
mod cursor;
mod drain;
mod error;
mod event;
mod faults;
mod headers;
mod identity;
mod native;
mod options;
mod poller;
mod probe;
mod queue;
mod rebalance;
mod recovery;
mod start;
mod subscription;
mod watermarks;

#[cfg(test)]
mod tests;

pub use accepted::{check_property, not_posix};
pub use chunk::{Chunk, ChunkBuilder, Record};
pub use consumer::{Consumer, Lag};
pub use error::ConsumerError;
pub use event::{Assignment, Event, Positions};
pub use headers::{HeaderBuffer, Headers};
pub use options::{ConsumerOptions, OnDataLoss};
pub use probe::{ProbeReport, ProbedTopic, probe};
pub use queue::Events;
