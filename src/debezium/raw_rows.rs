//! Growing rows of the raw table, in the shape of [`crate::change::raw::schema`].
//!
//! A row is appended after its change was accepted, so that the raw table never has a record that the batch refused.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

use crate::change::raw;

use super::columns::{Column, Full};
use super::envelope::{Source, Text};
use super::record::RecordRef;

const DAY_MILLIS: i64 = 86_400_000;

/// One record as the raw table shows it.
#[derive(Debug, Default)]
pub(super) struct RawRow<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) source_schema: Option<&'a str>,
    pub(super) source_table: Option<&'a str>,
    pub(super) operation: &'a str,
    pub(super) key: Option<&'a str>,
    pub(super) before: Option<&'a str>,
    pub(super) after: Option<&'a str>,
    pub(super) lsn: Option<i64>,
    pub(super) tx_id: Option<i64>,
    pub(super) snapshot: Option<&'a str>,
    pub(super) source_micros: Option<i64>,
}

impl<'a> RawRow<'a> {
    /// A row with what record and source block say.
    pub(super) fn of(record: &RecordRef<'a>, source: Option<&'a Source<'a>>) -> Self {
        let text = |text: Option<&'a Text<'a>>| text.map(Text::as_str);
        Self {
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            source_schema: source.and_then(|source| text(source.schema.as_ref())),
            source_table: source.and_then(|source| text(source.table.as_ref())),
            lsn: source.and_then(|source| source.lsn.0),
            tx_id: source.and_then(|source| source.tx_id.0),
            snapshot: source.and_then(|source| text(source.snapshot.as_ref())),
            source_micros: source.and_then(Source::micros),
            ..Self::default()
        }
    }
}

/// The raw rows of the running batch.
#[derive(Debug)]
pub(super) struct RawRows {
    /// One a field of the raw schema; the one of `absent_columns` stays empty.
    columns: Vec<Column>,
    absent_names: Column,
    absent_ends: Vec<i32>,
}

impl Default for RawRows {
    fn default() -> Self {
        let columns =
            raw::schema().fields().iter().map(|field| Column::new(field.data_type().clone())).collect();
        Self { columns, absent_names: Column::new(DataType::Utf8), absent_ends: vec![0] }
    }
}

impl RawRows {
    pub(super) fn len(&self) -> usize {
        self.absent_ends.len() - 1
    }

    /// Appends a row. After an error there are as many rows as before.
    pub(super) fn push<'n>(
        &mut self,
        row: &RawRow<'_>,
        absent: impl Iterator<Item = &'n str>,
    ) -> Result<(), Full> {
        let len = self.len();
        let names = self.absent_names.len();
        let pushed = self.cells(row).and_then(|()| {
            absent.into_iter().try_for_each(|name| self.absent_names.push_str(name))?;
            i32::try_from(self.absent_names.len()).ok()
        });
        if let Some(end) = pushed {
            self.absent_ends.push(end);
            return Ok(());
        }
        self.columns.iter_mut().for_each(|column| column.truncate(len));
        self.absent_names.truncate(names);
        Err(Full)
    }

    fn cells(&mut self, row: &RawRow<'_>) -> Option<()> {
        let [
            topic,
            partition,
            offset,
            kafka_timestamp,
            source_schema,
            source_table,
            operation,
            key,
            before,
            after,
            _absent_columns,
            lsn,
            tx_id,
            snapshot,
            source_timestamp,
            event_date,
            ingested_at,
        ] = self.columns.as_mut_slice()
        else {
            return None;
        };
        topic.push_str(row.topic)?;
        partition.push_i32(row.partition)?;
        offset.push_i64(row.offset)?;
        kafka_timestamp.push_i64(row.timestamp_ms.checked_mul(1000)?)?;
        text(source_schema, row.source_schema)?;
        text(source_table, row.source_table)?;
        operation.push_str(row.operation)?;
        text(key, row.key)?;
        text(before, row.before)?;
        text(after, row.after)?;
        integer(lsn, row.lsn)?;
        integer(tx_id, row.tx_id)?;
        text(snapshot, row.snapshot)?;
        integer(source_timestamp, row.source_micros)?;
        event_date.push_i32(i32::try_from(row.timestamp_ms.div_euclid(DAY_MILLIS)).ok()?)?;
        ingested_at.push_null();
        Some(())
    }

    /// The rows as a batch of the raw table.
    pub(super) fn finish(self) -> Result<RecordBatch, ArrowError> {
        let schema = raw::schema();
        let (names, _) = self.absent_names.finish()?;
        let mut lists = Some((self.absent_ends, names));
        let arrays: Result<Vec<ArrayRef>, ArrowError> = self
            .columns
            .into_iter()
            .zip(schema.fields())
            .map(|(column, field)| match (field.data_type(), lists.take_if(|_| is_list(field))) {
                (DataType::List(element), Some((ends, names))) => {
                    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                    Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, names, None)?) as ArrayRef)
                }
                _ => Ok(column.finish()?.0),
            })
            .collect();
        RecordBatch::try_new(schema, arrays?)
    }
}

fn is_list(field: &Field) -> bool {
    matches!(field.data_type(), DataType::List(_))
}

fn text(column: &mut Column, value: Option<&str>) -> Option<()> {
    let Some(value) = value else {
        column.push_null();
        return Some(());
    };
    column.push_str(value)
}

fn integer(column: &mut Column, value: Option<i64>) -> Option<()> {
    let Some(value) = value else {
        column.push_null();
        return Some(());
    };
    column.push_i64(value)
}
