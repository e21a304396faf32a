//! From the columns that a schema block describes to those of the table: what the sink and the settings say besides.
//!
//! - A table that has a column as text, from before its type was recognised, goes on to get the same text: one column
//!   never holds two forms.
//! - What the schema block calls a mere string is what the settings call it: the type of a column in the source is not
//!   in the block unless the connector adds it.
//! - Arrays are no keys to the lake, so an array within a key is carried as JSON text.

use std::collections::HashMap;

use arrow::datatypes::DataType;

use crate::change::{Column, ColumnType, TableId};

use super::configured::ConfiguredType;
use super::connect::Described;
use super::modes::Modes;
use super::record::KnownSchemas;
use super::wire::Wire;

/// What is known of tables besides their schema blocks.
#[derive(Clone, Copy)]
pub(super) struct Refinements<'a> {
    pub(super) known: &'a dyn KnownSchemas,
    pub(super) configured: &'a HashMap<String, HashMap<String, ConfiguredType>>,
}

/// Whether a column whose values are texts, as far as the source's type is known, was made as bytes when it was not.
fn is_once_bytes(stored: &ColumnType, wire: &Wire) -> bool {
    match (stored, wire) {
        (ColumnType::Binary, Wire::TextBytes) => true,
        (ColumnType::Array(stored), Wire::Array(element)) => is_once_bytes(stored, element),
        _ => false,
    }
}

/// The columns and encodings of a table.
pub(super) fn refined(
    described: &Described,
    key: &[usize],
    table: &TableId,
    refinements: Refinements<'_>,
) -> (Vec<Column>, Vec<Wire>) {
    let mut columns = described.columns.clone();
    let mut wires = described.wires.clone();
    let known = refinements.known.schema(table);
    let configured = refinements.configured.get(&table.to_string());
    let once_text = described.once_text.iter().copied();
    for (index, ((column, wire), once_text)) in columns.iter_mut().zip(&mut wires).zip(once_text).enumerate()
    {
        if let Some(configured) = configured.and_then(|types| types.get(column.name.as_ref()))
            && *wire == Wire::Text
            && column.column_type == ColumnType::Text
        {
            column.column_type = configured.column_type.clone();
            *wire = configured.wire.clone();
        }
        let stored = known
            .as_deref()
            .and_then(|known| known.columns().get(known.index_of(&column.name)?))
            .map(|stored| &stored.column_type);
        if let Some(stored @ (ColumnType::Text | ColumnType::Other(_))) = stored
            && once_text
        {
            column.column_type = stored.clone();
            *wire = if *wire == Wire::Text { Wire::Text } else { Wire::AnyText };
        }
        if let Some(stored) = stored.filter(|stored| is_once_bytes(stored, wire)) {
            column.column_type = stored.clone();
            *wire = Wire::of(stored, Modes::default());
        }
        if key.contains(&index) && matches!(column.column_type.arrow(), DataType::List(_)) {
            column.column_type = ColumnType::Other("array".to_owned());
            *wire = Wire::AnyText;
        }
    }
    (columns, wires)
}
