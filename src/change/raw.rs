//! The raw table: one row for each record, the whole history.
//!
//! Columns and types, all nullable but the first four: see [`schema`]. `key`, `before` and `after` are the original
//! bytes of those JSON members; of a message of `pg_logical_emit_message`, `after` is its member `message`.
//! `event_date` comes from the Kafka timestamp, so that a replay of a record lands in the same partition of the table.
//! `ingested_at` is set when the sink commits.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Arrow schema of the raw table.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let element = Arc::new(Field::new("element", DataType::Utf8, true));
        Arc::new(Schema::new(vec![
            Field::new("topic", DataType::Utf8, false),
            Field::new("partition", DataType::Int32, false),
            Field::new("offset", DataType::Int64, false),
            Field::new("kafka_timestamp", timestamp(), false),
            Field::new("source_schema", DataType::Utf8, true),
            Field::new("source_table", DataType::Utf8, true),
            Field::new("operation", DataType::Utf8, true),
            Field::new("key", DataType::Utf8, true),
            Field::new("before", DataType::Utf8, true),
            Field::new("after", DataType::Utf8, true),
            Field::new("absent_columns", DataType::List(element), true),
            Field::new("lsn", DataType::Int64, true),
            Field::new("tx_id", DataType::Int64, true),
            Field::new("snapshot", DataType::Utf8, true),
            Field::new("source_timestamp", timestamp(), true),
            Field::new("event_date", DataType::Date32, true),
            Field::new("ingested_at", timestamp(), true),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// Index of a column of [`schema`] that sinks and decoder need by position.
pub mod column {
    /// `topic`
    pub const TOPIC: usize = 0;
    /// `partition`
    pub const PARTITION: usize = 1;
    /// `offset`
    pub const OFFSET: usize = 2;
    /// `event_date`
    pub const EVENT_DATE: usize = 15;
    /// `ingested_at`
    pub const INGESTED_AT: usize = 16;
}
