//! A session: one connection with the staging tables and plans that were made for it.
//!
//! Tables are made ready before the batch's transaction begins: DDL in it would hold strong locks for its whole length,
//! and roll back with it. What is prepared here holds until Postgres says that a table changed underneath.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use super::catalog::{self, TargetTable};
use super::connection::Endpoint;
use super::ledger::LedgerTables;
use super::names::{TargetName, quoted, quoted_list};
use super::native::Available;
use super::plan::{self, Field, Plan, Step};
use super::progress::{self, ProgressTable};
use super::schemas::SchemaTables;
use super::sql::Statements;
use super::sqlstate::{self, Trouble};
use super::staging::Staging;
use crate::change::{TableId, TableSchema, raw};

/// Schemas of one table that stay prepared between batches; a table whose records alternate between two needs two.
const SCHEMAS_PER_TABLE: usize = 4;
/// Rounds of reading the catalog and changing it: create, add columns, look again, and one lost race.
const ROUNDS: usize = 5;

/// A table that rows of one schema can be written to.
pub(super) struct Prepared {
    pub(super) schema: Arc<TableSchema>,
    pub(super) plan: Plan,
    pub(super) rows: Staging,
    pub(super) keys: Staging,
    pub(super) origins: Staging,
}

/// The raw table.
pub(super) struct PreparedRaw {
    pub(super) plan: Plan,
    pub(super) into: RawPath,
}

/// The way of raw rows.
pub(super) enum RawPath {
    /// The table has our types: straight into it.
    Direct(Statement),
    /// It has others: through a staging table, with casts.
    Staged(Staging),
}

/// One connection and what was prepared on it.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) buffer: BytesMut,
    pub(super) progress: progress::Statements,
    pub(super) transaction: u64,
    pub(super) available: Available,
    tables: HashMap<TableId, Vec<Prepared>>,
    raw: Option<PreparedRaw>,
    stages: u64,
}

impl Session {
    /// Connects, and creates the tables of our own where they are missing.
    pub(super) async fn open(
        endpoint: &Endpoint,
        progress: &ProgressTable,
        (schemas, ledgers): (&SchemaTables, &LedgerTables),
    ) -> Result<Self, Trouble> {
        let client = endpoint.connect().await?;
        progress.ensure(&client).await?;
        schemas.ensure(&client).await?;
        ledgers.ensure(&client).await?;
        let progress = progress.prepare(&client).await?;
        let available = Available::read(&client).await?;
        Ok(Self {
            client,
            available,
            buffer: BytesMut::new(),
            progress,
            transaction: 0,
            tables: HashMap::new(),
            raw: None,
            stages: 0,
        })
    }

    /// Forgets what was prepared for a table, because it turned out not to hold.
    pub(super) fn forget(&mut self, table: &TableId) {
        self.tables.remove(table);
    }

