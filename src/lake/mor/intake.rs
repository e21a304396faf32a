//! Reading the key columns of data files into the key index.
//!
//! Several files are read at the same time, each by a task of its own, and one place writes, because the index has one
//! writer. The keys wait in a bounded channel: a table of any size takes the same memory. Rows that are marked as deleted do
//! not get in, so that what is built is what a reader of the table sees.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use tokio::sync::mpsc;

use super::builds::{IndexBuilds, Reading};
use super::files::DataFiles;
use super::keys::{KeyCodec, Keys};
use super::locate::failed;
use super::{stacks, vectors};
use crate::lake::action::DeletionVector;
use crate::lake::error::LakeError;
use crate::lake::index::{KeyIndex, RowAddress, TOGETHER};
use crate::lake::schema::IS_CURRENT;

/// Files that are read at the same time.
const READERS: usize = 4;
/// Time between two lines of the log about a long reading.
const PROGRESS: Duration = Duration::from_secs(5);
/// Batches of keys that wait for the index.
const QUEUED: usize = 16;

/// How far the reading of keys has got, said now and then.
struct Progress<'a> {
    table: &'a str,
    done: usize,
    of: i64,
    said: Instant,
    reading: Reading,
}

impl<'a> Progress<'a> {
    fn new(table: &'a str, of: i64, builds: &IndexBuilds) -> Self {
        let reading = builds.begin(table, of.max(0) as u64);
        Self { table, done: 0, of, said: Instant::now(), reading }
    }

    fn advance(&mut self, rows: usize) {
        self.done += rows;
        self.reading.reached(self.done as u64);
        if self.said.elapsed() >= PROGRESS {
            tracing::info!(table = self.table, rows = self.done, of = self.of, "building the key index");
            self.said = Instant::now();
        }
    }
}

/// Keys of consecutive rows of a file.
struct Located {
    file: u32,
    first: u32,
    keys: Keys,
    deleted: Arc<RoaringTreemap>,
}

/// Reads the keys of the live rows of `added`, about `rows` of them, into the index, several files at a time.
///
/// # Errors
/// Where a file cannot be read or the index not be written: the index holds some of the keys then.
pub(super) async fn take_in(
    index: &mut KeyIndex,
    (codec, columns): (&Arc<KeyCodec>, &SchemaRef),
    cursor: &mut u32,
    (added, rows): (Vec<(String, Option<DeletionVector>)>, i64),
    (files, builds): (&DataFiles, &IndexBuilds),
) -> Result<(), LakeError> {
    let whole_rows = codec.whole_rows();
    let mut numbered = Vec::with_capacity(added.len());
    for (path, vector) in added {
        let number = index.file_number(&path).map_err(|error| failed(&files.table, &error))?;
        numbered.push((number, path, vector));
    }
    let (sender, mut receiver) = mpsc::channel::<Located>(QUEUED);
    let readers = futures::stream::iter(numbered).map(move |(number, path, vector)| {
        let (files, codec) = (files.clone(), Arc::clone(codec));
        let (columns, sender) = (Arc::clone(columns), sender.clone());
        async move {
            let task =
                async move { read_keys(&files, &codec, &columns, (number, &path, vector), &sender).await };
            tokio::spawn(task)
                .await
                .map_err(|error| LakeError::Storage { table: String::new(), message: error.to_string() })?
        }
    });
    let reading = readers.buffer_unordered(READERS).try_collect::<()>();
    let mut progress = Progress::new(&files.table, rows, builds);
    let writing = async {
        while let Some(located) = receiver.recv().await {
            progress.advance(located.keys.len());
            let live = (located.first..)
                .zip(located.keys.iter())
                .filter(|(row, _)| !located.deleted.contains(u64::from(*row)));
            enter(index, located.file, live, whole_rows.then_some(&mut *cursor))
                .map_err(|error| failed(&files.table, &error))?;
        }
        Ok(())
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}

/// Enters the addresses of rows of a file that have a key: each the only one of its key, or (with `cursor`) one more on the
/// stack of equal rows.
pub(super) fn enter<'a>(
    index: &mut KeyIndex,
    file: u32,
    rows: impl Iterator<Item = (u32, Option<&'a [u8]>)>,
    mut cursor: Option<&mut u32>,
) -> std::io::Result<()> {
    let mut rows = rows.filter_map(|(row, key)| Some((row, key?)));
    loop {
        let some: Vec<_> =
            rows.by_ref().take(TOGETHER).map(|(row, key)| (row, key, index.key(key))).collect();
        if some.is_empty() {
            return Ok(());
        }
        index.approach(some.iter().map(|(_, _, key)| *key));
        for (row, bytes, key) in some {
            let address = RowAddress { file, row };
            match &mut cursor {
                None => index.put(key, address)?,
                Some(cursor) => stacks::push(index, bytes, address, cursor)?,
            }
        }
    }
}

async fn read_keys(
    files: &DataFiles,
    codec: &KeyCodec,
    columns: &SchemaRef,
    (file, path, vector): (u32, &str, Option<DeletionVector>),
    sender: &mpsc::Sender<Located>,
) -> Result<(), LakeError> {
    let deleted = match vector {
        Some(vector) => Arc::new(vectors::read(&files.table, &*files.store, &vector).await?),
        None => Arc::default(),
    };
    let mut batches = files.scan(path, columns).await?;
    let mut first = 0;
    while let Some(mut cells) = batches.try_next().await? {
        let current = if columns.column_with_name(IS_CURRENT).is_some() { cells.pop() } else { None };
        let keys = codec.encode(&cells).map_err(|error| LakeError::Unreadable {
            table: files.table.to_string(),
            message: format!("the key columns of {path}: {error}"),
        })?;
        let keys = match current.as_ref().and_then(|flags| flags.as_boolean_opt()) {
            Some(flags) => keys.only(flags),
            None => keys,
        };
        let rows = keys.len() as u32;
        if sender.send(Located { file, first, keys, deleted: Arc::clone(&deleted) }).await.is_err() {
            return Ok(());
        }
        first += rows;
    }
    Ok(())
}
