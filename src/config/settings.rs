//! The settings, as the rest of the program sees them: typed, complete and valid.
//!
//! The invariant: a value of [`Settings`] came out of [`super::load`], so every pattern compiles, every address parses,
//! every secret is resolved and no two tables share a folder. What a key means, its unit and the values it accepts are
//! told in `defaults.toml`, and nowhere else.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{ByteSize, DatabaseUrl, Options, TypeName};
use crate::change::policy::Choice;
use crate::change::{Policies, TablePolicy};
use crate::debezium::{Binary, ConfiguredType, Decimals, Modes, Routes, Times};

/// Everything that can be set. Serializes as the effective settings, with secrets redacted.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// `[pipeline]`
    pub pipeline: Pipeline,
    /// `[kafka]`
    pub kafka: Kafka,
    /// `[debezium]`
    pub debezium: Debezium,
    /// `[batch]`
    pub batch: Batch,
    /// `[lake]`
    pub lake: Lake,
    /// `[defaults]`
    pub defaults: TablePolicy,
    /// `[mirrors.<name>]`, by name.
    pub mirrors: BTreeMap<String, Mirror>,
    /// `[source]`
    pub source: Source,
    /// `[connect]`
    pub connect: Connect,
    /// `[quarantine]`
    pub quarantine: Quarantine,
    /// `[[tables]]`, in the order of the file.
    pub tables: Vec<Table>,
    /// `[admin]`
    pub admin: Admin,
    /// `[shutdown]`
    pub shutdown: Shutdown,
}

impl Settings {
    /// What is set for the source table `schema.table`, if anything.
    pub fn table(&self, source: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.source == source)
    }

    /// What is declared for each table.
    pub fn policies(&self) -> Policies {
        let of = |table: &Table| (table.source.clone(), table.policy.clone());
        Policies { defaults: self.defaults.clone(), tables: self.tables.iter().map(of).collect() }
    }

    /// Tables that take the rows of other tables of the source. Patterns were checked when the settings were read.
    pub fn routes(&self) -> Routes {
        let mut routes = Routes::default();
        for table in &self.tables {
            for source in &table.sources {
                if let Err(error) = routes.add(source, &table.source) {
                    tracing::error!(%error, source, "not a route");
                }
            }
        }
        routes
    }

    /// Configured types by `schema.table` and column.
    pub fn column_types(&self) -> HashMap<String, HashMap<String, ConfiguredType>> {
        let of = |table: &Table| {
            table.types.iter().map(|(column, name)| (column.clone(), name.meaning().clone())).collect()
        };
        self.tables.iter().map(|table| (table.source.clone(), of(table))).collect()
    }
}

/// Who this pipeline is.
#[derive(Debug, Clone, Serialize)]
pub struct Pipeline {
    /// Identity of the pipeline's progress in every sink, and prefix of its consumer groups.
    pub name: String,
}

/// Where changes come from.
#[derive(Debug, Clone, Serialize)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// Topic names, or regular expressions that begin with `^`.
    pub topics: Vec<String>,
    /// Passed to librdkafka as they are.
    pub properties: Options,
    /// What a lane does when records it needs are gone.
    pub on_data_loss: OnDataLoss,
}

/// What a lane does when records it needs are gone from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDataLoss {
    /// Stop, and say what is missing.
    Halt,
    /// Go on from the oldest record there is.
    Continue,
}

impl Choice for OnDataLoss {
    const ALL: &'static [(&'static str, Self)] = &[("halt", Self::Halt), ("continue", Self::Continue)];
}

/// What the connector that writes the events is set to.
#[derive(Debug, Clone, Serialize)]
pub struct Debezium {
    /// Its `unavailable.value.placeholder`.
    pub unavailable_value_placeholder: String,
    /// What names of metadata fields begin with in flattened events.
    pub flattened_prefix: String,
    /// Topics of flattened events that do not show it.
    pub flattened_topics: Vec<String>,
    /// Its `decimal.handling.mode`.
    pub decimal_handling_mode: Decimals,
    /// Its `time.precision.mode`.
    pub time_precision_mode: Times,
    /// Its `binary.handling.mode`.
    pub binary_handling_mode: Binary,
}

