//! Batches for a mirror, written down by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::change::{
    Batch, ChangeBatch, Column, ColumnType, Operation, Span, TableId, TableSchema, TopicIdentity,
    TopicPartition, raw,
};
use arrow::array::{
    ArrayRef, Date32Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Int32Type;

/// 2024-01-01 00:00 UTC in microseconds.
pub const NEW_YEAR: i64 = 1_704_067_200_000_000;

/// A schema from names and types; the first `keys` columns are the key.
pub fn schema(keys: usize, columns: &[(&str, ColumnType)]) -> Arc<TableSchema> {
    let columns = columns
        .iter()
        .map(|(name, column_type)| Column {
            name: Arc::from(*name),
            column_type: column_type.clone(),
            nullable: true,
        })
        .collect();
    Arc::new(TableSchema::new(columns, (0..keys).collect()))
}

/// `(id integer, name text, note text)`, the key is `id`.
pub fn items() -> Arc<TableSchema> {
    schema(1, &[("id", ColumnType::Int32), ("name", ColumnType::Text), ("note", ColumnType::Text)])
}

/// A row of [`items`]; the note is `Err` where it is absent.
pub type Item<'a> = (Operation, i32, Option<&'a str>, Result<Option<&'a str>, ()>);

/// An item that is there.
pub fn put<'a>(id: i32, name: &'a str, note: &'a str) -> Item<'a> {
    (Operation::Create, id, Some(name), Ok(Some(note)))
}

/// An item whose note did not change.
pub fn put_without_note(id: i32, name: &str) -> Item<'_> {
    (Operation::Update, id, Some(name), Err(()))
}

/// An item that is gone.
pub fn gone(id: i32) -> Item<'static> {
    (Operation::Delete, id, None, Ok(None))
}

/// Changes of `public.<table>` from partition 0 of the batch.
pub fn item_changes(table: &str, first_offset: i64, rows: &[Item<'_>]) -> ChangeBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row.1)).collect::<arrow::array::PrimitiveArray<Int32Type>>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.3.unwrap_or(None)).collect::<StringArray>()),
    ];
    let absent: BooleanBuffer = rows.iter().map(|row| row.3.is_err()).collect();
    let operations: Vec<Operation> = rows.iter().map(|row| row.0).collect();
    let mut changes = changes(table, &items(), first_offset, &operations, columns);
    if absent.count_set_bits() > 0 {
        changes.absent[2] = Some(absent);
    }
    changes
}

/// Changes of `public.<table>` from partition 0 of the batch, nothing absent.
pub fn changes(
    table: &str,
    schema: &Arc<TableSchema>,
    first_offset: i64,
    operations: &[Operation],
    columns: Vec<ArrayRef>,
) -> ChangeBatch {
    let rows = operations.len();
    ChangeBatch {
        table: TableId::new("shop", "public", table),
        schema: Arc::clone(schema),
        operations: operations.to_vec(),
        absent: vec![None; columns.len()],
        rows: RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap(),
        partitions: vec![0; rows],
        offsets: (first_offset..first_offset + rows as i64).collect(),
        source_micros: vec![NEW_YEAR; rows],
        moves: None,
        lsns: vec![0; rows],
        truncates: Vec::new(),
    }
}

/// A batch over partition 0 of each topic, from the first to the next offset; changes go with the topic of their place.
pub fn batch(parts: Vec<(&str, i64, i64, Vec<ChangeBatch>)>) -> Batch {
    let mut batch = Batch { spans: BTreeMap::new(), ..Batch::default() };
    for (topic, first, next, changes) in parts {
        let partition = TopicPartition::new(topic, 0);
        let identity =
            TopicIdentity { cluster_id: "cluster".into(), topic_id: format!("id of {topic}").into() };
        batch.spans.insert(partition.clone(), Span { identity, first, next });
        let index = batch.partitions.len() as u32;
        batch.partitions.push(partition);
        batch.records += (next - first) as u64;
        batch.changes.extend(changes.into_iter().map(|mut change| {
            change.partitions = vec![index; change.operations.len()];
            change
        }));
    }
    batch
}

/// One raw row for each offset of the span of a topic.
pub fn raw_rows(topic: &str, first: i64, next: i64) -> RecordBatch {
    let rows = (next - first) as usize;
    let text = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value; rows])) };
    let utc = |micros: i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![micros; rows]).with_timezone("UTC"))
    };
    let mut absent = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new()).with_field(Arc::new(
        arrow::datatypes::Field::new("element", arrow::datatypes::DataType::Utf8, true),
    ));
    for row in 0..rows {
        if row % 2 == 0 {
            absent.values().append_value("note");
        }
        absent.append(row % 3 != 2);
    }
    let absent: ListArray = absent.finish();
    let columns: Vec<ArrayRef> = vec![
        text(topic),
        Arc::new(Int32Array::from(vec![0; rows])),
        Arc::new(Int64Array::from_iter_values(first..next)),
        utc(NEW_YEAR),
        text("public"),
        text("items"),
        text("u"),
        text(r#"{"id": 1}"#),
        Arc::new(StringArray::from(vec![None::<&str>; rows])),
        text(r#"{"id": 1,  "price": 1.10}"#),
        Arc::new(absent),
        Arc::new(Int64Array::from_iter_values(0..rows as i64)),
        Arc::new(Int64Array::from(vec![None::<i64>; rows])),
        text("false"),
        utc(NEW_YEAR),
        Arc::new(Date32Array::from(vec![19_723; rows])),
        utc(0),
    ];
    RecordBatch::try_new(raw::schema(), columns).unwrap()
}
