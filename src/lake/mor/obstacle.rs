//! Which tables are left to the library, and why.
//!
//! What is written here keeps to a small part of Delta: rows, deletion vectors, our own columns. A table of which anything
//! else is demanded (constraints, partitions, columns of another writer) would break its promise by such a commit, so it is
//! known by what it asks and not by who made it.

use crate::change::TableSchema;
use crate::lake::create::DELETION_VECTORS;
use crate::lake::schema::{DeltaSchema, is_metadata};
use crate::lake::state::TableState;

/// Why a table cannot be written by deletion vectors, or `None` where it can.
pub(in crate::lake) fn obstacle(state: &TableState, schema: &TableSchema) -> Option<String> {
    let set = |name: &str| state.metadata().configuration.get(name).map(String::as_str);
    let has_feature = state.protocol().is_some_and(|protocol| {
        protocol.writer_features.iter().flatten().any(|feature| feature == "deletionVectors")
    });
    if !has_feature || set(DELETION_VECTORS) != Some("true") {
        return Some(format!("it was created without deletion vectors ({DELETION_VECTORS})"));
    }
    foreign_demand(state, schema)
}

/// What a table asks of its writers beyond rows and vectors, which is left to the library.
pub(in crate::lake) fn foreign_demand(state: &TableState, schema: &TableSchema) -> Option<String> {
    let metadata = state.metadata();
    if !metadata.partition_columns.is_empty() {
        return Some("it is partitioned".to_owned());
    }
    let asks = metadata.configuration.iter().find(|(name, value)| {
        name.starts_with("delta.constraints.")
            || (value.as_str() == "true" && name.as_str() == "delta.appendOnly")
    });
    if let Some((name, _)) = asks {
        return Some(format!("it has the property {name}"));
    }
    let fields = DeltaSchema::parse("", &metadata.schema_string).ok()?.fields;
    let foreign = fields.iter().find(|field| {
        let ours = schema.index_of(&field.name).is_some() || is_metadata(&field.name);
        let plain = field.nullable && !field.metadata.keys().any(|key| key.starts_with("delta."));
        !ours || !plain
    });
    foreign.map(|field| format!("its column {} was added or changed by another writer", field.name))
}
