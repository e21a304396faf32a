//! Writing checkpoints, beside the batches.
//!
//! A checkpoint names every file of its table and every one that left it within the retention, so it grows with both, and
//! writing it takes seconds where there are millions. It is therefore a task of its own that no batch waits for, one at a
//! time for the whole lake. And it is due by what it spares readers: after a number of commits or of bytes of log, but not
//! before there is half as much log as the last one had bytes: what checkpoints write then is at most a few times what
//! commits do. Only a limit of commits comes before that, which keeps the entries few that a reader fetches one by one.
//!
//! It is made by the library, from the log alone: the state in memory has not kept what left the table. The library waits
//! for tasks of its own and panics when the runtime under it ends, as it does with the process; so it has one that does not.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use delta_kernel::{DeltaResult, Engine, Snapshot};
use deltalake::Path;
use deltalake::kernel::Version;
use deltalake::logstore::LogStore;
use deltalake::logstore::object_store::ObjectStoreExt;
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::error::LakeError;
use super::landing::Background;
use super::log::Log;
use super::state::TableState;
use super::table::Table;

/// Bytes of a checkpoint whose cost is not looked at.
const CHEAP: u64 = 256 << 10;
/// How many times the number of commits may pass before one is written whatever it costs.
const PATIENCE: u64 = 10;

/// How often somebody who waits for a checkpoint looks whether it is there.
const LOOKS: Duration = Duration::from_millis(20);

/// Where checkpoints are made. It ends with the process.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(1).thread_name("checkpoints").enable_all().build()
});

/// When a checkpoint is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// After so many commits.
    pub(super) commits: u64,
    /// Or so many bytes of log.
    pub(super) bytes: u64,
}

impl Pace {
    fn is_due(self, state: &TableState) -> bool {
        let since = (state.commits_since_checkpoint(), state.log_bytes_since_checkpoint());
        self.is_due_after(since, state.checkpoint_bytes())
    }

    /// Whether one is due after so many commits and bytes of log, where the last one has `last` bytes.
    fn is_due_after(self, (commits, bytes): (u64, u64), last: u64) -> bool {
        let wanted = commits >= self.commits || (bytes >= self.bytes && commits > 1);
        let is_worth_it =
            last <= CHEAP || bytes >= last / 2 || commits >= self.commits.saturating_mul(PATIENCE);
        wanted && is_worth_it
    }
}

/// A checkpoint that is being written.
#[derive(Debug)]
struct Running {
    folder: String,
    version: Version,
    /// Bytes of log since the one before.
    covered: u64,
    /// Ends with its bytes.
    work: Background<u64>,
}

/// Writes the checkpoints of a lake, one after the other.
#[derive(Debug, Default)]
pub(super) struct Checkpointer {
    running: Option<Running>,
}

impl Checkpointer {
    /// Waits for the checkpoint that is being written; `false` where none is.
    pub(super) async fn wait(&self) -> bool {
        let Some(running) = &self.running else { return false };
        while !running.work.is_finished() {
            tokio::time::sleep(LOOKS).await;
        }
        true
    }

    /// Takes note of a checkpoint that has been written, and begins with the one that is due for longest.
    pub(super) async fn step(&mut self, mut tables: Vec<&mut Table>, pace: Pace) {
        if let Some(running) = self.running.take_if(|running| running.work.is_finished()) {
            let Running { folder, version, covered, work } = running;
            let written = work.join(&folder).await;
            if let Some(table) = tables.iter_mut().find(|table| table.log.table() == folder) {
                table.checkpointed(version, covered, written);
            }
        }
        if self.running.is_some() {
            return;
        }
        let due = tables.into_iter().filter(|table| table.checkpoints.is_over() && pace.is_due(&table.state));
        if let Some(table) = due.max_by_key(|table| table.state.commits_since_checkpoint()) {
            let version = table.state.version();
            self.running = Some(Running {
                folder: table.log.table().to_owned(),
                version,
                covered: table.state.log_bytes_since_checkpoint(),
                work: Background::start(write_apart(table.log.clone(), version)),
            });
        }
    }
}

impl Table {
    /// Takes note of how writing a checkpoint ended.
    fn checkpointed(&mut self, version: Version, covered: u64, written: Result<u64, LakeError>) {
        let table = self.log.table();
        match written {
            Ok(bytes) => {
                tracing::debug!(table, version, bytes, "wrote checkpoint");
                self.state.checkpointed(version, bytes, covered);
                self.checkpoints.done();
            }
            Err(error) => {
                tracing::warn!(table, version, %error, "a checkpoint could not be written, trying again later");
                self.checkpoints.failed();
            }
        }
    }
}

/// Has the checkpoint of a version written by the runtime for that; it goes on where nobody waits any more.
async fn write_apart(log: Log, version: Version) -> Result<u64, LakeError> {
    let failed = |table: &str, error: &dyn std::fmt::Display| LakeError::Storage {
        table: table.to_owned(),
        message: format!("checkpoint of version {version}: {error}"),
    };
    let table = log.table().to_owned();
    match &*RUNTIME {
        Ok(runtime) => runtime.spawn(write(log, version)).await.map_err(|error| failed(&table, &error))?,
        Err(error) => Err(failed(&table, error)),
    }
}

/// Writes the checkpoint of a version and says how many bytes it has.
async fn write(log: Log, version: Version) -> Result<u64, LakeError> {
    let failed = |error: &dyn std::fmt::Display| LakeError::Storage {
        table: log.table().to_owned(),
        message: format!("checkpoint of version {version}: {error}"),
    };
    let store = log.guarded();
    let root = store.transaction_url(None).map_err(|error| failed(&error))?;
    let engine = store.engine(None);
    // The library builds a checkpoint in one blocking call.
    tokio::task::spawn_blocking(move || checkpoint(&engine, &root, version))
        .await
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))?;
    let path = Path::from(format!("_delta_log/{version:020}.checkpoint.parquet"));
    // Another kind of checkpoint has another name; a size that is not known is not looked at.
    Ok(log.files().head(&path).await.map_or(0, |meta| meta.size))
}

fn checkpoint(engine: &Arc<dyn Engine>, root: &Url, version: Version) -> DeltaResult<()> {
    let snapshot = Snapshot::builder_for(root).at_version(version).build(engine.as_ref())?;
    snapshot.checkpoint(engine.as_ref(), None).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { commits: 100, bytes: 16 << 20 };

    #[test]
    fn small_checkpoints_are_due_by_commits_or_by_bytes_of_log() {
        for (since, expected) in
            [((99, 1 << 20), false), ((100, 0), true), ((1, 20 << 20), false), ((2, 20 << 20), true)]
        {
            assert_eq!(PACE.is_due_after(since, 100 << 10), expected, "{since:?}");
        }
    }

    #[test]
    fn the_cost_of_checkpoints_stays_in_proportion_to_the_log_whatever_they_grow_to() {
        // Each commit writes 6 KB of log, of which 280 bytes stay in every checkpoint: it grows without end.
        let (log, kept) = (6_000, 280);
        let (mut size, mut since, mut written) = (0, (0, 0), 0);
        let mut longest = 0;
        let commits = 200_000;
        for commit in 1..=commits {
            since = (since.0 + 1, since.1 + log);
            longest = longest.max(since.0);
            if PACE.is_due_after(since, size) {
                size = commit * kept;
                written += size;
                since = (0, 0);
            }
        }
        assert!(longest <= 1000, "{longest} entries between two checkpoints");
        let (all, every_hundred) = (written / commits, commits / 100 * kept / 2);
        assert!(all * 8 < every_hundred, "{all} bytes a commit, against {every_hundred}");
    }
}
