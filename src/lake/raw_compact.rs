//! Compaction of the raw table: the files of one date become fewer.
//!
//! Each batch adds a file to the date of its records, so a day of a batch a second would leave 86,400 of them. Files of a
//! date are kept in the same tiers as those of current tables, and large ones are read and written beside the batches.
//! While batches are waiting only small ones are put together: large batches make large files, and these are few. A date to which nothing was added for an hour is put together for
//! good, so that a year of dates does not keep the rest of each.
//!
//! A table of many dates has many files, so they are not gone through after every batch: a date is looked at when a tier's
//! worth of files was added to it, and all of them once a minute, between batches ([`Dates`]).
//!
//! The rows stay as they are and in the order of their files, oldest first; the commit says that no data changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake::Path;
use deltalake::logstore::object_store::ObjectStoreExt;
use futures::TryStreamExt;

use super::action::{Add, Entry};
use super::compaction::{FAN_IN, Pressure, Target, choose, within};
use super::error::LakeError;
use super::landing::{AT_ONCE, Background, Landed, Rewrite, Step};
use super::live_file::LiveFile;
use super::moment::Moment;
use super::mor::files::DataFiles;
use super::now_millis;
use super::raw::{DATE, delta_schema};
use super::raw_file::{RawFile, file_schema, put_file};
use super::schema::DeltaSchema;
use super::state::TableState;
use super::table::{Table, Writer};
use crate::failpoint;

/// Bytes of files that are put together while batches are waiting.
const SMALL: i64 = 4 << 20;
/// A date is over when nothing was added for that long, in milliseconds.
const OVER: i64 = 3_600_000;

/// Time between two looks at all dates.
const ALL_DATES: Duration = Duration::from_mins(1);

/// Which dates may have something to do.
#[derive(Debug, Default)]
pub(super) struct Dates {
    /// Files added to each since it was last found in order.
    added: BTreeMap<Option<String>, usize>,
    /// When all were last found in order.
    looked: Option<Instant>,
}

/// The dates that are looked at.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    All,
    Of(BTreeSet<Option<String>>),
}

impl Look {
    fn is_at(&self, date: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Of(dates) => dates.iter().any(|looked| looked.as_deref() == date),
        }
    }
}

impl Dates {
    /// Takes note of files that were added.
    pub(super) fn added(&mut self, files: &[Add]) {
        for file in files {
            *self.added.entry(file.partition_values.get(DATE).cloned().flatten()).or_default() += 1;
        }
    }

    fn look(&self, pressure: Pressure, now: Instant) -> Look {
        let full = FAN_IN * if pressure == Pressure::Busy { 2 } else { 1 };
        let is_due = |looked: Instant| now.saturating_duration_since(looked) >= ALL_DATES;
        if pressure == Pressure::Idle && self.looked.is_none_or(is_due) {
            return Look::All;
        }
        let gathered = self.added.iter().filter(|(_, files)| **files >= full);
        Look::Of(gathered.map(|(date, _)| date.clone()).collect())
    }

    /// Nothing was found to do.
    fn in_order(&mut self, look: &Look, now: Instant) {
        match look {
            Look::All => (self.looked, self.added) = (Some(now), BTreeMap::new()),
            Look::Of(dates) => self.added.retain(|date, _| !dates.contains(date)),
        }
    }
}

/// Makes one step, if one is due. A large one is left `running` beside the batches, for a later call to commit.
pub(super) async fn step(
    table: &mut Table,
    (running, dates): (&mut Option<Background<Merged>>, &mut Dates),
    writer: &Writer,
    pressure: Pressure,
) -> Result<Step, LakeError> {
    let mut merged = match running.take() {
        Some(merging) if !merging.is_finished() => {
            *running = Some(merging);
            return Ok(Step::Nothing);
        }
        Some(finished) => finished.join(table.log.table()).await?,
        None => {
            let now = Instant::now();
            let look = dates.look(pressure, now);
            let Some((bytes, sources)) = sources(&table.state, &look, pressure) else {
                dates.in_order(&look, now);
                return Ok(Step::Nothing);
            };
            let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
            let work = merge(files, sources, writer.id.clone());
            if bytes > AT_ONCE {
                *running = Some(Background::start(work));
                return Ok(Step::Nothing);
            }
            work.await?
        }
    };
    land(table, &mut merged, writer).await
}

/// Makes one step, if one is due, and waits for it.
pub(super) async fn step_and_wait(table: &mut Table, writer: &Writer) -> Result<Step, LakeError> {
    let Some((_, sources)) = sources(&table.state, &Look::All, Pressure::Idle) else {
        return Ok(Step::Nothing);
    };
    let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
    let mut merged = merge(files, sources, writer.id.clone()).await?;
    land(table, &mut merged, writer).await
}

