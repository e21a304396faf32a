//! The source's schema as a Delta schema, and back.
//!
//! Each field keeps the name of its [`ColumnType`](crate::change::ColumnType) in its metadata ([`TYPE`]), and the table's
//! properties keep the key ([`KEY`]): events without a schema block are decoded by what the table says. These names are
//! stored in every table; **do not change them**.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::LakeError;
use super::shape::Shape;
use super::types::{data_type, type_name, type_of_name};
use crate::change::{Column, TableId, TableSchema};

/// Field metadata: the name of the [`ColumnType`].
pub(super) const TYPE: &str = "alluvium.type";
/// Field metadata: whether the source declares the column as nullable.
pub(super) const NULLABLE: &str = "alluvium.nullable";
/// Table property: JSON list of the key columns' names, in key order.
pub(super) const KEY: &str = "alluvium.key";
/// Table property: JSON list of the source's database, schema and table.
pub(super) const SOURCE: &str = "alluvium.source";
/// Table property: the pipeline that owns the table.
pub(super) const PIPELINE: &str = "alluvium.pipeline";

/// Metadata columns behind the source's: last operation, commit time in the source, commit time here.
pub(super) const OPERATION: &str = "__cdc_operation";
/// Commit time in the source.
pub(super) const SOURCE_TIME: &str = "__cdc_timestamp";
/// When the row was written here.
pub(super) const SYNCED_AT: &str = "__synced_at";

/// Whether the row is deleted in the source; of tables with soft deletes.
pub(super) const DELETED: &str = "__cdc_deleted";
/// When a version of a row began in the source, and when it ended; of history tables, as all that follow.
pub(super) const VALID_FROM: &str = "__valid_from";
/// When it ended.
pub(super) const VALID_TO: &str = "__valid_to";
/// Whether it has not ended.
pub(super) const IS_CURRENT: &str = "__is_current";
/// Partition of the record that began it.
pub(super) const PARTITION: &str = "__cdc_partition";
/// Offset of the record that began it.
pub(super) const OFFSET: &str = "__cdc_offset";

/// Whether a column of that name is one of the metadata columns.
pub(super) fn is_metadata(name: &str) -> bool {
    [OPERATION, SOURCE_TIME, SYNCED_AT, DELETED, VALID_FROM, VALID_TO, IS_CURRENT, PARTITION, OFFSET]
        .contains(&name)
}

/// A Delta schema, as its JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeltaSchema {
    #[serde(rename = "type")]
    kind: String,
    pub(super) fields: Vec<DeltaField>,
}

/// A column of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeltaField {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) data_type: Value,
    pub(super) nullable: bool,
    #[serde(default)]
    pub(super) metadata: HashMap<String, Value>,
}

impl DeltaSchema {
    /// A schema of `fields`.
    pub(super) fn new(fields: Vec<DeltaField>) -> Self {
        Self { kind: "struct".to_owned(), fields }
    }

    /// Reads `metaData.schemaString`.
    pub(super) fn parse(table: &str, text: &str) -> Result<Self, LakeError> {
        serde_json::from_str(text).map_err(|error| LakeError::Unreadable {
            table: table.to_owned(),
            message: format!("its schema is not valid: {error}"),
        })
    }

    /// For `metaData.schemaString`.
    pub(super) fn to_text(&self) -> String {
        json!(self).to_string()
    }

    /// Whether it needs the table feature `timestampNtz`.
    pub(super) fn has_timestamp_ntz(&self) -> bool {
        self.fields.iter().any(|field| {
            field.data_type == "timestamp_ntz"
                || field.data_type.get("elementType").is_some_and(|element| element == "timestamp_ntz")
        })
    }
}

/// A nullable field without metadata.
pub(super) fn plain_field(name: &str, data_type: Value) -> DeltaField {
    DeltaField { name: name.to_owned(), data_type, nullable: true, metadata: HashMap::new() }
}

/// The field of a source column.
pub(super) fn field(table: &TableId, column: &Column) -> Result<DeltaField, LakeError> {
    Ok(DeltaField {
        name: column.name.to_string(),
        data_type: data_type(table, &column.name, &column.column_type)?,
        nullable: true,
        metadata: HashMap::from([
            (TYPE.to_owned(), type_name(&column.column_type).into()),
            (NULLABLE.to_owned(), column.nullable.to_string().into()),
        ]),
    })
}

/// The fields of a table: the source's, then the metadata columns.
pub(super) fn current(table: &TableId, schema: &TableSchema, shape: Shape) -> Result<DeltaSchema, LakeError> {
    let mut fields =
        schema.columns().iter().map(|column| field(table, column)).collect::<Result<Vec<_>, _>>()?;
    fields.extend(shape.delta_fields());
    check_names(table, &fields)?;
    Ok(DeltaSchema::new(fields))
}

