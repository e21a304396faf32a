//! The raw table: appends of the records as they came, partitioned by the date of their Kafka timestamp.
//!
//! Nothing here goes through the query engine. A batch becomes one Parquet file a date, encoded on blocking threads,
//! and one log entry with the files and the positions. It commits after all current tables, so whatever it covers is
//! in them too; that is why its positions decide where a lane starts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use deltalake::ObjectStore;
use serde_json::{Value, json};

use super::action::{Add, Entry};
use super::compaction::Pressure;
use super::create::{self, TableProperties};
use super::error::LakeError;
use super::landing::Background;
use super::log::{Log, Outcome};
use super::moment::Moment;
use super::raw_compact::{self, Dates, Merged};
use super::raw_file::{encode, put_file};
use super::schema::{DeltaSchema, PIPELINE, plain_field};
use super::table::{ATTEMPTS, Table, Writer, txns};
use crate::change::raw::{column, schema};
use crate::change::{Batch, TableReport, TopicPartition};
use crate::failpoint;

/// The raw table, open for appending.
#[derive(Debug)]
pub(super) struct RawTable {
    pub(super) table: Table,
    /// When a position was last stored, or the table opened.
    pub(super) stored: Option<Instant>,
    /// A large step of compaction that is being read and written.
    merging: Option<Background<Merged>>,
    /// Where the next one may be due.
    dates: Dates,
}

/// Batches without rows move the stored positions at most this often: heartbeats alone must not keep the lake writing.
const POSITIONS_ONLY: Duration = Duration::from_mins(10);

/// The partition column.
pub(super) const DATE: &str = "event_date";

/// Topics whose records must not be written now.
pub(super) type StoppedTopics = BTreeSet<Arc<str>>;

impl RawTable {
    /// Opens the raw table, or `None` where there is none.
    pub(super) async fn open(log: Log, writer: &Writer) -> Result<Option<Self>, LakeError> {
        let Some(table) = Table::open(log).await? else { return Ok(None) };
        let pipeline = table.state.metadata().configuration.get(PIPELINE);
        if pipeline != Some(&writer.pipeline) {
            return Err(LakeError::Refused(format!(
                "the folder {:?} holds a Delta table that is not this pipeline's raw table; set lake.raw_table to another name",
                table.log.table()
            )));
        }
        Ok(Some(Self { table, stored: Some(Instant::now()), merging: None, dates: Dates::default() }))
    }

    /// Opens the raw table, and creates it where there is none.
    pub(super) async fn open_or_create(
        log: Log,
        properties: &TableProperties,
        writer: &Writer,
    ) -> Result<Self, LakeError> {
        if let Some(raw) = Self::open(log.clone(), writer).await? {
            return Ok(raw);
        }
        create::raw_table(&log, properties, &writer.id).await?;
        Self::open(log.clone(), writer).await?.ok_or_else(|| LakeError::Unreadable {
            table: log.table().to_owned(),
            message: "the table vanished after it was created".to_owned(),
        })
    }

    /// Appends the rows of `batch` that the table lacks, with the positions of all its spans.
    ///
    /// Where a batch ended that has no rows is stored by [`Self::store_positions`], later.
    pub(super) async fn commit(
        &mut self,
        batch: &Batch,
        rows: &RecordBatch,
        stopped: &StoppedTopics,
        writer: &Writer,
    ) -> Result<(TableReport, u64), LakeError> {
        let started = Instant::now();
        let mut conflicts = 0;
        let spans = || batch.spans.iter().filter(|(partition, _)| !stopped.contains(&partition.topic));
        let advances = self.table.advances(writer, spans());
        if advances.is_empty() {
            return Ok((TableReport::default(), 0));
        }
        self.table.refresh(writer, &advances).await?;
        let rows = self.missing(batch, rows, stopped, writer)?;
        if rows.num_rows() == 0 {
            return Ok((TableReport::default(), 0));
        }
        let since = Moment::now();
        let files = write_files(self.table.log.table(), self.table.log.files(), &rows).await?;
        failpoint::hit("lake.after_data_files");
        for _ in 0..ATTEMPTS {
            let entry = Entry::new("WRITE", &writer.id, super::now_millis());
            let entry = files.iter().fold(entry, Entry::add);
            let entry = txns(&advances).fold(entry, |entry, txn| entry.txn(&txn));
            match self.table.commit_files(entry.into_bytes(), since).await? {
                Outcome::Committed => {
                    self.stored = Some(Instant::now());
                    self.dates.added(&files);
                    let report = TableReport {
                        appended: rows.num_rows() as u64,
                        duration: started.elapsed(),
                        version: Some(self.table.state.version() as i64),
                        ..TableReport::default()
                    };
                    return Ok((report, conflicts));
                }
                Outcome::Conflict => conflicts += 1,
            }
            self.table.catch_up(writer, &advances).await?;
            if self.table.has(&advances) {
                return Ok((TableReport::default(), conflicts));
            }
        }
        Err(LakeError::Busy { table: self.table.log.table().to_owned(), attempts: ATTEMPTS })
    }

