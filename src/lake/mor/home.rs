//! The folder of one table's index, and who may use it.
//!
//! Two processes must not write into the same mapped files, so the folder belongs to whoever holds the lock beside it.
//! A second process (another instance that shares the partitions, a rolling update) gets a folder of its own for as
//! long as it lives; it builds its index there, which costs time and nothing else.

use std::fs::{self, File, TryLockError};
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher24;

/// A folder that this process alone writes to.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    /// Held for as long as the folder is used; `None` for a folder of our own.
    lock: Option<File>,
}

impl Home {
    /// The folder `table` below `root`, or a temporary one where another process has it.
    ///
    /// # Errors
    /// Where neither can be created.
    pub(super) fn acquire(root: &Path, table: &str) -> io::Result<Self> {
        let folder = root.join(table);
        fs::create_dir_all(&folder)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join(format!("{}.lock", table.replace('/', "~"))))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder, lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => {
                let own = std::env::temp_dir().join(format!("alluvium-index-{}", uuid::Uuid::new_v4()));
                fs::create_dir_all(&own)?;
                tracing::info!(table, "another process uses the table's index, this one builds its own");
                Ok(Self { folder: own, lock: None })
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the index outlives this process.
    #[cfg(test)]
    fn lasts(&self) -> bool {
        self.lock.is_some()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.lock.is_none()
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            tracing::debug!(folder = %self.folder.display(), %error, "temporary index left behind");
        }
    }
}

/// Where the indexes of a lake go that has no local folder: the user's cache, in a folder of the lake's own.
pub(super) fn in_cache(root: &str) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    let mut hasher = SipHasher24::new();
    hasher.write(root.as_bytes());
    cache.join("alluvium").join("index").join(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_gets_a_folder_of_its_own_that_goes_with_it() {
        let root = tempfile::tempdir().unwrap();
        let first = Home::acquire(root.path(), "shop/orders").unwrap();
        let second = Home::acquire(root.path(), "shop/orders").unwrap();
        assert!(first.lasts() && !second.lasts());
        let temporary = second.folder().to_owned();
        drop(second);
        assert!(!temporary.exists());
        drop(first);
        assert!(Home::acquire(root.path(), "shop/orders").unwrap().lasts());
    }
}
