//! Tables of the lake that wait with a schema, and doing what somebody decided about it.
//!
//! This runs beside the daemon and takes nothing from it: it reads the logs, and its commit is one of those of other
//! writers, which the daemon looks out for while the table is stopped.

use std::collections::HashMap;

use super::LakeOptions;
use super::audit::{AuditTable, Fate, changes_of};
use super::create::{self, TableProperties};
use super::error::LakeError;
use super::evolve::{Redefinition, entries, lineage_of, misfit_text};
use super::location::{self, Location};
use super::log::Log;
use super::read::{At, LakeReader};
use super::rewrite::Recast;
use super::schema::{DeltaSchema, PIPELINE, table_schema};
use super::table::{Table, Writer};
use crate::change::{Lineage, Pending, Resolution, TableId, TableSchema};

/// A table of the lake that waits with a schema.
#[derive(Debug)]
pub struct WaitingTable {
    /// Its source.
    pub id: TableId,
    /// Its folder.
    pub folder: String,
    /// What it stores.
    pub stored: TableSchema,
    /// What is remembered of its events.
    pub lineage: Lineage,
    /// What it waits with.
    pub pending: Pending,
    /// Data files, which another type would have rewritten.
    pub files: usize,
    /// Bytes of them.
    pub bytes: i64,
    table: Table,
}

/// The lake, for decisions about schemas.
pub struct LakeSchemas {
    options: LakeOptions,
    location: Location,
    writer: Writer,
}

impl LakeSchemas {
    /// Opens the lake of `options`.
    ///
    /// # Errors
    /// [`LakeError::Settings`] for an address or option that cannot be used.
    pub fn open(options: &LakeOptions) -> Result<Self, LakeError> {
        Ok(Self {
            location: Location::open(&options.uri, &options.storage_options)?,
            writer: Writer { pipeline: options.pipeline.clone(), id: uuid::Uuid::new_v4().to_string() },
            options: options.clone(),
        })
    }

    /// The tables of the pipeline that wait; of one source (`schema.table`) where `table` names it.
    ///
    /// # Errors
    /// Storage errors, and logs that cannot be read.
    pub async fn waiting(&self, table: Option<&str>) -> Result<Vec<WaitingTable>, LakeError> {
        let mut waiting = Vec::new();
        for folder in self.location.tables(location::depth(&self.options.layout)).await? {
            let Some(found) = Table::open(Log::new(&folder, self.location.table(&folder)?)).await? else {
                continue;
            };
            let configuration: &HashMap<String, String> = &found.state.metadata().configuration;
            let Some(id) = create::source_of(configuration) else { continue };
            if configuration.get(PIPELINE) != Some(&self.options.pipeline)
                || table.is_some_and(|table| table != id.to_string())
            {
                continue;
            }
            let lineage = lineage_of(&folder, configuration)?;
            let Some(pending) = lineage.pending.clone() else { continue };
            let delta = DeltaSchema::parse(&folder, &found.state.metadata().schema_string)?;
            waiting.push(WaitingTable {
                stored: table_schema(&folder, &delta, configuration)?,
                files: found.state.files().len(),
                bytes: found.state.files().values().map(|file| file.size).sum(),
                id,
                folder,
                lineage,
                pending,
                table: found,
            });
        }
        Ok(waiting)
    }

    /// Does what was decided.
    ///
    /// # Errors
    /// A value that does not fit, rows that are not unique by a new key, another writer that changed the table's
    /// definition meanwhile, storage errors. Nothing is changed then.
    pub async fn apply(&self, waiting: WaitingTable, resolution: &Resolution) -> Result<(), LakeError> {
        let WaitingTable { id, folder, stored, pending, mut table, .. } = waiting;
        if resolution.new_key {
            self.check_key(&id, &folder, &stored, &resolution.step.stored).await?;
        }
        let step = &resolution.step;
        let mut recast = Recast::default();
        recast.push(&stored, step);
        let redefinition = Redefinition {
            stored: step.stored.clone(),
            renames: step.renames.clone(),
            lineage: step.lineage.clone(),
            recast,
            entries: entries(&pending.place, &step.differences, Fate::Applied),
            new_key: resolution.new_key,
        };
        let done = redefinition.commit(&id, &mut table, &self.writer, &[], None).await;
        if done.map_err(|error| misfit_text(&id, error))?.is_none() {
            return Err(LakeError::Refused(format!(
                "the definition of table {id} was changed by another writer meanwhile; look at the plan again"
            )));
        }
        self.record(&id, &folder, &table).await
    }

    /// The change is in the table already: what fails here is made up for by the daemon.
    async fn record(&self, id: &TableId, folder: &str, table: &Table) -> Result<(), LakeError> {
        let audit = &self.options.schema_changes_table;
        if audit.is_empty() {
            return Ok(());
        }
        let properties = TableProperties::of(&self.options);
        let log = Log::new(audit, self.location.table(audit)?);
        let metadata = table.state.metadata();
        let changes = changes_of(&metadata.configuration);
        let mut audit = AuditTable::open_or_create(log, &properties, &self.writer).await?;
        audit.copy((id, folder, &metadata.id), &changes, &self.writer).await
    }

    /// Refuses a key by which stored rows are not unique, or that some of them do not have.
    async fn check_key(
        &self,
        id: &TableId,
        folder: &str,
        stored: &TableSchema,
        wanted: &TableSchema,
    ) -> Result<(), LakeError> {
        let names: Vec<&str> = wanted.key_names().collect();
        let rebuild = |reason: String| {
            LakeError::Refused(format!(
                "table {id} cannot have the key ({}): {reason}; move its folder {folder:?} away, and have the source's rows sent again \
                 (an incremental snapshot), or rebuild the table",
                names.join(", ")
            ))
        };
        if let Some(missing) = names.iter().find(|name| stored.index_of(name).is_none()) {
            return Err(rebuild(format!("the rows that are there have no column {missing}")));
        }
        let session = LakeReader::open(&self.options)?.session(At::Latest).await?;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let table = folder.split('/').map(quoted).collect::<Vec<_>>().join(".");
        let columns: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let nulls: Vec<String> = columns.iter().map(|column| format!("{column} IS NULL")).collect();
        let list = columns.join(", ");
        for (sql, reason) in [
            (
                format!("SELECT 1 FROM {table} WHERE {} LIMIT 1", nulls.join(" OR ")),
                "some of its rows have a null in it",
            ),
            (
                format!("SELECT 1 FROM {table} GROUP BY {list} HAVING count(*) > 1 LIMIT 1"),
                "several of its rows are equal in it",
            ),
        ] {
            let failed = |error: deltalake::datafusion::error::DataFusionError| {
                LakeError::Refused(format!(
                    "the rows of table {id} cannot be checked: {}",
                    error.strip_backtrace()
                ))
            };
            let found = session.sql(&sql).await.map_err(failed)?.collect().await.map_err(failed)?;
            if found.iter().any(|batch| batch.num_rows() > 0) {
                return Err(rebuild(reason.to_owned()));
            }
        }
        Ok(())
    }
}
