//! `alluvium optimize`: compaction until nothing is due.

use std::num::NonZeroU64;
use std::sync::Arc;

use deltalake::DeltaTable;
use deltalake::kernel::transaction::CommitProperties;
use serde::Serialize;

use super::{Step, Upkeep, name_of};
use crate::change::TableSchema;
use crate::lake::action::WRITER;
use crate::lake::compaction::Target;
use crate::lake::create;
use crate::lake::error::LakeError;
use crate::lake::landing;
use crate::lake::mor::{self, obstacle};
use crate::lake::raw_compact;
use crate::lake::schema::{DeltaSchema, PIPELINE, table_schema};
use crate::lake::shape::Shape;
use crate::lake::table::{Table, Writer};

/// Steps in a row that may be lost to other writers before a table is left as it is.
const PATIENCE: u32 = 10;

/// What became of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Optimized {
    /// Name of the table: its folder, with `.` between its parts.
    pub table: String,
    /// Commits made.
    pub steps: u64,
    /// Files of the newest version before and after.
    pub files: (u64, u64),
    /// Their bytes.
    pub bytes: (u64, u64),
    /// Why more might have been done.
    pub skipped: Option<String>,
}

/// How a table's files are put together.
enum Kind {
    Raw,
    MergeOnRead(Arc<TableSchema>, Shape),
    /// By the library, which knows partitions and whatever else others have added.
    Library,
}

impl Upkeep {
    /// Compacts the named tables, or all of the pipeline's, until nothing is due.
    ///
    /// # Errors
    /// [`LakeError::Settings`] for a table that does not exist; storage errors.
    pub async fn optimize(
        &self,
        names: &[String],
        mut each: impl FnMut(Step),
    ) -> Result<Vec<Optimized>, LakeError> {
        let folders = self.folders(names).await?;
        let mut done = Vec::new();
        for (number, folder) in folders.iter().enumerate() {
            let mut step =
                |files| each(Step { tables: (number, folders.len()), table: name_of(folder), files });
            done.extend(self.optimize_table(folder, &mut step).await?);
        }
        Ok(done)
    }

    async fn optimize_table(
        &self,
        folder: &str,
        each: &mut impl FnMut(u64),
    ) -> Result<Option<Optimized>, LakeError> {
        let Some(mut table) = Table::open(self.log(folder)?).await? else { return Ok(None) };
        let configuration = &table.state.metadata().configuration;
        if configuration.get(PIPELINE) != Some(&self.options.pipeline) {
            tracing::warn!(table = folder, "left alone: it is not a table of this pipeline");
            return Ok(None);
        }
        let writer = Writer { pipeline: self.options.pipeline.clone(), id: uuid::Uuid::new_v4().to_string() };
        let figures = |table: &Table| (table.state.files().len() as u64, table.state.bytes().max(0) as u64);
        let before = figures(&table);
        let mut done = Optimized { table: name_of(folder), ..Optimized::default() };
        each(0);
        match self.kind(folder, &table)? {
            Kind::Library => {
                done.steps = by_library(&table, &writer).await?;
                table.catch_up(&writer, &[]).await?;
            }
            kind => self.steps(&mut table, &kind, &writer, (&mut done, each)).await?,
        }
        let after = figures(&table);
        (done.files, done.bytes) = ((before.0, after.0), (before.1, after.1));
        Ok(Some(done))
    }

    fn kind(&self, folder: &str, table: &Table) -> Result<Kind, LakeError> {
        if Some(folder) == self.options.raw_table.as_deref() {
            return Ok(Kind::Raw);
        }
        let metadata = table.state.metadata();
        if create::source_of(&metadata.configuration).is_some() {
            let delta = DeltaSchema::parse(folder, &metadata.schema_string)?;
            let schema = table_schema(folder, &delta, &metadata.configuration)?;
            if obstacle(&table.state, &schema).is_none() {
                return Ok(Kind::MergeOnRead(Arc::new(schema), Shape::of(&delta)));
            }
        }
        Ok(Kind::Library)
    }

    /// Steps like the daemon's, until none is due.
    async fn steps(
        &self,
        table: &mut Table,
        kind: &Kind,
        writer: &Writer,
        (done, each): (&mut Optimized, &mut impl FnMut(u64)),
    ) -> Result<(), LakeError> {
        let (mut lost, mut files) = (0, 0);
        loop {
            table.catch_up(writer, &[]).await?;
            let before = table.state.version();
            let step = match kind {
                Kind::MergeOnRead(schema, shape) => {
                    mor::step_without_index(table, (schema, *shape), writer).await?
                }
                Kind::Raw | Kind::Library => raw_compact::step_and_wait(table, writer).await?,
            };
            match step {
                landing::Step::Nothing => return Ok(()),
                landing::Step::Done(number) => {
                    (lost, files) = (0, files + number as u64);
                    done.steps += 1;
                    each(files);
                }
                landing::Step::Lost if lost == PATIENCE => {
                    done.skipped = Some(format!(
                        "other writers were faster {lost} times in a row, last at version {before}"
                    ));
                    return Ok(());
                }
                landing::Step::Lost => lost += 1,
            }
        }
    }
}

/// Compacts a table that is not written by deletion vectors, and says how many commits that took.
async fn by_library(table: &Table, writer: &Writer) -> Result<u64, LakeError> {
    let failed = |error: deltalake::DeltaTableError| LakeError::delta(table.log.table(), &error);
    let mut library = DeltaTable::new(table.log.guarded());
    library.load().await.map_err(failed)?;
    let before = library.version();
    let commit = CommitProperties::default()
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false))
        .with_metadata([(WRITER.to_owned(), writer.id.as_str().into())]);
    let mut optimize = library.optimize().with_commit_properties(commit);
    if let Some(target) = NonZeroU64::new(Target::of(table.state.bytes()).large as u64) {
        optimize = optimize.with_target_size(target);
    }
    let (library, _) = optimize.await.map_err(failed)?;
    Ok(u64::from(library.version() != before))
}
