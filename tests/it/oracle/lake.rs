//! Tables of the lake, read with the Delta library as any other reader would.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use deltalake::datafusion::prelude::SessionContext;
use url::Url;

use super::{Rows, SourceColumn, by_key, canonical, compare};
use crate::shop::Shop;

/// Columns that Alluvium adds to each current table.
const METADATA: [&str; 3] = ["__cdc_operation", "__cdc_timestamp", "__synced_at"];

/// The address of a table's folder.
pub fn table_url(folder: &Path) -> Result<Url, String> {
    Url::from_directory_path(folder).map_err(|()| format!("not an absolute path: {}", folder.display()))
}

/// The result of `query`, in which the table in `folder` is called `t`.
pub async fn rows_of(folder: &Path, query: &str) -> Result<Vec<RecordBatch>, String> {
    let what = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    let table = deltalake::open_table(table_url(folder)?).await.map_err(|error| what(&error))?;
    let provider = table.table_provider().await.map_err(|error| what(&error))?;
    let session = SessionContext::new();
    session.register_table("t", Arc::clone(&provider)).map_err(|error| what(&error))?;
    let frame = session.sql(query).await.map_err(|error| what(&error))?;
    frame.collect().await.map_err(|error| what(&error))
}

/// Rows of the table in `folder`.
pub async fn count_rows(folder: &Path) -> Result<usize, String> {
    Ok(rows_of(folder, "SELECT * FROM t").await?.iter().map(RecordBatch::num_rows).sum())
}

/// Compares a current table with the rows of its source.
pub async fn table_equal(
    shop: &Shop,
    table: &str,
    columns: &[SourceColumn],
    source: &Rows,
) -> Result<(), String> {
    rows_equal(shop, (table, "true"), columns, source).await
}

/// Compares those rows of a table for which `condition` holds with the rows of its source.
pub async fn rows_equal(
    shop: &Shop,
    (table, condition): (&str, &str),
    columns: &[SourceColumn],
    source: &Rows,
) -> Result<(), String> {
    let what = format!("lake {table}");
    let query = format!("SELECT * FROM t WHERE {condition}");
    let batches = rows_of(&shop.lake.join(table), &query).await?;
    let mut rows = Vec::new();
    for batch in &batches {
        check_metadata(&what, batch)?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| {
                let array = batch.column_by_name(&column.name);
                let array = array.ok_or_else(|| format!("{what}: no column {}", column.name))?;
                canonical::cell(array.as_ref(), row, &column.kind)
                    .map_err(|error| format!("{what}, column {}: {error}", column.name))
            });
            rows.push(cells.collect::<Result<Vec<_>, String>>()?);
        }
    }
    compare(&what, columns, source, &by_key(rows.into_iter(), columns))
}

fn check_metadata(what: &str, batch: &RecordBatch) -> Result<(), String> {
    for name in METADATA {
        let array = batch.column_by_name(name).ok_or_else(|| format!("{what}: no column {name}"))?;
        if array.null_count() > 0 {
            return Err(format!(
                "{what}: {} of {} rows without {name}",
                array.null_count(),
                batch.num_rows()
            ));
        }
    }
    Ok(())
}
