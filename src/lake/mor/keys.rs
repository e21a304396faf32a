//! Keys as bytes, the same for a row of a batch and for the same row read from a file.
//!
//! Every column is first brought to the Arrow type of its [`ColumnType`](crate::change::ColumnType), whatever the file
//! has (other writers store text as views, times as nanoseconds). Where all key columns have a fixed width and together
//! at most sixteen bytes, their bytes are the key; else each value of variable width has its length before it. A key
//! with a null in it equals no other, so it has no bytes.
//!
//! In a table without key the whole row is its key. Then nulls are left out and each value has its column's name before
//! it, in the order of the names: a row from before a column was added has the same bytes as one in which it is null.
//! Values of one kind have one form whatever their width, so that a column may be widened; a list is the values of its
//! elements, each with its kind, null ones by a mark.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

use super::key_cells::Cells;
use crate::change::{Column, TableSchema};
use crate::lake::types::type_name;

/// Bytes that the index stores as they are.
const EXACT: usize = 16;

/// How keys of one table are written as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyCodec {
    columns: Vec<(String, DataType)>,
    description: Vec<String>,
    whole_rows: bool,
}

/// The keys of a batch of rows, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<(usize, bool)>,
}

impl Keys {
    /// The key of each row; `None` where a part of it is null.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, whole)| {
            let key = self.bytes.get(start..end).filter(|_| whole);
            start = end;
            key
        })
    }

    /// The key of one row.
    fn get(&self, row: usize) -> Option<&[u8]> {
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |(end, _)| *end);
        let &(end, whole) = self.ends.get(row)?;
        self.bytes.get(start..end).filter(|_| whole)
    }

    /// The keys of the rows at `places`; rows without one are not to be found by a key.
    pub(super) fn at(&self, places: impl Iterator<Item = Option<usize>>) -> Self {
        let mut keys = Self::default();
        for place in places {
            let key = place.and_then(|row| self.get(row));
            keys.bytes.extend_from_slice(key.unwrap_or_default());
            keys.ends.push((keys.bytes.len(), key.is_some()));
        }
        keys
    }

    /// The same keys, without those of rows that `flags` does not say yes to.
    pub(super) fn only(&self, flags: &BooleanArray) -> Self {
        let is_set = |row: &usize| flags.is_valid(*row) && flags.value(*row);
        self.at((0..self.len()).map(|row| Some(row).filter(is_set)))
    }

    /// Bytes that they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(self.ends.as_slice())
    }

    /// Rows.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

impl KeyCodec {
    /// How rows of `schema` are told apart; `compared` are the columns that say so where it has no key.
    pub(super) fn new(schema: &TableSchema, compared: &[usize]) -> Self {
        let whole_rows = schema.key().is_empty();
        let mut columns: Vec<&Column> = if whole_rows { compared } else { schema.key() }
            .iter()
            .filter_map(|&index| schema.columns().get(index))
            .collect();
        let description = if whole_rows {
            columns.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            let left_out = schema.columns().iter().filter(|column| !columns.contains(column));
            std::iter::once("*".to_owned())
                .chain(left_out.map(|column| format!("-{}", column.name)))
                .collect()
        } else {
            let of_key = |column: &&Column| format!("{} {}", column.name, type_name(&column.column_type));
            columns.iter().map(of_key).collect()
        };
        let columns =
            columns.iter().map(|column| (column.name.to_string(), column.column_type.arrow())).collect();
        Self { columns, description, whole_rows }
    }

    /// Whether several rows may have the same key.
    pub(super) fn whole_rows(&self) -> bool {
        self.whole_rows
    }

    /// The columns that this needs of `batch`, in their order; one that is not there is null.
    pub(super) fn columns_of(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        let column = |(name, data_type): &(String, DataType)| match batch.column_by_name(name) {
            Some(column) => ArrayRef::clone(column),
            None => new_null_array(data_type, batch.num_rows()),
        };
        self.columns.iter().map(column).collect()
    }

