//! What the log says about the rows of a data file: how many there are, and the exact bounds of the key columns.
//!
//! It is gathered while the rows go by, so that none of them has to be kept for it. Only types are bounded whose bounds
//! are exact in every reader; texts that are long are not, since bounds stand in every log entry that touches the file.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{DataType, Int16Type, Int32Type, Int64Type};
use serde_json::{Map, Value, json};

use crate::change::TableSchema;
use crate::lake::types::has_exact_bounds;

/// Longest text that becomes a bound.
const LONGEST: usize = 64;

/// The least and the greatest of the cells that went by.
#[derive(Debug, Default)]
pub(in crate::lake) struct Bounds {
    found: Option<(Value, Value)>,
    /// Some cells were of a type that has none.
    lost: bool,
}

impl Bounds {
    /// Takes some cells into account.
    pub(in crate::lake) fn extend(&mut self, cells: &ArrayRef) {
        if cells.null_count() == cells.len() {
            return;
        }
        let Some((low, high)) = extremes(cells) else {
            self.lost = true;
            return;
        };
        self.found = Some(match self.found.take() {
            None => (low, high),
            Some((least, most)) => (
                if is_below(&low, &least) { low } else { least },
                if is_below(&most, &high) { high } else { most },
            ),
        });
    }

    /// The bounds, where there are some that are known and short.
    pub(in crate::lake) fn known(self) -> Option<(Value, Value)> {
        let is_short = |bound: &Value| bound.as_str().is_none_or(|text| text.len() <= LONGEST);
        self.found.filter(|(low, high)| !self.lost && is_short(low) && is_short(high))
    }
}

/// Least and greatest cell, of types whose bounds are exact.
fn extremes(cells: &ArrayRef) -> Option<(Value, Value)> {
    match cells.data_type() {
        DataType::Int16 => {
            let cells = cells.as_primitive::<Int16Type>();
            Some((min(cells)?.into(), max(cells)?.into()))
        }
        DataType::Int32 => {
            let cells = cells.as_primitive::<Int32Type>();
            Some((min(cells)?.into(), max(cells)?.into()))
        }
        DataType::Int64 => {
            let cells = cells.as_primitive::<Int64Type>();
            Some((min(cells)?.into(), max(cells)?.into()))
        }
        DataType::Utf8 => {
            let cells = cells.as_string::<i32>();
            Some((min_string(cells)?.into(), max_string(cells)?.into()))
        }
        _ => None,
    }
}

/// Bounds are integers or texts.
fn is_below(a: &Value, b: &Value) -> bool {
    match (a.as_i64(), b.as_i64(), a.as_str(), b.as_str()) {
        (Some(a), Some(b), ..) => a < b,
        (.., Some(a), Some(b)) => a < b,
        _ => false,
    }
}

/// The statistics of a file that is being written.
#[derive(Debug)]
pub(super) struct Statistics {
    rows: usize,
    of_key: Vec<KeyColumn>,
}

#[derive(Debug)]
struct KeyColumn {
    index: usize,
    name: String,
    nulls: usize,
    bounds: Bounds,
}

impl Statistics {
    /// Of a file of no rows yet, whose first columns are those of `schema`.
    pub(super) fn new(schema: &TableSchema) -> Self {
        let column = |&index: &usize| {
            let column = schema.columns().get(index)?;
            let name = column.name.to_string();
            has_exact_bounds(&column.column_type).then(|| KeyColumn {
                index,
                name,
                nulls: 0,
                bounds: Bounds::default(),
            })
        };
        Self { rows: 0, of_key: schema.key().iter().filter_map(column).collect() }
    }

    /// Takes more rows of the file into account.
    pub(super) fn extend(&mut self, rows: &RecordBatch) {
        self.rows += rows.num_rows();
        for column in &mut self.of_key {
            if let Some(cells) = rows.columns().get(column.index) {
                column.nulls += cells.null_count();
                column.bounds.extend(cells);
            }
        }
    }

    /// As they stand in the log.
    pub(super) fn into_text(self) -> String {
        let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
        for column in self.of_key {
            nulls.insert(column.name.clone(), column.nulls.into());
            if let Some((low, high)) = column.bounds.known() {
                least.insert(column.name.clone(), low);
                most.insert(column.name, high);
            }
        }
        json!({
            "numRecords": self.rows,
            "tightBounds": true,
            "minValues": least,
            "maxValues": most,
            "nullCount": nulls,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Int64Array, StringArray, new_null_array};

    use super::*;
    use crate::change::{Column, ColumnType};

    fn bounds(parts: &[ArrayRef]) -> Option<(Value, Value)> {
        let mut bounds = Bounds::default();
        for cells in parts {
            bounds.extend(cells);
        }
        bounds.known()
    }

    fn texts(of: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(of.to_vec()))
    }

    #[test]
    fn bounds_are_those_of_all_parts_and_nulls_are_left_out() {
        let numbers = |of: Vec<Option<i64>>| -> ArrayRef { Arc::new(Int64Array::from(of)) };
        let parts = [numbers(vec![Some(5), None]), numbers(vec![None]), numbers(vec![Some(-3), Some(4)])];
        assert_eq!(bounds(&parts), Some((json!(-3), json!(5))));
        assert_eq!(bounds(&[texts(&["m", "b"]), texts(&["z", "k"])]), Some((json!("b"), json!("z"))));
        assert_eq!(bounds(&[new_null_array(&DataType::Int64, 2)]), None);
    }

    #[test]
    fn a_long_text_takes_the_bounds_away_only_where_it_is_one() {
        let long = "m".repeat(LONGEST + 1);
        assert_eq!(bounds(&[texts(&[&long]), texts(&["a", "z"])]), Some((json!("a"), json!("z"))));
        assert_eq!(bounds(&[texts(&["a"]), texts(&[&long])]), None);
    }

    #[test]
    fn cells_of_a_type_without_bounds_take_them_away() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![b"q".as_slice()]));
        assert_eq!(bounds(&[texts(&["a"]), bytes]), None);
    }

    #[test]
    fn the_key_columns_of_a_file_are_described_and_no_others() {
        let column = |name: &str, column_type| Column { name: name.into(), column_type, nullable: true };
        let columns = vec![column("note", ColumnType::Text), column("id", ColumnType::Int64)];
        let schema = TableSchema::new(columns, vec![1]);
        let mut statistics = Statistics::new(&schema);
        for ids in [vec![Some(7), None], vec![Some(2)]] {
            let notes = new_null_array(&DataType::Utf8, ids.len());
            let cells: Vec<ArrayRef> = vec![notes, Arc::new(Int64Array::from(ids))];
            statistics.extend(&RecordBatch::try_new(Arc::clone(schema.arrow()), cells).unwrap());
        }
        let expected = json!({
            "numRecords": 3, "tightBounds": true,
            "minValues": {"id": 2}, "maxValues": {"id": 7}, "nullCount": {"id": 1},
        });
        assert_eq!(serde_json::from_str::<Value>(&statistics.into_text()).unwrap(), expected);
    }
}
