//! What the running service says about itself: metrics, state of lanes and tables, and the HTTP server for both.
//!
//! All metric names are in [`metrics`]. Labels are bounded by the configuration and the source (lanes, tables,
//! partitions), never by row values.

pub mod http;
pub mod metrics;
pub mod status;
