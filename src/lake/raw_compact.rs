//! Compaction of the raw table: the files of one date become fewer.
//!
//! Each batch adds a file to the date of its records, so a day of a batch a second would leave 86,400 of them. Files of a
//! date are kept in the same tiers as those of current tables, and large ones are read and written beside the batches.
//! While batches are waiting only small ones are put together: large batches make large files, and these are few. A date to which nothing was added for an hour is put together for
//! good, so that a year of dates does not keep the rest of each.
//!
//! The rows stay as they are and in the order of their files, oldest first; the commit says that no data changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake::Path;
use deltalake::logstore::object_store::ObjectStoreExt;
use futures::TryStreamExt;

use super::action::{Add, Entry};
use super::compaction::{AT_ONCE, Background, Landed, Pressure, Rewrite, Step, Target, choose, within};
use super::error::LakeError;
use super::moment::Moment;
use super::mor::files::DataFiles;
use super::now_millis;
use super::raw::{DATE, RawFile, delta_schema, file_schema, put_file};
use super::schema::DeltaSchema;
use super::state::{LiveFile, TableState};
use super::table::{Table, Writer};
use crate::failpoint;

/// Bytes of files that are put together while batches are waiting.
const SMALL: i64 = 4 << 20;
/// A date is over when nothing was added for that long, in milliseconds.
const OVER: i64 = 3_600_000;

/// Makes one step, if one is due. A large one is left `running` beside the batches, for a later call to commit.
pub(super) async fn step(
    table: &mut Table,
    running: &mut Option<Background<Merged>>,
    writer: &Writer,
    pressure: Pressure,
) -> Result<Step, LakeError> {
    let merged = match running.take() {
        Some(merging) if !merging.is_finished() => {
            *running = Some(merging);
            return Ok(Step::Nothing);
        }
        Some(finished) => finished.join(table.log.table()).await?,
        None => {
            let Some((bytes, sources)) = sources(&table.state, pressure) else { return Ok(Step::Nothing) };
            let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
            let work = merge(files, sources, writer.id.clone());
            if bytes > AT_ONCE {
                *running = Some(Background::start(work));
                return Ok(Step::Nothing);
            }
            work.await?
        }
    };
    land(table, merged, writer).await
}

/// Makes one step, if one is due, and waits for it.
pub(super) async fn step_and_wait(table: &mut Table, writer: &Writer) -> Result<Step, LakeError> {
    let Some((_, sources)) = sources(&table.state, Pressure::Idle) else { return Ok(Step::Nothing) };
    let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
    let merged = merge(files, sources, writer.id.clone()).await?;
    land(table, merged, writer).await
}

async fn land(table: &mut Table, mut merged: Merged, writer: &Writer) -> Result<Step, LakeError> {
    // Behind a log that was not looked at for long, the next version may have been there and expired.
    table.refresh(writer, &[]).await?;
    failpoint::hit("lake.before_compaction");
    let landed = table.commit_rewrite(&mut merged, writer).await?;
    if landed == Landed::No {
        // Nobody knows of it; a file left behind costs space until the vacuum finds it.
        let _ = table.log.files().delete(&Path::from(merged.add.path.as_str())).await;
    }
    let files = merged.sources.len();
    tracing::debug!(table = table.log.table(), files, committed = landed != Landed::No, "compacted");
    Ok(landed.step(files))
}

/// The files of the next step, oldest first, and their bytes.
fn sources(state: &TableState, pressure: Pressure) -> Option<(i64, Vec<(String, LiveFile)>)> {
    let chosen = due(state, pressure, now_millis());
    if chosen.is_empty() || !is_plain(state) {
        return None;
    }
    let file = |path: String| state.files().get(path.as_str()).cloned().map(|file| (path, file));
    let mut files: Vec<(String, LiveFile)> = chosen.into_iter().filter_map(file).collect();
    files.sort_by_key(|(_, file)| file.modification_time);
    Some((files.iter().map(|(_, file)| file.size).sum(), files))
}

/// The files of the next step, all of one date.
fn due(state: &TableState, pressure: Pressure, now: i64) -> Vec<String> {
    let mut dates: BTreeMap<Option<&str>, Vec<(&str, &LiveFile)>> = BTreeMap::new();
    for (path, file) in state.files() {
        let mergeable = file.vector.is_none() && (pressure == Pressure::Idle || file.size < SMALL);
        if let Some(date) = file.partition.as_ref().and_then(|values| values.get(DATE))
            && mergeable
        {
            dates.entry(date.as_deref()).or_default().push((path, file));
        }
    }
    let target = Target::of(state.bytes());
    let tiers = dates.values().map(|files| choose(files.iter().copied(), target, pressure));
    if let Some(full) = tiers.into_iter().find(|chosen| !chosen.is_empty()) {
        return full;
    }
    if pressure == Pressure::Busy {
        return Vec::new();
    }
    let is_over = |files: &&Vec<(&str, &LiveFile)>| {
        files.iter().all(|(_, file)| now.saturating_sub(file.modification_time) > OVER)
    };
    let rest = dates.values().filter(is_over).map(|files| {
        let small = files.iter().filter(|(_, file)| file.size < target.large);
        let chosen =
            within(small.map(|(path, file)| (file.size, *path, file.size)).collect(), 1, target.step);
        if chosen.len() > 1 { chosen } else { Vec::new() }
    });
    rest.into_iter().find(|chosen| !chosen.is_empty()).unwrap_or_default()
}

/// Whether the table has exactly our columns: those that others added would be lost.
fn is_plain(state: &TableState) -> bool {
    let names = |schema: DeltaSchema| schema.fields.into_iter().map(|field| field.name).collect::<Vec<_>>();
    DeltaSchema::parse("", &state.metadata().schema_string)
        .is_ok_and(|schema| names(schema) == names(delta_schema()))
}

/// Files of a date as one.
#[derive(Debug)]
pub(super) struct Merged {
    /// The instance that commits it.
    writer: String,
    sources: Vec<String>,
    add: Add,
}

async fn merge(
    files: DataFiles,
    sources: Vec<(String, LiveFile)>,
    writer: String,
) -> Result<Merged, LakeError> {
    let table = Arc::clone(&files.table);
    let refused =
        |error: ArrowError| LakeError::Refused(format!("table {table} cannot be compacted: {error}"));
    let date = sources.first().and_then(|(_, file)| file.partition.as_ref()?.get(DATE)?.clone());
    let mut out = RawFile::new().map_err(refused)?;
    for (path, _) in &sources {
        let mut batches = files.scan(path, &file_schema()).await?;
        while let Some(cells) = batches.try_next().await? {
            let rows = RecordBatch::try_new(file_schema(), cells).map_err(refused)?;
            out.write(&rows).map_err(refused)?;
        }
    }
    let encoded = out.finish().map_err(refused)?;
    let add = put_file(&table, &*files.store, date, encoded, false).await?;
    Ok(Merged { writer, sources: sources.into_iter().map(|(path, _)| path).collect(), add })
}

impl Rewrite for Merged {
    async fn entry(&mut self, state: &TableState) -> Result<Option<Bytes>, LakeError> {
        let now = now_millis();
        let mut entry = Entry::new("OPTIMIZE", &self.writer, now);
        for path in &self.sources {
            match state.files().get(path.as_str()) {
                Some(file) if file.vector.is_none() => entry = entry.remove(&file.remove(path, now, false)),
                _ => return Ok(None),
            }
        }
        Ok(Some(entry.add(&self.add).into_bytes()))
    }

    fn since(&self) -> Moment {
        Moment::at(self.add.modification_time)
    }
}
