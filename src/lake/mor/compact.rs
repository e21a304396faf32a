//! Compaction: small files become larger ones, and files that are dense in deleted rows lose them.
//!
//! Every batch adds a file, and every file with a row that changes costs an entry in the commit. So files are kept in
//! tiers of size, each eight times the one before; eight files of a tier become one. A row is thereby rewritten at most
//! once a tier, and there are at most eight files in each, beside those that are large enough. A file of which a third
//! is deleted is rewritten whatever its size, which writes at most two rows for each one deleted.
//!
//! A step is bounded in bytes, and it is an ordinary commit: it says that no data changed, moves the index along, and
//! gives up where another writer was faster, for the files may no longer be what was read.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat, filter_record_batch};
use arrow::error::ArrowError;
use deltalake::Path;
use deltalake::logstore::object_store::ObjectStoreExt;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::files::{self, DataFiles, RowWriter};
use super::keys::{KeyCodec, Keys};
use super::locate::OwnCommit;
use super::{MergeOnRead, obstacle};
use crate::change::TableSchema;
use crate::lake::action::{Add, Entry};
use crate::lake::error::LakeError;
use crate::lake::log::Outcome;
use crate::lake::now_millis;
use crate::lake::schema::IS_CURRENT;
use crate::lake::shape::Shape;
use crate::lake::state::{LiveFile, TableState};
use crate::lake::table::{Table, Writer};

/// Files of one tier that become one.
const FAN_IN: usize = 8;
/// Bytes of live rows up to which a file belongs to the first tier.
const FIRST_TIER: i64 = 64 << 10;
/// Bytes of live rows from which on a file is left alone.
const LARGE: i64 = 32 << 20;
/// Bytes of files that one step reads.
const STEP: i64 = 64 << 20;
/// Share of deleted rows, in per cent, from which on a file is rewritten.
const DENSE: i64 = 33;

/// How pressing compaction has to be for a step to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lake) enum Pressure {
    /// There is time: as soon as it is worth it.
    Idle,
    /// Batches are waiting: where twice as many files have gathered.
    Busy,
}

/// The files of the next step; empty where there is nothing to do.
fn choose(state: &TableState, pressure: Pressure) -> Vec<String> {
    let factor = if pressure == Pressure::Busy { 2 } else { 1 };
    let mut tiers: Vec<Vec<(i64, &str, i64)>> = Vec::new();
    let mut densest: Option<(i64, &str)> = None;
    for (path, file) in state.files() {
        let (live, deleted) = measure(file);
        if deleted >= DENSE * factor && densest.is_none_or(|(most, _)| deleted > most) {
            densest = Some((deleted, path));
        }
        if live < LARGE {
            let tier = tier(live);
            if tiers.len() <= tier {
                tiers.resize_with(tier + 1, Vec::new);
            }
            if let Some(files) = tiers.get_mut(tier) {
                files.push((live, path, file.size));
            }
        }
    }
    let full = tiers.into_iter().find(|files| files.len() >= FAN_IN * factor as usize);
    let Some(mut files) = full else {
        return densest.into_iter().map(|(_, path)| path.to_owned()).collect();
    };
    files.sort_unstable();
    let mut bytes = 0;
    let fits = |&(at, (_, _, size)): &(usize, &(i64, &str, i64))| {
        bytes += size;
        at < 2 || bytes <= STEP
    };
    files.iter().enumerate().take_while(fits).map(|(_, (_, path, _))| (*path).to_owned()).collect()
}

/// Bytes of live rows, and the share of deleted rows in per cent.
fn measure(file: &LiveFile) -> (i64, i64) {
    match (file.rows, file.physical_rows()) {
        (Some(live), Some(physical)) if physical > 0 => {
            let bytes = i128::from(file.size) * i128::from(live) / i128::from(physical);
            (bytes as i64, (physical - live) * 100 / physical)
        }
        _ => (file.size, 0),
    }
}

fn tier(bytes: i64) -> usize {
    let (mut tier, mut limit) = (0, FIRST_TIER);
    while bytes >= limit {
        tier += 1;
        limit *= FAN_IN as i64;
    }
    tier
}

impl MergeOnRead {
    /// Makes one step, if one is due; says whether it did.
    pub(in crate::lake) async fn compact(
        &mut self,
        table: &mut Table,
        (schema, shape): (&Arc<TableSchema>, Shape),
        writer: &Writer,
        pressure: Pressure,
    ) -> Result<bool, LakeError> {
        let version = table.state.version();
        let chosen = choose(&table.state, pressure);
        // Whoever was faster is learned about by the next batch, which also sees whether it was fenced.
        if chosen.is_empty() || self.conflict == Some(version) || obstacle(&table.state, schema).is_some() {
            return Ok(false);
        }
        let started = std::time::Instant::now();
        let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
        self.follow(table, (schema, shape), &files).await?;
        let (written, keys) = self.rewrite(table, (schema, shape), &files, &chosen).await?;
        let now = now_millis();
        let entry = Entry::new("OPTIMIZE", &writer.id, now);
        let entry = chosen
            .iter()
            .filter_map(|path| Some(table.state.files().get(path.as_str())?.remove(path, now, false)))
            .fold(entry, |entry, remove| entry.remove(&remove));
        let entry = written.iter().fold(entry, Entry::add).into_bytes();
        if table.commit(entry.clone()).await? == Outcome::Conflict {
            self.conflict = Some(version);
            if let Some(add) = &written {
                // Nobody knows of it yet; a file left behind costs space only.
                let _ = files.store.delete(&Path::from(add.path.as_str())).await;
            }
            return Ok(false);
        }
        for path in &chosen {
            self.vectors.forget(path);
        }
        let rows: usize = keys.iter().map(Keys::len).sum();
        self.index_follows(&OwnCommit {
            version: table.state.version(),
            entry: &entry,
            written: written.as_ref().map(|add| add.path.as_str()),
            upserted: &keys,
            deleted: &Keys::default(),
            gone: &chosen,
        });
        tracing::debug!(table = table.log.table(), files = chosen.len(), rows, elapsed = ?started.elapsed(), "compacted");
        Ok(true)
    }

