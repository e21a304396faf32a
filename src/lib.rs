//! Alluvium: the change stream of a database, as tables that equal it.

pub mod change;

pub mod debezium;

pub mod failpoint;
