//! The demonstration: an embedded broker, and a shop that changes while the lake follows it.
//!
//! [`shop`] is the source database, in memory; it knows the truth. [`events`] writes its changes as Debezium writes
//! those of a real Postgres, [`produce`] puts them on the [`broker`] at a given rate, and [`verify`] compares what
//! arrived with the truth, value by value. Nothing outside this module knows that the source is invented: the
//! lanes read the topics as they read any other.
//!
//! Invariant: [`flow::FlowControl`] keeps the records that no sink has stored yet within what the embedded broker
//! retains, because that broker drops the oldest ones without a word.

pub mod broker;
pub mod display;
pub mod events;
pub mod flow;
pub mod found;
mod invent;
pub mod postgres;
pub mod produce;
pub mod rows;
pub mod run;
pub mod shop;
pub mod tables;
pub mod verify;
pub mod wire;
