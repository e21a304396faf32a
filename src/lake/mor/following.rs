//! The index of a table between its commits: opened, brought to the table's version, moved along with a commit of ours.
//!
//! The commit comes first, always. What goes wrong here therefore costs time and nothing else: the index is opened again,
//! and what it misses is read from the log.

use super::MergeOnRead;
use super::files::DataFiles;
use super::home::Home;
use super::keys::KeyCodec;
use super::locate::{self, Locator, OwnCommit, identity};
use crate::change::{IndexFigures, TableSchema};
use crate::lake::error::LakeError;
use crate::lake::index::KeyIndex;
use crate::lake::shape::Shape;
use crate::lake::table::Table;

impl MergeOnRead {
    /// Opens the index where it is not open yet, and brings it to the table's version.
    pub(super) async fn follow(
        &mut self,
        table: &Table,
        (codec, shape): (&KeyCodec, Shape),
        files: &DataFiles,
    ) -> Result<(), LakeError> {
        let identity = identity(&table.state, codec);
        let mut locator = match self.locator.take().filter(|locator| locator.is_of(&identity)) {
            Some(locator) => locator,
            None => Home::acquire(&self.index_root, table.log.table())
                .and_then(|home| Locator::open(home, identity, codec.clone(), shape, self.builds.clone()))
                .map_err(|error| locate::failed(table.log.table(), &error))?,
        };
        // After an error it is opened again, and what it misses is read from the log.
        self.rebuilds += u64::from(locator.follow(table, files).await?);
        self.locator = Some(locator);
        Ok(())
    }

    /// Brings an open index to the table's version while there is time: what it could not learn from the commits
    /// themselves, the next batch would have to read before it can begin.
    pub(in crate::lake) async fn keep_up(&mut self, table: &Table, (schema, shape): (&TableSchema, Shape)) {
        if self.locator.is_none() {
            return;
        }
        if let Err(error) = self.before_rewrite(table, (schema, shape)).await {
            tracing::warn!(%error, "the key index did not follow; the next batch tries again");
        }
    }

    /// Brings the index to the table's version before all files are rewritten, row by row at their places.
    pub(in crate::lake) async fn before_rewrite(
        &mut self,
        table: &Table,
        (schema, shape): (&TableSchema, Shape),
    ) -> Result<(), LakeError> {
        let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
        let codec = self.codec(schema);
        self.follow(table, (&codec, shape), &files).await
    }

    /// Lets the index follow a commit by which other files took the places of files, with the same rows. The index of
    /// another key is none of these; it is built anew. Where the whole row is the key, its bytes may have changed: then
    /// the commit is read from the log.
    pub(in crate::lake) fn rewritten(
        &mut self,
        version: u64,
        entry: &[u8],
        files: &[(String, Option<String>)],
    ) {
        for (from, _) in files {
            self.vectors.forget(from);
        }
        let Some(locator) = &mut self.locator else { return };
        if locator.has_whole_rows() {
            self.locator = None;
            return;
        }
        if let Err(error) = locator.rewritten(version, entry, files) {
            tracing::warn!(%error, "the key index could not follow a rewrite; it is opened again");
            self.locator = None;
        }
    }

    /// Lets the index follow a commit that is in the log. Where it cannot, it is opened again and reads the entry.
    pub(super) fn index_follows(&mut self, commit: &OwnCommit<'_>) {
        let Some(locator) = &mut self.locator else { return };
        if let Err(error) = locator.apply(commit) {
            tracing::warn!(%error, "the key index could not follow a commit; it is opened again");
            self.locator = None;
        }
    }

    /// What the index is like, and how often it was built anew since the last call; `None` where it is not open and was
    /// not built.
    pub(in crate::lake) fn figures(&mut self) -> Option<IndexFigures> {
        let rebuilds = std::mem::take(&mut self.rebuilds);
        let index = self.locator.as_ref().and_then(|locator| locator.index().ok());
        (index.is_some() || rebuilds > 0).then(|| IndexFigures {
            keys: index.map_or(0, KeyIndex::len) as u64,
            bytes: index.map_or(0, KeyIndex::bytes),
            rebuilds,
        })
    }

    /// The version at which the open index stands.
    #[cfg(test)]
    pub(in crate::lake) fn index_version(&self) -> Option<i64> {
        self.locator.as_ref()?.index().ok()?.version()
    }
}
