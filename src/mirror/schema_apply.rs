//! Tables of a mirror that wait with a schema, and doing what somebody decided about it, beside the running daemon.
//!
//! All of it is one transaction: the checks, the DDL, what is remembered and the record. Postgres rounds in some casts
//! without a word, so a column is converted only where every value comes back from its new type as it was.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::catalog::{self, TargetTable};
use super::connection::Endpoint;
use super::evolve::statements;
use super::names::{TargetName, quoted, quoted_list};
use super::native::Available;
use super::progress::ProgressTable;
use super::schemas::{Fate, Remembered, SchemaTables};
use super::sqlstate::Trouble;
use super::{MirrorError, MirrorOptions};
use crate::change::{Action, Lineage, Pending, Resolution, TableId, TableSchema};

/// A table of a mirror that waits with a schema.
#[derive(Debug)]
pub struct WaitingTable {
    /// Its source.
    pub id: TableId,
    /// The table, as `schema.table`.
    pub target: String,
    /// What is stored of the source's columns.
    pub stored: TableSchema,
    /// What is remembered of its events.
    pub lineage: Lineage,
    /// What it waits with.
    pub pending: Pending,
    name: TargetName,
}

/// A mirror, for decisions about schemas.
pub struct MirrorSchemas {
    endpoint: Endpoint,
    tables: SchemaTables,
    progress: ProgressTable,
    schema: String,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The database does not answer, or not as it should.
    #[error("{0}")]
    Unreachable(String),
    /// It cannot be done; nothing was changed.
    #[error("{0}")]
    Refused(String),
}

impl From<Trouble> for ApplyError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Retry { message, .. } | Trouble::Lane(message) => Self::Unreachable(message),
            Trouble::Table { reason, .. } | Trouble::Row { reason, .. } => Self::Refused(reason),
        }
    }
}

impl From<tokio_postgres::Error> for ApplyError {
    fn from(error: tokio_postgres::Error) -> Self {
        Trouble::from(error).into()
    }
}

impl MirrorSchemas {
    /// Checks the settings; the database is reached by [`Self::waiting`].
    ///
    /// # Errors
    /// A setting that cannot work.
    pub fn new(options: &MirrorOptions) -> Result<Self, MirrorError> {
        let (schema, pipeline, name) = (&options.progress_schema, &options.pipeline, &options.name);
        Ok(Self {
            endpoint: Endpoint::new(options)?,
            tables: SchemaTables::new(schema, pipeline, name),
            progress: ProgressTable::new(schema, pipeline, name),
            schema: options.schema.clone(),
        })
    }

    async fn connect(&self) -> Result<Client, ApplyError> {
        let client = self.endpoint.connect().await?;
        self.progress.ensure(&client).await?;
        self.tables.ensure(&client).await?;
        Ok(client)
    }

    /// The tables that wait; of one source (`schema.table`) where `table` names it.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn waiting(&self, table: Option<&str>) -> Result<Vec<WaitingTable>, ApplyError> {
        let client = self.connect().await?;
        let memory = self.tables.read(&client).await?;
        let mut waiting: Vec<WaitingTable> = memory
            .into_iter()
            .filter(|(id, _)| table.is_none_or(|table| table == id.to_string()))
            .filter_map(|(id, remembered)| {
                let name = TargetName::of(&self.schema, &id);
                Some(WaitingTable {
                    target: name.to_string(),
                    stored: remembered.stored.as_ref().clone(),
                    pending: remembered.lineage.pending.clone()?,
                    lineage: remembered.lineage,
                    id,
                    name,
                })
            })
            .collect();
        waiting.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(waiting)
    }

    /// The statements that a resolution amounts to.
    ///
    /// # Errors
    /// Where a column that was made by hand cannot follow, and where the database does not answer.
    pub async fn statements(
        &self,
        waiting: &WaitingTable,
        resolution: &Resolution,
    ) -> Result<Vec<String>, ApplyError> {
        let client = self.connect().await?;
        match catalog_of(&client, &waiting.name).await? {
            Some(found) => ddl(&client, waiting, resolution, &found).await,
            None => Ok(Vec::new()),
        }
    }

    /// Does what was decided.
    ///
    /// # Errors
    /// A value that does not fit, rows that are not unique by a new key, somebody who was faster. Nothing is changed then.
    pub async fn apply(&self, waiting: &WaitingTable, resolution: &Resolution) -> Result<(), ApplyError> {
        let client = self.connect().await?;
        // Dropped half-way, the session takes its transaction with it.
        client.batch_execute("BEGIN; SET LOCAL statement_timeout = 0").await?;
        let before =
            Remembered { stored: Arc::new(waiting.stored.clone()), lineage: waiting.lineage.clone() };
        if self.tables.read_locked(&client, &waiting.id).await?.as_ref() != Some(&before) {
            let reason =
                format!("what table {} waits with has changed meanwhile; look at the plan again", waiting.id);
            return Err(ApplyError::Refused(reason));
        }
        if let Some(found) = catalog_of(&client, &waiting.name).await? {
            check_values(&client, waiting, resolution).await?;
            for statement in ddl(&client, waiting, resolution, &found).await? {
                client
                    .batch_execute(&statement)
                    .await
                    .map_err(|error| explained(waiting, &statement, error))?;
            }
        }
        let after = Remembered {
            stored: Arc::new(resolution.step.stored.clone()),
            lineage: resolution.step.lineage.clone(),
        };
        let of = (&waiting.id, &waiting.name);
        let differences = &resolution.step.differences;
        self.tables.record(&client, of, differences, &waiting.pending.place, Fate::Applied).await?;
        self.tables.update(&client, &waiting.id, &after).await?;
        Ok(client.batch_execute("COMMIT").await?)
    }
}

