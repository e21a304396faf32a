//! Key changes that are half done: the ledger of each table, and the rows that are kept for it.
//!
//! Both are written in the transaction of the batch, so they hold exactly when its rows and positions do. A ledger is
//! read again before a batch that needs it, and stored only where it is still the one that was read: the two halves of a
//! key change may be applied by two instances, each with partitions of its own.

use std::collections::HashMap;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::names::{TargetName, quoted};
use super::own_tables;
use super::sqlstate::Trouble;
use crate::change::{Batch, KeyLedger, TableId};

/// Where ledgers and kept rows of one mirror of one pipeline are.
#[derive(Clone)]
pub(super) struct LedgerTables {
    ledgers: TargetName,
    kept: TargetName,
    pipeline: String,
    mirror: String,
}

/// Ledgers by `schema.table` of the source, as they are stored.
pub(super) type Ledgers = HashMap<String, String>;

impl LedgerTables {
    pub(super) fn new(schema: &str, pipeline: &str, mirror: &str) -> Self {
        let table = |name: &str| TargetName { schema: schema.to_owned(), table: name.to_owned() };
        Self {
            ledgers: table("key_changes"),
            kept: table("departed_rows"),
            pipeline: pipeline.to_owned(),
            mirror: mirror.to_owned(),
        }
    }

    /// The table of rows that are kept, each with the names and the texts of its columns.
    pub(super) fn kept(&self) -> String {
        self.kept.sql()
    }

    fn ddl(&self) -> String {
        format!(
            "CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE IF NOT EXISTS {ledgers} (pipeline text, mirror text, \"table\" \
             text, ledger text NOT NULL, PRIMARY KEY (pipeline, mirror, \"table\")); CREATE TABLE IF NOT EXISTS {kept} (id text \
             PRIMARY KEY, pipeline text NOT NULL, mirror text NOT NULL, \"table\" text NOT NULL, columns text[] NOT NULL, \
             cells text[] NOT NULL, departed_at timestamptz NOT NULL DEFAULT now())",
            schema = quoted(&self.ledgers.schema),
            ledgers = self.ledgers.sql(),
            kept = self.kept.sql(),
        )
    }

    /// Creates the tables where one is missing.
    pub(super) async fn ensure(&self, client: &Client) -> Result<(), Trouble> {
        let names = [&self.ledgers, &self.kept];
        own_tables::ensure(client, &names, "the tables for key changes", &self.ddl()).await
    }

    /// Reads the ledgers of all tables.
    pub(super) async fn read(&self, client: &Client) -> Result<Ledgers, Trouble> {
        let sql = format!(
            "SELECT \"table\", ledger FROM {} WHERE pipeline = $1 AND mirror = $2 AND ledger <> ''",
            self.ledgers.sql()
        );
        let parameters = [(&self.pipeline as _, Type::TEXT), (&self.mirror as _, Type::TEXT)];
        let mut ledgers = Ledgers::new();
        for row in client.query_typed(&sql, &parameters).await? {
            ledgers.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(ledgers)
    }

    /// Stores the ledger of a table, and drops the rows that it no longer names; `false` where it is not the one that was
    /// read.
    pub(super) async fn store(
        &self,
        client: &Client,
        table: &str,
        before: &str,
        after: &KeyLedger,
    ) -> Result<bool, Trouble> {
        let text = after.to_text();
        if text == before {
            return Ok(true);
        }
        let sql = format!(
            "INSERT INTO {ledgers} AS k VALUES ($1, $2, $3, $4) ON CONFLICT (pipeline, mirror, \"table\") DO UPDATE SET ledger \
             = EXCLUDED.ledger WHERE k.ledger = $5 RETURNING 1",
            ledgers = self.ledgers.sql()
        );
        let parameters = [&self.pipeline, &self.mirror, table, &text, before].map(ToOwned::to_owned);
        let typed: Vec<_> = parameters.iter().map(|value| (value as _, Type::TEXT)).collect();
        if client.query_typed(&sql, &typed).await?.is_empty() {
            return Ok(false);
        }
        let named: Vec<&str> = after.departed.iter().map(|entry| entry.kept.as_str()).collect();
        let sql = format!(
            "DELETE FROM {} WHERE pipeline = $1 AND mirror = $2 AND \"table\" = $3 AND id <> ALL ($4)",
            self.kept.sql()
        );
        let table = table.to_owned();
        let of_table = [&self.pipeline, &self.mirror, &table].map(|value| (value as _, Type::TEXT));
        let mut parameters = of_table.to_vec();
        parameters.push((&named as _, Type::TEXT_ARRAY));
        client.query_typed(&sql, &parameters).await?;
        Ok(true)
    }

    /// The members of a kept row that say whose it is, as SQL.
    pub(super) fn owner(&self, table: &TableId) -> String {
        [&self.pipeline, &self.mirror, &table.to_string()].map(|value| literal(value)).join(", ")
    }
}

/// Whether a batch needs the ledgers as they are stored now.
pub(super) fn is_needed(batch: &Batch, known: &Ledgers) -> bool {
    !known.is_empty() || batch.changes.iter().any(|changes| changes.moves.is_some())
}

/// A text in single quotes.
pub(super) fn literal(text: &str) -> String {
    let quoted = format!("'{}'", text.replace('\'', "''"));
    if text.contains('\\') { format!("E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_end_where_they_should() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }
}
