//! Copy-on-write of what the library's MERGE does not do: truncates, and tables without key.
//!
//! The files that lose rows are written anew, and one log entry of ours replaces them: the same plan as for deletion
//! vectors, with rows found by reading ([`scan`]). So a truncate and the rows of its batch are one commit here as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::bounds::Statistics;
use super::cells::{Cells, OriginPlaces, with_stored_cells};
use super::compacted::live;
use super::encoding::RowWriter;
use super::ending::{End, Ended};
use super::files::DataFiles;
use super::incoming::Upsert;
use super::keys::KeyCodec;
use super::plan::{self, Emptied, Plan};
use super::vectors::Vectors;
use super::{Done, Keys, Upserted, scan};
use crate::change::{Folded, TableSchema, Truncated};
use crate::lake::action::{Add, Entry};
use crate::lake::error::LakeError;
use crate::lake::log::Outcome;
use crate::lake::moment::Moment;
use crate::lake::now_millis;
use crate::lake::shape::Shape;
use crate::lake::table::{ATTEMPTS, Advance, Table, Writer, txns};

/// Bytes of deletion vectors kept for one batch. Tables that are written so have none of ours.
const VECTOR_MEMORY: usize = 32 << 20;

/// Brings `folded` into `table` by rewriting files, together with the positions in `advances`.
pub(in crate::lake) async fn upsert(
    table: &mut Table,
    (folded, shape): (&Folded, Shape),
    advances: &[Advance],
    writer: &Writer,
) -> Result<Upserted, LakeError> {
    let codec = KeyCodec::new(&folded.schema, &folded.compared);
    let mut upsert = Upsert::new(table, (folded, shape), advances, &codec)?;
    let since = Moment::now();
    for attempt in 0..ATTEMPTS {
        let ended = end(table, &codec, &upsert).await?;
        let (plan, origins, departing) = find(table, &codec, &upsert, &ended.rows).await?;
        let ledger = upsert.ledger_after(&departing).await?;
        let Cells { columns, depends, unresolved } =
            with_stored_cells((folded, shape), &plan, &origins, &upsert.files).await?;
        let mut unknown_deletes = folded.deletes.num_rows() - plan.without_successor();
        if upsert.written.is_none() || depends || folded.of_stored.is_some() {
            unknown_deletes += upsert.write(columns, &plan).await?;
        }
        let unknown_deletes = unknown_deletes as u64;
        let done = Done { unresolved_absent: unresolved.len() as u64, unresolved, unknown_deletes };
        let entry = Entry::of_batch("MERGE", &writer.id, now_millis(), &ledger.to_text());
        let entry = upsert.written.iter().fold(ended.added_to(entry), Entry::add);
        let entry = upsert.with_changes(entry, &plan).await?;
        let entry = plan.write_files(entry, &upsert.files, (&folded.schema, shape)).await?;
        let entry = txns(advances).fold(entry, |entry, txn| entry.txn(&txn));
        let conflicts = u64::from(attempt);
        if table.commit_files(entry.into_bytes(), since).await? == Outcome::Committed {
            return Ok(Upserted::Committed { done, conflicts });
        }
        let found = table.catch_up(writer, advances).await?;
        if table.has(advances) {
            return Ok(Upserted::Committed { done: Done::default(), conflicts });
        }
        if found.metadata || found.ledger {
            return Ok(Upserted::Changed);
        }
    }
    Err(LakeError::Busy { table: table.log.table().to_owned(), attempts: ATTEMPTS })
}

/// Ends the stored rows that truncates of the batch take.
async fn end(table: &Table, codec: &KeyCodec, upsert: &Upsert<'_>) -> Result<Ended, LakeError> {
    let Some(ending) = &upsert.folded.ending else { return Ok(Ended::default()) };
    let mut vectors = Vectors::new(VECTOR_MEMORY);
    let keys = (&upsert.upserted, &Keys::default());
    let own = scan::find(table, &upsert.files, &mut vectors, codec, keys, &Emptied::new()).await?;
    End::of_rows(upsert, ending, own)?.write(table, &mut vectors).await
}

/// The rows that go, and the places of the origins of cells of the batch's rows and of the departing ones.
async fn find(
    table: &Table,
    codec: &KeyCodec,
    upsert: &Upsert<'_>,
    ended: &Emptied,
) -> Result<(Plan, OriginPlaces, OriginPlaces), LakeError> {
    let (mut origins, mut departing) = upsert.kept_aside().await?;
    let emptied = match upsert.folded.truncated {
        Some(Truncated::All) => return Ok((Plan::everything(table), origins, departing)),
        Some(truncated) => &scan::emptied(table, &upsert.files, truncated).await?,
        None => ended,
    };
    let mut vectors = Vectors::new(VECTOR_MEMORY);
    let keys = (&upsert.upserted, &upsert.deleted);
    let found = scan::find(table, &upsert.files, &mut vectors, codec, keys, emptied).await?;
    let none = Keys::default();
    for (places, keys) in [(&mut origins, &upsert.origins), (&mut departing, &upsert.departing)] {
        if keys.len() == 0 {
            continue;
        }
        let keys = (keys, &none);
        places.stored = vec![None; keys.0.len()];
        for (path, rows) in scan::find(table, &upsert.files, &mut vectors, codec, keys, emptied).await? {
            for (row, key) in rows {
                if let Some(place) = key.and_then(|key| places.stored.get_mut(key)) {
                    *place = Some((path.clone(), row));
                }
            }
        }
    }
    let mut going: BTreeMap<&str, Vec<plan::Going>> =
        emptied.keys().map(|path| (path.as_str(), Vec::new())).collect();
    for (path, rows) in &found {
        going.entry(path.as_str()).or_default().extend_from_slice(rows);
    }
    let plan = plan::take(table, &mut vectors, &*upsert.files.store, going, emptied).await?;
    Ok((plan, origins, departing))
}

/// Writes a file anew without the rows in `deleted`; `None` where no row is left.
pub(super) async fn without(
    files: &DataFiles,
    (schema, shape): (&Arc<TableSchema>, Shape),
    path: &str,
    deleted: &RoaringTreemap,
) -> Result<Option<Add>, LakeError> {
    let refused = |error: ArrowError| {
        LakeError::Refused(format!("file {path} of table {} cannot be written anew: {error}", files.table))
    };
    let columns = shape.stored(schema);
    let mut out = RowWriter::new(&columns).map_err(refused)?;
    let mut batches = files.scan(path, &columns).await?;
    let (mut first, mut statistics) = (0, Statistics::new(schema));
    while let Some(cells) = batches.try_next().await? {
        let batch = RecordBatch::try_new(Arc::clone(&columns), cells).map_err(refused)?;
        let rows = batch.num_rows() as u64;
        let batch = live(&batch, first, deleted).map_err(refused)?;
        first += rows;
        statistics.extend(&batch);
        out.write(&batch).map_err(refused)?;
    }
    if out.rows() == 0 {
        return Ok(None);
    }
    files.put(out.finish().map_err(refused)?, statistics.into_text(), true).await.map(Some)
}