    /// Stores the positions of a batch without rows, every ten minutes.
    pub(super) async fn store_positions(&mut self, batch: &Batch, writer: &Writer) -> Result<(), LakeError> {
        let advances = self.table.advances(writer, batch.spans.iter());
        // The first position in a log at once: until then nothing says that the lane has left the former log.
        let first = advances.iter().any(|advance| self.table.state.position(&advance.app_id).is_none());
        let recent = self.stored.is_some_and(|stored| stored.elapsed() < POSITIONS_ONLY);
        if advances.is_empty() || (recent && !first) {
            return Ok(());
        }
        self.table.refresh(writer, &advances).await?;
        let entry = txns(&advances)
            .fold(Entry::new("WRITE", &writer.id, super::now_millis()), |entry, txn| entry.txn(&txn));
        match self.table.commit(entry.into_bytes()).await? {
            Outcome::Committed => self.stored = Some(Instant::now()),
            Outcome::Conflict => drop(self.table.catch_up(writer, &advances).await?),
        }
        Ok(())
    }

    /// Makes a step of compaction, if one is due and the last one has not just failed.
    pub(super) async fn tend(&mut self, writer: &Writer, pressure: Pressure) {
        if self.table.compaction.is_over() {
            let between = (&mut self.merging, &mut self.dates);
            let step = raw_compact::step(&mut self.table, between, writer, pressure).await;
            self.table.compacted(step);
        }
    }

    /// The rows at or behind the stored position of their partition, of topics that are not stopped.
    fn missing(
        &self,
        batch: &Batch,
        rows: &RecordBatch,
        stopped: &StoppedTopics,
        writer: &Writer,
    ) -> Result<RecordBatch, LakeError> {
        let mut from: Vec<(&TopicPartition, i64)> = Vec::with_capacity(batch.spans.len());
        let mut complete = true;
        for (partition, span) in &batch.spans {
            let stored = if stopped.contains(&partition.topic) {
                i64::MAX
            } else {
                self.table.position(writer, partition, span).unwrap_or(i64::MIN)
            };
            complete &= stored <= span.first;
            from.push((partition, stored));
        }
        if complete {
            return Ok(rows.clone());
        }
        let topics = rows.column(column::TOPIC).as_string::<i32>();
        let partitions = rows.column(column::PARTITION).as_primitive::<Int32Type>();
        let offsets = rows.column(column::OFFSET).as_primitive::<Int64Type>();
        let mut last = 0;
        let keep: BooleanArray = (0..rows.num_rows())
            .map(|row| {
                let is = |&(partition, _): &(&TopicPartition, i64)| {
                    partition.partition == partitions.value(row) && *partition.topic == *topics.value(row)
                };
                if !from.get(last).is_some_and(is) {
                    last = from.iter().position(is).unwrap_or(usize::MAX);
                }
                Some(from.get(last).is_none_or(|(_, stored)| offsets.value(row) >= *stored))
            })
            .collect();
        filter_record_batch(rows, &keep).map_err(|error| data_error(self.table.log.table(), &error))
    }
}

/// The Delta schema of [`schema`]: every column nullable.
pub(super) fn delta_schema() -> DeltaSchema {
    let schema = schema();
    let fields = schema.fields().iter().map(|field| {
        let data_type: Value = match field.data_type() {
            DataType::Int32 => "integer".into(),
            DataType::Int64 => "long".into(),
            DataType::Date32 => "date".into(),
            DataType::Timestamp(..) => "timestamp".into(),
            DataType::List(_) => json!({"type": "array", "elementType": "string", "containsNull": true}),
            _ => "string".into(),
        };
        plain_field(field.name(), data_type)
    });
    DeltaSchema::new(fields.collect())
}

/// Writes one file a date and returns their `add` actions.
async fn write_files(
    table: &str,
    store: Arc<dyn ObjectStore>,
    rows: &RecordBatch,
) -> Result<Vec<Add>, LakeError> {
    let mut tasks = Vec::new();
    for (date, rows) in by_date(rows).map_err(|error| data_error(table, &error))? {
        tasks.push((date, tokio::task::spawn_blocking(move || encode(&rows))));
    }
    let mut adds = Vec::with_capacity(tasks.len());
    for (date, task) in tasks {
        let encoded = task
            .await
            .map_err(|error| LakeError::Storage { table: table.to_owned(), message: error.to_string() })?
            .map_err(|error| data_error(table, &error))?;
        adds.push(put_file(table, &*store, date, encoded, true).await?);
    }
    Ok(adds)
}

/// Rows by date, in order; without copying where there is one date.
fn by_date(rows: &RecordBatch) -> Result<Vec<(Option<String>, RecordBatch)>, ArrowError> {
    let dates = rows.column(column::EVENT_DATE).as_primitive::<Date32Type>();
    let date_of = |row: usize| dates.is_valid(row).then(|| dates.value(row));
    let distinct: BTreeSet<Option<i32>> = (0..rows.num_rows()).map(date_of).collect();
    let name = |date: Option<i32>| date.and_then(Date32Type::to_naive_date_opt).map(|date| date.to_string());
    if let (Some(date), 1) = (distinct.first(), distinct.len()) {
        return Ok(vec![(name(*date), rows.clone())]);
    }
    distinct
        .into_iter()
        .map(|date| {
            let of_date = (0..rows.num_rows()).filter(|&row| date_of(row) == date).map(|row| row as u32);
            Ok((name(date), take_record_batch(rows, &UInt32Array::from_iter_values(of_date))?))
        })
        .collect()
}

fn data_error(table: &str, error: &ArrowError) -> LakeError {
    LakeError::Refused(format!("table {table} cannot take this batch: {error}"))
}
