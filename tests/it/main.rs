//! Behaviour of the whole program, tried on the real stack: Postgres, Debezium in Kafka Connect, Kafka.
//!
//! Nothing here is faked. A test owns a [`shop::Shop`]: a source database with its connector, two databases that
//! mirror it and a folder for the lake, all with names of their own on the servers that the process shares
//! ([`stack`]). It runs the program itself ([`daemon`]), as often and as long as it likes, and then compares every
//! copy with the source ([`oracle`]). So tests do not see each other, and those that break a shared server take it
//! for themselves.
//!
//! `ALLUVIUM_TEST_SEED` repeats the random choices of a run; each test prints its own. `ALLUVIUM_TEST_KEEP=1` leaves
//! the folder of the stack behind, with all logs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing
)]

mod daemon;
mod eventually;
mod oracle;
mod shop;
mod spellings;
mod stack;
mod workload;

mod acceptance;
mod accounting;
mod bad_records;
mod cli;
mod cli_check;
mod converters;
mod demo;
mod endings;
mod evolve;
mod faults;
mod histories;
mod history;
mod instances;
mod key_changes;
mod kill;
mod mirror;
mod mirror_changes;
mod mirror_faults;
mod mirror_key_changes;
mod mirror_lost_reply;
mod mirror_positions;
mod mirror_quarantine;
mod mirror_rate;
mod mirror_sources;
mod mirror_tls;
mod mirror_types;
mod named_tests;
mod partitions;
mod pipeline;
mod positions;
mod postgres_server;
mod quarantine;
mod readers;
mod s3;
mod schema_changes;
mod schemaless;
mod spark;
mod types;
mod upkeep;
mod whole_tables;
