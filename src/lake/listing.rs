//! What lies in `_delta_log`: which versions and checkpoints are there, and since when.
//!
//! Names alone say what a file is. Times are the storage's: a copied lake looks young, so what is judged by age is then
//! kept for longer, never for shorter.
//!
//! Between the first checkpoint that is kept and the newest one, checkpoints only spare reading: the entries alone make
//! every version readable. So one of an hour is enough there ([`Listing::removable`]); all of a busy table's would cost
//! more than its data.

use std::collections::{BTreeMap, HashSet};

use deltalake::kernel::Version;
use deltalake::logstore::object_store::ObjectMeta;
use deltalake::{Path, logstore::commit_uri_from_version};

/// Of the checkpoints that were written within so many milliseconds one stays, and for so long all of them do that somebody
/// may be reading from.
const HOUR: i64 = 3_600_000;

/// What lies in `_delta_log`.
#[derive(Debug, Default)]
pub(super) struct Listing {
    commits: Vec<Commit>,
    checkpoints: Vec<Part>,
    /// Checksums that other writers put beside a version.
    checksums: Vec<(Version, Path)>,
}

/// The entry of a version.
#[derive(Debug, Clone, Copy)]
struct Commit {
    version: Version,
    written: i64,
}

/// A file of a checkpoint.
#[derive(Debug)]
struct Part {
    version: Version,
    number: u32,
    of: u32,
    path: Path,
    written: i64,
    bytes: u64,
}

impl Listing {
    /// Sorts a file in by its name; what is not of the log is left out.
    pub(super) fn add(&mut self, meta: ObjectMeta) {
        let (path, bytes, written) = (meta.location, meta.size, meta.last_modified.timestamp_millis());
        let Some((version, rest)) = path.filename().and_then(|name| name.split_once('.')) else { return };
        let Some(version) = (version.len() == 20).then(|| version.parse().ok()).flatten() else { return };
        let parts: Vec<&str> = rest.split('.').collect();
        match parts.as_slice() {
            ["json"] => self.commits.push(Commit { version, written }),
            ["crc"] => self.checksums.push((version, path)),
            ["checkpoint", "parquet"] => {
                self.checkpoints.push(Part { version, number: 1, of: 1, path, written, bytes });
            }
            ["checkpoint", number, of, "parquet"] => {
                if let (Ok(number), Ok(of)) = (number.parse(), of.parse()) {
                    self.checkpoints.push(Part { version, number, of, path, written, bytes });
                }
            }
            _ => {}
        }
    }

    /// The newest version, whether there is an entry of it or only a checkpoint.
    pub(super) fn newest(&self) -> Option<Version> {
        self.commits.iter().map(|commit| commit.version).max().max(self.newest_checkpoint())
    }

    /// The newest checkpoint all of whose parts are there.
    pub(super) fn newest_checkpoint(&self) -> Option<Version> {
        self.checkpoint_at_most(Version::MAX)
    }

    /// The newest such checkpoint of a version up to `limit`.
    fn checkpoint_at_most(&self, limit: Version) -> Option<Version> {
        self.complete().range(..=limit).next_back().map(|(version, _)| *version)
    }

    /// The checkpoints all of whose parts are there.
    fn complete(&self) -> BTreeMap<Version, Vec<&Part>> {
        let mut checkpoints: BTreeMap<Version, Vec<&Part>> = BTreeMap::new();
        for part in &self.checkpoints {
            checkpoints.entry(part.version).or_default().push(part);
        }
        for parts in checkpoints.values_mut() {
            *parts = one_of(std::mem::take(parts));
        }
        checkpoints.retain(|_, parts| parts.first().is_some_and(|first| parts.len() == first.of as usize));
        checkpoints
    }

    /// The parts of one checkpoint; a single file where there is one.
    fn parts(&self, version: Version) -> Vec<&Part> {
        one_of(self.checkpoints.iter().filter(|part| part.version == version).collect())
    }

    /// The files of one checkpoint, in order.
    pub(super) fn parts_of(&self, version: Version) -> Vec<Path> {
        self.parts(version).into_iter().map(|part| part.path.clone()).collect()
    }

