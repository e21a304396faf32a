//! Soft deletes: deleted rows stay in their table with their last values, and [`DELETED`] says that they are deleted.
//!
//! A delete is an upsert all of whose cells but the key are absent: it takes them from the stored row by the same way as
//! every unchanged large value (see `mor::plan`, and the CASE of `upsert`). So nothing of the event but its key gets into
//! the row, and the column alone says what a row is.
//!
//! A table that gets the setting later gets the column with its next batch; rows that are already there have null in it,
//! which means that they are not deleted. A table that loses the setting keeps the column and the rows that are marked;
//! rows that are deleted from then on go.

use super::action::{Entry, Metadata};
use super::error::LakeError;
use super::schema::{self, DELETED, DeltaSchema};
use super::shape::Shape;
use super::state::TableState;
use crate::change::TableId;

/// The commit that adds the column to a table without it.
pub(super) fn add_mark(id: &TableId, state: &TableState, writer: &str) -> Result<bytes::Bytes, LakeError> {
    let mut delta = DeltaSchema::parse(&id.to_string(), &state.metadata().schema_string)?;
    let marked = Shape { keeps_deleted: true, history: false };
    delta.fields.extend(marked.delta_fields().into_iter().filter(|field| field.name == DELETED));
    schema::check_names(id, &delta.fields)?;
    let metadata = Metadata { schema_string: delta.to_text(), ..state.metadata().clone() };
    let entry = Entry::with_ledger("ADD COLUMN", writer, super::now_millis(), state.known_ledger());
    Ok(entry.metadata(&metadata).into_bytes())
}
