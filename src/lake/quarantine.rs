//! The quarantine as a Delta table: appends alone, read back as a ledger.
//!
//! A row is appended only where the ledger at the version before says that it is missing: that is what makes it exactly
//! once, also where a batch is cut otherwise when its records are read again. Records come before the commit that moves
//! the current table past them, so a crash in between repeats them, and the repetition finds them there. The `txn`
//! positions say up to where; a lane never starts by them, for most batches have nothing for this table.
//!
//! Commands append here beside the running daemon, by the same compare-and-set.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use deltalake::Path;
use deltalake::logstore::object_store::PutOptions;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use super::action::{Add, Entry, Txn};
use super::create::{self, TableProperties};
use super::error::LakeError;
use super::log::{Log, Outcome};
use super::moment::Moment;
use super::mor::reader::StoredFile;
use super::plain_compact;
use super::progress::app_id;
use super::schema::{DeltaSchema, PIPELINE, plain_field};
use super::table::{ATTEMPTS, Table, Writer};
use crate::change::Batch;
use crate::change::quarantine::rows::{self, METADATA_COLUMNS};
use crate::change::quarantine::{Ledger, QuarantineEvent, QuarantineRow, RecordPlace};
use crate::failpoint;

/// Name of the lane that feeds the lake.
pub(super) const LANE: &str = "lake";

/// The quarantine, open for appending.
#[derive(Debug)]
pub(super) struct QuarantineTable {
    pub(super) table: Table,
    ledger: Arc<Ledger>,
    /// Files whose rows are in the ledger.
    read: HashSet<Box<str>>,
}

impl QuarantineTable {
    /// Opens the table, or `None` where there is none.
    pub(super) async fn open(log: Log, writer: &Writer) -> Result<Option<Self>, LakeError> {
        let Some(table) = Table::open(log).await? else { return Ok(None) };
        if table.state.metadata().configuration.get(PIPELINE) != Some(&writer.pipeline) {
            return Err(LakeError::Refused(format!(
                "the folder {:?} holds a Delta table that is not this pipeline's quarantine; set quarantine.table to another name",
                table.log.table()
            )));
        }
        let mut quarantine = Self { table, ledger: Arc::default(), read: HashSet::new() };
        quarantine.read_files().await?;
        Ok(Some(quarantine))
    }

    /// Opens the table, and creates it where there is none.
    pub(super) async fn open_or_create(
        log: Log,
        properties: &TableProperties,
        writer: &Writer,
    ) -> Result<Self, LakeError> {
        if let Some(found) = Self::open(log.clone(), writer).await? {
            return Ok(found);
        }
        create::quarantine_table(&log, properties, &writer.id).await?;
        Self::open(log.clone(), writer).await?.ok_or_else(|| LakeError::Unreadable {
            table: log.table().to_owned(),
            message: "the table vanished after it was created".to_owned(),
        })
    }

    /// The state of every record.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Reads on what others have appended.
    pub(super) async fn look(&mut self, writer: &Writer) -> Result<(), LakeError> {
        self.table.catch_up(writer, &[]).await?;
        self.read_files().await
    }

    /// Appends the rows of a batch that are missing, with the positions behind the records among them.
    pub(super) async fn commit(&mut self, batch: &Batch, writer: &Writer) -> Result<u64, LakeError> {
        let lane: Arc<str> = LANE.into();
        let now = super::now_millis().saturating_mul(1000);
        let missing = |ledger: &Ledger| -> Vec<QuarantineRow> {
            let records = batch.quarantined.iter().filter(|record| ledger.get(&record.place).is_none());
            let records = records.map(|record| record.clone().into_row(&lane, now));
            let settled = batch.settled.iter().map(|settled| settled.clone().into_row(&lane, now));
            records.chain(settled.filter(|row| ledger.is_changed_by(row))).collect()
        };
        self.append(missing, writer).await
    }

