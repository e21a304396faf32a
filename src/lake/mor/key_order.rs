//! The order of the keys of a table: by its key columns, one after the other.
//!
//! Keys are compared as bytes of arrow's row format, in which numbers, texts and times have the order that they have in
//! statistics. Rows with the same key, versions of a history, keep the order in which they were. It is about where rows
//! lie, and nothing else: a file whose rows lie otherwise is read and written like any other.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use crate::change::{Column, TableSchema};
use crate::lake::types::type_name;

/// How keys of one table are compared.
#[derive(Debug)]
pub(super) struct KeyOrder {
    converter: RowConverter,
    /// Where its columns are among those of the table.
    key: Vec<usize>,
    names: Vec<String>,
    description: String,
}

impl KeyOrder {
    /// The order of the keys of `schema`; `None` where it has no key, or one whose values have no order here.
    pub(super) fn of(schema: &TableSchema) -> Option<Self> {
        let key = schema.key().to_vec();
        let columns: Vec<&Column> = key.iter().filter_map(|&index| schema.columns().get(index)).collect();
        let fields: Vec<SortField> =
            columns.iter().map(|column| SortField::new(column.column_type.arrow())).collect();
        if fields.is_empty() || fields.len() != key.len() || !RowConverter::supports_fields(&fields) {
            return None;
        }
        let typed: Vec<[String; 2]> =
            columns.iter().map(|column| [column.name.to_string(), type_name(&column.column_type)]).collect();
        Some(Self {
            converter: RowConverter::new(fields).ok()?,
            key,
            names: columns.iter().map(|column| column.name.to_string()).collect(),
            description: serde_json::to_string(&typed).ok()?,
        })
    }

    /// The names of its columns.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Names and types, by which a file says how it is sorted.
    pub(super) fn description(&self) -> &str {
        &self.description
    }

    /// The keys of rows that have the columns of the table in their order.
    pub(super) fn keys(&self, rows: &RecordBatch) -> Result<Rows, ArrowError> {
        self.converter.convert_columns(rows.project(&self.key)?.columns())
    }

    /// In which order the rows of some batches, counted through, are sorted; `None` where they are as they lie.
    pub(super) fn sorted(&self, batches: &[RecordBatch]) -> Result<Option<Vec<u32>>, ArrowError> {
        let mut keys = self.converter.empty_rows(0, 0);
        for batch in batches {
            self.converter.append(&mut keys, batch.project(&self.key)?.columns())?;
        }
        let mut order: Vec<u32> = (0..).take(keys.num_rows()).collect();
        let of = |row: u32| keys.row(row as usize);
        if order.is_sorted_by(|&one, &next| of(one) <= of(next)) {
            return Ok(None);
        }
        order.sort_by(|&one, &other| of(one).cmp(&of(other)));
        Ok(Some(order))
    }
}