    /// The columns that [`Self::encode`] takes, in its order.
    pub(super) fn fields(&self) -> impl Iterator<Item = Field> {
        self.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true))
    }

    /// Names and types, for the index's identity.
    pub(super) fn description(&self) -> Vec<String> {
        self.description.clone()
    }

    /// Whether all keys have one width, and fit into the index as they are.
    pub(super) fn is_exact(&self) -> bool {
        if self.whole_rows {
            return false;
        }
        let widths: Option<usize> = self.columns.iter().map(|(_, data_type)| width(data_type)).sum();
        widths.is_some_and(|bytes| bytes <= EXACT)
    }

    /// The keys of rows given by the columns of [`Self::fields`].
    pub(super) fn encode(&self, columns: &[ArrayRef]) -> Result<Keys, ArrowError> {
        let rows = columns.first().map_or(0, Array::len);
        let mut cells = Vec::with_capacity(columns.len());
        for (column, (_, data_type)) in columns.iter().zip(&self.columns) {
            cells.push(if column.data_type() == data_type {
                ArrayRef::clone(column)
            } else {
                cast(column, data_type)?
            });
        }
        let cells = cells.iter().map(Cells::of).collect::<Result<Vec<_>, _>>()?;
        let mut keys = Keys { bytes: Vec::with_capacity(rows * EXACT), ends: Vec::with_capacity(rows) };
        for row in 0..rows {
            let whole = if self.whole_rows {
                for (cells, (name, _)) in cells.iter().zip(&self.columns) {
                    cells.append_named(row, name, &mut keys.bytes);
                }
                true
            } else {
                cells.iter().all(|cells| cells.append(row, &mut keys.bytes))
            };
            keys.ends.push((keys.bytes.len(), whole));
        }
        Ok(keys)
    }
}

fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::Decimal128(..) => Some(16),
        DataType::Utf8 | DataType::Binary => None,
        other => other.primitive_width(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, StringViewArray, TimestampNanosecondArray};
    use arrow::datatypes::{Int32Type, Int64Type};

    use super::*;
    use crate::change::{Column, ColumnType};

    fn codec(types: &[ColumnType]) -> KeyCodec {
        let column = |(index, column_type): (usize, &ColumnType)| Column {
            name: format!("k{index}").as_str().into(),
            column_type: column_type.clone(),
            nullable: false,
        };
        let columns: Vec<_> = types.iter().enumerate().map(column).collect();
        let key = (0..columns.len()).collect();
        KeyCodec::new(&TableSchema::new(columns, key), &[])
    }

    fn rows(names: &[(&str, ColumnType)], columns: &[ArrayRef]) -> Vec<Option<Vec<u8>>> {
        let column = |(name, column_type): &(&str, ColumnType)| Column {
            name: (*name).into(),
            column_type: column_type.clone(),
            nullable: true,
        };
        let schema = TableSchema::new(names.iter().map(column).collect(), Vec::new());
        let all: Vec<usize> = (0..names.len()).collect();
        let codec = KeyCodec::new(&schema, &all);
        let batch = RecordBatch::try_new(Arc::clone(schema.arrow()), columns.to_vec()).unwrap();
        keys(&codec, &codec.columns_of(&batch))
    }

    fn keys(codec: &KeyCodec, columns: &[ArrayRef]) -> Vec<Option<Vec<u8>>> {
        codec.encode(columns).unwrap().iter().map(|key| key.map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn the_same_value_in_another_arrow_type_is_the_same_key() {
        let codec = codec(&[ColumnType::Text, ColumnType::Timestamp]);
        let ours: [ArrayRef; 2] = [
            Arc::new(StringArray::from(vec!["a longer text than twelve", "b"])),
            Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![7, 8])),
        ];
        let theirs: [ArrayRef; 2] = [
            Arc::new(StringViewArray::from(vec!["a longer text than twelve", "b"])),
            Arc::new(TimestampNanosecondArray::from(vec![7_000, 8_000])),
        ];
        assert_eq!(keys(&codec, &ours), keys(&codec, &theirs));
    }

    #[test]
    fn values_of_neighbouring_columns_do_not_run_together() {
        let codec = codec(&[ColumnType::Text, ColumnType::Text]);
        let columns = |a: &str, b: &str| -> [ArrayRef; 2] {
            [Arc::new(StringArray::from(vec![a])), Arc::new(StringArray::from(vec![b]))]
        };
        assert_ne!(keys(&codec, &columns("ab", "c")), keys(&codec, &columns("a", "bc")));
    }

    #[test]
    fn a_key_with_a_null_has_no_bytes_and_its_neighbours_have_theirs() {
        let codec = codec(&[ColumnType::Int64]);
        let column: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))];
        let expected = [Some(1_i64), None, Some(3)].map(|id| id.map(|id| id.to_le_bytes().to_vec()));
        assert_eq!(keys(&codec, &column), expected);
    }

    #[test]
    fn a_row_is_the_same_whatever_the_order_of_its_columns_and_with_nulls_in_added_ones() {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, None]));
        let b: ArrayRef = Arc::new(StringArray::from(vec![None, Some("x"), None]));
        let one = rows(&[("b", ColumnType::Text), ("a", ColumnType::Int64)], &[b.clone(), a.clone()]);
        assert_eq!(one, rows(&[("a", ColumnType::Int64), ("b", ColumnType::Text)], &[a.clone(), b.clone()]));
        let nulls = new_null_array(&DataType::Utf8, 3);
        let wider = [("a", ColumnType::Int64), ("added", ColumnType::Text), ("b", ColumnType::Text)];
        assert_eq!(one, rows(&wider, &[a, nulls, b]));
        assert_eq!(one.iter().collect::<std::collections::HashSet<_>>().len(), 3, "{one:?}");
    }

    #[test]
    fn a_row_is_the_same_in_wider_columns_and_another_in_another_column() {
        let narrow: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![7]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let decimal = |value: i128, precision, scale| -> ArrayRef {
            let cells = arrow::array::Decimal128Array::from(vec![value]);
            Arc::new(cells.with_precision_and_scale(precision, scale).unwrap())
        };
        let of = |precision, scale| ColumnType::Decimal { precision, scale };
        assert_eq!(
            rows(&[("a", ColumnType::Int32), ("n", of(5, 2))], &[narrow, decimal(150, 5, 2)]),
            rows(&[("a", ColumnType::Int64), ("n", of(9, 4))], &[wide.clone(), decimal(15_000, 9, 4)])
        );
        assert_ne!(
            rows(&[("a", ColumnType::Int64)], std::slice::from_ref(&wide)),
            rows(&[("b", ColumnType::Int64)], std::slice::from_ref(&wide))
        );
    }

    #[test]
    fn lists_are_the_same_by_their_elements_and_differ_by_each_null() {
        type Lists<T> = Vec<Option<Vec<Option<T>>>>;
        let named = |lists: ListArray, to: ColumnType| {
            cast(&lists, &ColumnType::Array(Box::new(to)).arrow()).unwrap()
        };
        let lists = |rows: Lists<i64>| {
            named(ListArray::from_iter_primitive::<Int64Type, _, _>(rows), ColumnType::Int64)
        };
        let narrow = |rows: Lists<i32>| {
            named(ListArray::from_iter_primitive::<Int32Type, _, _>(rows), ColumnType::Int32)
        };
        let of = |element: ColumnType| [("a", ColumnType::Array(Box::new(element)))];
        let cells = vec![
            None,
            Some(vec![]),
            Some(vec![None]),
            Some(vec![Some(1), None]),
            Some(vec![None, Some(1)]),
            Some(vec![Some(1), Some(2)]),
        ];
        let one = rows(&of(ColumnType::Int64), &[lists(cells.clone())]);
        assert_eq!(one.iter().collect::<std::collections::HashSet<_>>().len(), 6, "{one:?}");
        let sliced = rows(&of(ColumnType::Int64), &[lists(cells).slice(3, 3)]);
        assert_eq!(sliced, one[3..]);
        let narrow = rows(&of(ColumnType::Int32), &[narrow(vec![Some(vec![Some(1), Some(2)])])]);
        assert_eq!(narrow, one[5..]);
    }

    #[test]
    fn keys_are_exact_up_to_sixteen_bytes_of_fixed_width() {
        assert!(codec(&[ColumnType::Int64, ColumnType::Int64]).is_exact());
        assert!(codec(&[ColumnType::Decimal { precision: 38, scale: 0 }]).is_exact());
        assert!(!codec(&[ColumnType::Int64, ColumnType::Int64, ColumnType::Boolean]).is_exact());
        assert!(!codec(&[ColumnType::Uuid]).is_exact());
    }
}
