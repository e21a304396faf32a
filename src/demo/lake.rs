//! The demonstration's lake as any reader sees it: SQL over the shop's tables by name, now or as they were.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use deltalake::DeltaTableError;
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::prelude::SessionContext;

use super::found::{rows_of_batches, select_list};
use super::shop::Shop;
use super::tables::{ShopTable, TABLES};
use super::verify::{Comparison, VerifyError, compare};

/// Why the lake could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A table cannot be opened.
    #[error("table {table} of the lake cannot be opened: {source}")]
    Open {
        /// Table name.
        table: &'static str,
        /// What Delta says.
        source: DeltaTableError,
    },
    /// A query failed.
    #[error("the query failed: {0}")]
    Query(#[from] DataFusionError),
    /// A table does not look like the shop's.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// Reads the lake in a folder.
#[derive(Debug, Clone)]
pub struct LakeReader {
    folder: PathBuf,
}

impl LakeReader {
    /// A reader of the lake in `folder`, whose tables are folders of their names.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The newest version of a table.
    pub async fn version(&self, table: ShopTable) -> Result<u64, ReadError> {
        Ok(self.open(table, None).await?.version().unwrap_or_default())
    }

    /// Runs a query over the newest versions of all tables.
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>, ReadError> {
        let session = SessionContext::new();
        for table in TABLES {
            self.register(&session, table, None).await?;
        }
        Ok(session.sql(sql).await?.collect().await?)
    }

    /// Runs a query over one table as it was at `version`.
    pub async fn query_at(
        &self,
        sql: &str,
        table: ShopTable,
        version: u64,
    ) -> Result<Vec<RecordBatch>, ReadError> {
        let session = SessionContext::new();
        self.register(&session, table, Some(version)).await?;
        Ok(session.sql(sql).await?.collect().await?)
    }

    /// Compares the newest version of a table with the shop.
    pub async fn verify(&self, shop: &Shop, table: ShopTable) -> Result<Comparison, ReadError> {
        let sql = format!("SELECT {} FROM {}", select_list(table), table.name());
        let session = SessionContext::new();
        self.register(&session, table, None).await?;
        let batches = session.sql(&sql).await?.collect().await?;
        Ok(compare(shop, table, rows_of_batches(table, &batches)?)?)
    }

    async fn register(
        &self,
        session: &SessionContext,
        table: ShopTable,
        version: Option<u64>,
    ) -> Result<(), ReadError> {
        let opened = self.open(table, version).await?;
        let provider = opened.table_provider().await?;
        session.register_table(table.name(), provider)?;
        Ok(())
    }

    async fn open(&self, table: ShopTable, version: Option<u64>) -> Result<deltalake::DeltaTable, ReadError> {
        let folder = self.folder.join(table.name());
        let opened = async {
            let url = deltalake::ensure_table_uri(folder.to_string_lossy())?;
            match version {
                Some(version) => deltalake::open_table_with_version(url, version).await,
                None => deltalake::open_table(url).await,
            }
        };
        opened.await.map_err(|source| ReadError::Open { table: table.name(), source })
    }
}
