//! The folder of one table's index, and who may use it.
//!
//! Two processes must not write into the same mapped files, so the folder belongs to whoever holds the lock beside it.
//! A second process (another instance that shares the partitions, a rolling update) gets a folder of its own for as
//! long as it lives; it builds its index there, which costs time and nothing else. Such a folder has a lock, too: the kernel
//! lets go of it however the process ends, and a folder whose lock nobody holds is removed by the next who wants one.

use std::fs::{self, File, TryLockError};
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher24;
use uuid::Uuid;

use super::INDEX_FOLDER;

/// Folder of second processes' indexes, with a lock beside each. It lies among the tables' folders, none of which may have
/// this name.
const SECOND: &str = INDEX_FOLDER;

/// A folder that this process alone writes to.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    /// Held for as long as the folder is used.
    _lock: File,
    /// The lock's file, where folder and lock go with the process.
    second: Option<PathBuf>,
}

impl Home {
    /// The folder `table` below `root`, or one of its own where another process has it.
    ///
    /// # Errors
    /// Where neither can be created.
    pub(super) fn acquire(root: &Path, table: &str) -> io::Result<Self> {
        sweep(&root.join(SECOND));
        let folder = root.join(table);
        fs::create_dir_all(&folder)?;
        let lock = open_lock(&root.join(format!("{}.lock", table.replace('/', "~"))))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder, _lock: lock, second: None }),
            Err(TryLockError::WouldBlock) => {
                tracing::info!(table, "another process uses the table's index, this one builds its own");
                Self::second(&root.join(SECOND))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// A folder of its own. Its lock is held before it gets the name by which others look for locks that nobody holds.
    fn second(seconds: &Path) -> io::Result<Self> {
        let folder = seconds.join(Uuid::new_v4().to_string());
        let (unnamed, named) = (folder.with_extension("new"), folder.with_extension("lock"));
        fs::create_dir_all(seconds)?;
        let lock = open_lock(&unnamed)?;
        lock.lock()?;
        fs::rename(&unnamed, &named)?;
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, _lock: lock, second: Some(named) })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the index outlives this process.
    #[cfg(test)]
    fn lasts(&self) -> bool {
        self.second.is_none()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(lock) = &self.second {
            remove(&self.folder, lock);
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

/// Removes the folders of processes that are gone. Whatever is in the way stays for the next time.
fn sweep(seconds: &Path) {
    let Ok(entries) = fs::read_dir(seconds) else { return };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "lock")) {
        // Not created anew: another one may just have removed it.
        let Ok(lock) = File::options().write(true).open(&path) else { continue };
        if lock.try_lock().is_ok() {
            tracing::info!(folder = %path.display(), "a process was killed that had an index of its own; it is removed");
            remove(&path.with_extension(""), &path);
        }
    }
}

/// Removes the folder of a second process and, once that is done, its lock.
fn remove(folder: &Path, lock: &Path) {
    let removed = match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::remove_file(lock),
    };
    if let Err(error) = removed {
        tracing::debug!(folder = %folder.display(), %error, "an index was left behind");
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
        assert_eq!(left_in(root.path()), [0; 0]);
        drop(first);
        assert!(Home::acquire(root.path(), "shop/orders").unwrap().lasts());
    }

    /// Files in each folder of a second process, and one for each lock.
    fn left_in(root: &Path) -> Vec<usize> {
        let entries = fs::read_dir(root.join(SECOND)).unwrap();
        entries.map(|entry| fs::read_dir(entry.unwrap().path()).map_or(1, Iterator::count)).collect()
    }

    #[test]
    fn the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let first = Home::acquire(root.path(), "orders").unwrap();
        let second = Home::acquire(root.path(), "orders").unwrap();
        // As the kernel leaves it: nothing was removed, and nobody holds the lock.
        let killed = second.folder().with_file_name("killed");
        for folder in [second.folder(), &killed] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("shard"), "keys").unwrap();
        }
        fs::write(killed.with_extension("lock"), "").unwrap();
        let next = Home::acquire(root.path(), "items").unwrap();
        assert!(!killed.exists() && !killed.with_extension("lock").exists(), "{killed:?}");
        assert!(second.folder().join("shard").exists(), "it is in use");
        drop((first, second, next));
        assert_eq!(left_in(root.path()), [0; 0]);
    }
}
