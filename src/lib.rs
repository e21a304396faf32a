//! Alluvium: the change stream of a database, as tables that equal it.
//!
//! Debezium events on Kafka become Delta tables that equal the source's, a raw history of every change, and Postgres
//! mirrors. Two promises decide every question, in this order: the copy is right and can prove it; a batch costs the
//! batch, not the table.
//!
//! ```text
//! Kafka ─▶ kafka (poll thread) ─▶ debezium (decode thread) ─▶ change::Batch (Arrow) ─▶ fold ─▶ lake | mirror
//!          └──────────────────────────────── a lane, one for each sink ────────────────────────────────┘
//! ```
//!
//! The map of the house; imports point one way, `cli → service → lane → {kafka, debezium, lake, mirror} → change`:
//!
//! - [`change`] is the domain, free of I/O: tables, positions, batches as Arrow columns, the fold, and the contract that
//!   a sink keeps. Everything else speaks its types.
//! - [`kafka`] reads records on a thread of its own, from where the sink says, and notices logs that are not what they
//!   were.
//! - [`debezium`] decodes records into changes. It knows no Kafka client, and no input makes it panic.
//! - [`lake`] commits batches to Delta tables: its log layer, the state that is a function of the log, the key index, the
//!   two ways to write, and reading for `query`.
//! - [`mirror`] commits batches to Postgres, one transaction each.
//! - [`source`] asks the source's catalog for the types of columns, where events do not say them.
//! - [`lane`] joins a consumer, a decoder and a sink, and answers every error by the same few reactions.
//! - [`service`] starts the lanes that the settings ask for, and stops them together.
//! - [`admin`] is what the service says about itself: metrics, status, HTTP.
//! - [`config`] reads the settings in layers and reports all problems at once.
//! - [`cli`] has one file for each command.
//! - [`demo`] is an embedded broker and a shop that changes, with the proof that the tables equal it.
//! - [`memory`] sets the allocator up, for batches that come and go.
//! - [`failpoint`] names the places where the crash tests kill the process.

pub mod admin;
pub mod change;
pub mod cli;
pub mod config;
pub mod debezium;
pub mod demo;
pub mod failpoint;
pub mod kafka;
pub mod lake;
pub mod lane;
pub mod memory;
pub mod mirror;
pub mod service;
pub mod source;
