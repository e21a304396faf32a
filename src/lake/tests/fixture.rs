//! A lake in a temporary folder, and batches written down as lists of changes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tempfile::TempDir;

use crate::change::{
    Batch, ChangeBatch, Column, ColumnType, Operation, Sink, Span, TableId, TableSchema, TopicIdentity,
    TopicPartition, Truncate, TruncateReach, raw,
};
use crate::lake::read::{At, LakeReader};
use crate::lake::{Lake, LakeOptions};

pub(super) struct Fixture {
    pub dir: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("a lake ").tempdir().unwrap() }
    }

    pub fn options(&self) -> LakeOptions {
        LakeOptions::new(self.dir.path().to_str().unwrap(), "shop")
    }

    /// Opens a lake and loads it, as a lane does.
    pub async fn open(&self) -> Lake {
        let mut lake = Lake::open(self.options()).await.unwrap();
        lake.load().await.unwrap();
        lake
    }

    /// The rows of a query, cells joined by a space.
    pub async fn query(&self, sql: &str, at: At) -> Vec<String> {
        let session = LakeReader::open(&self.options()).unwrap().session(at).await.unwrap();
        let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
        batches.iter().flat_map(rows_as_text).collect()
    }

    pub async fn items(&self) -> Vec<String> {
        self.query("SELECT id, name, note FROM items ORDER BY id", At::Latest).await
    }

    pub async fn version(&self, table: &str) -> u64 {
        let tables = LakeReader::open(&self.options()).unwrap().tables().await.unwrap();
        tables.iter().find(|info| info.name == table).unwrap().version
    }
}

/// Does what is due between batches, and waits for the checkpoints.
pub(super) async fn maintain(lake: &mut Lake) {
    lake.maintain().await.unwrap();
    lake.finish().await;
}

pub(super) fn rows_as_text(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let formatters: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| formatters.iter().map(|cells| cells.value(row).to_string()).collect::<Vec<_>>().join(" "))
        .collect()
}

/// A cell of the column `note`, which may be a TOASTed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Value(String),
    Null,
    Absent,
}

pub(super) fn value(text: &str) -> Cell {
    Cell::Value(text.to_owned())
}

/// One change of `items`.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub partition: i32,
    pub offset: i64,
    pub operation: Operation,
    pub id: i64,
    pub name: Option<String>,
    pub note: Cell,
}

pub(super) fn event(offset: i64, operation: Operation, id: i64, name: &str, note: Cell) -> Event {
    Event { partition: 0, offset, operation, id, name: Some(name.to_owned()), note }
}

pub(super) fn delete(offset: i64, id: i64) -> Event {
    Event { partition: 0, offset, operation: Operation::Delete, id, name: None, note: Cell::Null }
}

pub(super) fn truncate(offset: i64) -> Event {
    Event { partition: 0, offset, operation: Operation::Truncate, id: 0, name: None, note: Cell::Null }
}

pub(super) fn table(name: &str) -> TableId {
    TableId::new("shop", "public", name)
}

pub(super) fn column(name: &str, column_type: ColumnType) -> Column {
    Column { name: name.into(), column_type, nullable: true }
}

pub(super) fn items_schema() -> Arc<TableSchema> {
    let columns = vec![
        column("id", ColumnType::Int64),
        column("name", ColumnType::Text),
        column("note", ColumnType::Text),
    ];
    Arc::new(TableSchema::new(columns, vec![0]))
}

/// A batch with the events of one table, read from the topic of its name; `first` and `next` of each partition are
/// those of its events.
pub(super) fn batch(name: &str, events: &[Event]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events.iter().map(|event| Some(event.id)).collect::<Int64Array>()),
        Arc::new(events.iter().map(|event| event.name.clone()).collect::<StringArray>()),
        Arc::new(
            events
                .iter()
                .map(|event| match &event.note {
                    Cell::Value(text) => Some(text.clone()),
                    Cell::Null | Cell::Absent => None,
                })
                .collect::<StringArray>(),
        ),
    ];
    let mask: BooleanBuffer = events.iter().map(|event| event.note == Cell::Absent).collect();
    let absent = vec![None, None, (mask.count_set_bits() > 0).then_some(mask)];
    batch_of(name, &items_schema(), columns, absent, events)
}

