//! The mirror of the demonstration: a schema of its own in the user's database, made empty before, checked after.
//!
//! IMPORTANT: the schema [`SCHEMA`] is dropped with all it holds whenever a demonstration starts.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::found::{postgres_query, row_of_texts};
use super::shop::Shop;
use super::tables::{Row, ShopTable, TABLES};
use super::verify::{Comparison, VerifyError, compare};

/// Where the mirror's tables go.
pub const SCHEMA: &str = "alluvium_demo";

/// Why the database could not be prepared or checked.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The database is not reachable, or refused.
    #[error("postgres: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// A table does not look like the shop's.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// A connection beside the mirror's own, without TLS.
pub struct PostgresReader {
    client: Client,
}

impl PostgresReader {
    /// Connects, and makes [`SCHEMA`] anew.
    pub async fn prepare(url: &str) -> Result<Self, PostgresError> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // The client's next request reports why a connection ended.
        tokio::spawn(async move { drop(connection.await) });
        client
            .batch_execute(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}"))
            .await?;
        Ok(Self { client })
    }

    /// Compares every table of the mirror with the shop, and forgets the progress of the pipeline of that name.
    pub async fn verify_all(&self, shop: &Shop, pipeline: &str) -> Result<Vec<Comparison>, PostgresError> {
        let mut comparisons = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            comparisons.push(self.verify(shop, table).await?);
        }
        let pipeline: &(dyn ToSql + Sync) = &pipeline;
        self.client.execute("DELETE FROM alluvium.progress WHERE pipeline = $1", &[pipeline]).await?;
        Ok(comparisons)
    }

    async fn verify(&self, shop: &Shop, table: ShopTable) -> Result<Comparison, PostgresError> {
        let sql = postgres_query(table, &format!("{SCHEMA}.{}", table.name()));
        let width = table.schema().columns().len();
        let messages = self.client.simple_query(&sql).await?;
        let rows = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .map(|row| row_of_texts(table, (0..width).map(|index| row.get(index))))
            .collect::<Result<Vec<Row>, VerifyError>>()?;
        Ok(compare(shop, table, rows)?)
    }
}
