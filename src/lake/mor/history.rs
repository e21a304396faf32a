//! History tables: each version of a row is a row, and a version that ends is written anew with the time of its end.
//!
//! The index knows the current version of each key. Where a batch ends it, its row is marked as deleted in its file's
//! vector and appended again as a version that has ended, together with the versions that begin; all in one commit, by
//! the same loop as every upsert. So a reader finds each version once, and a crash leaves all of a batch or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{concat, concat_batches, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::ending::{self, End, Ended};
use super::files::DataFiles;
use super::keys::{KeyCodec, Keys};
use super::locate::OwnCommit;
use super::plan::{self, Emptied, Plan, READERS};
use super::{Done, MergeOnRead, Upserted, changes};
use crate::change::versions::Completed;
use crate::change::{Ending, Versions};
use crate::failpoint;
use crate::lake::action::{Add, Entry};
use crate::lake::error::LakeError;
use crate::lake::log::Outcome;
use crate::lake::moment::Moment;
use crate::lake::now_millis;
use crate::lake::schema::{IS_CURRENT, SYNCED_AT, VALID_TO};
use crate::lake::shape::Shape;
use crate::lake::table::{ATTEMPTS, Advance, Table, Writer, txns};

/// The shape of every history table.
const SHAPE: Shape = Shape { keeps_deleted: false, history: true };

/// What is being brought into the table.
struct Addition<'a> {
    versions: &'a Versions,
    /// Numbers of the batch's partitions.
    partitions: &'a [i32],
    keys: Keys,
    columns: SchemaRef,
    files: DataFiles,
}

/// A commit that is ready for its attempt.
struct Prepared {
    entry: bytes::Bytes,
    plan: Plan,
    written: Option<Add>,
    /// Keys of the rows of `written`; of versions that have ended there are none.
    written_keys: Keys,
    gone: Keys,
    done: Done,
}

impl MergeOnRead {
    /// Brings `versions` into `table` together with the positions in `advances`.
    pub(in crate::lake) async fn add_versions(
        &mut self,
        table: &mut Table,
        (versions, partitions): (&Versions, &[i32]),
        advances: &[Advance],
        writer: &Writer,
    ) -> Result<Upserted, LakeError> {
        let codec = KeyCodec::new(&versions.schema, versions.schema.key());
        let keys = codec.encode(versions.keys.columns());
        let addition = Addition {
            versions,
            partitions,
            keys: keys.map_err(|error| {
                LakeError::Refused(format!("keys of table {}: {error}", table.log.table()))
            })?,
            columns: SHAPE.stored(&versions.schema),
            files: DataFiles { table: table.log.table().into(), store: table.log.files() },
        };
        let mut since = None;
        for attempt in 0..ATTEMPTS {
            self.follow(table, (&codec, SHAPE), &addition.files).await?;
            let since = *since.get_or_insert_with(Moment::now);
            let prepared = self.prepare_versions(table, &addition, advances, writer).await?;
            let committed = |done| Upserted::Committed { done, conflicts: u64::from(attempt) };
            if table.commit_files(prepared.entry.clone(), since).await? == Outcome::Committed {
                failpoint::hit("lake.before_index");
                let gone = self.keep_vectors(prepared.plan);
                self.index_follows(&OwnCommit {
                    version: table.state.version(),
                    entry: &prepared.entry,
                    written: prepared.written.as_ref().map(|add| add.path.as_str()),
                    upserted: std::slice::from_ref(&prepared.written_keys),
                    deleted: &prepared.gone,
                    cuts: &[],
                    // What has an address is current, and of what was current before a truncate nothing is.
                    emptied: versions.ending.as_ref().is_some_and(Ending::takes_all),
                    gone: &gone,
                });
                return Ok(committed(prepared.done));
            }
            let found = table.catch_up(writer, advances).await?;
            if table.has(advances) {
                return Ok(committed(Done::default()));
            }
            if found.metadata {
                return Ok(Upserted::Changed);
            }
        }
        Err(LakeError::Busy { table: table.log.table().to_owned(), attempts: ATTEMPTS })
    }

    /// Ends the stored versions that truncates of the batch take.
    async fn end_versions(&mut self, table: &Table, addition: &Addition<'_>) -> Result<Ended, LakeError> {
        let locator = self.locator.as_ref().filter(|_| !table.state.files().is_empty());
        let (Some(locator), Some(ending)) = (locator, &addition.versions.ending) else {
            return Ok(Ended::default());
        };
        let (store, keys) = (&*addition.files.store, &addition.keys);
        let own = ending::located(table, (locator, keys), (&mut self.vectors, store)).await?;
        let schema = &addition.versions.schema;
        let of_table = (&**schema, SHAPE, changes::has_feed(table.state.metadata()));
        let end = End::of_versions(&addition.files, of_table, ending, (keys, own))?;
        end.write(table, &mut self.vectors).await
    }

