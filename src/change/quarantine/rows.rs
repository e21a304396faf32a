//! The quarantine as a table: one row for each record that came, one more for each thing that happened to it.
//!
//! The names and types here are stored in every lake and mirror: **add columns, never change them**.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Payload, RecordPlace};
use crate::change::{TableId, TopicIdentity, TopicPartition};

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineEvent {
    /// The record came.
    Quarantined,
    /// Its row has another key now.
    Moved,
    /// A later change of its key has been applied.
    Superseded,
    /// Somebody asked for its replay.
    ReplayRequested,
    /// The replay was not done.
    ReplayRefused,
    /// It has been applied.
    Replayed,
    /// Somebody decided to do without it.
    Discarded,
}

impl QuarantineEvent {
    const ALL: [Self; 7] = [
        Self::Quarantined,
        Self::Moved,
        Self::Superseded,
        Self::ReplayRequested,
        Self::ReplayRefused,
        Self::Replayed,
        Self::Discarded,
    ];

    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Moved => "moved",
            Self::Superseded => "superseded",
            Self::ReplayRequested => "replay_requested",
            Self::ReplayRefused => "replay_refused",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }

    /// The event of that word; `None` for one of a later version of the program.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.word() == word)
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// What it says.
    pub event: QuarantineEvent,
    /// When, microseconds since 1970 UTC.
    pub at_micros: i64,
    /// The lane that the record came on.
    pub lane: Arc<str>,
    /// The record.
    pub place: RecordPlace,
    /// Its table, where known.
    pub table: Option<TableId>,
    /// The key of its row as JSON text, where known.
    pub row_key: Option<String>,
    /// What is wrong with it.
    pub code: Option<String>,
    /// What is wrong, or why this happened, in words.
    pub detail: Option<String>,
    /// Number of the replay that is asked for or answered.
    pub replay: Option<i64>,
    /// Whether that replay is wanted whatever came later.
    pub force: bool,
    /// The record itself; only with [`QuarantineEvent::Quarantined`], and only where it was asked for.
    pub payload: Option<Payload>,
}

impl QuarantineRow {
    /// A row that says no more than what happened to a record, and when.
    pub fn new(
        event: QuarantineEvent,
        at_micros: i64,
        lane: impl Into<Arc<str>>,
        place: RecordPlace,
    ) -> Self {
        Self {
            event,
            at_micros,
            lane: lane.into(),
            place,
            table: None,
            row_key: None,
            code: None,
            detail: None,
            replay: None,
            force: false,
            payload: None,
        }
    }
}

/// Columns of [`schema`] before those of the payload.
pub const METADATA_COLUMNS: usize = 17;

/// Arrow schema of the table.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        Arc::new(Schema::new(vec![
            text("id"),
            text("event"),
            Field::new("at", timestamp(), true),
            text("lane"),
            text("topic"),
            Field::new("partition", DataType::Int32, true),
            Field::new("offset", DataType::Int64, true),
            text("cluster_id"),
            text("topic_id"),
            text("source_database"),
            text("source_schema"),
            text("source_table"),
            text("row_key"),
            text("code"),
            text("detail"),
            Field::new("replay", DataType::Int64, true),
            Field::new("force", DataType::Boolean, true),
            Field::new("kafka_timestamp", timestamp(), true),
            text("headers"),
            Field::new("key", DataType::Binary, true),
            Field::new("value", DataType::Binary, true),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// Headers as JSON text: a list of name and base64 of the value, or null.
pub fn headers_to_text(headers: &[(String, Option<Vec<u8>>)]) -> String {
    let list: Vec<(&str, Option<String>)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_ref().map(|value| STANDARD.encode(value))))
        .collect();
    serde_json::json!(list).to_string()
}

/// The reverse of [`headers_to_text`]; what is not of that form is left out.
pub fn headers_from_text(text: &str) -> Vec<(String, Option<Vec<u8>>)> {
    let list: Vec<(String, Option<String>)> = serde_json::from_str(text).unwrap_or_default();
    list.into_iter()
        .map(|(name, value)| (name, value.and_then(|value| STANDARD.decode(value).ok())))
        .collect()
}

