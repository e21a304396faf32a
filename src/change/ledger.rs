//! The ledger: key changes of which a table has seen one half.
//!
//! The two keys of a key change may lie in different partitions, which are read independently. Where the delete comes
//! first, the row is kept aside until the create that needs its values; where the create comes first, it takes what is
//! stored under the old key, and waits for the delete: only then it is known that nothing more came to the old row. A
//! sink stores the ledger with the data that it belongs to, so that it survives whatever the data survives.
//!
//! The halves of a key change name both keys and have the same LSN in the source. Keys are kept as texts: a ledger
//! outlives the process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{ColumnType, TableSchema};

/// Entries of each kind that are kept; beyond, the oldest go.
const MOST: usize = 1000;
/// Milliseconds after which the other half is no longer expected.
const EXPIRES: i64 = 7 * 24 * 3_600_000;

/// The values of a key's columns as texts, in key order.
pub type KeyText = Vec<String>;

/// What the two halves of a key change have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key before.
    pub old: KeyText,
    /// The key after.
    pub new: KeyText,
    /// Where it lies in the source's log, if the events say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<i64>,
}

impl KeyChange {
    /// Whether it is known to lie further in the source's log than `limit`.
    fn is_behind(&self, limit: i64) -> bool {
        self.lsn.is_some_and(|lsn| lsn > limit)
    }
}

/// A deleted row whose create has not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// The key change.
    pub change: KeyChange,
    /// Where the sink keeps the row.
    pub kept: String,
    /// When it was deleted, milliseconds since 1970.
    pub at: i64,
}

/// A created row whose delete has not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The key change.
    pub change: KeyChange,
    /// The key that the row has by now.
    pub row: KeyText,
    /// Names of the columns that still have what was taken from the row of the old key.
    pub columns: Vec<String>,
    /// When it was created, milliseconds since 1970.
    pub at: i64,
}

/// Key changes of one table that are half done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Deletes whose create has not come, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departed: Vec<Departed>,
    /// Creates whose delete has not come, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
}

impl Ledger {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.departed.is_empty() && self.waiting.is_empty()
    }

    /// The ledger as it is stored; empty where nothing is in it.
    pub fn to_text(&self) -> String {
        if self.is_empty() { String::new() } else { serde_json::to_string(self).unwrap_or_default() }
    }

    /// The ledger that was stored; what cannot be read counts as empty, since it is known of the rows in it only that
    /// they may need values.
    pub fn from_text(text: &str) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::warn!(%error, "a stored ledger of key changes cannot be read and is left out");
            Self::default()
        })
    }

    /// Drops what is too old or too much.
    pub(super) fn prune(&mut self, now: i64) {
        let before = self.departed.len() + self.waiting.len();
        self.departed.retain(|entry| now - entry.at < EXPIRES);
        self.waiting.retain(|entry| now - entry.at < EXPIRES);
        self.departed.drain(..self.departed.len().saturating_sub(MOST));
        self.waiting.drain(..self.waiting.len().saturating_sub(MOST));
        let dropped = before - self.departed.len() - self.waiting.len();
        if dropped > 0 {
            tracing::warn!(dropped, "key changes whose other half did not come are no longer waited for");
        }
    }

    /// Forgets the key changes that lie no further in the source's log than `limit`, or of which that is not known: the
    /// table was truncated there.
    pub(super) fn forget(&mut self, limit: i64) {
        self.departed.retain(|entry| entry.change.is_behind(limit));
        self.forget_waiting(limit);
    }

    /// The same of rows alone that wait for their delete. Rows that were kept aside stay.
    pub(super) fn forget_waiting(&mut self, limit: i64) {
        self.waiting.retain(|entry| entry.change.is_behind(limit));
    }

    /// Drops what does not fit the table's key.
    pub(super) fn retain_key(&mut self, schema: &TableSchema) {
        let fits = |key: &KeyText| {
            key.len() == schema.key().len()
                && columns(schema, std::slice::from_ref(key))
                    .is_ok_and(|columns| columns.iter().all(|column| column.null_count() == 0))
        };
        self.departed.retain(|entry| fits(&entry.change.old) && fits(&entry.change.new));
        self.waiting.retain(|entry| fits(&entry.row) && fits(&entry.change.old) && fits(&entry.change.new));
    }
}

