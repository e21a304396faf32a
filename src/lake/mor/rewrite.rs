//! Copy-on-write of what the library's MERGE does not do: truncates, and tables without key.
//!
//! The files that lose rows are written anew, and one log entry of ours replaces them: the same plan as for deletion
//! vectors, with rows found by reading ([`scan`]). So a truncate and the rows of its batch are one commit here as well.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::compact::{live, stored_schema};
use super::files::{self, DataFiles, RowWriter, stored_rows};
use super::keys::KeyCodec;
use super::plan::{self, Cells, Emptied, Plan, with_stored_cells};
use super::vectors::Vectors;
use super::{Upsert, Upserted, scan};
use crate::change::{Folded, TableSchema, Truncated};
use crate::failpoint;
use crate::lake::action::{Add, Entry};
use crate::lake::error::LakeError;
use crate::lake::log::Outcome;
use crate::lake::now_millis;
use crate::lake::table::{ATTEMPTS, Advance, Table, Writer, txns};

/// Bytes of deletion vectors kept for one batch. Tables that are written so have none of ours.
const VECTOR_MEMORY: usize = 32 << 20;

/// Brings `folded` into `table` by rewriting files, together with the positions in `advances`.
pub(in crate::lake) async fn upsert(
    table: &mut Table,
    folded: &Folded,
    advances: &[Advance],
    writer: &Writer,
) -> Result<Upserted, LakeError> {
    let codec = KeyCodec::new(&folded.schema, &folded.compared);
    let mut upsert = Upsert::new(table, folded, advances, &codec)?;
    for attempt in 0..ATTEMPTS {
        let (plan, unmatched) = find(table, &codec, &upsert).await?;
        let Cells { columns, depends, unresolved } = with_stored_cells(folded, &plan, &upsert.files).await?;
        if folded.rows.num_rows() > 0 && (upsert.written.is_none() || depends) {
            let rows = stored_rows(folded, columns).map_err(|error| upsert.refused(&error))?;
            upsert.written = Some(upsert.files.write(rows, &folded.schema).await?);
            failpoint::hit("lake.after_data_files");
        }
        let entry = Entry::new("MERGE", &writer.id, now_millis());
        let entry = upsert.written.iter().fold(entry, Entry::add);
        let entry = plan.write_files(entry, &upsert.files, &folded.schema).await?;
        let entry = txns(advances).fold(entry, |entry, txn| entry.txn(&txn));
        let conflicts = u64::from(attempt);
        if table.commit(entry.into_bytes()).await? == Outcome::Committed {
            return Ok(Upserted::Committed { unresolved_absent: unresolved, unmatched, conflicts });
        }
        let found = table.catch_up(writer, advances).await?;
        if table.has(advances) {
            return Ok(Upserted::Committed { unresolved_absent: 0, unmatched: 0, conflicts });
        }
        if found.metadata {
            return Ok(Upserted::Changed);
        }
    }
    Err(LakeError::Busy { table: table.log.table().to_owned(), attempts: ATTEMPTS })
}

async fn find(table: &Table, codec: &KeyCodec, upsert: &Upsert<'_>) -> Result<(Plan, u64), LakeError> {
    let emptied = match upsert.folded.truncated {
        Some(Truncated::All) => return Ok((Plan::everything(table), upsert.unmatched_without_rows())),
        Some(truncated) => scan::emptied(table, &upsert.files, truncated).await?,
        None => Emptied::new(),
    };
    let mut vectors = Vectors::new(VECTOR_MEMORY);
    let keys = (&upsert.upserted, &upsert.deleted);
    let scanned = scan::find(table, &upsert.files, &mut vectors, codec, keys, &emptied).await?;
    let mut going: std::collections::BTreeMap<&str, Vec<plan::Going>> =
        emptied.keys().map(|path| (path.as_str(), Vec::new())).collect();
    for (path, rows) in &scanned.going {
        going.entry(path.as_str()).or_default().extend_from_slice(rows);
    }
    let plan = plan::take(table, &mut vectors, &*upsert.files.store, going, &emptied).await?;
    Ok((plan, scanned.unmatched))
}

/// Writes a file anew without the rows in `deleted`; `None` where no row is left.
pub(super) async fn without(
    files: &DataFiles,
    schema: &Arc<TableSchema>,
    path: &str,
    deleted: &RoaringTreemap,
) -> Result<Option<Add>, LakeError> {
    let refused = |error: ArrowError| {
        LakeError::Refused(format!("file {path} of table {} cannot be written anew: {error}", files.table))
    };
    let columns = stored_schema(schema);
    let mut out = RowWriter::new(&columns).map_err(refused)?;
    let mut batches = files.scan(path, &columns).await?;
    let mut first = 0;
    let mut of_key = Vec::new();
    while let Some(cells) = batches.try_next().await? {
        let batch = RecordBatch::try_new(Arc::clone(&columns), cells).map_err(refused)?;
        let rows = batch.num_rows() as u64;
        let batch = live(&batch, first, deleted).map_err(refused)?;
        first += rows;
        of_key.push(batch.project(schema.key()).map_err(refused)?);
        out.write(&batch).map_err(refused)?;
    }
    if out.rows() == 0 {
        return Ok(None);
    }
    let key_schema = Arc::new(columns.project(schema.key()).map_err(refused)?);
    let bounds = arrow::compute::concat_batches(&key_schema, &of_key).map_err(refused)?;
    let stats = files::statistics(out.rows(), schema, bounds.columns());
    files.put(out.finish().map_err(refused)?, stats, true).await.map(Some)
}