    /// What a batch needs to write a table; `None` where [`Self::make_ready`] was not called for it.
    pub(super) fn table(&mut self, table: &TableId, schema: &TableSchema) -> Option<Writer<'_>> {
        let prepared =
            self.tables.get_mut(table)?.iter_mut().find(|prepared| prepared.schema.as_ref() == schema)?;
        Some(Writer {
            client: &self.client,
            buffer: &mut self.buffer,
            transaction: self.transaction,
            prepared,
        })
    }

    /// The parts that writing raw rows needs.
    pub(super) fn raw(&mut self) -> Option<(&Client, &mut BytesMut, u64, &mut PreparedRaw)> {
        Some((&self.client, &mut self.buffer, self.transaction, self.raw.as_mut()?))
    }

    /// Drops what was prepared for more schemas than a table is kept ready for, the oldest first.
    ///
    /// Before a batch only: one batch may hold any number of schemas of a table, and needs all of them.
    pub(super) async fn drop_old_schemas(&mut self) -> Result<(), Trouble> {
        for known in self.tables.values_mut() {
            let surplus = known.len().saturating_sub(SCHEMAS_PER_TABLE);
            for old in known.drain(..surplus) {
                let stages =
                    [&old.rows, &old.keys, &old.origins].map(|stage| format!("pg_temp.{}", stage.name));
                let drop = format!("DROP TABLE {}", stages.join(", "));
                self.client.batch_execute(&drop).await?;
            }
        }
        Ok(())
    }

    /// Makes a table ready for rows of `schema`; gives what the catalog says of it where it had to look.
    pub(super) async fn make_ready(
        &mut self,
        table: &TableId,
        target: &TargetName,
        schema: &Arc<TableSchema>,
    ) -> Result<Option<TargetTable>, Trouble> {
        let known = self.tables.entry(table.clone()).or_default();
        if known.iter().any(|prepared| prepared.schema == *schema) {
            return Ok(None);
        }
        let fields = plan::source_fields(schema, &self.available);
        let (plan, found) = settle(&self.client, target, &fields, schema.key()).await?;
        let statements = Statements::new(&plan, schema.columns().len());
        self.stages += 1;
        let [rows, keys, origins] = ["rows", "keys", "origins"].map(|kind| format!("{kind}_{}", self.stages));
        let rows_ddl = statements.create_rows(&rows);
        let rows = Staging::create(&self.client, rows, &rows_ddl).await?;
        let keys_ddl = statements.create_keys(&keys);
        let keys = Staging::create(&self.client, keys, &keys_ddl).await?;
        let origins_ddl = statements.create_origins(&origins);
        let origins = Staging::create(&self.client, origins, &origins_ddl).await?;
        self.tables.entry(table.clone()).or_default().push(Prepared {
            schema: Arc::clone(schema),
            plan,
            rows,
            keys,
            origins,
        });
        Ok(Some(found))
    }

    /// Makes the raw table ready.
    pub(super) async fn make_raw_ready(&mut self, target: &TargetName) -> Result<(), Trouble> {
        if self.raw.is_some() {
            return Ok(());
        }
        let fields = plan::raw_fields();
        let (plan, _) = settle(&self.client, target, &fields, &[]).await?;
        let into = if plan.columns.iter().all(|column| column.cast.is_none()) {
            let names = quoted_list(plan.columns.iter().map(|column| column.name.as_str()));
            let copy = format!("COPY {} ({names}) FROM STDIN (FORMAT binary)", target.sql());
            RawPath::Direct(self.client.prepare(&copy).await?)
        } else {
            self.stages += 1;
            let name = format!("raw_{}", self.stages);
            let ddl = Statements::new(&plan, raw::schema().fields().len()).create_rows(&name);
            RawPath::Staged(Staging::create(&self.client, name, &ddl).await?)
        };
        self.raw = Some(PreparedRaw { plan, into });
        Ok(())
    }

    /// Ends the transaction without effect. The session is of no use where that fails.
    pub(super) async fn roll_back(&self) -> Result<(), Trouble> {
        Ok(self.client.batch_execute("ROLLBACK").await?)
    }
}

/// What writing one table needs of its session.
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) buffer: &'a mut BytesMut,
    pub(super) transaction: u64,
    pub(super) prepared: &'a mut Prepared,
}

/// Reads the catalog and changes the table until rows can be written.
async fn settle(
    client: &Client,
    target: &TargetName,
    fields: &[Field],
    key: &[usize],
) -> Result<(Plan, TargetTable), Trouble> {
    let mut lost = None;
    for _ in 0..ROUNDS {
        let mut found = catalog::read(client, Some(&target.schema), Some(&target.table)).await?;
        let found = found.remove(target);
        match plan::plan(target, fields, key, found.as_ref()) {
            Step::Ready(plan) => return Ok((plan, found.unwrap_or_default())),
            Step::Refuse(reason) => return Err(refusal(reason)),
            Step::Create(ddl) => {
                if !schema_exists(client, &target.schema).await? {
                    let ddl = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&target.schema));
                    change(client, &ddl).await?;
                }
                lost = change(client, &ddl).await?;
            }
            Step::Alter(ddl) => lost = change(client, &ddl).await?,
        }
    }
    Err(lost.unwrap_or_else(|| {
        refusal(format!(
            "{target} is not a table that columns can be added to: the mirror needs an ordinary table of that name"
        ))
    }))
}

/// Changes the target. What may only mean that another instance was faster is given back: looking again shows whether.
async fn change(client: &Client, ddl: &str) -> Result<Option<Trouble>, Trouble> {
    let Err(error) = client.batch_execute(ddl).await else {
        tracing::info!(ddl, "changed the target");
        return Ok(None);
    };
    let lost = sqlstate::lost_race(&error);
    let trouble = match Trouble::from(error) {
        Trouble::Table { reason, target } => {
            Trouble::Table { reason: format!("{reason}; the mirror needs: {ddl}"), target }
        }
        other => other,
    };
    if lost { Ok(Some(trouble)) } else { Err(trouble) }
}

/// `CREATE SCHEMA IF NOT EXISTS` asks for the right to create schemas even where the schema is there.
async fn schema_exists(client: &Client, schema: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1";
    Ok(!client.query_typed(sql, &[(&schema, Type::TEXT)]).await?.is_empty())
}

fn refusal(reason: String) -> Trouble {
    Trouble::Table { reason, target: None }
}
