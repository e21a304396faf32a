//! The header: which table the index is of, at which version it stands, and whether it may be trusted.
//!
//! A small JSON file with a checksum, replaced as a whole. It is not synced: after a crash of the process the page
//! cache has the newest; after a start of the machine the boot id differs and the index is not trusted at all.

use std::fs;
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use super::key::Secret;

/// Number of the format. Another number means that the index is built anew.
const FORMAT: u32 = 1;

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
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    header: String,
    checksum: u64,
}

impl Header {
    pub(super) fn new(identity: &IndexIdentity) -> Self {
        let secret = std::array::from_fn(|_| fastrand::u64(..));
        Self { format: FORMAT, identity: identity.clone(), secret, boot: None, version: None, entry: None }
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
        if header.boot == Some(boot_id()) {
            Ok(header)
        } else {
            Err(unusable("the machine has started anew since it was written"))
        }
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

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Changes at every start of the machine (random(4)); empty where the system has none, and then restarts of
/// the machine are not told apart.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
