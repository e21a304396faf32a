//! The Delta log of one table: the only place that reads and writes `_delta_log`.
//!
//! A commit is the put-if-absent of the next version's entry. Two things make that safe to repeat. An entry is
//! recognised as ours by its bytes (they name the instance, the time, and files drawn at random), so a reply that got
//! lost, or that the client's own retry turned into "already exists", still counts as committed. And a commit never
//! looks at the table: whoever calls has to have read the version before it (see `state`).
//!
//! Merges by the library end here as well: [`Log::guarded`] is a log store whose entries go through [`Log::commit`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use deltalake::kernel::Version;
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::object_store::ObjectMeta;
use deltalake::logstore::{CommitOrBytes, LogStore, LogStoreConfig, LogStoreRef, commit_uri_from_version};
use deltalake::{DeltaResult, ObjectStore, ObjectStoreError, Path};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use uuid::Uuid;

use super::checkpoint;
use super::error::LakeError;
use super::listing::Listing;
use super::mor::reader::StoredFile;
use super::state::TableState;
use crate::failpoint;

/// Entries that are fetched at the same time.
const FETCHES: usize = 16;

/// The folder of the log.
const FOLDER: &str = "_delta_log";

/// What a writer of checkpoints says about the newest one: a hint, which may be old, wrong or missing.
#[derive(Deserialize)]
struct LastCheckpoint {
    version: Version,
}

/// How an attempt to commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The entry is in the log.
    Committed,
    /// Somebody else wrote that version.
    Conflict,
}

/// The log of one table.
#[derive(Debug, Clone)]
pub(super) struct Log {
    table: Arc<str>,
    store: LogStoreRef,
    before_commit: &'static str,
}

impl Log {
    /// The log of `table` (its folder, for messages).
    pub(super) fn new(table: &str, store: LogStoreRef) -> Self {
        Self { table: table.into(), store, before_commit: "lake.before_commit" }
    }

    /// The same with the failpoint that stands before each commit.
    pub(super) fn with_failpoint(mut self, before_commit: &'static str) -> Self {
        self.before_commit = before_commit;
        self
    }

    /// The table's folder.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// The store of the table's files.
    pub(super) fn files(&self) -> Arc<dyn ObjectStore> {
        self.store.object_store(None)
    }

    /// A log store for the library whose commits go through [`Log::commit`].
    pub(super) fn guarded(&self) -> LogStoreRef {
        Arc::new(Guarded(self.clone()))
    }

    /// The entry of one version, or `None` where it does not exist.
    pub(super) async fn entry(&self, version: Version) -> Result<Option<Bytes>, LakeError> {
        self.get(&commit_uri_from_version(Some(version))).await
    }

    /// The state at the newest version, or `None` where there is no table.
    pub(super) async fn read(&self) -> Result<Option<TableState>, LakeError> {
        let listing = self.recent().await?;
        let Some(last) = listing.newest() else { return Ok(None) };
        let mut state = TableState::empty(&self.table);
        let mut next = 0;
        if let Some(version) = listing.newest_checkpoint() {
            for path in listing.parts_of(version) {
                let part = StoredFile { store: self.files(), path };
                let each = |line| state.apply_checkpoint_row(line);
                checkpoint::read(&self.table, part, &checkpoint::OF_STATE, each).await?;
            }
            state.stand_at_checkpoint(version, listing.bytes(version));
            next = version + 1;
        }
        let entries = futures::stream::iter(next..=last).map(|version| async move {
            let bytes = self.entry(version).await?.ok_or_else(|| {
                self.unreadable(&format!(
                    "version {version} is missing and no checkpoint that this program reads covers it (classic checkpoints are read, \
                     V2 ones are not)"
                ))
            })?;
            Ok::<_, LakeError>((version, bytes))
        });
        let mut entries = entries.buffered(FETCHES);
        while let Some((version, bytes)) = entries.try_next().await? {
            state.apply(version, &bytes)?;
        }
        self.find_ledger(&mut state, next).await?;
        state.check_supported()?;
        Ok(Some(state))
    }

    /// Reads back from `next` to the newest commit that says what the ledger of key changes is, where no later one does.
    /// Every commit of ours says it, so there are only those of other writers to pass, and of earlier versions of this
    /// program; as many as there are, for a table without its ledger loses values.
    async fn find_ledger(&self, state: &mut TableState, mut next: Version) -> Result<(), LakeError> {
        // The first one mostly has it.
        let mut together = 1;
        while state.lacks_ledger() && next > 0 {
            let first = next.saturating_sub(together);
            let entries = futures::stream::iter((first..next).rev()).map(|version| self.entry(version));
            let mut entries = entries.buffered(FETCHES);
            while let Some(entry) = entries.try_next().await? {
                let Some(entry) = entry else { return Ok(()) };
                state.learn_ledger(&entry);
                if !state.lacks_ledger() {
                    return Ok(());
                }
            }
            (next, together) = (first, FETCHES as u64);
        }
        Ok(())
    }

