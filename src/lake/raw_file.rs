//! Data files of the raw table: how they are encoded, named and stored.
//!
//! Bounds are kept of the columns alone that say where a record lies; a reader that looks for a record or a time leaves files
//! out by them, and payloads have none that would be worth their computation.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use deltalake::logstore::object_store::PutOptions;
use deltalake::{ObjectStore, Path};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use serde_json::json;

use super::action::Add;
use super::error::LakeError;
use super::raw::DATE;
use crate::change::raw::{column, schema};

/// A file that is ready to be stored.
pub(super) struct Encoded {
    bytes: Vec<u8>,
    stats: String,
}

/// A file of the raw table that is being put together.
pub(super) struct RawFile {
    writer: ArrowWriter<Vec<u8>>,
    /// The columns with bounds, of all rows so far.
    bounded: Vec<RecordBatch>,
}

impl RawFile {
    pub(super) fn new() -> Result<Self, ArrowError> {
        let writer = ArrowWriter::try_new(Vec::new(), file_schema(), Some(properties()))?;
        Ok(Self { writer, bounded: Vec::new() })
    }

    /// Adds rows, with the columns of [`file_schema`].
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        self.bounded.push(rows.project(&[column::PARTITION, column::OFFSET, KAFKA_TIMESTAMP])?);
        Ok(self.writer.write(rows)?)
    }

    pub(super) fn finish(self) -> Result<Encoded, ArrowError> {
        let schema = file_schema().project(&[column::PARTITION, column::OFFSET, KAFKA_TIMESTAMP])?;
        let stats = statistics(&concat_batches(&Arc::new(schema), &self.bounded)?);
        Ok(Encoded { bytes: self.writer.into_inner()?, stats })
    }
}

/// Stores an encoded file of one date and returns the action that adds it.
pub(super) async fn put_file(
    table: &str,
    store: &dyn ObjectStore,
    date: Option<String>,
    file: Encoded,
    data_change: bool,
) -> Result<Add, LakeError> {
    let folder = date.as_deref().unwrap_or("__HIVE_DEFAULT_PARTITION__");
    let path = format!("{DATE}={folder}/part-{}.zstd.parquet", uuid::Uuid::new_v4());
    let size = file.bytes.len() as i64;
    store
        .put_opts(&Path::from(path.as_str()), file.bytes.into(), PutOptions::default())
        .await
        .map_err(|error| LakeError::store(table, &error))?;
    Ok(Add {
        path,
        partition_values: [(DATE.to_owned(), date)].into(),
        size,
        modification_time: super::now_millis(),
        data_change,
        stats: Some(file.stats),
        deletion_vector: None,
    })
}

/// One Parquet file without the partition column, its commit time filled in.
pub(super) fn encode(rows: &RecordBatch) -> Result<Encoded, ArrowError> {
    let now = TimestampMicrosecondArray::from_value(super::now_millis() * 1000, rows.num_rows());
    let now: ArrayRef = Arc::new(now.with_timezone("UTC"));
    let mut columns = rows.columns().to_vec();
    if let Some(ingested_at) = columns.get_mut(column::INGESTED_AT) {
        *ingested_at = now;
    }
    columns.remove(column::EVENT_DATE);
    let mut file = RawFile::new()?;
    file.write(&RecordBatch::try_new(file_schema(), columns)?)?;
    file.finish()
}

/// The columns of a file: those of the table without the partition column.
pub(super) fn file_schema() -> SchemaRef {
    let fields: Vec<_> = schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != column::EVENT_DATE)
        .map(|(_, field)| field.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}

/// Repeating columns keep their dictionary; payloads never repeat, and a dictionary of them costs a hash of every byte.
fn properties() -> WriterProperties {
    let plain = ["key", "before", "after"].into_iter().map(ColumnPath::from);
    let delta = ["offset"].into_iter().map(ColumnPath::from);
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None);
    for path in plain {
        builder = builder.set_column_dictionary_enabled(path, false);
    }
    for path in delta {
        builder = builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    builder.build()
}

/// `numRecords`, and exact bounds of the columns that say where a record lies: partition, offset, Kafka's timestamp.
fn statistics(bounded: &RecordBatch) -> String {
    use arrow::compute::{max, min};
    let partition = bounded.column(0).as_primitive::<Int32Type>();
    let offset = bounded.column(1).as_primitive::<Int64Type>();
    let timestamp = bounded.column(2).as_primitive::<TimestampMicrosecondType>();
    let mut least = json!({ "partition": min(partition), "offset": min(offset) });
    let mut most = json!({ "partition": max(partition), "offset": max(offset) });
    // Bounds of timestamps have milliseconds: round away from the middle, and leave out what no calendar holds.
    if let (Some(low), Some(high)) = (min(timestamp), max(timestamp))
        && let (Some(low), Some(high)) =
            (bound(low.div_euclid(1000)), bound(high.div_euclid(1000).saturating_add(1)))
        && let (Some(least), Some(most)) = (least.as_object_mut(), most.as_object_mut())
    {
        least.insert("kafka_timestamp".to_owned(), low.into());
        most.insert("kafka_timestamp".to_owned(), high.into());
    }
    json!({
        "numRecords": bounded.num_rows(),
        "minValues": least,
        "maxValues": most,
        "nullCount": { "partition": 0, "offset": 0, "kafka_timestamp": 0 },
    })
    .to_string()
}

const KAFKA_TIMESTAMP: usize = 3;

fn bound(millis: i64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_millis(millis)?;
    (0..=9999).contains(&chrono::Datelike::year(&time)).then_some(())?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}