/// Half of a key change in a batch.
#[derive(Debug)]
pub(super) struct Half {
    /// Index of the change.
    pub(super) change: u32,
    pub(super) is_create: bool,
    pub(super) of: KeyChange,
}

/// What belongs to a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The delete at this index of the batch.
    Delete(u32),
    /// This row of [`Ledger::departed`].
    Kept(u32),
    /// Nothing yet.
    Open,
}

/// Halves of key changes with their other halves.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Each create, with what belongs to it and its place among the halves.
    pub(super) creates: Vec<(u32, Link, usize)>,
    /// Rows of [`Ledger::waiting`] with the delete that they waited for.
    pub(super) fulfilled: Vec<(usize, u32)>,
    /// Rows of [`Ledger::waiting`] that have waited for nothing.
    pub(super) done: Vec<usize>,
    /// Deletes without a create, with their place among the halves.
    pub(super) departing: Vec<(u32, usize)>,
}

impl Pairs {
    /// Moves the indexes of the batch's changes.
    pub(super) fn shift(&mut self, by: u32) {
        for (create, link, _) in &mut self.creates {
            *create += by;
            if let Link::Delete(delete) = link {
                *delete += by;
            }
        }
        self.fulfilled.iter_mut().for_each(|(_, delete)| *delete += by);
        self.departing.iter_mut().for_each(|(delete, _)| *delete += by);
    }
}

/// Finds for each half the other one; of several between the same keys the first belong together.
pub(super) fn pair(halves: &[Half], ledger: &Ledger) -> Pairs {
    #[derive(Default)]
    struct Side {
        deletes: VecDeque<(Link, usize)>,
        creates: VecDeque<Open>,
    }
    enum Open {
        InBatch(u32, usize),
        Waiting(usize),
    }
    let mut sides: HashMap<&KeyChange, Side> = HashMap::new();
    for (at, entry) in ledger.departed.iter().enumerate() {
        sides.entry(&entry.change).or_default().deletes.push_back((Link::Kept(at as u32), usize::MAX));
    }
    for (at, entry) in ledger.waiting.iter().enumerate() {
        sides.entry(&entry.change).or_default().creates.push_back(Open::Waiting(at));
    }
    let mut pairs = Pairs::default();
    for (at, half) in halves.iter().enumerate() {
        let side = sides.entry(&half.of).or_default();
        if half.is_create {
            match side.deletes.pop_front() {
                Some((link, _)) => pairs.creates.push((half.change, link, at)),
                None => side.creates.push_back(Open::InBatch(half.change, at)),
            }
        } else {
            match side.creates.pop_front() {
                Some(Open::InBatch(create, at)) => {
                    pairs.creates.push((create, Link::Delete(half.change), at));
                }
                // A row that has values of its own by now, or is gone, needs nothing from the old one.
                Some(Open::Waiting(entry)) if ledger.waiting[entry].columns.is_empty() => {
                    pairs.done.push(entry);
                }
                Some(Open::Waiting(entry)) => pairs.fulfilled.push((entry, half.change)),
                None => side.deletes.push_back((Link::Delete(half.change), at)),
            }
        }
    }
    for side in sides.into_values() {
        for open in side.creates {
            if let Open::InBatch(create, at) = open {
                pairs.creates.push((create, Link::Open, at));
            }
        }
        for (link, at) in side.deletes {
            if let Link::Delete(change) = link {
                pairs.departing.push((change, at));
            }
        }
    }
    pairs.creates.sort_unstable_by_key(|(create, ..)| *create);
    pairs.departing.sort_unstable();
    pairs
}

/// Whether values of a type may be left out of an event. The others are stored in the row itself.
pub(super) fn may_be_absent(column_type: &ColumnType) -> bool {
    !matches!(
        column_type,
        ColumnType::Boolean
            | ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::Int64
            | ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal { .. }
            | ColumnType::Uuid
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::Timestamp
            | ColumnType::TimestampTz
            | ColumnType::Interval
            | ColumnType::Duration
    )
}