    /// Writes `entry` as `version` if that version does not exist yet.
    pub(super) async fn commit(&self, version: Version, entry: Bytes) -> Result<Outcome, LakeError> {
        failpoint::hit(self.before_commit);
        let bytes = CommitOrBytes::LogBytes(entry.clone());
        let outcome = match self.store.write_commit_entry(version, bytes, Uuid::new_v4()).await {
            Ok(()) => Outcome::Committed,
            Err(error) => match self.entry(version).await? {
                Some(found) if found == entry => Outcome::Committed,
                Some(_) => Outcome::Conflict,
                None => return Err(self.storage(&error)),
            },
        };
        if outcome == Outcome::Committed {
            failpoint::hit("lake.after_commit");
        }
        Ok(outcome)
    }

    /// The newest version, found by listing.
    pub(super) async fn newest(&self) -> Result<Option<Version>, LakeError> {
        Ok(self.recent().await?.newest())
    }

    /// What lies in `_delta_log` from a checkpoint on, the newest one included. A log that is kept for a week has hundreds
    /// of thousands of entries, and an object store lists them a thousand at a time.
    pub(super) async fn recent(&self) -> Result<Listing, LakeError> {
        if let Some(version) = self.last_checkpoint().await? {
            // Every file of that version comes after its bare number.
            let before = Path::from_iter([FOLDER, &format!("{version:020}")]);
            let found = self.files().list_with_offset(Some(&Path::from(FOLDER)), &before);
            let listing = self.listing(found).await?;
            // Without it the hint says nothing, also not that there is nothing.
            if listing.newest_checkpoint().is_some() {
                return Ok(listing);
            }
        }
        self.list().await
    }

    /// All that lies in `_delta_log`.
    pub(super) async fn list(&self) -> Result<Listing, LakeError> {
        self.listing(self.files().list(Some(&Path::from(FOLDER)))).await
    }

    async fn listing(
        &self,
        mut found: BoxStream<'static, Result<ObjectMeta, ObjectStoreError>>,
    ) -> Result<Listing, LakeError> {
        let mut listing = Listing::default();
        loop {
            match found.try_next().await {
                Ok(Some(meta)) => listing.add(meta),
                Ok(None) | Err(ObjectStoreError::NotFound { .. }) => break,
                Err(error) => return Err(LakeError::store(&self.table, &error)),
            }
        }
        Ok(listing)
    }

    /// The checkpoint that `_last_checkpoint` names, where it names one.
    pub(super) async fn last_checkpoint(&self) -> Result<Option<Version>, LakeError> {
        let hint = self.get(&Path::from_iter([FOLDER, "_last_checkpoint"])).await?;
        let parsed = hint.and_then(|hint| serde_json::from_slice::<LastCheckpoint>(&hint).ok());
        Ok(parsed.map(|hint| hint.version))
    }

    /// A file of the log, or `None` where it does not exist.
    pub(super) async fn get(&self, path: &Path) -> Result<Option<Bytes>, LakeError> {
        let result =
            match self.files().get_opts(path, deltalake::logstore::object_store::GetOptions::default()).await
            {
                Ok(result) => result.bytes().await,
                Err(error) => Err(error),
            };
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ObjectStoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(LakeError::store(&self.table, &error)),
        }
    }

    fn unreadable(&self, message: &str) -> LakeError {
        LakeError::Unreadable { table: self.table.to_string(), message: message.to_owned() }
    }

    fn storage(&self, error: &TransactionError) -> LakeError {
        LakeError::Storage { table: self.table.to_string(), message: error.to_string() }
    }
}

/// The library's view of a log whose commits are ours.
#[derive(Debug)]
struct Guarded(Log);

type Reply<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl LogStore for Guarded {
    /// The library hands over entries as bytes to stores of this name, and as temporary files to others.
    fn name(&self) -> String {
        self.0.store.name()
    }

    fn read_commit_entry<'life, 'reply>(
        &'life self,
        version: Version,
    ) -> Reply<'reply, DeltaResult<Option<Bytes>>>
    where
        'life: 'reply,
        Self: 'reply,
    {
        self.0.store.read_commit_entry(version)
    }

    fn write_commit_entry<'life, 'reply>(
        &'life self,
        version: Version,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> Reply<'reply, Result<(), TransactionError>>
    where
        'life: 'reply,
        Self: 'reply,
    {
        Box::pin(async move {
            let CommitOrBytes::LogBytes(bytes) = commit else {
                return self.0.store.write_commit_entry(version, commit, operation).await;
            };
            failpoint::hit("lake.after_data_files");
            match self.0.commit(version, bytes).await {
                Ok(Outcome::Committed) => Ok(()),
                Ok(Outcome::Conflict) => Err(TransactionError::VersionAlreadyExists(version)),
                Err(error) => Err(TransactionError::ObjectStore {
                    source: ObjectStoreError::Generic { store: "log", source: Box::new(error) },
                }),
            }
        })
    }

    fn abort_commit_entry<'life, 'reply>(
        &'life self,
        version: Version,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> Reply<'reply, Result<(), TransactionError>>
    where
        'life: 'reply,
        Self: 'reply,
    {
        self.0.store.abort_commit_entry(version, commit, operation)
    }

    fn get_latest_version<'life, 'reply>(&'life self, start: Version) -> Reply<'reply, DeltaResult<Version>>
    where
        'life: 'reply,
        Self: 'reply,
    {
        self.0.store.get_latest_version(start)
    }

    fn object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.0.store.object_store(operation)
    }

    fn root_object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.0.store.root_object_store(operation)
    }

    fn config(&self) -> &LogStoreConfig {
        self.0.store.config()
    }
}
