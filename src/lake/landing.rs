//! How files that were written anew come into the log: a step of compaction reads and writes for as long as it takes,
//! beside the batches where that is long, and is then committed behind whatever others have committed meanwhile.
//!
//! Invariant: what lands has the rows of the table as it is, not as it was when it was read. Each attempt makes the commit
//! anew, for the state that it is put on; where that has not what was read any more, nothing lands.

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::error::LakeError;
use super::log::Outcome;
use super::moment::Moment;
use super::state::TableState;
use super::table::{ATTEMPTS, Table, Writer};

/// Files that were written anew, and the commit that puts them in place of what they were made of.
pub(super) trait Rewrite {
    /// The commit on top of `state`; `None` where the state no longer has what was read.
    fn entry(&mut self, state: &TableState) -> impl Future<Output = Result<Option<Bytes>, LakeError>> + Send;

    /// When the first of the files was written, or begun.
    fn since(&self) -> Moment;
}

/// How a rewrite ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Landed {
    /// As the next version of the table's state, which has it: the commit.
    Next(Bytes),
    /// Behind commits of others. The table's state stands where it stood: what they did to positions is for the next
    /// batch to see, which has to know whether it was fenced.
    Behind,
    /// Not at all: others changed what it was made of, or were faster every time.
    No,
}

/// Bytes of files that are read at once; a step that reads more does so beside the batches.
pub(super) const AT_ONCE: i64 = if cfg!(test) { 256 << 10 } else { 4 << 20 };

/// Reading and writing beside the batches, ended with whoever waits for it.
pub(super) struct Background<T>(JoinHandle<Result<T, LakeError>>);

impl<T: Send + 'static> Background<T> {
    pub(super) fn start(work: impl Future<Output = Result<T, LakeError>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub(super) async fn join(mut self, table: &str) -> Result<T, LakeError> {
        (&mut self.0)
            .await
            .map_err(|error| LakeError::Storage { table: table.to_owned(), message: error.to_string() })?
    }
}

impl<T> std::fmt::Debug for Background<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Background").field("is_finished", &self.0.is_finished()).finish()
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is due, or the table is not one that can be compacted here.
    Nothing,
    /// Another writer came between.
    Lost,
    /// So many files were put together, or lost their deleted rows.
    Done(usize),
}

impl Landed {
    /// The step of so many files that ended like this.
    pub(super) fn step(&self, files: usize) -> Step {
        if *self == Self::No { Step::Lost } else { Step::Done(files) }
    }
}

impl Table {
    /// Commits a rewrite, behind what others commit meanwhile.
    pub(super) async fn commit_rewrite(
        &mut self,
        rewrite: &mut impl Rewrite,
        writer: &Writer,
    ) -> Result<Landed, LakeError> {
        let Some(entry) = self.timely_entry(rewrite, &self.state).await? else { return Ok(Landed::No) };
        if self.commit(entry.clone()).await? == Outcome::Committed {
            return Ok(Landed::Next(entry));
        }
        let mut state = self.state.clone();
        for _ in 1..ATTEMPTS {
            if state.catch_up(&self.log, &writer.id).await?.metadata {
                return Ok(Landed::No);
            }
            let Some(entry) = self.timely_entry(rewrite, &state).await? else { return Ok(Landed::No) };
            if self.log.commit(state.next_version(), entry).await? == Outcome::Committed {
                return Ok(Landed::Behind);
            }
        }
        Ok(Landed::No)
    }

    /// The commit, unless the files are so old that a vacuum may have taken them.
    async fn timely_entry(
        &self,
        rewrite: &mut impl Rewrite,
        state: &TableState,
    ) -> Result<Option<Bytes>, LakeError> {
        let entry = rewrite.entry(state).await?;
        let age = rewrite.since().age();
        if rewrite.since().is_long_ago() {
            tracing::warn!(
                table = self.log.table(),
                ?age,
                "compaction came too late to its commit, and begins anew"
            );
            return Ok(None);
        }
        Ok(entry)
    }
}
