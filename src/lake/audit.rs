//! The audit table: every change of a table's schema, applied, ignored or refused, with its position and time.
//!
//! Delta has no commit over two tables. So a change is written down in the properties of its own table, in the commit
//! that makes it ([`CHANGES`]), under a number; and from there it is copied into the audit table, whose `txn` of that
//! table is the last number copied. A crash in between delays the copy, and a repetition copies nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::action::{Entry, Txn};
use super::create::{self, TableProperties};
use super::error::LakeError;
use super::log::{Log, Outcome};
use super::mor::{DataFiles, RowWriter};
use super::plain_compact;
use super::schema::{DeltaSchema, plain_field};
use super::table::{ATTEMPTS, Table, Writer};
use crate::change::{Difference, TableId};

/// Table property: the newest changes of its schema, as JSON. Stored in every table: **do not change it**.
pub(super) const CHANGES: &str = "alluvium.schema_changes";
/// Changes that stay in the property. More than that never wait to be copied.
const KEPT: usize = 32;

/// What became of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    /// The table follows it.
    Applied,
    /// The table does not follow it, as its policy says.
    Ignored,
    /// The table has stopped because of it.
    Refused,
}

/// One change of a table's schema. Persisted: **do not rename a member**.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SchemaChangeEntry {
    /// Counts the commits of one table that changed its schema; all changes of a commit have one number.
    pub number: i64,
    pub difference: Difference,
    pub fate: Fate,
    /// First event that had it.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub source_micros: i64,
    pub at_micros: i64,
}

/// The changes that a table's properties hold.
pub(super) fn changes_of(configuration: &HashMap<String, String>) -> Vec<SchemaChangeEntry> {
    // What cannot be read is of a later version of this program, which has copied it.
    configuration.get(CHANGES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The value of the property after `new` were added, all under the next number.
pub(super) fn with_changes(
    mut changes: Vec<SchemaChangeEntry>,
    new: impl IntoIterator<Item = SchemaChangeEntry>,
) -> String {
    let number = changes.last().map_or(0, |last| last.number) + 1;
    changes.extend(new.into_iter().map(|entry| SchemaChangeEntry { number, ..entry }));
    let surplus = changes.len().saturating_sub(KEPT);
    let first_kept = changes.get(surplus).map_or(0, |entry| entry.number);
    // All changes of one commit stay together, and those of the newest always.
    changes.retain(|entry| entry.number >= first_kept);
    serde_json::to_string(&changes).unwrap_or_default()
}

/// The audit table of a lake.
#[derive(Debug)]
pub(super) struct AuditTable {
    pub(super) table: Table,
}

impl AuditTable {
    /// Opens it, and creates it where there is none.
    pub(super) async fn open_or_create(
        log: Log,
        properties: &TableProperties,
        writer: &Writer,
    ) -> Result<Self, LakeError> {
        let table = if let Some(table) = Table::open(log.clone()).await? {
            table
        } else {
            create::audit_table(&log, properties, &delta_schema(), &writer.id).await?;
            Table::open(log.clone()).await?.ok_or_else(|| LakeError::Unreadable {
                table: log.table().to_owned(),
                message: "the table vanished after it was created".to_owned(),
            })?
        };
        let found = DeltaSchema::parse(log.table(), &table.state.metadata().schema_string)?;
        let has = |name: &str| found.fields.iter().any(|field| field.name == name);
        if schema().fields().iter().all(|field| has(field.name())) {
            Ok(Self { table })
        } else {
            Err(LakeError::Settings(format!(
                "the folder {:?} holds a Delta table that is no record of schema changes; set lake.schema_changes_table to another \
                 name",
                log.table()
            )))
        }
    }

    /// Whether a table has changes that are not here yet, going by what was last read.
    pub(super) fn lacks(&self, table_id: &str, changes: &[SchemaChangeEntry]) -> bool {
        changes.last().is_some_and(|last| last.number > self.copied(table_id))
    }

    /// Copies what is not here yet of the changes of one table.
    pub(super) async fn copy(
        &mut self,
        (source, folder, table_id): (&TableId, &str, &str),
        changes: &[SchemaChangeEntry],
        writer: &Writer,
    ) -> Result<(), LakeError> {
        for _ in 0..ATTEMPTS {
            let copied = self.copied(table_id);
            let new: Vec<&SchemaChangeEntry> = changes.iter().filter(|entry| entry.number > copied).collect();
            let Some(last) = new.last() else { return Ok(()) };
            let files = DataFiles { table: self.table.log.table().into(), store: self.table.log.files() };
            let refused =
                |error: ArrowError| LakeError::Refused(format!("{} cannot be written: {error}", files.table));
            let rows = rows(source, folder, &new).map_err(refused)?;
            let mut file = RowWriter::new(&rows.schema()).map_err(refused)?;
            file.write(&rows).map_err(refused)?;
            let stats = serde_json::json!({ "numRecords": rows.num_rows() }).to_string();
            let add = files.put(file.finish().map_err(refused)?, stats, true).await?;
            let now = super::now_millis();
            let txn = Txn { app_id: app_id(table_id), version: last.number, last_updated: Some(now) };
            let entry = Entry::new("WRITE", &writer.id, now).add(&add).txn(&txn);
            if self.table.commit(entry.into_bytes()).await? == Outcome::Committed {
                return Ok(());
            }
            self.table.catch_up(writer, &[]).await?;
        }
        Err(LakeError::Busy { table: self.table.log.table().to_owned(), attempts: ATTEMPTS })
    }

    /// Puts its small files together, if that is due and has not just failed.
    pub(super) async fn tend(&mut self, writer: &Writer) {
        if self.table.compaction.is_over() {
            let step = plain_compact::step(&mut self.table, (&schema(), &delta_schema()), writer).await;
            self.table.compacted(step);
        }
    }

    fn copied(&self, table_id: &str) -> i64 {
        self.table.state.position(&app_id(table_id)).unwrap_or(0)
    }
}

/// Under which the audit table keeps how far a table's changes are copied. Persisted: **do not change it**.
fn app_id(table_id: &str) -> String {
    format!("alluvium.schema_changes/{table_id}")
}

fn schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("source_schema"),
        text("source_table"),
        text("lake_table"),
        text("kind"),
        text("column_name"),
        text("type_before"),
        text("type_after"),
        text("note"),
        text("outcome"),
        text("topic"),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("source_timestamp", time(), true),
        Field::new("recorded_at", time(), true),
    ]))
}