/// Rows as a batch of [`schema`].
///
/// # Errors
/// Never for any input: only if the columns contradicted the schema.
pub fn to_batch(rows: &[QuarantineRow]) -> Result<RecordBatch, ArrowError> {
    fn text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
        Arc::new(values.collect::<StringArray>())
    }
    let names = |part: fn(&TableId) -> &str| text(rows.iter().map(|row| row.table.as_ref().map(part)));
    let payload = || rows.iter().map(|row| row.payload.as_ref());
    let ids: Vec<String> = rows.iter().map(|row| row.place.id(&row.lane)).collect();
    let headers: Vec<Option<String>> =
        payload().map(|payload| payload.map(|payload| headers_to_text(&payload.headers))).collect();
    let at: TimestampMicrosecondArray = rows.iter().map(|row| Some(row.at_micros)).collect();
    let time: TimestampMicrosecondArray =
        payload().map(|payload| payload.map(|payload| payload.timestamp_ms.saturating_mul(1000))).collect();
    let bytes = |part: fn(&Payload) -> Option<&Vec<u8>>| -> ArrayRef {
        let values = payload().map(|payload| payload.and_then(part).map(Vec::as_slice));
        Arc::new(values.collect::<BinaryArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        text(ids.iter().map(|id| Some(id.as_str()))),
        text(rows.iter().map(|row| Some(row.event.word()))),
        Arc::new(at.with_timezone("UTC")),
        text(rows.iter().map(|row| Some(row.lane.as_ref()))),
        text(rows.iter().map(|row| Some(row.place.partition.topic.as_ref()))),
        Arc::new(rows.iter().map(|row| Some(row.place.partition.partition)).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| Some(row.place.offset)).collect::<Int64Array>()),
        text(rows.iter().map(|row| Some(row.place.identity.cluster_id.as_ref()))),
        text(rows.iter().map(|row| Some(row.place.identity.topic_id.as_ref()))),
        names(|table| &table.database),
        names(|table| &table.schema),
        names(|table| &table.table),
        text(rows.iter().map(|row| row.row_key.as_deref())),
        text(rows.iter().map(|row| row.code.as_deref())),
        text(rows.iter().map(|row| row.detail.as_deref())),
        Arc::new(rows.iter().map(|row| row.replay).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.force)).collect::<BooleanArray>()),
        Arc::new(time.with_timezone("UTC")),
        text(headers.iter().map(Option::as_deref)),
        bytes(|payload| payload.key.as_ref()),
        bytes(|payload| payload.value.as_ref()),
    ];
    RecordBatch::try_new(schema(), columns)
}

/// The rows of a batch with the columns of [`schema`], found by name, or those before the payload alone. Rows of events that this version
/// does not know are left out.
///
/// # Errors
/// Where a column is missing or of another type.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<QuarantineRow>, ArrowError> {
    let columns = Columns(batch);
    let (events, lanes, topics) = (columns.text("event")?, columns.text("lane")?, columns.text("topic")?);
    let (clusters, topic_ids) = (columns.text("cluster_id")?, columns.text("topic_id")?);
    let (databases, schemas, tables) =
        (columns.text("source_database")?, columns.text("source_schema")?, columns.text("source_table")?);
    let (keys, codes, details) = (columns.text("row_key")?, columns.text("code")?, columns.text("detail")?);
    let partitions = columns
        .named("partition")?
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| Columns::mismatch("partition"))?;
    let (offsets, replays) = (columns.long("offset")?, columns.long("replay")?);
    let at = columns.time("at")?;
    let force = columns.named("force")?.as_boolean_opt().ok_or_else(|| Columns::mismatch("force"))?;
    let payloads = columns.payloads()?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let text = |array: &StringArray| array.is_valid(row).then(|| array.value(row).to_owned());
        let Some(event) = QuarantineEvent::parse(&text(events).unwrap_or_default()) else { continue };
        let known = |array: &StringArray| Arc::<str>::from(text(array).unwrap_or_default());
        rows.push(QuarantineRow {
            event,
            at_micros: at.value(row),
            lane: known(lanes),
            place: RecordPlace {
                partition: TopicPartition { topic: known(topics), partition: partitions.value(row) },
                identity: TopicIdentity { cluster_id: known(clusters), topic_id: known(topic_ids) },
                offset: offsets.value(row),
            },
            table: text(tables).map(|table| {
                TableId::new(&text(databases).unwrap_or_default(), &text(schemas).unwrap_or_default(), &table)
            }),
            row_key: text(keys),
            code: text(codes),
            detail: text(details),
            replay: replays.is_valid(row).then(|| replays.value(row)),
            force: force.is_valid(row) && force.value(row),
            payload: (event == QuarantineEvent::Quarantined)
                .then(|| payloads.as_ref().map(|payloads| payloads.row(row)))
                .flatten(),
        });
    }
    Ok(rows)
}

