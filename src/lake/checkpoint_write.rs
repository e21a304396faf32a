//! Writing checkpoints.
//!
//! They are written between batches, never inside a commit. A checkpoint is due after a number of commits, or earlier after a
//! number of bytes of log, because what a reader has to fetch is bytes. The library's full snapshot lives only here.

use deltalake::checkpoints::create_checkpoint;
use deltalake::{DeltaResult, DeltaTable};

use super::error::LakeError;
use super::table::Table;

/// Writes a checkpoint of `table`, if one is due.
///
/// # Errors
/// Storage errors; the table is not harmed by them, the next call tries again.
pub(super) async fn run(table: &mut Table, every_commits: u64, every_bytes: u64) -> Result<(), LakeError> {
    let state = &table.state;
    let due = state.commits_since_checkpoint() >= every_commits
        || (state.log_bytes_since_checkpoint() >= every_bytes && state.commits_since_checkpoint() > 1);
    if !due {
        return Ok(());
    }
    let version = state.version();
    let name = table.log.table().to_owned();
    let reader = DeltaTable::new(table.log.guarded());
    let runtime = tokio::runtime::Handle::current();
    // The library builds a checkpoint in one blocking call.
    tokio::task::spawn_blocking(move || runtime.block_on(checkpoint(reader, version)))
        .await
        .map_err(|error| LakeError::Storage { table: name.clone(), message: error.to_string() })?
        .map_err(|error| LakeError::Storage { table: name.clone(), message: error.to_string() })?;
    table.state.checkpointed(version);
    tracing::debug!(table = name, version, "wrote checkpoint");
    Ok(())
}

async fn checkpoint(mut table: DeltaTable, version: u64) -> DeltaResult<()> {
    table.load_version(version).await?;
    create_checkpoint(&table, None).await
}
