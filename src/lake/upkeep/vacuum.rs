//! `alluvium vacuum`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Step, Upkeep, name_of};
use crate::lake::vacuum::{Begun, Limits, Removed, Vacuum, clean_log};
use crate::lake::{LakeError, now_millis};

/// What became of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Vacuumed {
    /// Name of the table: its folder, with `.` between its parts.
    pub table: String,
    /// Data files removed, or that would be.
    pub data_files: u64,
    /// Files of deletion vectors.
    pub vector_files: u64,
    /// Files of change data.
    pub change_files: u64,
    /// Files of the log, removed as well or to be.
    pub log_files: u64,
    /// Bytes of all but the log's.
    pub bytes: u64,
    /// Why nothing was removed that might have been.
    pub skipped: Option<String>,
}

/// How a vacuum is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct VacuumPlan {
    /// Another retention than the configured one.
    pub retention: Option<Duration>,
    /// Also a shorter one.
    pub force: bool,
    /// Remove nothing, say what would be.
    pub dry_run: bool,
}

impl Upkeep {
    /// Removes files that no version within the retention needs, of the named tables or of all of the pipeline's.
    ///
    /// # Errors
    /// [`LakeError::Settings`] for a table that does not exist and for a retention that is too short; storage errors.
    pub async fn vacuum(
        &self,
        names: &[String],
        plan: VacuumPlan,
        mut each: impl FnMut(Step),
    ) -> Result<Vec<Vacuumed>, LakeError> {
        let retention = self.retention(plan)?;
        let folders = self.folders(names).await?;
        let mut done = Vec::new();
        for (number, folder) in folders.iter().enumerate() {
            let mut step = |files| {
                let table = name_of(folder);
                each(Step { tables: (number, folders.len()), table, files });
            };
            done.extend(self.vacuum_table(folder, retention, plan.dry_run, &mut step).await?);
        }
        Ok(done)
    }

    fn retention(&self, plan: VacuumPlan) -> Result<Duration, LakeError> {
        let configured = self.options.vacuum_retention;
        match plan.retention {
            Some(asked) if asked < configured && !plan.force => Err(LakeError::Settings(format!(
                "a retention of {} is shorter than lake.vacuum_retention ({}): queries that read older versions, also those that are \
                 running now, would lose their files. Where nobody reads them, say so with --force, or set lake.vacuum_retention",
                humantime::format_duration(asked),
                humantime::format_duration(configured),
            ))),
            asked => Ok(asked.unwrap_or(configured)),
        }
    }

    async fn vacuum_table(
        &self,
        folder: &str,
        retention: Duration,
        dry_run: bool,
        each: &mut impl FnMut(u64),
    ) -> Result<Option<Vacuumed>, LakeError> {
        let log = self.log(folder)?;
        let name = name_of(folder);
        let limits = Limits::at(now_millis(), retention);
        match Vacuum::begin(log.clone(), &self.options.pipeline, limits, dry_run).await? {
            Begun::NotOurs => {
                tracing::warn!(table = name, "left alone: it is not a table of this pipeline");
                Ok(None)
            }
            Begun::TooEarly { unknown_before } => {
                let since = DateTime::<Utc>::from_timestamp_millis(unknown_before).unwrap_or_default();
                let skipped = format!(
                    "what left the table before {} is not known, and the retention reaches further back; by then nothing is removed",
                    since.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
                );
                Ok(Some(Vacuumed { table: name, skipped: Some(skipped), ..Vacuumed::default() }))
            }
            Begun::Run(mut vacuum) => {
                each(0);
                while vacuum.step().await? {
                    each(vacuum.removed().files());
                }
                let Removed { data, vectors, changes, bytes } = vacuum.removed();
                let log_files = clean_log(&log, now_millis(), self.options.log_retention, dry_run).await?;
                Ok(Some(Vacuumed {
                    table: name,
                    data_files: data,
                    vector_files: vectors,
                    change_files: changes,
                    log_files: log_files as u64,
                    bytes,
                    skipped: None,
                }))
            }
        }
    }
}
