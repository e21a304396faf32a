//! The tables of the source: their columns, their rows, and what of a row a statement changes and an event leaves out.
//!
//! A row is chosen by small numbers, so that steps meet the same rows again and again: that is where mistakes are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::effect::{Expected, Sure};
use super::steps::Choices;
use super::values::{Kind, Value};

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    pub key: bool,
    pub dropped: bool,
}

/// A table of the source.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: &'static str,
    pub topic: Arc<str>,
    pub columns: Vec<Column>,
    /// Names of the key columns, in key order.
    pub key: Vec<&'static str>,
    /// REPLICA IDENTITY FULL: events hold the whole row before, and no placeholders.
    pub full: bool,
    pub rows: BTreeMap<u8, Row>,
    /// Rows of a table without key.
    pub bag: Vec<Row>,
}

/// The cells of a row by the number of their column. A column that was added later is null until it is set.
pub type Row = BTreeMap<usize, Value>;

fn table(name: &'static str, columns: &[(&str, Kind)], key: &[&'static str], full: bool) -> Table {
    let columns = columns
        .iter()
        .map(|(name, kind)| Column {
            name: (*name).to_owned(),
            kind: *kind,
            key: key.contains(name),
            dropped: false,
        })
        .collect();
    let topic = format!("cdc.public.{name}").into();
    Table { name, topic, columns, key: key.to_vec(), full, rows: BTreeMap::new(), bag: Vec::new() }
}

/// The tables of every history. The one without key is the last.
pub fn tables() -> Vec<Table> {
    vec![
        table(
            "plain",
            &[
                ("id", Kind::Int8),
                ("name", Kind::Text),
                ("note", Kind::Text),
                ("n", Kind::Int4),
                ("flag", Kind::Bool),
            ],
            &["id"],
            false,
        ),
        // Every form of the placeholder, and a key whose order is not that of the columns.
        table(
            "forms",
            &[
                ("a", Kind::Int4),
                ("body", Kind::Jsonb),
                ("raw", Kind::Bytea),
                ("tags", Kind::TextArray),
                ("b", Kind::Text),
                ("numbers", Kind::IntArray),
                ("ids", Kind::UuidArray),
                ("blobs", Kind::ByteaArray),
                ("attributes", Kind::HstoreMap),
            ],
            &["b", "a"],
            false,
        ),
        table(
            "whole",
            &[
                ("id", Kind::Uuid),
                ("doc", Kind::Text),
                ("price", Kind::Numeric),
                ("day", Kind::Date),
                ("at", Kind::TimestampTz),
                ("weight", Kind::Double),
            ],
            &["id"],
            true,
        ),
        table("pairs", &[("a", Kind::Int4), ("b", Kind::Text)], &["a", "b"], false),
        table("heap", &[("a", Kind::Int4), ("t", Kind::Text)], &[], true),
    ]
}

/// A key that no step names: where a row waits while two rows change places.
pub const ASIDE: u8 = 8;

impl Table {
    /// Numbers of the columns that there are now.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.columns.len()).filter(|&column| !self.columns[column].dropped)
    }

    /// The values of a key column, different for each key.
    pub fn key_value(&self, column: usize, key: u8) -> Value {
        // In a composite key, keys share the values of single columns.
        let number = match (self.key.len(), self.columns[column].name.as_str()) {
            (2, "a") => key / 3 + 41,
            (2, _) => key % 3 + 41,
            _ => key,
        };
        match self.columns[column].kind {
            Kind::Int8 if key == ASIDE => Value::Small(6),
            _ => Value::Small(number),
        }
    }

    pub fn with_key(&self, mut row: Row, key: u8) -> Row {
        for column in 0..self.columns.len() {
            if self.columns[column].key {
                row.insert(column, self.key_value(column, key));
            }
        }
        row
    }

    pub fn row(&self, key: u8, cells: &Choices) -> Row {
        let chosen =
            |column: usize| (column, Value::chosen(self.columns[column].kind, cells[column % cells.len()]));
        self.with_key(self.live().map(chosen).collect(), key)
    }

    pub fn changed(&self, row: &Row, columns: u16, cells: &Choices) -> Row {
        let mut changed = row.clone();
        for column in self.live().filter(|&column| !self.columns[column].key) {
            if columns >> (column % 16) & 1 == 1 {
                let value = Value::chosen(self.columns[column].kind, cells[column % cells.len()]);
                changed.insert(column, value);
            }
        }
        changed
    }

    /// Columns whose value an update from `before` to `after` does not send.
    pub fn unchanged(&self, before: &Row, after: &Row) -> Vec<usize> {
        if self.full {
            return Vec::new();
        }
        let large = |column: &usize| matches!(after.get(column), Some(Value::Big(_)));
        self.live()
            .filter(large)
            .filter(|column| before.get(column) == after.get(column) && !self.columns[*column].key)
            .collect()
    }

    /// What a copy shows of a row. Columns that were dropped are null in rows that were written since.
    pub fn expected(&self, row: &Row, lost: &BTreeSet<usize>) -> Expected {
        self.live()
            .map(|column| {
                let Column { name, kind, .. } = &self.columns[column];
                let value = row.get(&column).copied().unwrap_or(Value::Null);
                let sure = if lost.contains(&column) { Sure::OrNull } else { Sure::Yes };
                (name.clone(), (value.shown(*kind), sure))
            })
            .collect()
    }

    /// The texts of a key's columns, in key order.
    pub fn key_texts(&self, key: u8) -> Vec<String> {
        self.key
            .iter()
            .filter_map(|name| {
                let column = self.columns.iter().position(|column| column.name == *name)?;
                self.key_value(column, key).shown(self.columns[column].kind)
            })
            .collect()
    }

    pub fn nth_key(&self, row: u8) -> Option<u8> {
        self.rows.keys().nth(row as usize % self.rows.len().max(1)).copied()
    }
}