    /// Where the current version of each key lies that did not end whatever its key.
    async fn find_versions(
        &mut self,
        table: &Table,
        addition: &Addition<'_>,
        ended: &Emptied,
    ) -> Result<Plan, LakeError> {
        let Some(locator) = self.locator.as_ref().filter(|_| !table.state.files().is_empty()) else {
            return Ok(Plan::default());
        };
        let places = locator.locate(&addition.keys)?;
        let (vectors, store) = (&mut self.vectors, &*addition.files.store);
        plan::resolve(table, locator, vectors, store, (&places, &[]), ended).await
    }

    /// Writes what the commit needs, against the version at which table and index stand.
    async fn prepare_versions(
        &mut self,
        table: &Table,
        addition: &Addition<'_>,
        advances: &[Advance],
        writer: &Writer,
    ) -> Result<Prepared, LakeError> {
        let emptied = self.end_versions(table, addition).await?;
        let mut plan = self.find_versions(table, addition, &emptied.rows).await?;
        let stored = Stored::read(&plan, addition).await?;
        let completed = addition
            .versions
            .complete(&stored.rows, &stored.of_key)
            .map_err(|error| addition.refused(&error))?;
        let ends = |key: usize| {
            let is_stored = stored.of_key.get(key).copied().flatten().is_some();
            completed.stored_ends.get(key).copied().flatten().filter(|_| is_stored)
        };
        plan.spare(|key| ends(key).is_none());
        let ended: Vec<(usize, i64)> =
            stored.of_key.iter().enumerate().filter_map(|(key, row)| Some(((*row)?, ends(key)?))).collect();
        let written_keys = addition.keys_of(&completed, ended.len());
        let mut entry = emptied.added_to(Entry::new("MERGE", &writer.id, now_millis()));
        let (mut written, mut change) = (None, None);
        if written_keys.len() > 0 {
            let rows = addition.rows(&stored.rows, &ended, &completed);
            let rows = rows.map_err(|error| addition.refused(&error))?;
            change = changes::has_feed(table.state.metadata()).then(|| rows.clone());
            written = Some(addition.files.write(rows, &addition.versions.schema).await?);
            failpoint::hit("lake.after_data_files");
        }
        if let Some(rows) = change {
            // A version that ends takes the place of itself without an end; those come first among the rows.
            let mut next = 0..;
            let is_stored = |key: usize| stored.of_key.get(key).copied().flatten().is_some();
            let places: Vec<Option<usize>> = (0..stored.of_key.len())
                .map(|key| (is_stored(key) && ends(key).is_some()).then(|| next.next()).flatten())
                .collect();
            let rows = Some((&rows, places.as_slice()));
            entry = changes::write(entry, &addition.files, &addition.columns, &plan, rows).await?;
        }
        let entry = written.iter().fold(entry, Entry::add);
        let (entry, plan) = plan.write_vectors(entry, &addition.files).await?;
        let entry = txns(advances).fold(entry, |entry, txn| entry.txn(&txn)).into_bytes();
        let gone = addition.keys.at(completed.gone.iter().copied().map(Some));
        let (unresolved_absent, unknown_deletes) = (completed.unresolved_absent, completed.unknown_deletes);
        let done = Done { unresolved_absent, unknown_deletes, ..Done::default() };
        Ok(Prepared { entry, plan, written, written_keys, gone, done })
    }
}

/// The stored current versions of the keys that a batch touches.
struct Stored {
    rows: RecordBatch,
    /// For each key, which row is its.
    of_key: Vec<Option<usize>>,
}