struct Columns<'a>(&'a RecordBatch);

impl<'a> Columns<'a> {
    fn mismatch(name: &str) -> ArrowError {
        ArrowError::SchemaError(format!("the quarantine has no column {name} of the expected type"))
    }

    fn named(&self, name: &str) -> Result<&'a ArrayRef, ArrowError> {
        self.0.column_by_name(name).ok_or_else(|| Self::mismatch(name))
    }

    fn text(&self, name: &str) -> Result<&'a StringArray, ArrowError> {
        self.named(name)?.as_string_opt().ok_or_else(|| Self::mismatch(name))
    }

    fn long(&self, name: &str) -> Result<&'a Int64Array, ArrowError> {
        self.named(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| Self::mismatch(name))
    }

    fn time(&self, name: &str) -> Result<&'a TimestampMicrosecondArray, ArrowError> {
        self.named(name)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| Self::mismatch(name))
    }

    fn bytes(&self, name: &str) -> Result<&'a BinaryArray, ArrowError> {
        self.named(name)?.as_binary_opt().ok_or_else(|| Self::mismatch(name))
    }

    fn payloads(&self) -> Result<Option<Payloads<'a>>, ArrowError> {
        if self.0.column_by_name("value").is_none() {
            return Ok(None);
        }
        Ok(Some(Payloads {
            times: self.time("kafka_timestamp")?,
            headers: self.text("headers")?,
            keys: self.bytes("key")?,
            values: self.bytes("value")?,
        }))
    }
}

struct Payloads<'a> {
    times: &'a TimestampMicrosecondArray,
    headers: &'a StringArray,
    keys: &'a BinaryArray,
    values: &'a BinaryArray,
}

impl Payloads<'_> {
    fn row(&self, row: usize) -> Payload {
        let bytes = |array: &BinaryArray| array.is_valid(row).then(|| array.value(row).to_vec());
        Payload {
            timestamp_ms: self.times.value(row).div_euclid(1000),
            key: bytes(self.keys),
            value: bytes(self.values),
            headers: headers_from_text(self.headers.value(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went_with_the_very_bytes() {
        let place = RecordPlace {
            partition: TopicPartition::new("cdc.public.orders", 3),
            identity: TopicIdentity { cluster_id: "c".into(), topic_id: "t~1.5".into() },
            offset: 42,
        };
        let record = QuarantineRow {
            event: QuarantineEvent::Quarantined,
            at_micros: 1_700_000_000_000_001,
            lane: "lake".into(),
            place: place.clone(),
            table: Some(TableId::new("shop", "public", "orders")),
            row_key: Some("{\"id\":1}".to_owned()),
            code: Some("not_json".to_owned()),
            detail: Some("the value is not JSON (at byte 3)".to_owned()),
            replay: None,
            force: false,
            payload: Some(Payload {
                timestamp_ms: -1,
                key: Some(Vec::new()),
                value: Some(vec![0, 255, 0, b'{']),
                headers: vec![("a".to_owned(), Some(vec![0, 159])), ("b".to_owned(), None)],
            }),
        };
        let request = QuarantineRow {
            event: QuarantineEvent::ReplayRequested,
            table: None,
            row_key: None,
            code: None,
            detail: None,
            replay: Some(7),
            force: true,
            payload: None,
            ..record.clone()
        };
        let tombstone = QuarantineRow { payload: Some(Payload::default()), ..record.clone() };
        let rows = vec![record, request, tombstone];
        let batch = to_batch(&rows).unwrap();
        assert_eq!(from_batch(&batch).unwrap(), rows);
        assert_eq!(batch.column(0).as_string::<i32>().value(0), "lake/cdc.public.orders/3@42");
        let metadata = batch.project(&(0..METADATA_COLUMNS).collect::<Vec<_>>()).unwrap();
        assert!(from_batch(&metadata).unwrap().iter().all(|row| row.payload.is_none()));
        assert_eq!(from_batch(&metadata).unwrap().len(), 3);
    }
}
