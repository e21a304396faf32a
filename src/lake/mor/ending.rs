//! Rows that end without going: what a truncate does in a table that keeps deleted rows, or all versions.
//!
//! Every stored row that a truncate takes is marked as deleted in its file's vector and written anew as a row that has
//! ended, with the time of the truncate; one commit makes both visible, with the rest of the batch and its positions.
//! That costs the rows that end. They are read and written file by file, so that no more than one file of them is in memory, and
//! files in which nothing ends are read by a few columns.
//!
//! A row whose key the batch changes before the truncate comes does not end here: it is the batch that says what
//! becomes of it ([`Ending::of_row`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use deltalake::ObjectStore;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::bounds::Statistics;
use super::changes::{AFTER, BEFORE, DELETE, marked};
use super::encoding::RowWriter;
use super::files::DataFiles;
use super::incoming::Upsert;
use super::keys::{KeyCodec, Keys};
use super::locate::Locator;
use super::plan::{self, Emptied, Going};
use super::vectors::Vectors;
use crate::change::{Ending, Operation, TableSchema};
use crate::failpoint;
use crate::lake::action::{Add, AddChanges, Entry};
use crate::lake::error::LakeError;
use crate::lake::now_millis;
use crate::lake::schema::{DELETED, IS_CURRENT, OPERATION, SOURCE_TIME, SYNCED_AT, VALID_TO};
use crate::lake::shape::Shape;
use crate::lake::table::Table;

/// The stored rows of a batch's keys, by file, each with the number of its key.
pub(super) type Located = BTreeMap<String, Vec<Going>>;

/// What has ended, and is written.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// The rows as they were stored: they go.
    pub(super) rows: Emptied,
    /// The same rows as they have ended.
    copies: Vec<Add>,
    changes: Vec<AddChanges>,
}

impl Ended {
    /// A commit's entry with the files that were written.
    pub(super) fn added_to(&self, entry: Entry) -> Entry {
        let entry = self.copies.iter().fold(entry, Entry::add);
        self.changes.iter().fold(entry, Entry::changes)
    }
}

/// What the batch does to a stored row.
#[derive(Debug, Clone, Copy)]
struct Own {
    /// The truncate that comes too late for it, if one does.
    rank: Option<usize>,
    /// Whether another row takes its place, and nothing of it stays.
    replaced: bool,
}

/// Truncates at work on the stored rows of a table.
pub(super) struct End<'a> {
    files: &'a DataFiles,
    schema: &'a TableSchema,
    shape: Shape,
    ending: &'a Ending,
    own: HashMap<String, HashMap<u32, Own>>,
    has_feed: bool,
}

/// What says of stored rows whether they are there.
struct Marks<'a> {
    /// When the last change of each was committed.
    began: &'a TimestampMicrosecondArray,
    /// In a history, when it ended.
    until: Option<&'a TimestampMicrosecondArray>,
    /// Whether it is current, in a history; else whether it is deleted.
    flags: &'a BooleanArray,
}

impl<'a> Marks<'a> {
    fn of(cells: &'a RecordBatch) -> Option<Self> {
        let times = |name| cells.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        let flags = cells.columns().last()?.as_boolean_opt()?;
        Some(Self { began: times(SOURCE_TIME)?, until: times(VALID_TO), flags })
    }
}

/// Where the rows of `keys` lie.
pub(super) async fn located(
    table: &Table,
    (locator, keys): (&Locator, &Keys),
    (vectors, store): (&mut Vectors, &dyn ObjectStore),
) -> Result<Located, LakeError> {
    let addresses = locator.locate(keys)?;
    let places = plan::live_places(table, locator, vectors, store, &addresses, &Emptied::new()).await?;
    let mut located = Located::new();
    for (number, place) in places.into_iter().enumerate() {
        if let Some((path, row)) = place {
            located.entry(path).or_default().push((row, Some(number)));
        }
    }
    Ok(located)
}

impl<'a> End<'a> {
    /// For a batch of folded rows. One that only deletes what is stored keeps its cells, whether it ended before or not.
    pub(super) fn of_rows(
        upsert: &'a Upsert<'_>,
        ending: &'a Ending,
        located: Located,
    ) -> Result<Self, LakeError> {
        let folded = upsert.folded;
        let codec = KeyCodec::new(&folded.schema, &folded.compared);
        let of_stored = |row: usize| folded.of_stored.as_ref().is_some_and(|rows| rows.value(row));
        let own = own(&upsert.files, (ending, &codec), (&upsert.upserted, located), (true, of_stored))?;
        Ok(Self {
            files: &upsert.files,
            schema: &folded.schema,
            shape: upsert.shape,
            ending,
            own,
            has_feed: upsert.has_feed,
        })
    }