    /// Appends the rows that `decide` finds right for the ledger as it is; asked again where somebody came between.
    pub(super) async fn append(
        &mut self,
        decide: impl Fn(&Ledger) -> Vec<QuarantineRow>,
        writer: &Writer,
    ) -> Result<u64, LakeError> {
        for conflicts in 0..u64::from(ATTEMPTS) {
            // The ledger has to be that of the version before, whatever has moved the table on.
            self.read_files().await?;
            let rows = decide(&self.ledger);
            if rows.is_empty() {
                return Ok(conflicts);
            }
            let since = Moment::now();
            let add = self.write_file(&rows).await?;
            let entry = Entry::new("WRITE", &writer.id, super::now_millis()).add(&add);
            let entry = self.positions(&rows, writer).iter().fold(entry, Entry::txn);
            if self.table.commit_files(entry.into_bytes(), since).await? == Outcome::Committed {
                failpoint::hit("lake.after_quarantine_commit");
                self.read.insert(add.path.into());
                let ledger = Arc::make_mut(&mut self.ledger);
                for row in &rows {
                    ledger.apply(row);
                }
                return Ok(conflicts);
            }
            self.look(writer).await?;
        }
        Err(LakeError::Busy { table: self.table.log.table().to_owned(), attempts: ATTEMPTS })
    }

    /// The position behind the last record of each partition among `rows`, where it is further than the stored one.
    fn positions(&self, rows: &[QuarantineRow], writer: &Writer) -> Vec<Txn> {
        let mut positions = std::collections::BTreeMap::new();
        for row in rows.iter().filter(|row| row.event == QuarantineEvent::Quarantined) {
            let id = app_id(&writer.pipeline, &row.place.identity, &row.place.partition);
            let next = row.place.offset.saturating_add(1);
            let position = positions.entry(id).or_insert(next);
            *position = next.max(*position);
        }
        let now = super::now_millis();
        positions
            .into_iter()
            .filter(|(id, next)| self.table.state.position(id).is_none_or(|stored| stored < *next))
            .map(|(app_id, version)| Txn { app_id, version, last_updated: Some(now) })
            .collect()
    }

    /// Puts its small files together, if that is due and has not just failed. The ledger is what it was.
    pub(super) async fn tend(&mut self, writer: &Writer) {
        if !self.table.compaction.is_over() {
            return;
        }
        let columns = (&rows::schema(), &delta_schema());
        let step = plain_compact::step(&mut self.table, columns, writer).await;
        if let Ok(Some(merged)) = &step
            && merged.sources.iter().all(|path| self.read.contains(path.as_str()))
        {
            self.read.insert(merged.add.path.as_str().into());
        }
        self.read.retain(|path| self.table.state.files().contains_key(path));
        self.table.compacted(step);
    }

    async fn write_file(&self, rows: &[QuarantineRow]) -> Result<Add, LakeError> {
        let name = self.table.log.table();
        let refused = |error: &dyn std::fmt::Display| {
            LakeError::Refused(format!("the quarantine cannot be written: {error}"))
        };
        let batch = rows::to_batch(rows).map_err(|error| refused(&error))?;
        let file = encode(&batch).map_err(|error| refused(&error))?;
        let path = format!("part-{}.zstd.parquet", uuid::Uuid::new_v4());
        let size = file.len() as i64;
        self.table
            .log
            .files()
            .put_opts(&Path::from(path.as_str()), file.into(), PutOptions::default())
            .await
            .map_err(|error| LakeError::store(name, &error))?;
        Ok(Add {
            path,
            partition_values: std::collections::HashMap::new(),
            size,
            modification_time: super::now_millis(),
            data_change: true,
            stats: Some(json!({ "numRecords": rows.len() }).to_string()),
            deletion_vector: None,
        })
    }

    /// Applies the rows of files that are new.
    async fn read_files(&mut self) -> Result<(), LakeError> {
        let new: Vec<Box<str>> =
            self.table.state.files().keys().filter(|path| !self.read.contains(*path)).cloned().collect();
        for path in new {
            let rows = self.read_file(&path, false).await?;
            let ledger = Arc::make_mut(&mut self.ledger);
            for row in &rows {
                ledger.apply(row);
            }
            self.read.insert(path);
        }
        Ok(())
    }