impl Debezium {
    /// How it writes values.
    pub fn modes(&self) -> Modes {
        Modes {
            decimal: self.decimal_handling_mode,
            time: self.time_precision_mode,
            binary: self.binary_handling_mode,
        }
    }
}

/// What happens to records that cannot be decoded or applied.
#[derive(Debug, Clone, Serialize)]
pub struct Quarantine {
    /// Folder of the quarantine below `lake.uri`.
    pub table: String,
    /// Records that a lane may put there in one run before it stops; 0: no limit.
    pub max_records: u64,
    /// Share of the newest thousand records, in per cent, from which on it stops; 100: no limit.
    pub max_percent: u64,
}

/// Kafka Connect's REST interface.
#[derive(Debug, Clone, Serialize)]
pub struct Connect {
    /// Its address; empty: not looked at.
    pub url: String,
}

/// When a batch closes.
#[derive(Debug, Clone, Serialize)]
pub struct Batch {
    /// Age from which on a batch closes as soon as the commit before it is done.
    #[serde(serialize_with = "duration")]
    pub max_delay: Duration,
    /// Most records in a batch.
    pub max_rows: usize,
    /// Most bytes of keys and values in a batch.
    pub max_bytes: ByteSize,
}

/// The Delta tables.
#[derive(Debug, Clone, Serialize)]
pub struct Lake {
    /// Folder or URL that holds the tables; empty: no lake.
    pub uri: String,
    /// Whether there are current tables, or the raw table alone.
    pub current_tables: bool,
    /// Folder of the raw table; empty: none.
    pub raw_table: String,
    /// Template of a table's folder.
    pub layout: String,
    /// Passed to the object store.
    pub storage_options: Options,
    /// Commits of a table between two checkpoints of its log.
    pub checkpoint_interval: u64,
    /// Age at which entries of a table's log may be removed.
    #[serde(serialize_with = "duration")]
    pub log_retention: Duration,
    /// Memory that all merges of one batch may use together before they spill to disk.
    pub merge_memory: ByteSize,
    /// Local folder of the key indexes; empty: found by the lake.
    pub index_dir: String,
    /// Folder of the table that records schema changes.
    pub schema_changes_table: String,
    /// Age from which on files that are no longer part of a table may be removed.
    #[serde(serialize_with = "duration")]
    pub vacuum_retention: Duration,
    /// Time between two runs of the vacuum; zero: never by itself.
    #[serde(serialize_with = "duration")]
    pub vacuum_interval: Duration,
}

impl Lake {
    /// Whether there is a lake at all.
    pub fn is_on(&self) -> bool {
        !self.uri.is_empty()
    }
}

/// A Postgres database that follows the source.
#[derive(Debug, Clone, Serialize)]
pub struct Mirror {
    /// The database.
    pub url: DatabaseUrl,
    /// Template of the schema that its tables go to.
    pub schema: String,
    /// `schema.table` of the raw events; empty: none.
    pub raw: String,
}

/// The source database.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    /// Read-only access, for checks; `None` where it is not set.
    pub url: Option<DatabaseUrl>,
}

/// What one source table has of its own.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// `schema.table` in the source.
    pub source: String,
    /// Other tables of the source whose rows go there as well.
    pub sources: Vec<String>,
    /// What is declared for it, with the defaults where it says nothing.
    #[serde(flatten)]
    pub policy: TablePolicy,
    /// Column to type, for events that carry no schema.
    pub types: BTreeMap<String, TypeName>,
}

/// The HTTP endpoints.
#[derive(Debug, Clone, Serialize)]
pub struct Admin {
    /// Address to listen on; `None`: no endpoints.
    #[serde(serialize_with = "address")]
    pub listen: Option<SocketAddr>,
}

/// How the program ends.
#[derive(Debug, Clone, Serialize)]
pub struct Shutdown {
    /// Time that running batches get to finish.
    #[serde(serialize_with = "duration")]
    pub deadline: Duration,
}

fn duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*value))
}

// The signature is serde's.
#[allow(clippy::ref_option)]
fn address<S: Serializer>(value: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(""),
    }
}