impl Stored {
    /// Reads them whole: those that end are written again.
    async fn read(plan: &Plan, addition: &Addition<'_>) -> Result<Self, LakeError> {
        let mut reads = Vec::with_capacity(plan.files.len());
        for touched in plan.files.iter().filter(|touched| !touched.rows.is_empty()) {
            let ordinals: Vec<u32> = touched.rows.iter().map(|(row, _)| *row).collect();
            let read = async move { addition.files.rows(&touched.path, &addition.columns, &ordinals).await };
            reads.push(read.boxed());
        }
        let batches: Vec<RecordBatch> = futures::stream::iter(reads).buffered(READERS).try_collect().await?;
        let rows = concat_batches(&addition.columns, &batches).map_err(|error| addition.refused(&error))?;
        let mut of_key = vec![None; addition.keys.len()];
        let flags = rows.column_by_name(IS_CURRENT).and_then(|flags| flags.as_boolean_opt());
        let is_current = |row: usize| flags.is_some_and(|flags| flags.is_valid(row) && flags.value(row));
        let keys = plan.files.iter().flat_map(|touched| &touched.rows).map(|(_, key)| *key);
        for (row, key) in keys.enumerate() {
            if let Some(slot) = key.and_then(|key| of_key.get_mut(key)) {
                *slot = Some(row).filter(|row| is_current(*row));
            }
        }
        Ok(Self { rows, of_key })
    }
}

impl Addition<'_> {
    fn refused(&self, error: &ArrowError) -> LakeError {
        LakeError::Refused(format!("table {} cannot take this batch: {error}", self.files.table))
    }

    /// Keys of the rows that are written: first the stored versions that end, then the versions that begin.
    fn keys_of(&self, completed: &Completed, ended: usize) -> Keys {
        let begun = completed.written.iter().map(|&(version, end)| {
            let key = self.versions.begun.get(version)?.key;
            end.is_none().then_some(key)
        });
        self.keys.at(std::iter::repeat_n(None, ended).chain(begun))
    }

    /// Those rows.
    fn rows(
        &self,
        stored: &RecordBatch,
        ended: &[(usize, i64)],
        completed: &Completed,
    ) -> Result<RecordBatch, ArrowError> {
        let of_stored: UInt32Array = ended.iter().map(|(row, _)| Some(*row as u32)).collect();
        let begun: UInt32Array = completed.written.iter().map(|(version, _)| Some(*version as u32)).collect();
        let metadata = self.metadata(completed);
        let ends =
            || ended.iter().map(|(_, end)| Some(*end)).chain(completed.written.iter().map(|(_, end)| *end));
        let rows = ended.len() + completed.written.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.fields().len());
        for (at, field) in self.columns.fields().iter().enumerate() {
            columns.push(match field.name().as_str() {
                SYNCED_AT => {
                    let now = TimestampMicrosecondArray::from_value(now_millis() * 1000, rows);
                    Arc::new(now.with_timezone("UTC"))
                }
                VALID_TO => times(ends().map(|end| end.unwrap_or(0))),
                IS_CURRENT => Arc::new(ends().map(|end| Some(end.is_none())).collect::<BooleanArray>()),
                name => {
                    let old = take(stored.column(at), &of_stored, None)?;
                    let new = match (completed.columns.get(at), metadata.get(name)) {
                        (Some(cells), _) => take(cells, &begun, None)?,
                        (None, Some(cells)) => Arc::clone(cells),
                        (None, None) => {
                            return Err(ArrowError::SchemaError(format!("no cells for the column {name}")));
                        }
                    };
                    concat(&[&*old, &*new])?
                }
            });
        }
        RecordBatch::try_new(Arc::clone(&self.columns), columns)
    }

    /// What the versions that are written have besides the source's columns, by the name of the column.
    fn metadata(&self, completed: &Completed) -> HashMap<&'static str, ArrayRef> {
        use crate::lake::schema::{OFFSET, OPERATION, PARTITION, SOURCE_TIME, VALID_FROM};
        let begun = || completed.written.iter().filter_map(|(version, _)| self.versions.begun.get(*version));
        let number = |partition: u32| self.partitions.get(partition as usize).copied();
        let from = times(begun().map(|begun| begun.source_micros));
        HashMap::from([
            (
                OPERATION,
                Arc::new(begun().map(|begun| Some(begun.operation.code())).collect::<StringArray>()) as _,
            ),
            (SOURCE_TIME, Arc::clone(&from)),
            (VALID_FROM, from),
            (PARTITION, Arc::new(begun().map(|begun| number(begun.partition)).collect::<Int32Array>()) as _),
            (OFFSET, Arc::new(begun().map(|begun| Some(begun.offset)).collect::<Int64Array>()) as _),
        ])
    }
}

/// Times in UTC; zero stands for one that the event does not say.
fn times(micros: impl Iterator<Item = i64>) -> ArrayRef {
    let times: TimestampMicrosecondArray = micros.map(|micros| (micros != 0).then_some(micros)).collect();
    Arc::new(times.with_timezone("UTC"))
}