    /// Writes the live rows of `chosen` as one file, in their order, and returns their keys.
    async fn rewrite(
        &mut self,
        table: &Table,
        (schema, shape): (&Arc<TableSchema>, Shape),
        files: &DataFiles,
        chosen: &[String],
    ) -> Result<(Option<Add>, Vec<Keys>), LakeError> {
        let refused = |error: ArrowError| {
            LakeError::Refused(format!("table {} cannot be compacted: {error}", files.table))
        };
        let (columns, codec) = (shape.stored(schema), KeyCodec::new(schema));
        let mut out = RowWriter::new(&columns).map_err(refused)?;
        let mut keys = Vec::new();
        let mut bounds: Vec<Vec<ArrayRef>> = vec![Vec::new(); schema.key().len()];
        for path in chosen {
            let Some(file) = table.state.files().get(path.as_str()) else { continue };
            let vectors = self.vectors.of(&files.table, &*files.store, [(path.as_str(), file)]).await?;
            let deleted = vectors.into_iter().next().unwrap_or_default();
            let mut batches = files.scan(path, &columns).await?;
            let mut first = 0;
            while let Some(cells) = batches.try_next().await? {
                let batch = RecordBatch::try_new(Arc::clone(&columns), cells).map_err(refused)?;
                let rows = batch.num_rows() as u64;
                let batch = live(&batch, first, &deleted).map_err(refused)?;
                first += rows;
                let of_key: Vec<ArrayRef> =
                    schema.key().iter().filter_map(|&index| batch.columns().get(index).cloned()).collect();
                let of_rows = codec.encode(&of_key).map_err(refused)?;
                keys.push(match current_flags(&batch, shape) {
                    Some(flags) => of_rows.only(flags),
                    None => of_rows,
                });
                for (bounds, column) in bounds.iter_mut().zip(of_key) {
                    bounds.push(column);
                }
                out.write(&batch).map_err(refused)?;
            }
        }
        if out.rows() == 0 {
            return Ok((None, keys));
        }
        let mut of_key = Vec::with_capacity(bounds.len());
        for parts in &bounds {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            of_key.push(concat(&parts).map_err(refused)?);
        }
        let stats = files::statistics(out.rows(), schema, &of_key);
        let add = files.put(out.finish().map_err(refused)?, stats, false).await?;
        Ok((Some(add), keys))
    }
}

/// Which rows of a history table are current versions, the only ones that the index knows.
fn current_flags(rows: &RecordBatch, shape: Shape) -> Option<&BooleanArray> {
    rows.column_by_name(IS_CURRENT).filter(|_| shape.history)?.as_boolean_opt()
}

/// The rows of a batch that are not deleted; `first` is the ordinal of its first row.
fn live(batch: &RecordBatch, first: u64, deleted: &RoaringTreemap) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows() as u64;
    if deleted.range_cardinality(first..first + rows) == 0 {
        return Ok(batch.clone());
    }
    let keep: BooleanArray = (first..first + rows).map(|row| Some(!deleted.contains(row))).collect();
    filter_record_batch(batch, &keep)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    /// A state with files of (bytes, rows, deleted rows).
    fn state(files: &[(i64, i64, i64)]) -> TableState {
        let mut state = TableState::empty("t");
        let mut entry = Entry::new("WRITE", "w", 0);
        for (number, (size, rows, deleted)) in files.iter().enumerate() {
            let add = serde_json::from_value(serde_json::json!({
                "path": format!("{number}"), "size": size, "stats": format!("{{\"numRecords\":{rows}}}"),
                "deletionVector": {"storageType": "u", "pathOrInlineDv": "", "sizeInBytes": 1, "cardinality": deleted},
            }));
            entry = entry.add(&add.unwrap());
        }
        state.apply(0, &entry.into_bytes()).unwrap();
        state
    }

    #[test]
    fn eight_files_of_a_tier_become_one_and_larger_ones_wait() {
        let mut files = vec![(1000, 10, 0); 7];
        files.push((1 << 20, 10, 0));
        assert!(choose(&state(&files), Pressure::Idle).is_empty());
        files.push((2000, 10, 1));
        assert_eq!(choose(&state(&files), Pressure::Idle).len(), 8);
        assert!(choose(&state(&files), Pressure::Busy).is_empty(), "batches go first for a while");
    }

    #[test]
    fn a_dense_file_is_rewritten_alone_however_large() {
        let files = [(1 << 30, 1000, 340), (1 << 30, 1000, 100)];
        assert_eq!(choose(&state(&files), Pressure::Idle), ["0"]);
        assert!(choose(&state(&files), Pressure::Busy).is_empty());
    }

    #[test]
    fn a_step_reads_a_bounded_number_of_bytes() {
        let files = vec![(20 << 20, 1000, 0); 10];
        assert_eq!(choose(&state(&files), Pressure::Idle).len(), 3);
    }
}