async fn catalog_of(client: &Client, name: &TargetName) -> Result<Option<TargetTable>, ApplyError> {
    Ok(catalog::read(client, Some(&name.schema), Some(&name.table)).await?.remove(name))
}

async fn ddl(
    client: &Client,
    waiting: &WaitingTable,
    resolution: &Resolution,
    found: &TargetTable,
) -> Result<Vec<String>, ApplyError> {
    let available = Available::read(client).await?;
    let mut statements = statements(&waiting.name, (found, &available), &waiting.stored, &resolution.step)
        .map_err(ApplyError::Refused)?;
    let key: Vec<&str> = resolution.step.stored.key_names().collect();
    let fits = |unique: &Vec<String>| {
        unique.len() == key.len() && unique.iter().all(|name| key.contains(&name.as_str()))
    };
    if resolution.new_key && !found.unique.iter().any(fits) {
        let table = waiting.name.sql();
        if let Some(name) = primary_key(client, &waiting.name).await? {
            statements.push(format!("ALTER TABLE {table} DROP CONSTRAINT {}", quoted(&name)));
        }
        statements.push(format!("ALTER TABLE {table} ADD PRIMARY KEY ({})", quoted_list(key)));
    }
    Ok(statements)
}

/// The name of a table's primary key.
async fn primary_key(client: &Client, name: &TargetName) -> Result<Option<String>, ApplyError> {
    let sql = "SELECT conname::text FROM pg_catalog.pg_constraint WHERE conrelid = to_regclass($1) AND contype = 'p'";
    let rows = client.query_typed(sql, &[(&name.sql(), Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// Refuses conversions in which Postgres would bend a value.
async fn check_values(
    client: &Client,
    waiting: &WaitingTable,
    resolution: &Resolution,
) -> Result<(), ApplyError> {
    let available = Available::read(client).await?;
    for action in &resolution.actions {
        let Action::Convert { column, from, to, checked: true } = action else { continue };
        let (name, former, new) = (quoted(column), available.created(from), available.created(to));
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {} WHERE {name} IS NOT NULL AND ({name}::{new})::{former} IS DISTINCT FROM \
             {name}::{former})",
            waiting.name.sql()
        );
        let misfit = || {
            ApplyError::Refused(format!(
                "column {column} of {} has a value that is no {new} exactly; nothing was changed",
                waiting.target
            ))
        };
        let rows = client.query_typed(&sql, &[]).await.map_err(|error| match error.code() {
            // Out of range, and other values that the type does not take.
            Some(code) if code.code().starts_with("22") => misfit(),
            _ => error.into(),
        })?;
        for row in rows {
            if row.try_get(0)? {
                return Err(misfit());
            }
        }
    }
    Ok(())
}

fn explained(waiting: &WaitingTable, statement: &str, error: tokio_postgres::Error) -> ApplyError {
    let about_key = error.code().is_some_and(|code| matches!(code.code(), "23505" | "23502"));
    match ApplyError::from(error) {
        ApplyError::Refused(reason) if about_key => ApplyError::Refused(format!(
            "the rows of {} are not unique by the new key ({reason}); nothing was changed: empty the table and have the source's \
             rows sent again (an incremental snapshot), then apply",
            waiting.target
        )),
        ApplyError::Refused(reason) => {
            ApplyError::Refused(format!("{statement}: {reason}; nothing was changed"))
        }
        other @ ApplyError::Unreachable(_) => other,
    }
}
