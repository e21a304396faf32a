//! What lies in `_delta_log`: which versions and checkpoints are there, and since when.
//!
//! Names alone say what a file is. Times are the storage's: a copied lake looks young, so what is judged by age is then
//! kept for longer, never for shorter.

use deltalake::kernel::Version;
use deltalake::logstore::object_store::ObjectMeta;
use deltalake::{Path, logstore::commit_uri_from_version};

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
}

impl Listing {
    /// Sorts a file in by its name; what is not of the log is left out.
    pub(super) fn add(&mut self, meta: ObjectMeta) {
        let (path, written) = (meta.location, meta.last_modified.timestamp_millis());
        let Some((version, rest)) = path.filename().and_then(|name| name.split_once('.')) else { return };
        let Some(version) = (version.len() == 20).then(|| version.parse().ok()).flatten() else { return };
        let parts: Vec<&str> = rest.split('.').collect();
        match parts.as_slice() {
            ["json"] => self.commits.push(Commit { version, written }),
            ["crc"] => self.checksums.push((version, path)),
            ["checkpoint", "parquet"] => {
                self.checkpoints.push(Part { version, number: 1, of: 1, path, written });
            }
            ["checkpoint", number, of, "parquet"] => {
                if let (Ok(number), Ok(of)) = (number.parse(), of.parse()) {
                    self.checkpoints.push(Part { version, number, of, path, written });
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
        let complete = |part: &&Part| self.parts(part.version).len() == part.of as usize;
        let versions = self.checkpoints.iter().filter(|part| part.version <= limit);
        versions.filter(complete).map(|part| part.version).max()
    }

    /// The parts of one checkpoint; a single file where there is one.
    fn parts(&self, version: Version) -> Vec<&Part> {
        let of_version = || self.checkpoints.iter().filter(move |part| part.version == version);
        if let Some(single) = of_version().find(|part| part.of == 1) {
            return vec![single];
        }
        let of = of_version().map(|part| part.of).min().unwrap_or(0);
        let mut parts: Vec<&Part> = of_version().filter(|part| part.of == of).collect();
        parts.sort_unstable_by_key(|part| part.number);
        parts.dedup_by_key(|part| part.number);
        parts
    }

    /// The files of one checkpoint, in order.
    pub(super) fn parts_of(&self, version: Version) -> Vec<Path> {
        self.parts(version).into_iter().map(|part| part.path.clone()).collect()
    }

    /// When the last file of a checkpoint was written, in milliseconds since 1970.
    pub(super) fn written(&self, checkpoint: Version) -> Option<i64> {
        self.parts(checkpoint).into_iter().map(|part| part.written).max()
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
    /// after it. What lies before the last such checkpoint may go.
    pub(super) fn expired(&self, cutoff: i64) -> Vec<Path> {
        let mut commits = self.commits.clone();
        commits.sort_unstable_by_key(|commit| commit.version);
        let first_kept = commits.iter().find(|commit| commit.written > cutoff).map(|commit| commit.version);
        let at_cutoff = match first_kept {
            Some(version) => version.checked_sub(1),
            None => self.newest(),
        };
        let Some(base) = at_cutoff.and_then(|version| self.checkpoint_at_most(version)) else {
            return Vec::new();
        };
        let entries = commits.iter().filter(|commit| commit.version < base);
        let entries = entries.map(|commit| commit_uri_from_version(Some(commit.version)));
        let checkpoints = self.checkpoints.iter().map(|part| (part.version, &part.path));
        let rest = checkpoints.chain(self.checksums.iter().map(|(version, path)| (*version, path)));
        let rest = rest.filter(|(version, _)| *version < base).map(|(_, path)| path.clone());
        entries.chain(rest).collect()
    }
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
        let names = listing.expired(seconds * 1000).into_iter();
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
}
