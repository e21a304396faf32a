//! Whether the lake's storage can be written, and keeps what is there from being overwritten: one small object is put
//! there and removed again.

use std::path::{Path, PathBuf};

use deltalake::logstore::object_store::path::Path as ObjectPath;
use deltalake::logstore::object_store::{ObjectStoreExt, PutMode};
use deltalake::logstore::{StorageConfig, logstore_for};
use deltalake::{ObjectStore, ObjectStoreError};
use url::Url;

use super::{Finding, PATIENCE};
use crate::config::Lake;

/// Name of the object. It begins with `_`, so that no reader takes it for data.
const PROBE: &str = "_alluvium_check";

pub(super) async fn check(lake: &Lake) -> Vec<Finding> {
    let written = match local(&lake.uri) {
        Some(folder) => in_folder(&folder).map_err(|error| Outcome::Refused(error.to_string())),
        None => match tokio::time::timeout(PATIENCE, in_store(lake)).await {
            Ok(written) => written,
            Err(_) => Err(Outcome::Silent(format!("no answer within {} s", PATIENCE.as_secs()))),
        },
    };
    vec![match written {
        Ok(()) => Finding::ok("lake", format!("{} can be written", lake.uri)),
        Err(Outcome::Refused(reason)) => Finding::fail(
            "lake",
            format!("{} cannot be written: {reason}", lake.uri),
            "see lake.uri, and whether this user, or lake.storage_options, may write there",
        ),
        Err(Outcome::Silent(reason)) => Finding::unreachable(
            "lake",
            format!("{}: {reason}", lake.uri),
            Some(
                "see lake.storage_options: address (AWS_ALLOW_HTTP for http), region, credentials".to_owned(),
            ),
        ),
    }]
}

/// Why the storage cannot be written.
enum Outcome {
    /// It said so, or is not what the settings say.
    Refused(String),
    /// It did not answer.
    Silent(String),
}

fn local(uri: &str) -> Option<PathBuf> {
    if uri.contains("://") { Url::parse(uri).ok()?.to_file_path().ok() } else { Some(PathBuf::from(uri)) }
}

/// Writes where `run` would, and leaves what was there before.
fn in_folder(folder: &Path) -> std::io::Result<()> {
    let was_there = folder.exists();
    std::fs::create_dir_all(folder)?;
    let probe = folder.join(PROBE);
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    if !was_there {
        // It holds nothing; if it cannot be removed, it does no harm.
        let _ = std::fs::remove_dir(folder);
    }
    written
}

async fn in_store(lake: &Lake) -> Result<(), Outcome> {
    let refused = |error: &dyn std::fmt::Display| Outcome::Refused(error.to_string());
    deltalake::aws::register_handlers(None);
    let root = Url::parse(&lake.uri).map_err(|error| refused(&error))?;
    let options = lake.storage_options.reveal().map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = StorageConfig::parse_options(options).map_err(|error| refused(&error))?;
    let store = logstore_for(&root, config).map_err(|error| refused(&error))?.object_store(None);
    write_once(store.as_ref()).await
}

/// Puts the object twice: the second has to be refused, for that is how commits to a table's log find out that
/// somebody else was first.
async fn write_once(store: &dyn ObjectStore) -> Result<(), Outcome> {
    let probe = ObjectPath::from(PROBE);
    let put = || store.put_opts(&probe, Vec::new().into(), PutMode::Create.into());
    // A check that was interrupted may have left it.
    match store.delete(&probe).await {
        Ok(()) | Err(ObjectStoreError::NotFound { .. }) => {}
        Err(error) => return Err(outcome(error)),
    }
    put().await.map_err(outcome)?;
    let second = put().await;
    store.delete(&probe).await.map_err(outcome)?;
    match second {
        Err(ObjectStoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(outcome(error)),
        Ok(_) => Err(Outcome::Refused(
            "the store overwrites an object that it was asked to create only if absent (PUT with If-None-Match), so \
             that two writers would lose each other's commits"
                .to_owned(),
        )),
    }
}

fn outcome(error: ObjectStoreError) -> Outcome {
    match error {
        // The library's class for whatever the network does.
        ObjectStoreError::Generic { source, .. } => Outcome::Silent(source.to_string()),
        other => Outcome::Refused(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("lake");
        in_folder(&missing).unwrap();
        assert!(!missing.exists());
        in_folder(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_store_that_refuses_to_overwrite_passes_and_is_left_as_it_was() {
        let store = deltalake::logstore::object_store::memory::InMemory::new();
        store.put(&ObjectPath::from(PROBE), Vec::new().into()).await.unwrap();
        assert!(write_once(&store).await.is_ok());
        assert!(store.head(&ObjectPath::from(PROBE)).await.is_err());
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lake");
        std::fs::write(&file, b"x").unwrap();
        assert!(in_folder(&file).is_err());
    }
}
