//! Rewriting the files of a table under another schema, where Delta cannot change a column in place.
//!
//! A file becomes one file with the same rows in the same order, deleted ones included: so its deletion vector holds
//! for the new file, and so does every address in the key index. That also makes the work independent of what others
//! commit meanwhile: more deleted rows, other files. All columns that a file has are carried over, whoever added them.
//! A file is read and written in pieces; what is held in memory is one row group.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use deltalake::Path;
use deltalake::logstore::object_store::buffered::BufWriter;
use futures::TryStreamExt;
use parquet::arrow::AsyncArrowWriter;
use roaring::RoaringTreemap;
use serde_json::{Map, Value};

use super::action::Add;
use super::error::LakeError;
use super::live_file::LiveFile;
use super::mor::{Bounds, DataFiles, ROW_GROUP, writer_properties};
use super::now_millis;
use super::types::has_exact_bounds;
use crate::change::{Column, ColumnType, Misfit, Passage, SchemaStep, TableSchema, convert, passage};

/// What is done to the columns of every file: renames, then conversions, one step after the other.
#[derive(Debug, Default)]
pub(super) struct Recast {
    steps: Vec<RecastStep>,
}

#[derive(Debug)]
struct RecastStep {
    renames: Vec<(String, String)>,
    /// Column, its type, and the one it gets.
    conversions: Vec<(String, ColumnType, ColumnType)>,
}

/// Why a file could not be rewritten.
#[derive(Debug)]
pub(super) enum RecastError {
    /// A value does not fit the new type of this column.
    Misfit { column: String, to: ColumnType, path: String, row: u64 },
    /// Anything else.
    Lake(LakeError),
}

impl From<LakeError> for RecastError {
    fn from(error: LakeError) -> Self {
        Self::Lake(error)
    }
}

impl Recast {
    /// Takes a step from `stored` into account.
    pub(super) fn push(&mut self, stored: &TableSchema, step: &SchemaStep) {
        let renamed = |name: &str| {
            let found = step.renames.iter().find(|(from, _)| from == name);
            found.map_or_else(|| name.to_owned(), |(_, to)| to.clone())
        };
        let becomes = |column: &Column| {
            let name = renamed(&column.name);
            let to = step.stored.index_of(&name).and_then(|index| step.stored.columns().get(index))?;
            let same = passage(&column.column_type, &to.column_type) == Passage::Same;
            (!same).then(|| (name, column.column_type.clone(), to.column_type.clone()))
        };
        let conversions: Vec<_> = stored.columns().iter().filter_map(becomes).collect();
        if !conversions.is_empty() || !step.renames.is_empty() {
            self.steps.push(RecastStep { renames: step.renames.clone(), conversions });
        }
    }

    /// Whether files can stay as they are.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Columns that have other cells, by the names that they have afterwards.
    fn touched(&self) -> impl Iterator<Item = &str> {
        let conversions = self.steps.iter().flat_map(|step| &step.conversions).map(|(name, ..)| name);
        let renames = self.steps.iter().flat_map(|step| &step.renames);
        conversions.chain(renames.flat_map(|(from, to)| [from, to])).map(String::as_str)
    }