    /// When the last file of a checkpoint was written, in milliseconds since 1970.
    pub(super) fn written(&self, checkpoint: Version) -> Option<i64> {
        self.parts(checkpoint).into_iter().map(|part| part.written).max()
    }

    /// Bytes of a checkpoint.
    pub(super) fn bytes(&self, checkpoint: Version) -> u64 {
        self.parts(checkpoint).into_iter().map(|part| part.bytes).sum()
    }

    /// Whether a version can still be read: from a checkpoint at or before it, or from the first entry on.
    pub(super) fn reaches(&self, version: Version) -> bool {
        let first = self.checkpoint_at_most(version).map_or(0, |checkpoint| checkpoint + 1);
        let entries =
            self.commits.iter().filter(|commit| (first..=version).contains(&commit.version)).count();
        entries as u64 == (version + 1).saturating_sub(first)
    }

    /// Files that nobody needs who reads a version that was the newest at `cutoff` or later.
    ///
    /// Such a version is read from a checkpoint at or before the one that was the newest at `cutoff`, and the entries
    /// after it. What lies before the last such checkpoint may go, and of what lies behind it the checkpoints that only spare
    /// reading at `now`; `named` is the one that `_last_checkpoint` sends readers to.
    pub(super) fn removable(&self, cutoff: i64, now: i64, named: Option<Version>) -> Vec<Path> {
        let base = self.base(cutoff);
        let mut paths: Vec<Path> = base.map(|base| self.before(base)).unwrap_or_default();
        paths.extend(self.surplus(base, now, named));
        paths
    }

    /// The checkpoint from which every version is readable that was the newest at `cutoff` or later.
    fn base(&self, cutoff: i64) -> Option<Version> {
        let young = self.commits.iter().filter(|commit| commit.written > cutoff);
        let at_cutoff = match young.map(|commit| commit.version).min() {
            Some(version) => version.checked_sub(1),
            None => self.newest(),
        };
        self.checkpoint_at_most(at_cutoff?)
    }

    fn before(&self, base: Version) -> Vec<Path> {
        let entries = self.commits.iter().filter(|commit| commit.version < base);
        let entries = entries.map(|commit| commit_uri_from_version(Some(commit.version)));
        let checkpoints = self.checkpoints.iter().map(|part| (part.version, &part.path));
        let rest = checkpoints.chain(self.checksums.iter().map(|(version, path)| (*version, path)));
        let rest = rest.filter(|(version, _)| *version < base).map(|(_, path)| path.clone());
        entries.chain(rest).collect()
    }

    /// Checkpoints after `base` and before the newest that are not the first of their hour, and that no reader can have
    /// begun with lately, because the next one is old as well.
    fn surplus(&self, base: Option<Version>, now: i64, named: Option<Version>) -> Vec<Path> {
        let complete = self.complete();
        let kept: Vec<_> = complete.range(base.unwrap_or(0)..).collect();
        let written = |parts: &[&Part]| parts.iter().map(|part| part.written).max().unwrap_or(i64::MAX);
        let mut hours = HashSet::new();
        let mut surplus = Vec::new();
        for (at, (version, parts)) in kept.iter().enumerate() {
            // Without one after it it is the newest.
            let Some((_, next)) = kept.get(at + 1) else { break };
            let another = !hours.insert(written(parts).div_euclid(HOUR));
            if another && written(next) < now.saturating_sub(HOUR) && Some(**version) != named {
                surplus.extend(parts.iter().map(|part| part.path.clone()));
            }
        }
        surplus
    }
}

