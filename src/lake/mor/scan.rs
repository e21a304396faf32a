//! Finding rows by reading the table, where no index says where they lie.
//!
//! That is so for the rows that a truncate takes of a table which has newer ones already, and in tables that are written
//! by rewriting files. It costs the columns that are read of every file, which is what a MERGE costs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use futures::{FutureExt, StreamExt, TryStreamExt};
use roaring::RoaringTreemap;

use super::files::DataFiles;
use super::keys::{KeyCodec, Keys};
use super::plan::{Emptied, Going};
use super::vectors::Vectors;
use crate::change::Truncated;
use crate::lake::error::LakeError;
use crate::lake::schema::SOURCE_TIME;
use crate::lake::shape::Shape;
use crate::lake::table::Table;

/// Files that are read at the same time.
const READERS: usize = 4;

/// The rows that a truncate takes, by the commit time that is stored with them.
pub(super) async fn emptied(
    table: &Table,
    files: &DataFiles,
    truncated: Truncated,
) -> Result<Emptied, LakeError> {
    let time = Shape::default().fields().into_iter().filter(|field| field.name() == SOURCE_TIME);
    let columns: SchemaRef = Arc::new(Schema::new(time.collect::<Vec<_>>()));
    let mut reads = Vec::with_capacity(table.state.files().len());
    for path in table.state.files().keys() {
        let columns = Arc::clone(&columns);
        let read = async move {
            Ok::<_, LakeError>((path.to_string(), taken(files, path, &columns, truncated).await?))
        };
        reads.push(read.boxed());
    }
    futures::stream::iter(reads).buffer_unordered(READERS).try_collect().await
}

async fn taken(
    files: &DataFiles,
    path: &str,
    columns: &SchemaRef,
    truncated: Truncated,
) -> Result<RoaringTreemap, LakeError> {
    let mut batches = files.scan(path, columns).await?;
    let (mut taken, mut first) = (RoaringTreemap::new(), 0_u64);
    while let Some(cells) = batches.try_next().await? {
        let Some(times) =
            cells.first().and_then(|cells| cells.as_primitive_opt::<TimestampMicrosecondType>())
        else {
            let message = format!("{path} has no column {SOURCE_TIME}");
            return Err(LakeError::Unreadable { table: files.table.to_string(), message });
        };
        let takes = |row: &usize| truncated.takes((!times.is_null(*row)).then(|| times.value(*row)));
        taken.extend((0..times.len()).filter(takes).map(|row| first + row as u64));
        first += times.len() as u64;
    }
    Ok(taken)
}

/// Reads the live rows of all files for the keys of a batch. Rows in `emptied` are not there any more.
pub(super) async fn find(
    table: &Table,
    files: &DataFiles,
    vectors: &mut Vectors,
    codec: &KeyCodec,
    (upserted, deleted): (&Keys, &Keys),
    emptied: &Emptied,
) -> Result<BTreeMap<String, Vec<Going>>, LakeError> {
    let mut wanted = Wanted::new(codec, upserted, deleted);
    let columns: SchemaRef = Arc::new(Schema::new(codec.fields().collect::<Vec<_>>()));
    let mut going: BTreeMap<String, Vec<Going>> = BTreeMap::new();
    for (path, file) in table.state.files() {
        if wanted.is_empty() {
            break;
        }
        let gone = vectors.of(&files.table, &*files.store, [(&**path, file)]).await?;
        let gone = gone.into_iter().next().unwrap_or_default();
        let emptied = emptied.get(&**path);
        let mut batches = files.scan(path, &columns).await?;
        let mut first = 0;
        while let Some(cells) = batches.try_next().await? {
            let keys = codec.encode(&cells).map_err(|error| LakeError::Unreadable {
                table: files.table.to_string(),
                message: format!("the key columns of {path}: {error}"),
            })?;
            for (row, key) in (first..).zip(keys.iter()) {
                let is_live = !gone.contains(u64::from(row))
                    && !emptied.is_some_and(|rows| rows.contains(u64::from(row)));
                if let Some(by) = key.filter(|_| is_live).and_then(|key| wanted.take(key)) {
                    going.entry(path.to_string()).or_default().push((row, by));
                }
            }
            first += keys.len() as u32;
        }
    }
    Ok(going)
}

/// The rows that are looked for.
enum Wanted<'a> {
    /// Each key once: the row of the batch that takes the place, or none.
    Keys(HashMap<&'a [u8], Option<usize>>),
    /// So many instances of each row.
    Instances(HashMap<&'a [u8], u64>),
}

impl<'a> Wanted<'a> {
    fn new(codec: &KeyCodec, upserted: &'a Keys, deleted: &'a Keys) -> Self {
        if codec.whole_rows() {
            let mut wanted: HashMap<&[u8], u64> = HashMap::new();
            for row in deleted.iter().flatten() {
                *wanted.entry(row).or_default() += 1;
            }
            return Self::Instances(wanted);
        }
        let replaced = upserted.iter().enumerate().filter_map(|(row, key)| Some((key?, Some(row))));
        Self::Keys(replaced.chain(deleted.iter().flatten().map(|key| (key, None))).collect())
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Keys(keys) => keys.is_empty(),
            Self::Instances(rows) => rows.is_empty(),
        }
    }

    /// Whether a stored row with this key goes, and which row takes its place.
    // Two questions, each of which may be answered with no.
    #[allow(clippy::option_option)]
    fn take(&mut self, key: &[u8]) -> Option<Option<usize>> {
        match self {
            // Two rows with one key, which only another writer can make, go both, as in a MERGE.
            Self::Keys(keys) => keys.get(key).copied(),
            Self::Instances(rows) => {
                let left = rows.get_mut(key)?;
                *left -= 1;
                if *left == 0 {
                    rows.remove(key);
                }
                Some(None)
            }
        }
    }
}
