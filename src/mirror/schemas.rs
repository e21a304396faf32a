//! What a mirror remembers of the schemas of its tables' events, and the record of their changes.
//!
//! The tables themselves cannot say it: a column that is not in the events may have been dropped in the source, or
//! added here by hand. So the source's columns are remembered beside the progress, together with what is waited for.
//! A change of a table, what is remembered of it and its rows in the record are one transaction, before that of the
//! batch: it may have to rewrite the table, and a lock that strong is not held for a whole batch.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::types::{Json, Type};

use super::names::TargetName;
use super::own_tables;
use super::sqlstate::Trouble;
use crate::change::{Described, Difference, EventPlace, Lineage, TableId, TableSchema};

/// What is remembered of one table. **Persisted: do not rename a member.**
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Persisted {
    stored: Described,
    lineage: Lineage,
}

/// The same, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The source's columns that the mirror keeps, in the types that they have here.
    pub(super) stored: Arc<TableSchema>,
    pub(super) lineage: Lineage,
}

impl Remembered {
    /// What there is to remember of a table whose first events have `schema`.
    pub(super) fn first(schema: &Arc<TableSchema>, since: i64) -> Self {
        let lineage = Lineage::default().followed_by(Described::from(schema.as_ref()), since);
        Self { stored: Arc::clone(schema), lineage }
    }

    fn persisted(&self) -> Persisted {
        Persisted { stored: Described::from(self.stored.as_ref()), lineage: self.lineage.clone() }
    }
}

impl From<Persisted> for Remembered {
    fn from(persisted: Persisted) -> Self {
        Self { stored: Arc::new(persisted.stored.schema()), lineage: persisted.lineage }
    }
}

/// Everything that a mirror remembers, by source table.
pub(super) type Memory = HashMap<TableId, Remembered>;

/// What became of a difference, as the record says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Applied,
    Ignored,
    Refused,
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
        }
    }
}

/// The two tables in the schema of the progress.
#[derive(Debug, Clone)]
pub(super) struct SchemaTables {
    memory: TargetName,
    record: TargetName,
    pipeline: String,
    mirror: String,
}

impl SchemaTables {
    pub(super) fn new(schema: &str, pipeline: &str, mirror: &str) -> Self {
        let of = |table: &str| TargetName { schema: schema.to_owned(), table: table.to_owned() };
        Self {
            memory: of("source_schemas"),
            record: of("schema_changes"),
            pipeline: pipeline.to_owned(),
            mirror: mirror.to_owned(),
        }
    }

    fn ddl(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (pipeline text, mirror text, source_database text, source_schema text, \
             source_table text, remembered json NOT NULL, updated_at timestamptz NOT NULL, \
             PRIMARY KEY (pipeline, mirror, source_database, source_schema, source_table)); \
             CREATE TABLE IF NOT EXISTS {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pipeline text NOT NULL, \
             mirror text NOT NULL, source_schema text NOT NULL, source_table text NOT NULL, target_table text NOT NULL, \
             kind text NOT NULL, column_name text NOT NULL, type_before text, type_after text, note text, \
             outcome text NOT NULL, topic text, \"partition\" integer, \"offset\" bigint, source_timestamp timestamptz, \
             recorded_at timestamptz NOT NULL)",
            self.memory.sql(),
            self.record.sql()
        )
    }

    /// Creates both where one is missing. Their schema is that of the progress, which is there already.
    pub(super) async fn ensure(&self, client: &Client) -> Result<(), Trouble> {
        let names = [&self.memory, &self.record];
        own_tables::ensure(client, &names, "the tables for schema changes", &self.ddl()).await
    }

    /// Reads everything.
    pub(super) async fn read(&self, client: &Client) -> Result<Memory, Trouble> {
        let sql = format!(
            "SELECT source_database, source_schema, source_table, remembered FROM {} WHERE pipeline = $1 AND mirror = $2",
            self.memory.sql()
        );
        let parameters = [(&self.pipeline as _, Type::TEXT), (&self.mirror as _, Type::TEXT)];
        let mut memory = Memory::new();
        for row in client.query_typed(&sql, &parameters).await? {
            let table = TableId::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let Json(persisted) = row.try_get::<_, Json<Persisted>>(3)?;
            memory.insert(table, persisted.into());
        }
        Ok(memory)
    }

