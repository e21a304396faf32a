//! Creating tables: version 0 of a log, written by us like any other commit.
//!
//! Protocol versions are the lowest that the columns and the write mode need, so that as many readers as possible can
//! read: 1/2, or the features `timestampNtz` where there is a timestamp without zone and `deletionVectors` for
//! merge-on-read. A table never gets a feature later because of a setting: that would shut out readers it has. Column
//! mapping stays off: the library cannot evolve tables that have it. Expired log files and checkpoints are the maintenance's business, never a commit's.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::LakeOptions;
use super::action::{Entry, Format, Metadata, Protocol};
use super::error::LakeError;
use super::evolve::LINEAGE;
use super::log::{Log, Outcome};
use super::mor::changes::CHANGE_DATA_FEED;
use super::properties;
use super::schema::{self, DeltaSchema, KEY, PIPELINE, SOURCE};
use super::shape::Shape;
use super::types::has_exact_bounds;
use crate::change::{Keyless, Lineage, TableId, TablePolicy, TableSchema, WriteMode};

/// Property of tables whose rows are deleted by vectors.
pub(super) const DELETION_VECTORS: &str = "delta.enableDeletionVectors";

/// What all tables of a lake have in common.
#[derive(Debug, Clone)]
pub(super) struct TableProperties {
    pub(super) pipeline: String,
    /// How long entries of the log are kept.
    pub(super) log_retention: Duration,
    /// How long files that left the table are kept, and known to have left it.
    pub(super) file_retention: Duration,
}

impl TableProperties {
    /// Those of the lake with these options.
    pub(super) fn of(options: &LakeOptions) -> Self {
        Self {
            pipeline: options.pipeline.clone(),
            log_retention: options.log_retention,
            file_retention: super::vacuum::known_for(options.vacuum_retention),
        }
    }

