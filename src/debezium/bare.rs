//! Events without schema block: a layout from names and values.
//!
//! A column's type comes from the configuration, else from the source's catalog, else from what the sink already has,
//! else from the first value seen. What the sink has as text stays text, whatever the catalog says.
//! A null, or a placeholder, says nothing about its type: such a column is text, and takes any later value as its
//! JSON text, so that nothing is lost and nothing stops. Columns are added as later rows bring them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::change::{Column, ColumnType, RecordErrorKind, TableId, TableSchema};

use super::cell::compact;
use super::configured::ConfiguredType;
use super::fault::{Decoded, Fault};
use super::flattened;
use super::key::{KeyNames, is_of_router};
use super::modes::Modes;
use super::placeholder::Placeholder;
use super::row::Layout;
use super::wire::Wire;

/// Where the types of columns come from, best first.
#[derive(Clone, Copy)]
pub(super) struct TypeSources<'a> {
    pub(super) configured: Option<&'a HashMap<String, ConfiguredType>>,
    pub(super) source: Option<&'a HashMap<String, ConfiguredType>>,
    pub(super) known: Option<&'a TableSchema>,
    pub(super) modes: Modes,
    pub(super) placeholder: &'a Placeholder,
    /// In flattened events, what the names of fields begin with that are no columns.
    pub(super) metadata_prefix: Option<&'a Arc<str>>,
}

/// A layout, and the columns whose type was taken from a value.
pub(super) struct Guessed {
    pub(super) layout: Layout,
    pub(super) from_values: Vec<Arc<str>>,
}

/// The layout of `before` (if there is one) with the columns that `row` adds, and the key `key_names`.
pub(super) fn layout(
    (source, table): (&TableId, &TableId),
    slot: usize,
    before: Option<&Layout>,
    key_names: &KeyNames,
    row: &str,
    types: TypeSources<'_>,
) -> Decoded<Guessed> {
    let members: Members<'_> = serde_json::from_str(row).map_err(|error| Fault::json("row", &error))?;
    let mut columns = before.map(|layout| layout.schema.columns().to_vec()).unwrap_or_default();
    let mut wires = before.map(|layout| layout.wires.clone()).unwrap_or_default();
    let mut from_values = Vec::new();
    for (name, value) in &members.0 {
        let no_column = is_of_router(name)
            || types.metadata_prefix.is_some_and(|prefix| flattened::is_metadata(name, prefix));
        if no_column || columns.iter().any(|column| column.name.as_ref() == name) {
            continue;
        }
        let name: Arc<str> = Arc::from(name.as_ref());
        let (column_type, wire, guessed) = types.of(&name, value);
        if guessed {
            from_values.push(Arc::clone(&name));
        }
        columns.push(Column { name, column_type, nullable: true });
        wires.push(wire);
    }
    let key = key_indexes(&columns, key_names, table)?;
    for &index in &key {
        if let (Some(column), Some(wire)) = (columns.get_mut(index), wires.get_mut(index))
            && matches!(column.column_type.arrow(), DataType::List(_))
        {
            column.column_type = ColumnType::Other("array".into());
            *wire = Wire::AnyText;
        }
    }
    let schema = Arc::new(TableSchema::new(columns, key));
    let layout = Layout {
        table: table.clone(),
        source: source.clone(),
        slot,
        schema,
        wires,
        key_names: Arc::clone(key_names),
        placeholders: Vec::new(),
        metadata_prefix: types.metadata_prefix.cloned(),
    };
    Ok(Guessed { layout, from_values })
}

/// Indexes of the key's columns.
pub(super) fn key_indexes(columns: &[Column], names: &KeyNames, table: &TableId) -> Decoded<Vec<usize>> {
    names
        .iter()
        .map(|name| {
            columns.iter().position(|column| column.name == *name).ok_or_else(|| {
                let detail = format!("key field `{name}` is not a column of {table}");
                Fault::new(RecordErrorKind::InvalidSchema, detail)
            })
        })
        .collect()
}

impl TypeSources<'_> {
    fn of(self, name: &str, value: &RawValue) -> (ColumnType, Wire, bool) {
        if let Some(configured) = self.configured.and_then(|types| types.get(name)) {
            return (configured.column_type.clone(), configured.wire.clone(), false);
        }
        let stored = self.known.and_then(|known| known.columns().get(known.index_of(name)?));
        let stored = stored.map(|column| &column.column_type);
        let source = self.source.and_then(|types| types.get(name));
        if let Some(source) = source.filter(|source| stored.is_none_or(|stored| agrees(stored, source))) {
            return (source.column_type.clone(), source.wire.clone(), false);
        }
        if let Some(stored) = stored {
            return (stored.clone(), Wire::of(stored, self.modes), false);
        }
        let (column_type, wire) = self.guess(value.get());
        (column_type, wire, true)
    }

    fn guess(self, value: &str) -> (ColumnType, Wire) {
        let undecided = (ColumnType::Text, Wire::AnyText);
        match value.as_bytes().first() {
            Some(b't' | b'f') => (ColumnType::Boolean, Wire::Boolean),
            Some(b'"') => match serde_json::from_str::<String>(value) {
                Ok(text) if !self.placeholder.is_text(&text) && !self.placeholder.is_bytes(&text) => {
                    (ColumnType::Text, Wire::Text)
                }
                _ => undecided,
            },
            Some(b'[' | b'{') if self.placeholder.is_composite(&compact(value)) => undecided,
            Some(b'[') => (ColumnType::Other("array".into()), Wire::AnyText),
            Some(b'{') => (ColumnType::Other("struct".into()), Wire::AnyText),
            Some(b'-' | b'0'..=b'9') if value.contains(['.', 'e', 'E']) => {
                (ColumnType::Float64, Wire::Float64)
            }
            Some(b'-' | b'0'..=b'9') if value.parse::<i64>().is_ok() => (ColumnType::Int64, Wire::Int64),
            Some(b'-' | b'0'..=b'9') => (ColumnType::Numeric, Wire::Numeric),
            _ => undecided,
        }
    }
}

/// Whether a column that is stored as `stored` can take values of the source's type. Where it was made from values, or by
/// an earlier version, it keeps what it has: one column never holds two forms.
fn agrees(stored: &ColumnType, source: &ConfiguredType) -> bool {
    match stored {
        ColumnType::Text | ColumnType::Other(_) => *stored == source.column_type,
        ColumnType::Boolean | ColumnType::Int64 | ColumnType::Float64 | ColumnType::Numeric => {
            stored.arrow() == source.column_type.arrow()
        }
        _ => true,
    }
}

/// The members of an object in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the columns of the row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}
