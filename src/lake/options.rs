//! What a lake is told: where it is, what it keeps, and how it writes.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::{DEFAULT_LAYOUT, UpsertOptions};
use crate::change::Policies;

/// Settings of a lake.
#[derive(Clone)]
pub struct LakeOptions {
    /// Local path, `file://…` or `s3://…`.
    pub uri: String,
    /// Options of the storage, by the Delta library's names. May hold credentials: not shown by `Debug`.
    pub storage_options: HashMap<String, String>,
    /// Folder of a table: `{table}`, `{schema}`, `{database}`.
    pub layout: String,
    /// Whether there are current tables, or the raw table alone.
    pub current_tables: bool,
    /// Folder of the raw table; `None` keeps no history.
    pub raw_table: Option<String>,
    /// Identity of this pipeline's positions.
    pub pipeline: String,
    /// Commits after which a table gets a checkpoint, where the last one is not too large for that.
    pub checkpoint_interval: u64,
    /// Bytes of log after which a table gets a checkpoint earlier.
    pub checkpoint_log_bytes: u64,
    /// How long log entries are kept.
    pub log_retention: Duration,
    /// Bytes that all merges of one commit may use together before they spill or fail.
    pub merge_memory: usize,
    /// How current tables are written.
    pub upserts: UpsertOptions,
    /// What is declared for each table.
    pub policies: Policies,
    /// Folder of the quarantine.
    pub quarantine_table: String,
    /// Folder of the table that records schema changes.
    pub schema_changes_table: String,
    /// Age from which on files that are no longer part of a table may be removed.
    pub vacuum_retention: Duration,
    /// Time between two runs of the vacuum; zero: never by itself.
    pub vacuum_interval: Duration,
}

impl fmt::Debug for LakeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeOptions")
            .field("uri", &self.uri)
            .field("layout", &self.layout)
            .field("raw_table", &self.raw_table)
            .field("pipeline", &self.pipeline)
            .finish_non_exhaustive()
    }
}

impl LakeOptions {
    /// The defaults for a lake at `uri`.
    pub fn new(uri: impl Into<String>, pipeline: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            storage_options: HashMap::new(),
            layout: DEFAULT_LAYOUT.to_owned(),
            current_tables: true,
            raw_table: Some("cdc_events".to_owned()),
            pipeline: pipeline.into(),
            checkpoint_interval: 100,
            checkpoint_log_bytes: 16 << 20,
            log_retention: Duration::from_hours(7 * 24),
            merge_memory: 256 << 20,
            upserts: UpsertOptions::default(),
            policies: Policies::default(),
            quarantine_table: "quarantine".to_owned(),
            schema_changes_table: "schema_changes".to_owned(),
            vacuum_retention: Duration::from_hours(7 * 24),
            vacuum_interval: Duration::from_hours(1),
        }
    }
}
