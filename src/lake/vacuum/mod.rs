//! The vacuum: removes files of a table that no version needs which somebody may still read.
//!
//! The rule: a file goes when it is of a kind that writers of Delta tables make, was written before the retention began,
//! and is needed neither by the newest version nor by one since then ([`needed`]). That covers data files and deletion
//! vectors that left the table, change data of older versions, and what commits left behind that never happened. A file
//! that somebody is about to commit is young, so it stays.
//!
//! Why it is safe beside other writers: the log is read on before every removal, so what a commit brought back meanwhile
//! (RESTORE) is needed again; removing the same file twice is no error; and a run that ends anywhere has removed
//! only what nobody needs. Nothing is remembered between runs.

mod needed;
mod schedule;

use std::time::Duration;

use deltalake::logstore::object_store::ObjectMeta;
use deltalake::{ObjectStoreError, Path};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use self::needed::Needed;
pub(super) use self::schedule::Sweeper;
use super::error::LakeError;
use super::log::Log;
use super::mor::aside;
use super::schema::PIPELINE;
use crate::change::KeyLedger;
use crate::failpoint;

/// Files that are removed at a time, the most that S3 takes in one request.
const REMOVED_AT_A_TIME: usize = if cfg!(test) { 3 } else { 1000 };
/// Files that are looked at in one step.
const LOOKED_AT: usize = 20_000;
/// A removal is dated when its writer prepared it, and a version when it was committed: time between the two.
const GRACE: Duration = Duration::from_mins(10);
/// Files younger than this may belong to a commit that is being made, whatever the retention.
pub(super) const BEING_WRITTEN: Duration = Duration::from_hours(1);

/// How long it has to be known what left a table, so that a vacuum with that retention finds all of it.
pub(super) fn known_for(retention: Duration) -> Duration {
    retention.saturating_add(GRACE)
}

/// What is old enough to go, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Versions that were the newest then, or later, stay readable.
    pub(super) readable_since: i64,
    /// Files have to be written before.
    pub(super) written_before: i64,
    /// Rows that were kept aside have to be written before: no entry names them while somebody may ask for them.
    pub(super) kept_before: i64,
}

impl Limits {
    /// The limits of a retention, seen at `now`.
    pub(super) fn at(now: i64, retention: Duration) -> Self {
        let before = |age: Duration| now.saturating_sub(age.as_millis() as i64);
        let readable_since = before(known_for(retention));
        let written_before = readable_since.min(before(BEING_WRITTEN));
        let kept_before = written_before.min(now.saturating_sub(KeyLedger::KEEPS));
        Self { readable_since, written_before, kept_before }
    }

    /// The moment before which a file has to be written.
    fn of(&self, file: &Path) -> i64 {
        let is_aside = file.filename().is_some_and(|name| name.starts_with(aside::PREFIX));
        if is_aside { self.kept_before } else { self.written_before }
    }
}

/// What a run removed, or would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// Data files.
    pub(super) data: u64,
    /// Files of deletion vectors.
    pub(super) vectors: u64,
    /// Change data.
    pub(super) changes: u64,
    /// Bytes of all.
    pub(super) bytes: u64,
}

impl Removed {
    fn count(&mut self, kind: Kind, bytes: u64) {
        let files = match kind {
            Kind::Data => &mut self.data,
            Kind::Vectors => &mut self.vectors,
            Kind::Changes => &mut self.changes,
        };
        *files += 1;
        self.bytes += bytes;
    }

    /// Files of all kinds.
    pub(super) fn files(&self) -> u64 {
        self.data + self.vectors + self.changes
    }
}

/// What a file of a table's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Vectors,
    Changes,
}

/// The kind of a file, `None` where it is none of the vacuum's business: the log, files that begin with `_` or `.`,
/// folders that are not the table's partitions (another table may lie there), and what no writer of tables makes.
fn kind(path: &Path, partitions: &[String]) -> Option<Kind> {
    let parts: Vec<&str> = path.as_ref().split('/').collect();
    let (name, folders) = parts.split_last()?;
    let (changes, folders) = match folders.split_first() {
        Some((&"_change_data", rest)) => (true, rest),
        _ => (false, folders),
    };
    let is_partition = |folder: &&str| {
        folder.split_once('=').is_some_and(|(column, _)| partitions.iter().any(|known| known == column))
    };
    if name.starts_with(['_', '.']) || !folders.iter().all(is_partition) {
        return None;
    }
    let ends_with = |extension: &str| name.ends_with(extension);
    match changes {
        true => ends_with(".parquet").then_some(Kind::Changes),
        false if ends_with(".parquet") => Some(Kind::Data),
        false => (name.starts_with("deletion_vector_") && ends_with(".bin")).then_some(Kind::Vectors),
    }
}

/// A run over one table.
pub(super) struct Vacuum {
    log: Log,
    limits: Limits,
    dry_run: bool,
    needed: Needed,
    listing: BoxStream<'static, Result<ObjectMeta, ObjectStoreError>>,
    removed: Removed,
}

/// How a run begins.
pub(super) enum Begun {
    /// With its first step to come.
    Run(Box<Vacuum>),
    /// Not at all: files that left the table before that moment (milliseconds since 1970) are unknown, and the retention
    /// reaches further back.
    TooEarly { unknown_before: i64 },
    /// There is no table of this pipeline.
    NotOurs,
}