/// The same with columns of any schema; of the events only place and operation count.
pub(super) fn batch_of(
    name: &str,
    schema: &Arc<TableSchema>,
    columns: Vec<ArrayRef>,
    absent: Vec<Option<BooleanBuffer>>,
    events: &[Event],
) -> Batch {
    let mut batch = Batch { records: events.len() as u64, ..Batch::default() };
    let topic = format!("cdc.public.{name}");
    let mut partitions = Vec::new();
    for event in events {
        let partition = TopicPartition::new(topic.as_str(), event.partition);
        let index = batch.partitions.iter().position(|known| *known == partition).unwrap_or_else(|| {
            batch.partitions.push(partition.clone());
            batch.partitions.len() - 1
        });
        partitions.push(index as u32);
        let span = batch.spans.entry(partition).or_insert_with(|| Span {
            identity: TopicIdentity::unknown(),
            first: event.offset,
            next: event.offset + 1,
        });
        span.first = span.first.min(event.offset);
        span.next = span.next.max(event.offset + 1);
    }
    batch.changes.push(ChangeBatch {
        table: table(name),
        schema: Arc::clone(schema),
        operations: events.iter().map(|event| event.operation).collect(),
        rows: RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap(),
        absent,
        partitions,
        offsets: events.iter().map(|event| event.offset).collect(),
        source_micros: vec![1_700_000_000_000_000; events.len()],
        moves: None,
        lsns: vec![0; events.len()],
        truncates: truncates_of(events),
    });
    batch.raw = Some(raw_rows(&topic, events));
    batch
}

/// The truncates among events that have one order.
fn truncates_of(events: &[Event]) -> Vec<Truncate> {
    let truncates = events.iter().enumerate().filter(|(_, event)| event.operation == Operation::Truncate);
    truncates.map(|(row, _)| Truncate { row, reach: TruncateReach::Everything }).collect()
}

/// Puts two batches of different tables together.
pub(super) fn both(mut one: Batch, other: Batch) -> Batch {
    let shift = one.partitions.len() as u32;
    one.partitions.extend(other.partitions);
    one.spans.extend(other.spans);
    one.changes.extend(other.changes.into_iter().map(|mut changes| {
        changes.partitions.iter_mut().for_each(|index| *index += shift);
        changes
    }));
    let raw = [one.raw.unwrap(), other.raw.unwrap()];
    one.raw = Some(arrow::compute::concat_batches(&raw::schema(), &raw).unwrap());
    one
}

/// Raw rows; the date changes with every ten offsets.
fn raw_rows(topic: &str, events: &[Event]) -> RecordBatch {
    use arrow::array::{Date32Array, Int32Array, TimestampMicrosecondArray};
    let columns: Vec<ArrayRef> = raw::schema()
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match field.name().as_str() {
                "topic" => Arc::new(StringArray::from(vec![topic; events.len()])),
                "partition" => Arc::new(
                    events
                        .iter()
                        .map(|event| event.partition)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .map(Some)
                        .collect::<Int32Array>(),
                ),
                "offset" => Arc::new(events.iter().map(|event| Some(event.offset)).collect::<Int64Array>()),
                "kafka_timestamp" => Arc::new(
                    TimestampMicrosecondArray::from_iter_values(events.iter().map(|event| event.offset))
                        .with_timezone("UTC"),
                ),
                "event_date" => Arc::new(
                    events
                        .iter()
                        .map(|event| Some(19_000 + (event.offset / 10) as i32))
                        .collect::<Date32Array>(),
                ),
                "operation" => {
                    Arc::new(events.iter().map(|event| Some(event.operation.code())).collect::<StringArray>())
                }
                _ => arrow::array::new_null_array(field.data_type(), events.len()),
            }
        })
        .collect();
    RecordBatch::try_new(raw::schema(), columns).unwrap()
}