/// The keys of rows, given by their columns, as texts.
pub(super) fn texts(columns: &[ArrayRef]) -> Result<Vec<KeyText>, ArrowError> {
    let rows = columns.first().map_or(0, Array::len);
    let mut keys = vec![Vec::with_capacity(columns.len()); rows];
    for column in columns {
        let texts = match column.data_type() {
            DataType::Binary => {
                let encoded = column.as_binary::<i32>().iter();
                encoded.map(|bytes| bytes.map(|bytes| STANDARD_NO_PAD.encode(bytes))).collect()
            }
            other => cast(&cast(column, &number_of(other))?, &DataType::Utf8)?.as_string::<i32>().clone(),
        };
        for (key, text) in keys.iter_mut().zip(texts.iter()) {
            key.push(text.unwrap_or_default().to_owned());
        }
    }
    Ok(keys)
}

/// The reverse: key columns of `schema`; what is no value of its column is null.
pub(super) fn columns(schema: &TableSchema, keys: &[KeyText]) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut columns = Vec::with_capacity(schema.key().len());
    for (at, &key) in schema.key().iter().enumerate() {
        let texts: StringArray = keys.iter().map(|key| key.get(at)).collect();
        let data_type = schema.arrow().field(key).data_type();
        columns.push(match data_type {
            DataType::Binary => {
                let decoded = texts.iter().map(|text| STANDARD_NO_PAD.decode(text?).ok());
                Arc::new(decoded.collect::<BinaryArray>()) as ArrayRef
            }
            _ => cast(&cast(&texts, &number_of(data_type))?, data_type)?,
        });
    }
    Ok(columns)
}

/// The type whose text has every value of a type exactly: days and microseconds are numbers, as far as they may lie.
fn number_of(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Date32 => DataType::Int32,
        DataType::Timestamp(..) => DataType::Int64,
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use arrow::array::{BooleanArray, Date32Array, Decimal128Array, Int64Array, TimestampMicrosecondArray};

    use super::*;
    use crate::change::Column;

    #[test]
    fn keys_of_every_type_come_back_from_their_texts() {
        let types = [
            (ColumnType::Int64, Arc::new(Int64Array::from(vec![i64::MIN])) as ArrayRef),
            (ColumnType::Boolean, Arc::new(BooleanArray::from(vec![true]))),
            (ColumnType::Text, Arc::new(StringArray::from(vec!["a \"b\" é"]))),
            (ColumnType::Binary, Arc::new(BinaryArray::from(vec![&[0_u8, 255][..]]))),
            (ColumnType::Date, Arc::new(Date32Array::from(vec![i32::MAX]))),
            (
                ColumnType::TimestampTz,
                Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC")),
            ),
            (
                ColumnType::Decimal { precision: 38, scale: 4 },
                Arc::new(
                    Decimal128Array::from(vec![-(10_i128.pow(37) + 1)])
                        .with_precision_and_scale(38, 4)
                        .unwrap(),
                ),
            ),
        ];
        let column = |(at, (column_type, _)): (usize, &(ColumnType, ArrayRef))| Column {
            name: format!("k{at}").as_str().into(),
            column_type: column_type.clone(),
            nullable: false,
        };
        let of_key: Vec<Column> = types.iter().enumerate().map(column).collect();
        let schema = TableSchema::new(of_key, (0..types.len()).collect());
        let arrays: Vec<ArrayRef> = types.iter().map(|(_, array)| Arc::clone(array)).collect();
        let keys = texts(&arrays).unwrap();
        let back = columns(&schema, &keys).unwrap();
        for (before, after) in arrays.iter().zip(&back) {
            assert_eq!(before, after);
        }
    }

    #[test]
    fn a_ledger_reads_back_and_one_that_cannot_be_read_is_empty() {
        let change = KeyChange { old: vec!["1".into()], new: vec!["2".into()], lsn: Some(7) };
        let departed = Departed { change: change.clone(), kept: "a.parquet#3".into(), at: 5 };
        let waiting = Waiting { change, row: vec!["2".into()], columns: vec!["note".into()], at: 6 };
        let ledger = Ledger { departed: vec![departed], waiting: vec![waiting] };
        assert_eq!(Ledger::from_text(&ledger.to_text()), ledger);
        assert!(Ledger::from_text("{").is_empty() && Ledger::default().to_text().is_empty());
    }
}