impl Vacuum {
    /// Reads what is needed of the table of `log`, if it is one of `pipeline`.
    pub(super) async fn begin(
        log: Log,
        pipeline: &str,
        limits: Limits,
        dry_run: bool,
    ) -> Result<Begun, LakeError> {
        let Some(needed) = Needed::read(&log, limits.readable_since).await? else {
            return Ok(Begun::NotOurs);
        };
        if needed.metadata.configuration.get(PIPELINE).is_none_or(|owner| owner != pipeline) {
            return Ok(Begun::NotOurs);
        }
        if let Some(unknown_before) = needed.unknown_before() {
            return Ok(Begun::TooEarly { unknown_before });
        }
        let listing = log.files().list(None);
        Ok(Begun::Run(Box::new(Self { log, limits, dry_run, needed, listing, removed: Removed::default() })))
    }

    /// Looks at some more files and removes those of them that nobody needs; `false` when there are no more.
    pub(super) async fn step(&mut self) -> Result<bool, LakeError> {
        let mut chosen: Vec<(Path, Kind, u64)> = Vec::new();
        let mut more = false;
        for _ in 0..LOOKED_AT {
            let found = self.listing.try_next().await;
            let Some(meta) = found.map_err(|error| LakeError::store(self.log.table(), &error))? else {
                more = false;
                break;
            };
            more = true;
            let old = meta.last_modified.timestamp_millis() < self.limits.of(&meta.location);
            let kind = kind(&meta.location, &self.needed.metadata.partition_columns).filter(|_| old);
            if let Some(kind) = kind
                && !self.needed.has(&meta.location)
            {
                chosen.push((meta.location, kind, meta.size));
                if chosen.len() == REMOVED_AT_A_TIME {
                    break;
                }
            }
        }
        // A commit since the last look may have brought one of them back.
        self.needed.follow(&self.log).await?;
        chosen.retain(|(path, ..)| !self.needed.has(path));
        if !self.dry_run && !chosen.is_empty() {
            remove(&self.log, chosen.iter().map(|(path, ..)| path.clone()).collect()).await?;
            failpoint::hit("lake.in_vacuum");
        }
        for (_, kind, bytes) in chosen {
            self.removed.count(kind, bytes);
        }
        Ok(more)
    }

    /// What was removed so far.
    pub(super) fn removed(&self) -> Removed {
        self.removed
    }
}

/// Removes what nobody needs of a table's log, and says how many files that were, or would be.
///
/// # Errors
/// Storage errors.
pub(super) async fn clean_log(
    log: &Log,
    now: i64,
    retention: Duration,
    dry_run: bool,
) -> Result<usize, LakeError> {
    let named = log.last_checkpoint().await?;
    let cutoff = now.saturating_sub(retention.as_millis() as i64);
    let files = log.list().await?.removable(cutoff, now, named);
    let removed = files.len();
    if !dry_run {
        remove(log, files).await?;
    }
    Ok(removed)
}

/// Removes files of a table, all that can be.
async fn remove(log: &Log, paths: Vec<Path>) -> Result<(), LakeError> {
    let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
    let mut replies = log.files().delete_stream(paths);
    let mut failed = None;
    while let Some(reply) = replies.next().await {
        match reply {
            // Another instance was there first.
            Ok(_) | Err(ObjectStoreError::NotFound { .. }) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), |error| Err(LakeError::store(log.table(), &error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_writers_of_tables_make_are_looked_at() {
        let partitions = ["event_date".to_owned(), "_region".to_owned()];
        for (path, expected) in [
            ("part-1.zstd.parquet", Some(Kind::Data)),
            ("event_date=2026-01-31/part-1.parquet", Some(Kind::Data)),
            ("event_date=2026-01-31/_region=north/part-1.parquet", Some(Kind::Data)),
            ("deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin", Some(Kind::Vectors)),
            ("_change_data/cdc-1.parquet", Some(Kind::Changes)),
            ("_change_data/event_date=2026-01-31/cdc-1.parquet", Some(Kind::Changes)),
            ("_delta_log/00000000000000000001.checkpoint.parquet", None),
            ("_index/shard.bin", None),
            ("other/part-1.parquet", None),
            ("other=1/part-1.parquet", None),
            ("event_date=2026-01-31/_delta_log/00000000000000000001.checkpoint.parquet", None),
            (".part-1.parquet", None),
            ("_part-1.parquet", None),
            ("README.md", None),
            ("notes.bin", None),
        ] {
            assert_eq!(kind(&Path::from(path), &partitions), expected, "{path}");
        }
    }

    #[test]
    fn files_of_a_commit_that_is_being_made_stay_whatever_the_retention() {
        let now = 1_000_000_000;
        let limits = Limits::at(now, Duration::ZERO);
        assert_eq!(now - limits.written_before, 3_600_000);
        assert_eq!(now - limits.readable_since, 600_000);
        let limits = Limits::at(now, Duration::from_hours(2));
        assert_eq!(limits.readable_since, limits.written_before);
    }

    #[test]
    fn rows_kept_aside_stay_as_long_as_the_ledger_asks_for_them() {
        let (now, days) = (1_000_000_000_000, |days: i64| days * 24 * 3_600_000);
        let aside = Path::from("departed-1.zstd.parquet");
        let limits = Limits::at(now, Duration::ZERO);
        assert_eq!(now - limits.of(&aside), days(7), "whatever the retention");
        assert_eq!(now - limits.of(&Path::from("part-1.zstd.parquet")), 3_600_000);
        let limits = Limits::at(now, Duration::from_hours(30 * 24));
        assert_eq!(limits.of(&aside), limits.written_before, "a longer one holds");
    }
}