    /// For versions: every one stays.
    pub(super) fn of_versions(
        files: &'a DataFiles,
        (schema, shape, has_feed): (&'a TableSchema, Shape, bool),
        ending: &'a Ending,
        (keys, located): (&Keys, Located),
    ) -> Result<Self, LakeError> {
        let codec = KeyCodec::new(schema, schema.key());
        let own = own(files, (ending, &codec), (keys, located), (false, |_| false))?;
        Ok(Self { files, schema, shape, ending, own, has_feed })
    }

    /// Finds the rows that end, and writes them as they have ended.
    pub(super) async fn write(&self, table: &Table, vectors: &mut Vectors) -> Result<Ended, LakeError> {
        let mut ended = Ended::default();
        let mut out = Out::new(self)?;
        for (path, file) in table.state.files() {
            let gone = vectors.of(&self.files.table, &*self.files.store, [(&**path, file)]).await?;
            let gone = gone.into_iter().next().unwrap_or_default();
            let ends = self.ends(path, &gone).await?;
            if ends.iter().all(RoaringTreemap::is_empty) {
                continue;
            }
            self.copy(path, &ends, &mut out).await?;
            out.bytes += file.size;
            if out.bytes >= super::changes::FILE {
                std::mem::replace(&mut out, Out::new(self)?).close(self, &mut ended).await?;
            }
            let all = ends.into_iter().fold(RoaringTreemap::new(), |all, rows| all | rows);
            ended.rows.insert(path.to_string(), all);
        }
        out.close(self, &mut ended).await?;
        Ok(ended)
    }

    /// For each truncate, the rows of a file that it ends.
    async fn ends(&self, path: &str, gone: &RoaringTreemap) -> Result<Vec<RoaringTreemap>, LakeError> {
        let names = [SOURCE_TIME, VALID_TO, if self.shape.history { IS_CURRENT } else { DELETED }];
        let fields = self.shape.fields().into_iter().filter(|field| names.contains(&&**field.name()));
        let columns: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut ends = vec![RoaringTreemap::new(); self.ending.truncates.len()];
        let mut batches = self.files.scan(path, &columns).await?;
        let mut first = 0_u64;
        while let Some(cells) = batches.try_next().await? {
            let cells =
                RecordBatch::try_new(Arc::clone(&columns), cells).map_err(|error| self.refused(&error))?;
            let marks = Marks::of(&cells).ok_or_else(|| {
                let message = format!("the columns {} of {path} have other types", names.join(", "));
                LakeError::Unreadable { table: self.files.table.to_string(), message }
            })?;
            for row in (0..cells.num_rows()).filter(|row| !gone.contains(first + *row as u64)) {
                let by = self.ends_row(path, (first, row), &marks);
                if let Some(ends) = by.and_then(|by| ends.get_mut(by)) {
                    ends.insert(first + row as u64);
                }
            }
            first += cells.num_rows() as u64;
        }
        Ok(ends)
    }

    /// The truncate that ends a stored row, if one does.
    fn ends_row(&self, path: &str, (first, row): (u64, usize), marks: &Marks<'_>) -> Option<usize> {
        let time = |times: &TimestampMicrosecondArray| times.is_valid(row).then(|| times.value(row));
        let (began, is_set) = (time(marks.began), marks.flags.is_valid(row) && marks.flags.value(row));
        if is_set == self.shape.history {
            let own = self.own.get(path).and_then(|own| own.get(&(first as u32 + row as u32)));
            return self.ending.of_row(began, own.and_then(|own| own.rank));
        }
        self.ending.of_version(began, marks.until.and_then(time)?)
    }

    /// Writes the rows of a file that end, but for those that others replace.
    async fn copy(&self, path: &str, ends: &[RoaringTreemap], out: &mut Out) -> Result<(), LakeError> {
        let refused = |error: ArrowError| self.refused(&error);
        let columns = self.shape.stored(self.schema);
        let own = self.own.get(path);
        let mut batches = self.files.scan(path, &columns).await?;
        let mut first = 0;
        while let Some(cells) = batches.try_next().await? {
            let rows = RecordBatch::try_new(Arc::clone(&columns), cells).map_err(refused)?;
            let numbers = first..first + rows.num_rows() as u64;
            first = numbers.end;
            let by: Vec<Option<usize>> =
                numbers.clone().map(|row| ends.iter().position(|ends| ends.contains(row))).collect();
            let is_replaced =
                |row: u64| own.and_then(|own| own.get(&(row as u32))).is_some_and(|own| own.replaced);
            let chosen = |replaced: bool| -> BooleanArray {
                let of_row = numbers.clone().zip(&by);
                of_row.map(|(row, by)| Some(by.is_some() && is_replaced(row) == replaced)).collect()
            };
            let (stay, go) = (chosen(false), chosen(true));
            let micros = by.iter().zip(stay.values()).filter(|(_, stays)| *stays);
            let micros = micros
                .map(|(by, _)| by.and_then(|by| self.ending.truncates.get(by)).map_or(0, |by| by.micros));
            let before = filter_record_batch(&rows, &stay).map_err(refused)?;
            let after = self.ended(&before, micros.collect()).map_err(refused)?;
            let gone = filter_record_batch(&rows, &go).map_err(refused)?;
            out.write(&before, &after, &gone).map_err(refused)?;
        }
        Ok(())
    }

    /// Rows as they have ended, each at its time; zero stands for one that the event does not say.
    fn ended(&self, rows: &RecordBatch, micros: Vec<i64>) -> Result<RecordBatch, ArrowError> {
        let count = rows.num_rows();
        let of_time = |times: TimestampMicrosecondArray| -> ArrayRef { Arc::new(times.with_timezone("UTC")) };
        let times: TimestampMicrosecondArray =
            micros.into_iter().map(|micros| (micros != 0).then_some(micros)).collect();
        let (times, history) = (of_time(times), self.shape.history);
        let mut columns = rows.columns().to_vec();
        for (field, cells) in
            self.shape.fields().iter().zip(columns.iter_mut().skip(self.schema.columns().len()))
        {
            *cells = match field.name().as_str() {
                SYNCED_AT => of_time(TimestampMicrosecondArray::from_value(now_millis() * 1000, count)),
                VALID_TO => Arc::clone(&times),
                IS_CURRENT => Arc::new(BooleanArray::from(vec![false; count])),
                DELETED => Arc::new(BooleanArray::from(vec![true; count])),
                SOURCE_TIME if !history => Arc::clone(&times),
                OPERATION if !history => Arc::new(StringArray::from(vec![Operation::Truncate.code(); count])),
                _ => continue,
            };
        }
        RecordBatch::try_new(rows.schema(), columns)
    }

    fn refused(&self, error: &ArrowError) -> LakeError {
        LakeError::Refused(format!(
            "rows of table {} cannot be ended by a truncate: {error}",
            self.files.table
        ))
    }
}

/// What the batch does to each of its stored rows: whether it replaces them, and which of its rows keep them from ending.
fn own(
    files: &DataFiles,
    (ending, codec): (&Ending, &KeyCodec),
    (keys, located): (&Keys, Located),
    (replaced, spares): (bool, impl Fn(usize) -> bool),
) -> Result<HashMap<String, HashMap<u32, Own>>, LakeError> {
    let taken = codec.encode(ending.keys.columns());
    let taken =
        taken.map_err(|error| LakeError::Refused(format!("keys of table {}: {error}", files.table)))?;
    let ranks: HashMap<&[u8], usize> =
        taken.iter().zip(&ending.ranks).filter_map(|(key, rank)| Some((key?, *rank))).collect();
    let of_key: Vec<Option<usize>> =
        keys.iter().map(|key| key.and_then(|key| ranks.get(key)).copied()).collect();
    let of_row = |(row, number): Going| {
        let number = number?;
        let rank = if spares(number) { Some(0) } else { of_key.get(number).copied().flatten() };
        Some((row, Own { rank, replaced }))
    };
    Ok(located
        .into_iter()
        .map(|(path, rows)| (path, rows.into_iter().filter_map(of_row).collect()))
        .collect())
}

/// A file of rows that have ended, and what it means to followers of the table, being written.
struct Out {
    rows: RowWriter,
    statistics: Statistics,
    changes: Option<RowWriter>,
    /// Bytes of the files that were read for it.
    bytes: i64,
}

impl Out {
    fn new(end: &End<'_>) -> Result<Self, LakeError> {
        let columns = end.shape.stored(end.schema);
        let writer = || RowWriter::new(&columns);
        let changes =
            || RowWriter::new(&marked(&RecordBatch::new_empty(Arc::clone(&columns)), DELETE)?.schema());
        Ok(Self {
            rows: writer().map_err(|error| end.refused(&error))?,
            statistics: Statistics::new(end.schema),
            changes: end.has_feed.then(changes).transpose().map_err(|error| end.refused(&error))?,
            bytes: 0,
        })
    }

    fn write(
        &mut self,
        before: &RecordBatch,
        after: &RecordBatch,
        gone: &RecordBatch,
    ) -> Result<(), ArrowError> {
        if after.num_rows() > 0 {
            self.rows.write(after)?;
            self.statistics.extend(after);
        }
        if let Some(changes) = &mut self.changes {
            for (rows, change) in [(before, BEFORE), (after, AFTER), (gone, DELETE)] {
                if rows.num_rows() > 0 {
                    changes.write(&marked(rows, change)?)?;
                }
            }
        }
        Ok(())
    }

    async fn close(self, end: &End<'_>, ended: &mut Ended) -> Result<(), LakeError> {
        let refused = |error: ArrowError| end.refused(&error);
        if let Some(changes) = self.changes.filter(|changes| changes.rows() > 0) {
            ended.changes.push(super::changes::put(end.files, changes.finish().map_err(refused)?).await?);
        }
        if self.rows.rows() == 0 {
            return Ok(());
        }
        let stats = self.statistics.into_text();
        ended.copies.push(end.files.put(self.rows.finish().map_err(refused)?, stats, true).await?);
        failpoint::hit("lake.after_data_files");
        Ok(())
    }
}
