//! Compaction of a table that is written by deletion vectors: the rows of some files become one file, or as many as they
//! fill, and the deleted ones are left behind.
//!
//! A step is an ordinary commit: it says that no data changed, and moves the index along. A large one reads and writes
//! beside the batches ([`compacted`](super::compacted)).

use std::sync::Arc;

use super::compacted::{Compacted, Source, rewrite};
use super::files::DataFiles;
use super::keys::Keys;
use super::locate::OwnCommit;
use super::outputs;
use super::vectors::Vectors;
use super::{MergeOnRead, obstacle};
use crate::change::TableSchema;
use crate::failpoint;
use crate::lake::compaction::{Pressure, Target, choose};
use crate::lake::error::LakeError;
use crate::lake::landing::{AT_ONCE, Background, Landed, Step};
use crate::lake::shape::Shape;
use crate::lake::state::TableState;
use crate::lake::table::{Table, Writer};

impl MergeOnRead {
    /// Makes one step, if one is due; says whether it did.
    pub(in crate::lake) async fn compact(
        &mut self,
        table: &mut Table,
        (schema, shape): (&Arc<TableSchema>, Shape),
        writer: &Writer,
        (target, pressure): (Target, Pressure),
    ) -> Result<bool, LakeError> {
        let compacted = match self.compacting.take() {
            Some(running) if !running.is_finished() => {
                self.compacting = Some(running);
                return Ok(false);
            }
            Some(finished) => finished.join(table.log.table()).await?,
            None => {
                let chosen = due(&table.state, schema, (target, pressure));
                // Which columns tell rows apart without a key, the newest events say.
                let unknown = schema.key().is_empty() && self.locator.is_none();
                if chosen.is_empty() || unknown || self.conflict == Some(table.state.version()) {
                    return Ok(false);
                }
                let (bytes, sources) = sources(table, &mut self.vectors, &chosen).await?;
                let codec = Some(self.codec(schema));
                let work = Box::pin(rewrite(
                    table,
                    data_files(table),
                    (Arc::clone(schema), shape, codec),
                    target,
                    (sources, writer),
                ));
                if bytes > AT_ONCE {
                    self.compacting = Some(Background::start(work));
                    return Ok(false);
                }
                work.await?
            }
        };
        self.land(table, (schema, shape), writer, compacted).await
    }

    /// Commits files that were put together, and has index and vectors follow.
    async fn land(
        &mut self,
        table: &mut Table,
        (schema, shape): (&Arc<TableSchema>, Shape),
        writer: &Writer,
        mut compacted: Compacted,
    ) -> Result<bool, LakeError> {
        // Behind a log that was not looked at for long, the next version may have been there and expired.
        table.refresh(writer, &[]).await?;
        let version = table.state.version();
        let codec = self.codec(schema);
        self.follow(table, (&codec, shape), &data_files(table)).await?;
        let landed = commit(table, &mut compacted, writer).await?;
        let gone: Vec<String> = compacted.sources.iter().map(|source| source.path.clone()).collect();
        match (&landed, compacted.keys_for(&codec).as_deref()) {
            (Landed::No, _) => {
                self.conflict = Some(version);
                return Ok(false);
            }
            (Landed::Next(entry), Some(keys)) => self.index_follows(&OwnCommit {
                version: table.state.version(),
                entry,
                written: compacted.outputs.first().map(|output| output.add.path.as_str()),
                upserted: keys,
                deleted: &Keys::default(),
                cuts: &[],
                emptied: false,
                gone: &gone,
            }),
            // Another writer was faster, or keys were so many that they were not kept, or are made of other columns by now:
            // the commit is read from the log.
            (Landed::Next(_) | Landed::Behind, _) => {}
        }
        for path in &gone {
            self.vectors.forget(path);
        }
        Ok(true)
    }
}

/// Makes one step on a table of which no index is kept here.
pub(in crate::lake) async fn step_without_index(
    table: &mut Table,
    (schema, shape): (&Arc<TableSchema>, Shape),
    writer: &Writer,
) -> Result<Step, LakeError> {
    let target = Target::of(table.state.bytes());
    let chosen = due(&table.state, schema, (target, Pressure::Idle));
    if chosen.is_empty() {
        return Ok(Step::Nothing);
    }
    let (_, sources) = sources(table, &mut Vectors::new(0), &chosen).await?;
    let mut compacted =
        rewrite(table, data_files(table), (Arc::clone(schema), shape, None), target, (sources, writer))
            .await?;
    Ok(commit(table, &mut compacted, writer).await?.step(chosen.len()))
}

/// The files of the next step, of a table that can be compacted.
fn due(state: &TableState, schema: &TableSchema, (target, pressure): (Target, Pressure)) -> Vec<String> {
    let files = state.files().iter().map(|(path, file)| (&**path, file));
    let chosen = choose(files, target, pressure);
    if chosen.is_empty() || obstacle(state, schema).is_some() { Vec::new() } else { chosen }
}

fn data_files(table: &Table) -> DataFiles {
    DataFiles { table: table.log.table().into(), store: table.log.files() }
}

/// The files of a step with their deleted rows, and their bytes.
async fn sources(
    table: &Table,
    vectors: &mut Vectors,
    chosen: &[String],
) -> Result<(i64, Vec<Source>), LakeError> {
    let files = data_files(table);
    let (mut bytes, mut sources) = (0, Vec::with_capacity(chosen.len()));
    for path in chosen {
        let Some(file) = table.state.files().get(path.as_str()) else { continue };
        let deleted = vectors.of(&files.table, &*files.store, [(path.as_str(), file)]).await?;
        bytes += file.size;
        let deleted = deleted.into_iter().next().unwrap_or_default();
        sources.push(Source::new(path, file, deleted));
    }
    Ok((bytes, sources))
}

/// Puts a step into the log.
async fn commit(table: &mut Table, compacted: &mut Compacted, writer: &Writer) -> Result<Landed, LakeError> {
    failpoint::hit("lake.before_compaction");
    let landed = table.commit_rewrite(compacted, writer).await?;
    if landed == Landed::No {
        // Nobody knows of them.
        outputs::remove(&compacted.files, &compacted.outputs).await;
    }
    let (files, rows, committed) = (compacted.sources.len(), compacted.rows, landed != Landed::No);
    tracing::debug!(table = table.log.table(), files, rows, committed, "compacted");
    Ok(landed)
}