    async fn read_file(&self, path: &str, payload: bool) -> Result<Vec<QuarantineRow>, LakeError> {
        let name = self.table.log.table();
        let failed = |error: &dyn std::fmt::Display| LakeError::Storage {
            table: name.to_owned(),
            message: format!("{path}: {error}"),
        };
        let file = StoredFile {
            store: self.table.log.files(),
            path: Path::parse(path).map_err(|error| failed(&error))?,
        };
        let builder = ParquetRecordBatchStreamBuilder::new(file).await.map_err(|error| failed(&error))?;
        let columns = if payload { rows::schema().fields().len() } else { METADATA_COLUMNS };
        let mask = ProjectionMask::roots(builder.parquet_schema(), 0..columns);
        let stream = builder.with_projection(mask).build().map_err(|error| failed(&error))?;
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| failed(&error))?;
        let mut found = Vec::new();
        for batch in &batches {
            found.extend(rows::from_batch(batch).map_err(|error| LakeError::Unreadable {
                table: name.to_owned(),
                message: error.to_string(),
            })?);
        }
        Ok(found)
    }

    /// The records at these places, as they came.
    pub(super) async fn records(&self, places: &[RecordPlace]) -> Result<Vec<QuarantineRow>, LakeError> {
        let wanted: HashSet<&RecordPlace> = places.iter().collect();
        let mut found = Vec::with_capacity(places.len());
        let mut seen = HashSet::new();
        for path in self.table.state.files().keys() {
            let rows = self.read_file(path, true).await?;
            found.extend(rows.into_iter().filter(|row| {
                row.event == QuarantineEvent::Quarantined
                    && wanted.contains(&row.place)
                    && seen.insert(row.place.clone())
            }));
        }
        Ok(found)
    }
}

fn encode(batch: &RecordBatch) -> Result<Vec<u8>, parquet::errors::ParquetError> {
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.into_inner()
}

/// The Delta schema of [`rows::schema`].
pub(super) fn delta_schema() -> DeltaSchema {
    use arrow::datatypes::DataType;
    let schema = rows::schema();
    let fields = schema.fields().iter().map(|field| {
        let data_type: Value = match field.data_type() {
            DataType::Int32 => "integer".into(),
            DataType::Int64 => "long".into(),
            DataType::Boolean => "boolean".into(),
            DataType::Binary => "binary".into(),
            DataType::Timestamp(..) => "timestamp".into(),
            _ => "string".into(),
        };
        plain_field(field.name(), data_type)
    });
    DeltaSchema::new(fields.collect())
}

/// The quarantine of a lake as commands see it: read, and appended to, beside the running daemon.
pub struct LakeQuarantine {
    table: Option<QuarantineTable>,
    writer: Writer,
}

impl LakeQuarantine {
    /// Reads the quarantine of the lake of `options`.
    ///
    /// # Errors
    /// Where the address cannot be used or the table not be read.
    pub async fn open(options: &super::LakeOptions) -> Result<Self, LakeError> {
        let location = super::Location::open(&options.uri, &options.storage_options)?;
        let folder = &options.quarantine_table;
        let log = Log::new(folder, location.table(folder)?);
        let writer = Writer { pipeline: options.pipeline.clone(), id: uuid::Uuid::new_v4().to_string() };
        Ok(Self { table: QuarantineTable::open(log, &writer).await?, writer })
    }

    /// The state of every record, as it is now.
    ///
    /// # Errors
    /// Where the storage cannot be reached.
    pub async fn look(&mut self) -> Result<Arc<Ledger>, LakeError> {
        let Some(table) = &mut self.table else { return Ok(Arc::default()) };
        table.look(&self.writer).await?;
        Ok(table.ledger())
    }

    /// Records as they came.
    ///
    /// # Errors
    /// Where the storage cannot be reached.
    pub async fn records(&mut self, places: &[RecordPlace]) -> Result<Vec<QuarantineRow>, LakeError> {
        match &self.table {
            Some(table) => table.records(places).await,
            None => Ok(Vec::new()),
        }
    }

    /// Asks for replays, under a number that no other request has, and says of how many records: whoever comes between
    /// has them numbered anew.
    ///
    /// # Errors
    /// Where the storage cannot be reached.
    pub async fn request(&mut self, requests: &[QuarantineRow]) -> Result<usize, LakeError> {
        let Some(table) = &mut self.table else { return Ok(0) };
        let asked = AtomicUsize::new(0);
        let decide = |ledger: &Ledger| {
            let rows = ledger.numbered(requests);
            asked.store(rows.len(), Ordering::Relaxed);
            rows
        };
        table.append(decide, &self.writer).await?;
        Ok(asked.into_inner())
    }

    /// Appends rows.
    ///
    /// # Errors
    /// Where the storage cannot be reached.
    pub async fn append(&mut self, rows: &[QuarantineRow]) -> Result<(), LakeError> {
        let Some(table) = &mut self.table else { return Ok(()) };
        table
            .append(
                |ledger| rows.iter().filter(|row| ledger.is_changed_by(row)).cloned().collect(),
                &self.writer,
            )
            .await?;
        Ok(())
    }
}
