//! Alluvium: the change stream of a database, as tables that equal it.

pub mod admin;
pub mod change;
pub mod failpoint;
pub mod lake;
