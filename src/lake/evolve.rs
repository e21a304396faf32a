//! Schema changes of the source: new columns are added, what would lose data is refused.
//!
//! The change is a metadata commit of ours that keeps the table's id and name (readers that stream from the table stop
//! when the id changes), and it stands in the log before the first row that needs it.

use std::sync::Arc;

use super::action::{Entry, Metadata};
use super::create;
use super::error::LakeError;
use super::schema::{self, DeltaSchema};
use super::state::TableState;
use crate::change::{Column, TableId, TableSchema};

/// What a table needs before it can take rows of a schema.
#[derive(Debug)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// These columns.
    Add(Vec<Column>),
}

/// Compares the schema of events with the table's.
///
/// # Errors
/// [`LakeError::Refused`] with the column, both types, and what to do.
pub(super) fn compare(id: &TableId, table: &TableSchema, events: &TableSchema) -> Result<Change, LakeError> {
    let (have, want): (Vec<_>, Vec<_>) = (table.key_names().collect(), events.key_names().collect());
    if have != want {
        return Err(LakeError::Refused(format!(
            "the key of table {id} changed from ({}) to ({}); rows already stored cannot be matched by it. Restore the key in the source, \
             or move the table's folder away and rebuild it",
            have.join(", "),
            want.join(", ")
        )));
    }
    let mut added = Vec::new();
    for column in events.columns() {
        let Some(stored) = table.index_of(&column.name).and_then(|index| table.columns().get(index)) else {
            added.push(column.clone());
            continue;
        };
        if stored.column_type.arrow() != column.column_type.arrow() {
            return Err(LakeError::Refused(format!(
                "column {} of table {id} is {} in the lake and {} in the events; Delta cannot change it in place. Change it back in the \
                 source, or move the table's folder away and rebuild it",
                column.name,
                schema::type_name(&stored.column_type),
                schema::type_name(&column.column_type)
            )));
        }
    }
    Ok(if added.is_empty() { Change::None } else { Change::Add(added) })
}

/// The commit that adds `columns`, as nullable, behind the last one.
pub(super) fn add_columns(
    id: &TableId,
    state: &TableState,
    columns: &[Column],
    writer: &str,
) -> Result<bytes::Bytes, LakeError> {
    let mut delta = DeltaSchema::parse(&id.to_string(), &state.metadata().schema_string)?;
    for column in columns {
        delta.fields.push(schema::field(id, column)?);
    }
    schema::check_names(id, &delta.fields)?;
    let metadata = Metadata { schema_string: delta.to_text(), ..state.metadata().clone() };
    let mut entry = Entry::new("ADD COLUMN", writer, super::now_millis());
    let protocol = create::protocol(state.protocol(), &delta, &metadata.configuration);
    if state.protocol() != Some(&protocol) {
        entry = entry.protocol(&protocol);
    }
    Ok(entry.metadata(&metadata).into_bytes())
}

/// One schema that covers all segments of a batch: the first one's columns, then what later ones add.
///
/// # Errors
/// Where two segments disagree about a column's type or about the key.
pub(super) fn union<'a>(
    id: &TableId,
    segments: impl IntoIterator<Item = &'a Arc<TableSchema>>,
) -> Result<Option<Arc<TableSchema>>, LakeError> {
    let mut union: Option<Arc<TableSchema>> = None;
    for segment in segments {
        union = Some(match union {
            None => Arc::clone(segment),
            Some(so_far) if Arc::ptr_eq(&so_far, segment) => so_far,
            Some(so_far) => match compare(id, &so_far, segment)? {
                Change::None => so_far,
                Change::Add(columns) => {
                    let all = so_far.columns().iter().cloned().chain(columns).collect();
                    Arc::new(TableSchema::new(all, so_far.key().to_vec()))
                }
            },
        });
    }
    Ok(union)
}