/// Commits files that were put together.
pub(super) async fn land(table: &mut Table, merged: &mut Merged, writer: &Writer) -> Result<Step, LakeError> {
    // Behind a log that was not looked at for long, the next version may have been there and expired.
    table.refresh(writer, &[]).await?;
    failpoint::hit("lake.before_compaction");
    let landed = table.commit_rewrite(merged, writer).await?;
    if landed == Landed::No {
        // Nobody knows of it; a file left behind costs space until the vacuum finds it.
        let _ = table.log.files().delete(&Path::from(merged.add.path.as_str())).await;
    }
    let files = merged.sources.len();
    tracing::debug!(table = table.log.table(), files, committed = landed != Landed::No, "compacted");
    Ok(landed.step(files))
}

/// The files of the next step, oldest first, and their bytes.
fn sources(state: &TableState, look: &Look, pressure: Pressure) -> Option<(i64, Vec<(String, LiveFile)>)> {
    let chosen = due(state, look, pressure, now_millis());
    if chosen.is_empty() || !has_columns(state, &delta_schema()) {
        return None;
    }
    let file = |path: String| state.files().get(path.as_str()).cloned().map(|file| (path, file));
    let mut files: Vec<(String, LiveFile)> = chosen.into_iter().filter_map(file).collect();
    files.sort_by_key(|(_, file)| file.modification_time);
    Some((files.iter().map(|(_, file)| file.size).sum(), files))
}

/// The files of the next step, all of one date.
fn due(state: &TableState, look: &Look, pressure: Pressure, now: i64) -> Vec<String> {
    if matches!(look, Look::Of(dates) if dates.is_empty()) {
        return Vec::new();
    }
    let mut dates: BTreeMap<Option<&str>, Vec<(&str, &LiveFile)>> = BTreeMap::new();
    for (path, file) in state.files() {
        let mergeable = file.vector.is_none() && (pressure == Pressure::Idle || file.size < SMALL);
        if let Some(date) = file.partition.as_ref().and_then(|values| values.get(DATE))
            && mergeable
            && look.is_at(date.as_deref())
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

/// Whether the table has exactly these columns: those that others added would be lost.
pub(super) fn has_columns(state: &TableState, columns: &DeltaSchema) -> bool {
    let names =
        |schema: &DeltaSchema| schema.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
    DeltaSchema::parse("", &state.metadata().schema_string)
        .is_ok_and(|schema| names(&schema) == names(columns))
}

/// Files as one, with the same rows: in the raw table those of a date.
#[derive(Debug)]
pub(super) struct Merged {
    /// The instance that commits it.
    pub(super) writer: String,
    pub(super) sources: Vec<String>,
    pub(super) add: Add,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn file(date: &str, number: usize) -> Add {
        serde_json::from_value(serde_json::json!({
            "path": format!("{DATE}={date}/{number}"), "size": 1000, "stats": "{\"numRecords\":1}",
            "partitionValues": { DATE: date }, "modificationTime": 0,
        }))
        .unwrap()
    }

    fn of(dates: &[&str]) -> Look {
        Look::Of(dates.iter().map(|date| Some((*date).to_owned())).collect())
    }

    #[test]
    fn a_date_is_looked_at_when_files_have_gathered_and_all_once_a_minute_between_batches() {
        let (mut dates, start) = (Dates::default(), Instant::now());
        let add = |dates: &mut Dates, date: &str, files: usize| {
            dates.added(&(0..files).map(|number| file(date, number)).collect::<Vec<_>>());
        };
        assert_eq!(dates.look(Pressure::Busy, start), of(&[]), "a table that was just opened, under load");
        assert_eq!(dates.look(Pressure::Idle, start), Look::All);
        dates.in_order(&Look::All, start);
        add(&mut dates, "2026-01-01", 8);
        add(&mut dates, "2026-01-02", 7);
        assert_eq!(dates.look(Pressure::Busy, start), of(&[]), "a batch looks at nothing");
        assert_eq!(dates.look(Pressure::Idle, start), of(&["2026-01-01"]));
        add(&mut dates, "2026-01-02", 9);
        assert_eq!(dates.look(Pressure::Busy, start), of(&["2026-01-02"]));
        dates.in_order(&of(&["2026-01-02"]), start);
        assert_eq!(dates.look(Pressure::Busy, start), of(&[]), "it is in order now");
        assert_eq!(dates.look(Pressure::Idle, start), of(&["2026-01-01"]), "and the other one waits");
        assert_eq!(dates.look(Pressure::Idle, start + ALL_DATES), Look::All);
    }

    #[test]
    fn only_files_of_the_dates_looked_at_are_put_together() {
        let mut state = TableState::empty("t");
        let files = ["2026-01-01", "2026-01-02"].into_iter();
        let files: Vec<Add> = files.flat_map(|date| (0..16).map(move |number| file(date, number))).collect();
        let entry = files.iter().fold(Entry::new("WRITE", "w", 0), Entry::add);
        state.apply(0, &entry.into_bytes()).unwrap();
        for date in ["2026-01-01", "2026-01-02"] {
            let due = due(&state, &of(&[date]), Pressure::Busy, 0);
            let of_date = due.iter().filter(|path| path.contains(date)).count();
            assert_eq!((of_date, due.len()), (16, 16), "{date}");
        }
        assert!(due(&state, &of(&[]), Pressure::Busy, 0).is_empty());
        assert_eq!(due(&state, &Look::All, Pressure::Idle, 0).len(), 16, "one date at a time");
    }
}