/// One checkpoint of those that some files of one version are parts of: a single file where there is one, in order.
fn one_of(mut parts: Vec<&Part>) -> Vec<&Part> {
    let of = parts.iter().map(|part| part.of).min().unwrap_or(0);
    parts.retain(|part| part.of == of);
    parts.sort_unstable_by_key(|part| part.number);
    parts.dedup_by_key(|part| part.number);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listing of files written at the given seconds.
    fn listing(files: &[(&str, i64)]) -> Listing {
        let mut listing = Listing::default();
        for (name, seconds) in files {
            listing.add(ObjectMeta {
                location: Path::from(format!("_delta_log/{name}")),
                last_modified: chrono::DateTime::from_timestamp(*seconds, 0).unwrap(),
                size: 1,
                e_tag: None,
                version: None,
            });
        }
        listing
    }

    fn entry(version: u64) -> String {
        format!("{version:020}.json")
    }

    fn expired(listing: &Listing, seconds: i64) -> Vec<String> {
        let names = listing.removable(seconds * 1000, 0, None).into_iter();
        let mut names: Vec<String> =
            names.map(|path| path.filename().unwrap().trim_start_matches('0').to_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_version_that_was_the_newest_at_the_cutoff_stays_readable() {
        let names: Vec<String> = (0..10).map(entry).collect();
        let mut files: Vec<(&str, i64)> = names.iter().map(String::as_str).zip(0..).collect();
        let checkpoints =
            ["00000000000000000004.checkpoint.parquet", "00000000000000000007.checkpoint.parquet"];
        files.extend([(checkpoints[0], 4), (checkpoints[1], 7)]);
        let listing = listing(&files);
        assert_eq!(expired(&listing, 3), Vec::<String>::new(), "version 3 needs the entries from 0 on");
        assert_eq!(expired(&listing, 4), [".json", "1.json", "2.json", "3.json"]);
        assert_eq!(expired(&listing, 6), expired(&listing, 4));
        let of_seven =
            [".json", "1.json", "2.json", "3.json", "4.checkpoint.parquet", "4.json", "5.json", "6.json"];
        assert_eq!(expired(&listing, 7), of_seven);
        assert_eq!(expired(&listing, 100), of_seven, "the newest checkpoint and what follows it always stay");
    }

    #[test]
    fn a_version_is_within_reach_from_a_checkpoint_or_from_the_first_entry_on() {
        let names: Vec<String> = [0, 1, 3, 5, 6].into_iter().map(entry).collect();
        let mut files: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 0)).collect();
        files.push(("00000000000000000004.checkpoint.parquet", 0));
        let listing = listing(&files);
        let reached: Vec<u64> = (0..=8).filter(|version| listing.reaches(*version)).collect();
        assert_eq!(reached, [0, 1, 4, 5, 6]);
    }

    #[test]
    fn an_incomplete_checkpoint_does_not_count() {
        let half = "00000000000000000001.checkpoint.0000000001.0000000002.parquet";
        let (zero, one) = (entry(0), entry(1));
        let listing = listing(&[(&zero, 0), (&one, 1), (half, 1)]);
        assert_eq!((listing.newest_checkpoint(), expired(&listing, 100)), (None, vec![]));
    }

    #[test]
    fn of_the_checkpoints_of_an_hour_the_first_stays_and_what_somebody_may_be_reading() {
        let hours = |hours: i64, minutes: i64| (hours * 60 + minutes) * 60;
        let checkpoint = |version: u64| format!("{version:020}.checkpoint.parquet");
        // The version and when its checkpoint was written.
        let written = [
            (10, hours(1, 0)),
            (20, hours(1, 20)),
            (30, hours(1, 40)),
            (40, hours(2, 10)),
            (50, hours(2, 30)),
            (60, hours(4, 30)),
            (70, hours(4, 45)),
            (80, hours(5, 0)),
        ];
        let names: Vec<String> = (0..=85).map(entry).collect();
        let mut files: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), hours(9, 0))).collect();
        let checkpoints: Vec<(String, i64)> =
            written.iter().map(|(version, at)| (checkpoint(*version), *at)).collect();
        files.extend(checkpoints.iter().map(|(name, at)| (name.as_str(), *at)));
        let listing = listing(&files);
        let surplus = |now: i64, named: Option<Version>| -> Vec<u64> {
            let paths = listing.removable(0, now * 1000, named).into_iter();
            paths.map(|path| path.filename().unwrap()[..20].parse().unwrap()).collect()
        };
        // 50 was the newest until 60 was written, and 70 until 80 was.
        assert_eq!(surplus(hours(5, 15), None), [20, 30]);
        assert_eq!(surplus(hours(5, 45), None), [20, 30, 50]);
        assert_eq!(surplus(hours(9, 0), None), [20, 30, 50, 70], "never the newest");
        assert_eq!(surplus(hours(9, 0), Some(30)), [20, 50, 70], "where `_last_checkpoint` points stays");
        assert_eq!(surplus(hours(1, 50), None), Vec::<u64>::new());
    }
}
