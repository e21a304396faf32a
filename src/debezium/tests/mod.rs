//! Behaviour of the decoder on recorded and on generated events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fuzz;
mod generated;
mod input;
mod kinds;
mod known;
mod mutate;
mod recorded;
mod rows;
mod schemaless;
mod sources;
mod suspects;
mod tombstones;
mod values;
mod whole;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Float32Type, Float64Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;

use crate::change::{
    Batch, ChangeBatch, RecordError, RecordErrorKind, TableId, TableSchema, TopicIdentity, raw,
};

use super::{Decoder, DecoderOptions, Outcome, RecordRef};

/// A record as tests write it: key and value, at the next offset of a topic.
#[derive(Debug, Clone)]
struct Record {
    topic: Arc<str>,
    offset: i64,
    timestamp_ms: i64,
    key: Option<String>,
    value: Option<String>,
    new_key: Option<String>,
    old_key: Option<String>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    fn new(offset: i64, key: &str, value: &str) -> Self {
        Self {
            topic: "cdc.public.t".into(),
            offset,
            timestamp_ms: 1_700_000_000_000,
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
            new_key: None,
            old_key: None,
            headers: Vec::new(),
        }
    }

    fn with_headers(mut self, headers: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(value.as_bytes().to_vec()));
        self.headers.extend(headers.iter().map(owned));
        self
    }

    fn tombstone(offset: i64, key: &str) -> Self {
        Self { value: None, ..Self::new(offset, key, "") }
    }

    fn reference(&self) -> RecordRef<'_> {
        RecordRef {
            topic: &self.topic,
            partition: 0,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref().map(str::as_bytes),
            value: self.value.as_deref().map(str::as_bytes),
            new_key: self.new_key.as_deref().map(str::as_bytes),
            old_key: self.old_key.as_deref().map(str::as_bytes),
            headers: &self.headers,
        }
    }

    fn push(&self, decoder: &mut Decoder) -> Result<Outcome, RecordError> {
        decoder.push(self.reference(), &TopicIdentity::unknown())
    }

    fn set_aside(&self, decoder: &mut Decoder, error: RecordError) {
        decoder.set_aside(&self.reference(), &TopicIdentity::unknown(), error, Vec::new());
    }
}

fn nothing_known(_: &TableId) -> Option<Arc<TableSchema>> {
    None
}

fn decoder() -> Decoder {
    Decoder::new(DecoderOptions::default(), nothing_known)
}

/// A decoder for events without schema block, with types of the table `public.t`.
fn decoder_with(types: &[(&str, &str)]) -> Decoder {
    let types = types.iter().map(|(name, type_name)| ((*name).to_owned(), type_name.parse().unwrap()));
    let types = HashMap::from([("public.t".to_owned(), types.collect())]);
    Decoder::new(DecoderOptions { types, ..DecoderOptions::default() }, nothing_known)
}

/// Decodes records that must all be good.
fn decode(decoder: &mut Decoder, records: &[Record]) -> Batch {
    for record in records {
        if let Err(error) = record.push(decoder) {
            panic!("{error}");
        }
    }
    decoder.finish().unwrap()
}

/// A cell as text: `NULL`, `ABSENT`, the integer behind a date or timestamp, the shortest text
/// of a float, else as Arrow shows it.
fn cell(batch: &ChangeBatch, row: usize, column: &str) -> String {
    let index = batch.schema.index_of(column).unwrap_or_else(|| panic!("no column {column}"));
    let array = batch.rows.column(index);
    if batch.absent[index].as_ref().is_some_and(|mask| mask.value(row)) {
        assert!(array.is_null(row), "an absent cell of {column} has a value");
        return "ABSENT".to_owned();
    }
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        _ => array_value_to_string(array, row).unwrap(),
    }
}

/// All rows of a batch as text, columns in order.
fn cells(batch: &ChangeBatch) -> Vec<Vec<String>> {
    let names: Vec<_> = batch.schema.columns().iter().map(|column| Arc::clone(&column.name)).collect();
    (0..batch.len()).map(|row| names.iter().map(|name| cell(batch, row, name)).collect()).collect()
}

/// A column of the raw table as text.
fn raw_column(batch: &Batch, name: &str) -> Vec<String> {
    let rows = batch.raw.as_ref().expect("raw rows");
    assert_eq!(rows.schema(), raw::schema());
    let column = rows.column_by_name(name).unwrap();
    (0..rows.num_rows()).map(|row| array_value_to_string(column, row).unwrap()).collect()
}

/// An event of the table `public.t` without schema block. `before` and `after` are JSON.
fn event(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"version":"3.7.0.Final","connector":"postgresql",
        "name":"cdc","ts_ms":1700000000123,"snapshot":"false","db":"shop","sequence":"[null,\"1\"]",
        "ts_us":1700000000123456,"ts_ns":1700000000123456000,"schema":"public","table":"t","txId":7,"lsn":42,
        "xmin":null}},"transaction":null,"op":"{op}","ts_ms":1700000000200}}"#
    )
}

/// A schema block around an event whose rows have these fields (the members of a Connect schema without braces).
fn with_schema(fields: &[(&str, &str)], payload: &str) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, field)| format!(r#"{{{field},"optional":true,"field":"{name}"}}"#))
        .collect();
    let row = format!(
        r#"{{"type":"struct","fields":[{}],"optional":true,"name":"cdc.public.t.Value""#,
        fields.join(",")
    );
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{row},"field":"before"}},{row},"field":"after"}},
        {{"type":"string","optional":false,"field":"op"}}],"optional":false,"name":"cdc.public.t.Envelope"}},"payload":{payload}}}"#
    )
}

/// A schema block around a key whose only field is `id`.
fn key_with_schema(id: i64) -> String {
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"type":"int64","optional":false,"field":"id"}}],"optional":false,"name":"cdc.public.t.Key"}},"payload":{{"id":{id}}}}}"#
    )
}

/// The error of the only record.
fn error_of(key: &str, value: &str) -> RecordErrorKind {
    let mut decoder = decoder();
    let error = Record::new(0, key, value).push(&mut decoder).expect_err("an error");
    let batch = decoder.finish().unwrap();
    assert!(batch.changes.is_empty() && batch.spans.is_empty() && batch.records == 0, "something was left");
    assert_eq!(batch.raw.unwrap().num_rows(), 0);
    error.kind
}
