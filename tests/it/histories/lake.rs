//! A copy in the lake, in one of its write modes: real Delta tables in a folder, read back as SQL reads them.

use alluvium::change::{
    Batch, KnownSchemas, KnownTables, Policies, Progress, Sink, TableId, TablePolicy, WriteMode,
};
use alluvium::lake::read::{At, LakeReader};
use alluvium::lake::{Lake, LakeOptions};
use arrow::array::RecordBatch;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::reader::{Copy, text};
use super::truth::Shown;

/// A lake of its own.
pub struct LakeCopy {
    runtime: Runtime,
    options: LakeOptions,
    lake: Option<Lake>,
    _folder: TempDir,
}

impl LakeCopy {
    pub fn new(write: WriteMode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = LakeOptions::new(folder.path().to_str().unwrap(), "histories");
        let defaults = TablePolicy { write, ..TablePolicy::default() };
        options.policies = Policies { defaults, ..Policies::default() };
        options.checkpoint_interval = 3;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { runtime, options, lake: None, _folder: folder }
    }

    fn query(&self, table: &str, columns: &str) -> Result<Vec<RecordBatch>, String> {
        let what = |error: &dyn std::fmt::Display| format!("{table}: {error}");
        self.runtime.block_on(async {
            let reader = LakeReader::open(&self.options).map_err(|error| what(&error))?;
            let tables = reader.tables().await.map_err(|error| what(&error))?;
            if !tables.iter().any(|info| info.name == table) {
                return Ok(Vec::new());
            }
            let session = reader.session(At::Latest).await.map_err(|error| what(&error))?;
            let sql = format!("SELECT {columns} FROM {table}");
            let frame = session.sql(&sql).await.map_err(|error| what(&error))?;
            frame.collect().await.map_err(|error| what(&error))
        })
    }
}

impl Copy for LakeCopy {
    fn commit(&mut self, batch: &Batch) -> Result<(), String> {
        let lake = self.lake.as_mut().ok_or("no lake")?;
        let report = self.runtime.block_on(lake.commit(batch)).map_err(|error| error.to_string())?;
        if report.stopped.is_empty() { Ok(()) } else { Err(format!("stopped: {:?}", report.stopped)) }
    }

    fn restart(&mut self) -> Result<Option<Progress>, String> {
        self.lake = None;
        let opened = self.runtime.block_on(async {
            let mut lake = Lake::open(self.options.clone()).await.map_err(|error| error.to_string())?;
            let progress = lake.load().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((lake, progress))
        });
        let (lake, progress) = opened?;
        self.lake = Some(lake);
        Ok(Some(progress))
    }

    fn known(&self) -> KnownSchemas {
        self.lake.as_ref().map_or_else(|| Box::new(|_: &TableId| None) as KnownSchemas, Sink::known_schemas)
    }

    fn tables(&self) -> KnownTables {
        self.lake.as_ref().map(Sink::known_tables).unwrap_or_default()
    }

    fn maintain(&mut self) -> Result<(), String> {
        let lake = self.lake.as_mut().ok_or("no lake")?;
        self.runtime.block_on(lake.maintain()).map_err(|error| error.to_string())
    }

    fn rows(&mut self, table: &str) -> Result<Vec<Shown>, String> {
        let batches = self.query(table, "*")?;
        Ok(batches.iter().flat_map(shown).collect())
    }

    fn raw(&mut self) -> Result<Option<Vec<String>>, String> {
        let batches = self.query("cdc_events", "concat(topic, '/', partition, '@', \"offset\") AS place")?;
        let place = |batch: &RecordBatch| -> Vec<String> {
            (0..batch.num_rows()).filter_map(|row| text(batch, row, "place")).collect()
        };
        Ok(Some(batches.iter().flat_map(place).collect()))
    }

    fn is_cheap(&self) -> bool {
        false
    }

    fn keeps_key_changes(&self) -> bool {
        true
    }
}

/// The rows of a batch, without the columns that Alluvium adds.
fn shown(batch: &RecordBatch) -> Vec<Shown> {
    let names: Vec<String> = batch
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .filter(|name| !name.starts_with("__"))
        .collect();
    (0..batch.num_rows())
        .map(|row| names.iter().map(|name| (name.clone(), text(batch, row, name))).collect())
        .collect()
}
