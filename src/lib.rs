//! Alluvium: the change stream of a database, as tables that equal it.

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
pub mod mirror;
pub mod service;