fn delta_schema() -> DeltaSchema {
    let schema = schema();
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Int32 => "integer",
            DataType::Int64 => "long",
            DataType::Timestamp(..) => "timestamp",
            _ => "string",
        };
        plain_field(field.name(), data_type.into())
    });
    DeltaSchema::new(fields.collect())
}

fn rows(source: &TableId, folder: &str, entries: &[&SchemaChangeEntry]) -> Result<RecordBatch, ArrowError> {
    let text = |of: &dyn Fn(&SchemaChangeEntry) -> Option<String>| -> ArrayRef {
        Arc::new(entries.iter().map(|entry| of(entry)).collect::<StringArray>())
    };
    let time = |of: &dyn Fn(&SchemaChangeEntry) -> i64| -> ArrayRef {
        let times = entries.iter().map(|entry| of(entry)).map(|micros| (micros != 0).then_some(micros));
        Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let fate = |entry: &SchemaChangeEntry| match entry.fate {
        Fate::Applied => "applied",
        Fate::Ignored => "ignored",
        Fate::Refused => "refused",
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|_| Some(source.schema.to_string())),
        text(&|_| Some(source.table.to_string())),
        text(&|_| Some(folder.to_owned())),
        text(&|entry| Some(entry.difference.kind.name().to_owned())),
        text(&|entry| Some(entry.difference.column.clone())),
        text(&|entry| entry.difference.before.clone()),
        text(&|entry| entry.difference.after.clone()),
        text(&|entry| entry.difference.note.clone()),
        text(&|entry| Some(fate(entry).to_owned())),
        text(&|entry| Some(entry.topic.clone())),
        Arc::new(entries.iter().map(|entry| Some(entry.partition)).collect::<Int32Array>()),
        Arc::new(entries.iter().map(|entry| Some(entry.offset)).collect::<Int64Array>()),
        time(&|entry| entry.source_micros),
        time(&|entry| entry.at_micros),
    ];
    RecordBatch::try_new(schema(), columns)
}