    /// The properties that follow the settings, also on tables that exist.
    pub(super) fn retentions(&self) -> [(&'static str, String); 2] {
        [
            (properties::LOG_RETENTION, properties::interval(self.log_retention)),
            (properties::FILE_RETENTION, properties::interval(self.file_retention)),
        ]
    }

    fn configuration(&self, statistics: &[&str]) -> HashMap<String, String> {
        let mut configuration = HashMap::from([
            (PIPELINE.to_owned(), self.pipeline.clone()),
            ("delta.enableExpiredLogCleanup".to_owned(), "false".to_owned()),
        ]);
        configuration.extend(self.retentions().map(|(name, value)| (name.to_owned(), value)));
        if statistics.is_empty() {
            configuration.insert("delta.dataSkippingNumIndexedCols".to_owned(), "0".to_owned());
        } else {
            configuration.insert("delta.dataSkippingStatsColumns".to_owned(), statistics.join(","));
        }
        configuration
    }
}

/// Creates the current table of `table`. Somebody else may have been faster: read the log afterwards.
pub(super) async fn current_table(
    log: &Log,
    properties: &TableProperties,
    table: &TableId,
    (schema, lineage): (&TableSchema, &Lineage),
    policy: &TablePolicy,
    writer: &str,
) -> Result<(), LakeError> {
    if schema.key().is_empty() && policy.keyless == Keyless::Stop {
        return Err(LakeError::Refused(format!(
            "table {table} has no key in its events; give it a primary key or REPLICA IDENTITY USING INDEX in the source, set \
             message.key.columns in the connector, or keyless = \"match_row\" or \"append\" here"
        )));
    }
    let delta = schema::current(table, schema, Shape::wanted(policy))?;
    let mut configuration = properties.configuration(&statistics_columns(schema));
    configuration.insert(SOURCE.to_owned(), source_property(table));
    configuration.insert(KEY.to_owned(), json!(schema.key_names().collect::<Vec<_>>()).to_string());
    configuration.insert(LINEAGE.to_owned(), json!(lineage).to_string());
    if policy.write == WriteMode::MergeOnRead {
        configuration.insert(DELETION_VECTORS.to_owned(), "true".to_owned());
    }
    if policy.change_data_feed {
        configuration.insert(CHANGE_DATA_FEED.to_owned(), "true".to_owned());
    }
    create(log, &table.table, &delta, Vec::new(), configuration, writer).await
}

/// Creates the raw table, partitioned by `event_date`.
pub(super) async fn raw_table(
    log: &Log,
    properties: &TableProperties,
    writer: &str,
) -> Result<(), LakeError> {
    let configuration = properties.configuration(&["partition", "offset", "kafka_timestamp"]);
    let delta = super::raw::delta_schema();
    create(log, "cdc_events", &delta, vec!["event_date".to_owned()], configuration, writer).await
}

/// Creates the table that records schema changes.
pub(super) async fn audit_table(
    log: &Log,
    properties: &TableProperties,
    schema: &DeltaSchema,
    writer: &str,
) -> Result<(), LakeError> {
    create(log, "schema_changes", schema, Vec::new(), properties.configuration(&[]), writer).await
}

/// Creates the quarantine, to which rows are only ever appended.
pub(super) async fn quarantine_table(
    log: &Log,
    properties: &TableProperties,
    writer: &str,
) -> Result<(), LakeError> {
    let mut configuration = properties.configuration(&[]);
    configuration.insert("delta.appendOnly".to_owned(), "true".to_owned());
    let delta = super::quarantine::delta_schema();
    create(log, "quarantine", &delta, Vec::new(), configuration, writer).await
}

/// Whether a table's properties say that it is the current table of `table`, kept by `pipeline`.
pub(super) fn source_property(table: &TableId) -> String {
    json!([table.database, table.schema, table.table]).to_string()
}

/// The source that a table's properties name.
pub(super) fn source_of(configuration: &HashMap<String, String>) -> Option<TableId> {
    let [database, schema, table]: [String; 3] = serde_json::from_str(configuration.get(SOURCE)?).ok()?;
    Some(TableId::new(&database, &schema, &table))
}

/// The protocol that a schema and properties need, at least `existing`.
pub(super) fn protocol(
    existing: Option<&Protocol>,
    schema: &DeltaSchema,
    configuration: &HashMap<String, String>,
) -> Protocol {
    let existing = existing.cloned().unwrap_or(Protocol {
        min_reader_version: 1,
        min_writer_version: 2,
        reader_features: None,
        writer_features: None,
    });
    let is_set = |name: &str| configuration.get(name).is_some_and(|value| value == "true");
    // The feature, whether readers have to know it as well, and whether it is needed.
    let needed = [
        ("timestampNtz", true, schema.has_timestamp_ntz()),
        ("deletionVectors", true, is_set(DELETION_VECTORS)),
        ("changeDataFeed", false, is_set(CHANGE_DATA_FEED)),
    ];
    let implied = implied_features(existing.min_writer_version);
    let missing = |feature: &&str| match &existing.writer_features {
        Some(listed) => !listed.iter().any(|listed| listed == feature),
        None => !implied.contains(feature),
    };
    let needed: Vec<(&str, bool)> = needed
        .into_iter()
        .filter(|(feature, _, needed)| *needed && missing(feature))
        .map(|(feature, readers, _)| (feature, readers))
        .collect();
    if needed.is_empty() {
        return existing;
    }
    let named = |features: &[&str]| features.iter().map(|feature| (*feature).to_owned()).collect::<Vec<_>>();
    let mut writer = existing.writer_features.unwrap_or_else(|| named(implied));
    writer.extend(needed.iter().map(|(feature, _)| (*feature).to_owned()));
    let of_readers = needed.iter().filter(|(_, readers)| *readers).map(|(feature, _)| (*feature).to_owned());
    let mut reader = existing.reader_features.clone().unwrap_or_default();
    reader.extend(of_readers);
    // A reader that knows none of the features may go on, as long as none is for it.
    let for_readers = existing.reader_features.is_some() || !reader.is_empty();
    Protocol {
        min_reader_version: if for_readers { 3 } else { existing.min_reader_version },
        min_writer_version: 7,
        reader_features: for_readers.then_some(reader),
        writer_features: Some(writer),
    }
}

/// What a writer version stands for, to be named once features are listed.
fn implied_features(writer_version: i32) -> &'static [&'static str] {
    const OF_FOUR: [&str; 5] =
        ["appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns"];
    match writer_version {
        ..=1 => &[],
        2 => OF_FOUR.get(..2).unwrap_or_default(),
        3 => OF_FOUR.get(..3).unwrap_or_default(),
        _ => &OF_FOUR,
    }
}

/// Columns with min/max statistics: key columns whose bounds are exact, for MERGE prunes files by them.
fn statistics_columns(schema: &TableSchema) -> Vec<&str> {
    schema
        .key()
        .iter()
        .filter_map(|&index| schema.columns().get(index))
        .filter(|column| has_exact_bounds(&column.column_type))
        .map(|column| column.name.as_ref())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect()
}

async fn create(
    log: &Log,
    name: &str,
    schema: &DeltaSchema,
    partition_columns: Vec<String>,
    configuration: HashMap<String, String>,
    writer: &str,
) -> Result<(), LakeError> {
    let millis = super::now_millis();
    let metadata = Metadata {
        id: uuid::Uuid::new_v4().to_string(),
        name: Some(name.to_owned()),
        description: None,
        format: Format::default(),
        schema_string: schema.to_text(),
        partition_columns,
        configuration,
        created_time: Some(millis),
    };
    let entry = Entry::new("CREATE TABLE", writer, millis)
        .protocol(&protocol(None, schema, &metadata.configuration))
        .metadata(&metadata)
        .into_bytes();
    match log.commit(0, entry).await? {
        Outcome::Committed => tracing::info!(table = log.table(), "created Delta table"),
        Outcome::Conflict => tracing::info!(table = log.table(), "another writer created the Delta table"),
    }
    Ok(())
}
