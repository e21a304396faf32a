//! The lake against real Delta tables in temporary folders, read back by the library's own reader.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod changes;
mod compaction;
mod concurrency;
mod current;
mod figures;
mod fixture;
mod history;
mod key_changes;
mod model;
mod quarantine;
mod raw;
mod reading;
mod schema_changes;
mod schema_decisions;
mod snapshot;
mod soft;
mod sources;
mod vacuum;
mod vectors;
mod whole;
