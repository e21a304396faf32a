//! The header: which table the index is of, at which version it stands, and whether it may be trusted.
//!
//! A small JSON file with a checksum, replaced as a whole. It is not synced: after a crash of the process the page
//! cache has the newest; after a start of the machine the boot id differs and the index is not trusted at all. While an
//! index is open its header says so; one that was closed in order has the checksum of its entries, which is compared
//! when it is opened again.

use std::fs;
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;
use uuid::Uuid;

use super::key::Secret;

/// Number of the format. Another number means that the index is built anew.
const FORMAT: u32 = 2;

/// What an index belongs to: any difference makes it another index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexIdentity {
    /// Id of the Delta table (`metaData.id`).
    pub table_id: String,
    /// The key columns and their types, in key order.
    pub key: Vec<String>,
    /// Whether every key is encoded in one width of at most sixteen bytes, and so stored as it is.
    pub exact: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    identity: IndexIdentity,
    secret: Secret,
    /// Boot id of the machine since its pages were last in memory.
    boot: Option<String>,
    version: Option<i64>,
    /// Checksum of the log entry of that version.
    entry: Option<u64>,
    /// Checksum of the shards and the list of files, where the index was closed in order; `None` while it is open.
    closed: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    header: String,
    checksum: u64,
}

impl Header {
    pub(super) fn new(identity: &IndexIdentity) -> Self {
        Self {
            format: FORMAT,
            identity: identity.clone(),
            secret: draw(),
            boot: None,
            version: None,
            entry: None,
            closed: None,
        }
    }

    /// Reads the header in `folder`.
    pub(super) fn read(folder: &Path, identity: &IndexIdentity) -> io::Result<Self> {
        let sealed: Sealed = serde_json::from_slice(&fs::read(path(folder))?)?;
        if checksum(sealed.header.as_bytes()) != sealed.checksum {
            return Err(unusable("its header is damaged"));
        }
        let header: Self = serde_json::from_str(&sealed.header)?;
        if header.format != FORMAT {
            return Err(unusable("it has another format"));
        }
        if header.identity != *identity {
            return Err(unusable("it belongs to another table, or to another key"));
        }
        if header.is_of_boot(&boot_id()) {
            Ok(header)
        } else {
            Err(unusable("the machine has started anew since it was written, or has no boot id"))
        }
    }

    /// Whether it was written since the machine started. Where the machine does not tell its starts apart, nobody knows.
    fn is_of_boot(&self, boot: &str) -> bool {
        !boot.is_empty() && self.boot.as_deref() == Some(boot)
    }

    /// The checksum of shards and list, where the index was closed in order.
    pub(super) fn closed(&self) -> Option<u64> {
        self.closed
    }

    pub(super) fn identity(&self) -> &IndexIdentity {
        &self.identity
    }

    pub(super) fn secret(&self) -> Secret {
        self.secret
    }

    pub(super) fn version(&self) -> Option<i64> {
        self.version
    }

    pub(super) fn stands_on(&self, entry: &[u8]) -> bool {
        self.entry == Some(checksum(entry))
    }

    pub(super) fn set_version(
        &mut self,
        folder: &Path,
        version: i64,
        entry: Option<&[u8]>,
    ) -> io::Result<()> {
        self.version = Some(version);
        self.entry = entry.map(checksum);
        self.write(folder)
    }

    pub(super) fn mark_open(&mut self, folder: &Path) -> io::Result<()> {
        self.boot = Some(boot_id());
        self.closed = None;
        self.write(folder)
    }

    /// Says that the index is not written to any more, and what the checksum of shards and list is.
    pub(super) fn close(&mut self, folder: &Path, checksum: u64) -> io::Result<()> {
        self.closed = Some(checksum);
        self.write(folder)
    }

    /// As if the index had been opened before the machine started.
    #[cfg(test)]
    pub(super) fn pretend_boot(&mut self, boot: &str) {
        self.boot = Some(boot.to_owned());
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let header = serde_json::to_string(self)?;
        let sealed = Sealed { checksum: checksum(header.as_bytes()), header };
        let beside = folder.join("header.new");
        fs::write(&beside, serde_json::to_vec(&sealed)?)?;
        fs::rename(beside, path(folder))
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("header.json")
}

fn unusable(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Words that nobody can guess: of each id 122 bits are from the generator of the system.
fn draw() -> Secret {
    let (one, other) = (Uuid::new_v4().as_u64_pair(), Uuid::new_v4().as_u64_pair());
    [one.0, one.1, other.0, other.1]
}

/// Changes at every start of the machine (random(4)); empty where the system has none.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn header() -> Header {
        Header::new(&IndexIdentity { table_id: "t".into(), key: vec!["id bigint".into()], exact: true })
    }

    #[test]
    fn where_the_machine_has_no_boot_id_no_index_is_trusted() {
        let mut header = header();
        assert!(!header.is_of_boot(""), "written before there was a boot id");
        header.pretend_boot("");
        assert!(!header.is_of_boot(""));
        header.pretend_boot("one");
        assert!(header.is_of_boot("one") && !header.is_of_boot("another") && !header.is_of_boot(""));
    }

    #[test]
    fn the_secret_does_not_follow_from_the_seed_of_the_process() {
        let seeded = || {
            fastrand::seed(7);
            header().secret
        };
        assert_ne!(seeded(), seeded());
    }
}