    /// The columns of some rows, the first of which is row `first` of its file. Deleted rows are null where a value is
    /// converted: nobody reads them, and what they hold need not fit.
    fn apply(
        &self,
        rows: &RecordBatch,
        first: u64,
        deleted: &RoaringTreemap,
    ) -> Result<RecordBatch, (String, ColumnType, Option<u64>)> {
        let mut names: Vec<String> =
            rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut cells = rows.columns().to_vec();
        let last = first + rows.num_rows() as u64;
        let gone: Option<BooleanArray> = (deleted.range_cardinality(first..last) > 0)
            .then(|| (first..last).map(|row| Some(deleted.contains(row))).collect());
        for step in &self.steps {
            for (from, to) in &step.renames {
                if let Some(name) = names.iter_mut().find(|name| *name == from) {
                    name.clone_from(to);
                }
            }
            for (name, from, to) in &step.conversions {
                let Some(at) = names.iter().position(|found| found == name) else { continue };
                let Some(slot) = cells.get_mut(at) else { continue };
                let failed = |row| (name.clone(), to.clone(), row);
                let plain = plain(slot, from, gone.as_ref()).map_err(|_| failed(None))?;
                *slot =
                    convert(&plain, from, to).map_err(|Misfit { row }| failed(Some(first + row as u64)))?;
            }
        }
        let former = rows.schema();
        let fields = names.iter().zip(&cells).zip(former.fields().iter()).map(|((name, cells), field)| {
            Field::new(name, cells.data_type().clone(), true).with_metadata(field.metadata().clone())
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, cells).map_err(|_| (String::new(), ColumnType::Text, None))
    }
}

/// A column in the Arrow type of its meaning, without the cells of deleted rows. Other writers store texts and times
/// in other forms.
fn plain(
    cells: &ArrayRef,
    from: &ColumnType,
    deleted: Option<&BooleanArray>,
) -> Result<ArrayRef, ArrowError> {
    let wanted = from.arrow();
    let cells = if *cells.data_type() == wanted { Arc::clone(cells) } else { cast(cells, &wanted)? };
    match deleted {
        Some(deleted) => nullif(&cells, deleted),
        None => Ok(cells),
    }
}

/// Writes one file anew and returns the action that adds it, with the vector that the file has; `None` for one without
/// rows.
pub(super) async fn file(
    files: &DataFiles,
    (path, live): (&str, &LiveFile),
    deleted: &RoaringTreemap,
    recast: &Recast,
    schema: &TableSchema,
) -> Result<Option<Add>, RecastError> {
    let to = format!("part-{}.zstd.parquet", uuid::Uuid::new_v4());
    let storage = |error: &dyn std::fmt::Display| LakeError::Storage {
        table: files.table.to_string(),
        message: format!("{path}: {error}"),
    };
    let misfit = |(column, to, row): (String, ColumnType, Option<u64>)| match row {
        Some(row) => RecastError::Misfit { column, to, path: path.to_owned(), row },
        None => RecastError::Lake(LakeError::Refused(format!(
            "column {column} of table {} cannot be read as its type says, in {path}",
            files.table
        ))),
    };
    let mut batches = files.whole(path).await?;
    let mut writer: Option<AsyncArrowWriter<BufWriter>> = None;
    let mut limits = Limits::new(recast, schema);
    let mut first = 0;
    while let Some(rows) = batches.try_next().await? {
        let rows = recast.apply(&rows, first, deleted).map_err(misfit)?;
        first += rows.num_rows() as u64;
        limits.extend(&rows);
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(
                AsyncArrowWriter::try_new(
                    BufWriter::new(Arc::clone(&files.store), Path::from(to.as_str())),
                    rows.schema(),
                    Some(writer_properties()),
                )
                .map_err(|error| storage(&error))?,
            ),
        };
        writer.write(&rows).await.map_err(|error| storage(&error))?;
        if writer.in_progress_size() > ROW_GROUP {
            writer.flush().await.map_err(|error| storage(&error))?;
        }
    }
    let Some(mut writer) = writer else { return Ok(None) };
    writer.finish().await.map_err(|error| storage(&error))?;
    Ok(Some(Add {
        path: to,
        partition_values: HashMap::new(),
        size: i64::try_from(writer.bytes_written()).unwrap_or(i64::MAX),
        modification_time: now_millis(),
        data_change: false,
        stats: Some(limits.statistics(live, first)),
        deletion_vector: live.vector.as_deref().cloned(),
    }))
}

/// The bounds of the key columns that are converted. Those of others hold as they are.
struct Limits {
    touched: Vec<String>,
    of_key: Vec<KeyLimits>,
}

struct KeyLimits {
    column: String,
    bounds: Bounds,
}

impl Limits {
    fn new(recast: &Recast, schema: &TableSchema) -> Self {
        let touched: Vec<String> = recast.touched().map(str::to_owned).collect();
        let key = schema.key().iter().filter_map(|&index| schema.columns().get(index));
        let of_key = key
            .filter(|column| has_exact_bounds(&column.column_type))
            .filter(|column| touched.iter().any(|name| *name == *column.name))
            .map(|column| KeyLimits { column: column.name.to_string(), bounds: Bounds::default() });
        Self { of_key: of_key.collect(), touched }
    }

    fn extend(&mut self, rows: &RecordBatch) {
        for limits in &mut self.of_key {
            if let Some(cells) = rows.column_by_name(&limits.column) {
                limits.bounds.extend(cells);
            }
        }
    }

    fn statistics(self, live: &LiveFile, rows: u64) -> String {
        let stats = live.stats.as_deref().and_then(|stats| serde_json::from_str::<Value>(stats).ok());
        let mut stats = match stats {
            Some(Value::Object(stats)) => stats,
            _ => Map::new(),
        };
        for part in ["minValues", "maxValues", "nullCount"] {
            if let Some(of_columns) = stats.get_mut(part).and_then(Value::as_object_mut) {
                self.touched.iter().for_each(|name| drop(of_columns.remove(name)));
            }
        }
        for KeyLimits { column, bounds } in self.of_key {
            let Some((low, high)) = bounds.known() else { continue };
            for (part, bound) in [("minValues", low), ("maxValues", high)] {
                let of_columns = stats.entry(part).or_insert_with(|| Value::Object(Map::new()));
                if let Some(of_columns) = of_columns.as_object_mut() {
                    of_columns.insert(column.clone(), bound);
                }
            }
        }
        stats.insert("numRecords".to_owned(), rows.into());
        if live.vector.is_some() {
            stats.insert("tightBounds".to_owned(), false.into());
        }
        Value::Object(stats).to_string()
    }
}
