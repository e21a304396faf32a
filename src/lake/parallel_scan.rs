//! A table with deletion vectors, read on all cores.
//!
//! As soon as one file of a scan has a deletion vector, the Delta library reads all files one behind the other and puts
//! them into one stream (delta-rs 1.1, `get_data_scan_plan`): a full scan then takes as many times as long as there are
//! cores. So the files are dealt to several scans of the library, each of which reads its own, and their streams stand
//! side by side.
//!
//! Invariant: each file of the version is read by exactly one of them. Where that is not certain, which is where a path has
//! characters that the log writes in another way than the storage, the library scans the table alone.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use deltalake::DeltaTable;
use deltalake::datafusion::catalog::{Session, TableProvider};
use deltalake::datafusion::error::{DataFusionError, Result};
use deltalake::datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use deltalake::datafusion::physical_plan::ExecutionPlan;
use deltalake::datafusion::physical_plan::union::UnionExec;

/// Scans of one version of a table that together read each of its files once.
#[derive(Debug)]
struct ParallelScan {
    first: Arc<dyn TableProvider>,
    others: Vec<Arc<dyn TableProvider>>,
}

/// The table as a query reads it, in up to `parts` streams where it has deletion vectors.
pub(super) async fn provider(table: &DeltaTable, parts: usize) -> Result<Arc<dyn TableProvider>> {
    let mut groups = groups(table, parts)?.into_iter();
    let (Some(first), Some(second)) = (groups.next(), groups.next()) else {
        return table.table_provider().await;
    };
    let first = table.table_provider().with_file_paths(first).await?;
    let mut others = Vec::new();
    for paths in std::iter::once(second).chain(groups) {
        others.push(table.table_provider().with_file_paths(paths).await?);
    }
    Ok(Arc::new(ParallelScan { first, others }))
}

/// The files of a table in so many groups of about the same bytes; none where one scan does as well.
fn groups(table: &DeltaTable, parts: usize) -> Result<Vec<Vec<String>>> {
    let state = table.snapshot().map_err(|error| DataFusionError::External(Box::new(error)))?;
    let (mut files, mut deleted) = (Vec::new(), false);
    for file in state.log_data() {
        let path = file.path().into_owned();
        if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-=/".contains(&byte)) {
            return Ok(Vec::new());
        }
        deleted |= file.deletion_vector_descriptor().is_some();
        files.push((file.size(), path));
    }
    if !deleted {
        return Ok(Vec::new());
    }
    files.sort_unstable_by(|one, other| other.cmp(one));
    let mut groups: Vec<(i64, Vec<String>)> = vec![(0, Vec::new()); parts.min(files.len())];
    for (size, path) in files {
        if let Some((bytes, paths)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += size;
            paths.push(path);
        }
    }
    Ok(groups.into_iter().map(|(_, paths)| paths).filter(|paths| !paths.is_empty()).collect())
}

#[async_trait]
impl TableProvider for ParallelScan {
    fn schema(&self) -> SchemaRef {
        self.first.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut plans = Vec::with_capacity(1 + self.others.len());
        for part in std::iter::once(&self.first).chain(&self.others) {
            plans.push(part.scan(session, projection, filters, limit).await?);
        }
        UnionExec::try_new(plans)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.first.supports_filters_pushdown(filters)
    }
}
