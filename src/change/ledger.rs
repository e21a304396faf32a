//! The ledger: key changes of which a table has seen one half.
//!
//! The two keys of a key change may lie in different partitions, which are read independently. Where the delete comes
//! first, the row is kept aside until the create that needs its values; where the create comes first, it takes what is
//! stored under the old key, and waits for the delete: only then it is known that nothing more came to the old row. A
//! sink stores the ledger with the data that it belongs to, so that it survives whatever the data survives.
//!
//! A source that crashed sends its last changes again. By then other rows may have the keys of a key change: the row under
//! its old key is not the one that moved, and the delete of the old key takes a row that moved there later. So the ledger
//! remembers the newest key changes that are done. A create that comes again is known by that, and takes nothing from
//! the old key; see [`Done`].
//!
//! The halves of a key change name both keys and have the same LSN in the source. Keys are kept as texts: a ledger
//! outlives the process.

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
/// Key changes that are remembered when they are done. All of them are stored with each batch.
const MOST_DONE: usize = 100;
/// Milliseconds after which the other half, or a repetition, is no longer expected.
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

/// A key change both halves of which were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The key change.
    pub change: KeyChange,
    /// Whether an older change of the new key came after it: a repetition is under way, and the row of the new key may have
    /// values of the row before it. Then a create that comes again takes nothing from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overtaken: bool,
    /// When it was done, milliseconds since 1970.
    pub at: i64,
}

/// Key changes of one table that are half done, and the newest that are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLedger {
    /// Deletes whose create has not come, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departed: Vec<Departed>,
    /// Creates whose delete has not come, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// What may come again, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<Done>,
}

impl KeyLedger {
    /// Milliseconds for which a row that was kept aside may still be asked for.
    pub const KEEPS: i64 = EXPIRES;

    /// The ledger as it is stored; empty where nothing is in it.
    pub fn to_text(&self) -> String {
        if *self == Self::default() { String::new() } else { serde_json::to_string(self).unwrap_or_default() }
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
        self.done.retain(|entry| now - entry.at < EXPIRES);
        self.done.drain(..self.done.len().saturating_sub(MOST_DONE));
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
        self.done.retain(|entry| fits(&entry.change.old) && fits(&entry.change.new));
    }
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
        let done = Done { change: departed.change.clone(), overtaken: true, at: 7 };
        let ledger = KeyLedger { departed: vec![departed], waiting: vec![waiting], done: vec![done] };
        assert_eq!(KeyLedger::from_text(&ledger.to_text()), ledger);
        assert_eq!(KeyLedger::from_text("{"), KeyLedger::default());
        assert_eq!(KeyLedger::default().to_text(), "");
    }
}