    /// Reads one table's, and keeps others from changing it until the transaction ends.
    pub(super) async fn read_locked(
        &self,
        client: &Client,
        table: &TableId,
    ) -> Result<Option<Remembered>, Trouble> {
        let sql = format!(
            "SELECT remembered FROM {} WHERE pipeline = $1 AND mirror = $2 AND source_database = $3 AND source_schema = $4 \
             AND source_table = $5 FOR UPDATE",
            self.memory.sql()
        );
        let (database, schema, name) = (&*table.database, &*table.schema, &*table.table);
        let parameters = [
            (&self.pipeline as _, Type::TEXT),
            (&self.mirror as _, Type::TEXT),
            (&database as _, Type::TEXT),
            (&schema as _, Type::TEXT),
            (&name as _, Type::TEXT),
        ];
        let rows = client.query_typed(&sql, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let Json(persisted) = row.try_get::<_, Json<Persisted>>(0)?;
        Ok(Some(persisted.into()))
    }

    /// Remembers a table that was not known; where another instance was faster, what that one remembers stays.
    pub(super) async fn introduce(
        &self,
        client: &Client,
        table: &TableId,
        remembered: &Remembered,
    ) -> Result<(), Trouble> {
        self.store(client, table, remembered, "DO NOTHING").await
    }

    /// Remembers a table as it is from now on.
    pub(super) async fn update(
        &self,
        client: &Client,
        table: &TableId,
        remembered: &Remembered,
    ) -> Result<(), Trouble> {
        let action = "(pipeline, mirror, source_database, source_schema, source_table) DO UPDATE SET remembered = \
                      EXCLUDED.remembered, updated_at = now()";
        self.store(client, table, remembered, action).await
    }

    async fn store(
        &self,
        client: &Client,
        table: &TableId,
        remembered: &Remembered,
        action: &str,
    ) -> Result<(), Trouble> {
        let sql = format!(
            "INSERT INTO {} VALUES ($1, $2, $3, $4, $5, $6, now()) ON CONFLICT {action}",
            self.memory.sql()
        );
        let (database, schema, name) = (&*table.database, &*table.schema, &*table.table);
        let parameters = [
            (&self.pipeline as _, Type::TEXT),
            (&self.mirror as _, Type::TEXT),
            (&database as _, Type::TEXT),
            (&schema as _, Type::TEXT),
            (&name as _, Type::TEXT),
            (&Json(remembered.persisted()) as _, Type::JSON),
        ];
        client.execute_typed(&sql, &parameters).await?;
        Ok(())
    }

    /// Writes differences into the record.
    pub(super) async fn record(
        &self,
        client: &Client,
        (table, target): (&TableId, &TargetName),
        differences: &[Difference],
        place: &EventPlace,
        fate: Fate,
    ) -> Result<(), Trouble> {
        let sql = format!(
            "INSERT INTO {} (pipeline, mirror, source_schema, source_table, target_table, kind, column_name, type_before, \
             type_after, note, outcome, topic, \"partition\", \"offset\", source_timestamp, recorded_at) VALUES ($1, $2, $3, \
             $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, CASE WHEN $15::bigint <> 0 THEN \
             timestamptz 'epoch' + $15 * interval '1 microsecond' END, now())",
            self.record.sql()
        );
        let target = target.to_string();
        for difference in differences {
            let (schema, name) = (&*table.schema, &*table.table);
            let parameters = [
                (&self.pipeline as _, Type::TEXT),
                (&self.mirror as _, Type::TEXT),
                (&schema as _, Type::TEXT),
                (&name as _, Type::TEXT),
                (&target as _, Type::TEXT),
                (&difference.kind.name() as _, Type::TEXT),
                (&difference.column as _, Type::TEXT),
                (&difference.before as _, Type::TEXT),
                (&difference.after as _, Type::TEXT),
                (&difference.note as _, Type::TEXT),
                (&fate.name() as _, Type::TEXT),
                (&place.topic as _, Type::TEXT),
                (&place.partition as _, Type::INT4),
                (&place.offset as _, Type::INT8),
                (&place.micros as _, Type::INT8),
            ];
            client.execute_typed(&sql, &parameters).await?;
        }
        Ok(())
    }
}
