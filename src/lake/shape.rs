//! What the rows of a table have besides the source's columns.
//!
//! A table says so itself, by the columns of its Delta schema that are not the source's: whoever writes rows, a batch or
//! a compaction, writes all of them, whatever the settings say by now.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::schema::{
    DELETED, DeltaField, DeltaSchema, IS_CURRENT, OFFSET, OPERATION, PARTITION, SOURCE_TIME, SYNCED_AT, TYPE,
    VALID_FROM, VALID_TO, plain_field,
};
use crate::change::{DeleteMode, TableMode, TablePolicy, TableSchema};

/// The metadata columns of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape {
    /// Deleted rows stay, and [`DELETED`] says that they are.
    pub(super) keeps_deleted: bool,
    /// Rows are versions, with the time from which and up to which they were the row.
    pub(super) history: bool,
}

impl Shape {
    /// What a new table gets. In a history a deleted row is a version that has ended, so it needs no mark.
    pub(super) fn wanted(policy: &TablePolicy) -> Self {
        let history = policy.mode == TableMode::History;
        Self { keeps_deleted: policy.delete == DeleteMode::Soft && !history, history }
    }

    /// What a table has.
    pub(super) fn of(schema: &DeltaSchema) -> Self {
        let has = |name: &str| {
            schema.fields.iter().any(|field| field.name == name && !field.metadata.contains_key(TYPE))
        };
        Self { keeps_deleted: has(DELETED), history: has(IS_CURRENT) }
    }

    /// The metadata columns, behind the source's.
    pub(super) fn fields(self) -> Vec<Field> {
        let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let mut columns = vec![(OPERATION, DataType::Utf8), (SOURCE_TIME, time()), (SYNCED_AT, time())];
        if self.keeps_deleted {
            columns.push((DELETED, DataType::Boolean));
        }
        if self.history {
            columns.extend([
                (VALID_FROM, time()),
                (VALID_TO, time()),
                (IS_CURRENT, DataType::Boolean),
                (PARTITION, DataType::Int32),
                (OFFSET, DataType::Int64),
            ]);
        }
        columns.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
    }

    /// The same in Delta's words.
    pub(super) fn delta_fields(self) -> Vec<DeltaField> {
        let fields = self.fields();
        let of = |field: &Field| {
            let data_type = match field.data_type() {
                DataType::Boolean => "boolean",
                DataType::Int32 => "integer",
                DataType::Int64 => "long",
                DataType::Timestamp(..) => "timestamp",
                _ => "string",
            };
            plain_field(field.name(), data_type.into())
        };
        fields.iter().map(of).collect()
    }

    /// All columns as they are stored: those of `schema`, then the metadata columns.
    pub(super) fn stored(self, schema: &TableSchema) -> SchemaRef {
        let source = schema.arrow().fields().iter().map(|field| field.as_ref().clone());
        Arc::new(Schema::new(source.chain(self.fields()).collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_shape_that_its_columns_say() {
        for (keeps_deleted, history) in [(false, false), (true, false), (false, true)] {
            let shape = Shape { keeps_deleted, history };
            assert_eq!(Shape::of(&DeltaSchema::new(shape.delta_fields())), shape);
        }
    }

    #[test]
    fn columns_of_the_source_are_no_mark() {
        let mut field = plain_field(DELETED, "boolean".into());
        field.metadata.insert(TYPE.to_owned(), "boolean".into());
        assert_eq!(Shape::of(&DeltaSchema::new(vec![field])), Shape::default());
    }
}
