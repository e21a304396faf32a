//! Decoding the object of a row into the columns of its table, all or nothing.
//!
//! The members are expected in the order of the columns, which is how Debezium writes them: then finding a column is
//! one comparison. Any other order is decoded as well.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::change::{RecordErrorKind, TableId, TableSchema};

use super::cell::Cell;
use super::columns::Column;
use super::fault::{Decoded, Fault};
use super::flattened;
use super::key::is_of_router;
use super::placeholder::Placeholder;
use super::wire::Wire;

/// How the rows of one table are written: a decoder compiled for one schema.
#[derive(Debug)]
pub(super) struct Layout {
    /// The table that rows go to.
    pub(super) table: TableId,
    /// The table that events name.
    pub(super) source: TableId,
    /// Index of the table in [`super::tables::Tables`].
    pub(super) slot: usize,
    pub(super) schema: Arc<TableSchema>,
    /// One a column of the schema.
    pub(super) wires: Vec<Wire>,
    /// Names of the key's fields, shared with the keys that were recognised.
    pub(super) key_names: Arc<[Arc<str>]>,
    /// The placeholder of each column whose schema names one; empty where none does.
    pub(super) placeholders: Vec<Option<Arc<Placeholder>>>,
    /// In flattened events, what the names of fields begin with that are no columns.
    pub(super) metadata_prefix: Option<Arc<str>>,
}

impl Layout {
    /// The placeholder that the schema of a column names.
    #[inline]
    fn placeholder(&self, column: usize) -> Option<&Placeholder> {
        if self.placeholders.is_empty() { None } else { self.placeholders.get(column)?.as_deref() }
    }

    /// Whether a member of a row is no column, and not missed.
    pub(super) fn leaves_out(&self, name: &str) -> bool {
        is_of_router(name)
            || self.metadata_prefix.as_ref().is_some_and(|prefix| flattened::is_metadata(name, prefix))
    }
}

/// Growing rows of one schema. All columns have the same length between calls.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) columns: Vec<Column>,
    len: usize,
}

impl Rows {
    pub(super) fn new(schema: &TableSchema) -> Self {
        let columns = schema.arrow().fields().iter().map(|field| Column::new(field.data_type().clone()));
        Self { columns: columns.collect(), len: 0 }
    }

    /// Indexes of the columns that are absent in the newest row.
    pub(super) fn absent_in_last(&self) -> impl Iterator<Item = usize> {
        let last = self.len.checked_sub(1);
        let absent = move |column: &Column| last.is_some_and(|last| column.is_absent(last));
        self.columns.iter().enumerate().filter(move |(_, column)| absent(column)).map(|(index, _)| index)
    }

    /// Appends a row of nulls.
    pub(super) fn push_nulls(&mut self) {
        self.columns.iter_mut().for_each(Column::push_null);
        self.len += 1;
    }

    /// Rows.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes the newest row back.
    pub(super) fn undo(&mut self) {
        self.len = self.len.saturating_sub(1);
        self.columns.iter_mut().for_each(|column| column.truncate(self.len));
    }

    /// Appends the row that `text` describes. After an error there are as many rows as before.
    pub(super) fn push(
        &mut self,
        text: &str,
        layout: &Layout,
        placeholder: &Placeholder,
    ) -> Result<(), RowFault> {
        let mut at = At::Nothing;
        let seed = Row { rows: self, layout, placeholder, at: &mut at };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let outcome = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
        let outcome = match (outcome, at) {
            (Ok(()), _) => self.check_key(layout).map_err(RowFault::Record),
            (Err(_), At::UnknownColumn(name)) => Err(RowFault::UnknownColumn(name)),
            (Err(_), At::Column(index)) => Err(RowFault::Record(value_fault(layout, index))),
            (Err(_), At::Repeated(index)) => {
                let detail = format!("column `{}` is in the row twice", name_of(layout, index));
                Err(RowFault::Record(Fault::new(RecordErrorKind::NotAnEvent, detail)))
            }
            (Err(error), At::Nothing) => Err(RowFault::Record(Fault::json("row", &error))),
        };
        match outcome {
            Ok(()) => {
                for column in &mut self.columns {
                    if column.len() == self.len {
                        column.push_null();
                    }
                }
                self.len += 1;
            }
            Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(self.len)),
        }
        outcome
    }

    /// A row is addressed by its key: each of its columns must be there and have a value, for null equals no null.
    fn check_key(&self, layout: &Layout) -> Decoded<()> {
        for &index in layout.schema.key() {
            let there = self
                .columns
                .get(index)
                .is_some_and(|column| column.len() > self.len && column.is_valid(self.len));
            if !there {
                let detail = format!("key column `{}` has no value in the row", name_of(layout, index));
                return Err(Fault::new(RecordErrorKind::MissingKey, detail));
            }
        }
        Ok(())
    }
}

/// Why a row was not appended.
#[derive(Debug)]
pub(super) enum RowFault {
    /// The row has a column that its layout does not know.
    UnknownColumn(String),
    /// The record is bad.
    Record(Fault),
}

impl RowFault {
    /// The fault of the record, where each member must be known to the layout.
    pub(super) fn strict(self) -> Fault {
        match self {
            Self::Record(fault) => fault,
            Self::UnknownColumn(name) => Fault::new(
                RecordErrorKind::InvalidSchema,
                format!("column `{name}` is in the row but not in its schema"),
            ),
        }
    }
}

fn name_of(layout: &Layout, index: usize) -> &str {
    layout.schema.columns().get(index).map_or("?", |column| column.name.as_ref())
}

fn value_fault(layout: &Layout, index: usize) -> Fault {
    let expected = layout.wires.get(index).map_or("another value", Wire::expected);
    let detail = format!("column `{}` of {}: expected {expected}", name_of(layout, index), layout.table);
    Fault::new(RecordErrorKind::InvalidValue, detail)
}

/// Where decoding stood when it failed.
enum At {
    Nothing,
    Column(usize),
    Repeated(usize),
    UnknownColumn(String),
}

struct Row<'a> {
    rows: &'a mut Rows,
    layout: &'a Layout,
    placeholder: &'a Placeholder,
    at: &'a mut At,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the columns of the row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let len = self.rows.len;
        let mut expected = 0;
        while let Some(name) = map.next_key_seed(Name { schema: &self.layout.schema, expected })? {
            let index = match name {
                Found::Column(index) => index,
                Found::Unknown(name) if self.layout.leaves_out(&name) => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Found::Unknown(name) => {
                    *self.at = At::UnknownColumn(name);
                    return Err(A::Error::custom("unknown column"));
                }
            };
            let (Some(column), Some(wire)) = (self.rows.columns.get_mut(index), self.layout.wires.get(index))
            else {
                return Err(A::Error::custom("no such column"));
            };
            if column.len() > len {
                *self.at = At::Repeated(index);
                return Err(A::Error::custom("column twice"));
            }
            let placeholder = Some(self.layout.placeholder(index).unwrap_or(self.placeholder));
            let cell = Cell { wire, column, placeholder };
            if let Err(error) = map.next_value_seed(cell) {
                *self.at = At::Column(index);
                return Err(error);
            }
            expected = index + 1;
        }
        Ok(())
    }
}

enum Found {
    Column(usize),
    Unknown(String),
}

struct Name<'a> {
    schema: &'a TableSchema,
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Found, E> {
        let next = self.schema.columns().get(self.expected);
        if next.is_some_and(|column| column.name.as_ref() == name) {
            return Ok(Found::Column(self.expected));
        }
        Ok(self.schema.index_of(name).map_or_else(|| Found::Unknown(name.to_owned()), Found::Column))
    }
}