/// Refuses names that Delta takes to be the same, and names that the lake needs.
pub(super) fn check_names(table: &TableId, fields: &[DeltaField]) -> Result<(), LakeError> {
    let mut seen = HashMap::new();
    for field in fields {
        if field.name.starts_with(super::upsert::RESERVED) {
            return Err(LakeError::Refused(format!(
                "table {table} has a column {:?}; names that begin with {} are reserved, rename it in the source",
                field.name,
                super::upsert::RESERVED
            )));
        }
        if let Some(other) = seen.insert(field.name.to_lowercase(), &field.name) {
            return Err(LakeError::Refused(format!(
                "table {table} has the columns {other:?} and {:?}, which differ in case only or are added by the lake; Delta cannot hold \
                 both, rename one in the source",
                field.name
            )));
        }
    }
    Ok(())
}

/// The source's schema as a current table's metadata says it.
pub(super) fn table_schema(
    table: &str,
    schema: &DeltaSchema,
    configuration: &HashMap<String, String>,
) -> Result<TableSchema, LakeError> {
    let unreadable = |message: String| LakeError::Unreadable { table: table.to_owned(), message };
    let mut columns = Vec::with_capacity(schema.fields.len());
    for field in &schema.fields {
        let Some(name) = field.metadata.get(TYPE) else { continue };
        let column_type = name
            .as_str()
            .and_then(type_of_name)
            .ok_or_else(|| unreadable(format!("column {} has the unknown {TYPE} {name}", field.name)))?;
        let nullable = field.metadata.get(NULLABLE).and_then(Value::as_str) != Some("false");
        columns.push(Column { name: field.name.as_str().into(), column_type, nullable });
    }
    let key = configuration.get(KEY).map_or("[]", String::as_str);
    let key: Vec<String> = serde_json::from_str(key)
        .map_err(|error| unreadable(format!("its property {KEY} is not a list of names: {error}")))?;
    let key = key
        .iter()
        .map(|name| {
            columns
                .iter()
                .position(|column| column.name.as_ref() == name)
                .ok_or_else(|| unreadable(format!("its key column {name} is gone")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(TableSchema::new(columns, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{self, ColumnType};

    fn every_type() -> Vec<ColumnType> {
        vec![
            ColumnType::Boolean,
            ColumnType::Int16,
            ColumnType::Int32,
            ColumnType::Int64,
            ColumnType::Float32,
            ColumnType::Float64,
            ColumnType::Decimal { precision: 38, scale: 10 },
            ColumnType::Numeric,
            ColumnType::Text,
            ColumnType::Uuid,
            ColumnType::Json,
            ColumnType::Jsonb,
            ColumnType::Binary,
            ColumnType::Date,
            ColumnType::Time,
            ColumnType::Timestamp,
            ColumnType::TimestampTz,
            ColumnType::Other("inet".into()),
            ColumnType::Interval,
            ColumnType::Duration,
            ColumnType::Bits(20),
            ColumnType::Hstore,
            ColumnType::Geometric(change::Shape::Circle),
            ColumnType::Vector,
            ColumnType::HalfVector,
            ColumnType::Array(Box::new(ColumnType::Decimal { precision: 10, scale: 2 })),
            ColumnType::Array(Box::new(ColumnType::Other("odd<name>".into()))),
        ]
    }

    #[test]
    fn an_array_of_timestamps_needs_the_feature_that_its_elements_need() {
        let array = |element| Column {
            name: "c".into(),
            column_type: ColumnType::Array(Box::new(element)),
            nullable: true,
        };
        let table = TableId::new("d", "s", "t");
        let needs =
            |element| DeltaSchema::new(vec![field(&table, &array(element)).unwrap()]).has_timestamp_ntz();
        assert!(needs(ColumnType::Timestamp));
        assert!(!needs(ColumnType::TimestampTz));
    }

    #[test]
    fn a_schema_reads_back_from_the_table_with_every_type_and_the_key_in_its_order() {
        let columns: Vec<Column> = every_type()
            .into_iter()
            .enumerate()
            .map(|(index, column_type)| Column {
                name: format!("c{index}").as_str().into(),
                column_type,
                nullable: index % 2 == 0,
            })
            .collect();
        let written = TableSchema::new(columns, vec![8, 3]);
        let table = TableId::new("d", "s", "t");
        let delta =
            DeltaSchema::parse("t", &current(&table, &written, Shape::default()).unwrap().to_text()).unwrap();
        let configuration = HashMap::from([(KEY.to_owned(), r#"["c8","c3"]"#.to_owned())]);
        assert_eq!(table_schema("t", &delta, &configuration).unwrap(), written);
    }

    #[test]
    fn columns_that_differ_in_case_only_are_refused() {
        let column = |name: &str| Column { name: name.into(), column_type: ColumnType::Text, nullable: true };
        let schema = TableSchema::new(vec![column("Id"), column("id")], vec![0]);
        let error = current(&TableId::new("d", "s", "t"), &schema, Shape::default()).unwrap_err().to_string();
        assert!(error.contains("differ in case"), "{error}");
    }

    #[test]
    fn a_decimal_that_delta_cannot_hold_says_what_to_set() {
        let column = Column {
            name: "n".into(),
            column_type: ColumnType::Decimal { precision: 3, scale: -2 },
            nullable: true,
        };
        let error = field(&TableId::new("d", "s", "t"), &column).unwrap_err().to_string();
        assert!(error.contains("numeric(3,-2)"), "{error}");
    }
}
