//! The last changes of stored rows: in a table of several sources, what a batch is compared with before it is folded.
//!
//! Only the rows of the batch's keys are read, and of them only the columns that say where the change came from.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::files::DataFiles;
use super::plan::{self, Emptied, READERS};
use super::{KeyCodec, MergeOnRead};
use crate::change::TableSchema;
use crate::lake::error::LakeError;
use crate::lake::shape::Shape;
use crate::lake::table::Table;

/// Cells of stored rows, and for each key in which batch its row is, and where in it.
pub(in crate::lake) type StoredRows = (Vec<RecordBatch>, Vec<Option<(usize, usize)>>);

impl MergeOnRead {
    /// The cells in `columns` of the stored rows with these keys, the key columns of `schema`.
    pub(in crate::lake) async fn stored_rows(
        &mut self,
        table: &Table,
        (schema, shape): (&TableSchema, Shape),
        keys: &RecordBatch,
        columns: &SchemaRef,
    ) -> Result<StoredRows, LakeError> {
        let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
        let codec = KeyCodec::new(schema, schema.key());
        let keys = codec
            .encode(keys.columns())
            .map_err(|error| LakeError::Refused(format!("keys of table {}: {error}", table.log.table())))?;
        self.follow(table, (&codec, shape), &files).await?;
        let Some(locator) = self.locator.as_ref().filter(|_| !table.state.files().is_empty()) else {
            return Ok((Vec::new(), vec![None; keys.len()]));
        };
        let addresses = locator.locate(&keys)?;
        let (vectors, none) = (&mut self.vectors, Emptied::new());
        let places = plan::live_places(table, locator, vectors, &*files.store, &addresses, &none).await?;
        let mut wanted: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (path, row) in places.iter().flatten() {
            wanted.entry(path).or_default().push(*row);
        }
        let mut reads = Vec::with_capacity(wanted.len());
        let mut found: HashMap<(&str, u32), (usize, usize)> = HashMap::new();
        for (batch, (path, rows)) in wanted.iter_mut().enumerate() {
            rows.sort_unstable();
            rows.dedup();
            found.extend(rows.iter().enumerate().map(|(place, &row)| ((*path, row), (batch, place))));
        }
        for (path, rows) in &wanted {
            let files = &files;
            reads.push(async move { files.rows(path, columns, rows).await }.boxed());
        }
        let batches: Vec<RecordBatch> = futures::stream::iter(reads).buffered(READERS).try_collect().await?;
        let place = |place: &Option<plan::Place>| {
            place.as_ref().and_then(|(path, row)| found.get(&(path.as_str(), *row)).copied())
        };
        Ok((batches, places.iter().map(place).collect()))
    }
}
