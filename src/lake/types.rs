//! Column types as Delta types, and the names under which tables keep them.
//!
//! Delta has fewer types than a source: uuid, json and numbers beyond 38 digits are all strings, a time is a long. So what a
//! column is cannot be told from its Delta type, and each field keeps the name of its [`ColumnType`]. These names are stored
//! in every table; **do not change them**. What is written by [`type_name`] reads back by [`type_of_name`].

use serde_json::{Value, json};

use super::error::LakeError;
use crate::change::{self, ColumnType, TableId};

/// A list of values of a Delta type, as its JSON.
fn array(element: &Value) -> Value {
    json!({"type": "array", "elementType": element, "containsNull": true})
}

/// The Delta type of a column, as its JSON.
pub(super) fn data_type(table: &TableId, column: &str, column_type: &ColumnType) -> Result<Value, LakeError> {
    Ok(match column_type {
        ColumnType::Boolean => "boolean".into(),
        ColumnType::Int16 => "short".into(),
        ColumnType::Int32 => "integer".into(),
        ColumnType::Int64 | ColumnType::Time | ColumnType::Duration => "long".into(),
        ColumnType::Float32 => "float".into(),
        ColumnType::Float64 => "double".into(),
        ColumnType::Decimal { precision, scale }
            if (1..=38).contains(precision) && (0..=*precision as i8).contains(scale) =>
        {
            format!("decimal({precision},{scale})").into()
        }
        ColumnType::Decimal { precision, scale } => {
            return Err(LakeError::Refused(format!(
                "column {column} of table {table} is numeric({precision},{scale}); Delta holds up to 38 digits with a scale from 0 to the \
                 precision, set the column's type to numeric (stored as text)"
            )));
        }
        ColumnType::Numeric
        | ColumnType::Text
        | ColumnType::Uuid
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Interval
        | ColumnType::Bits(_)
        | ColumnType::Hstore
        | ColumnType::Geometric(_)
        | ColumnType::Other(_) => "string".into(),
        ColumnType::Binary => "binary".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Timestamp => "timestamp_ntz".into(),
        ColumnType::TimestampTz => "timestamp".into(),
        ColumnType::Vector => array(&"double".into()),
        ColumnType::HalfVector => array(&"float".into()),
        ColumnType::Array(element) => array(&data_type(table, column, element)?),
    })
}

/// The Delta type of columns of a type, for people.
pub fn delta_type(column_type: &ColumnType) -> String {
    let nowhere = TableId::new("", "", "");
    match data_type(&nowhere, "", column_type) {
        Ok(Value::String(name)) => name,
        Ok(array) => format!("array<{}>", array.get("elementType").and_then(Value::as_str).unwrap_or("?")),
        Err(error) => error.to_string(),
    }
}

/// Whether files may be left out by their min/max of a column of this type.
///
/// The library rounds bounds of decimals through doubles, cuts those of timestamps to milliseconds, cannot write down
/// infinite dates, and a double may be NaN.
pub(super) fn has_exact_bounds(column_type: &ColumnType) -> bool {
    matches!(
        column_type,
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 | ColumnType::Text | ColumnType::Uuid
    )
}

/// The persisted name of a type.
pub(super) fn type_name(column_type: &ColumnType) -> String {
    match column_type {
        ColumnType::Boolean => "boolean".into(),
        ColumnType::Int16 => "int16".into(),
        ColumnType::Int32 => "int32".into(),
        ColumnType::Int64 => "int64".into(),
        ColumnType::Float32 => "float32".into(),
        ColumnType::Float64 => "float64".into(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Numeric => "numeric".into(),
        ColumnType::Text => "text".into(),
        ColumnType::Uuid => "uuid".into(),
        ColumnType::Json => "json".into(),
        ColumnType::Jsonb => "jsonb".into(),
        ColumnType::Binary => "binary".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Time => "time".into(),
        ColumnType::Timestamp => "timestamp".into(),
        ColumnType::TimestampTz => "timestamptz".into(),
        ColumnType::Interval => "interval".into(),
        ColumnType::Duration => "duration".into(),
        ColumnType::Bits(length) => format!("bit({length})"),
        ColumnType::Hstore => "hstore".into(),
        ColumnType::Geometric(shape) => shape.name().into(),
        ColumnType::Vector => "vector".into(),
        ColumnType::HalfVector => "halfvec".into(),
        ColumnType::Array(element) => format!("array<{}>", type_name(element)),
        ColumnType::Other(name) => format!("other:{name}"),
    }
}

/// The type of a persisted name; `None` where it is none of ours.
pub(super) fn type_of_name(name: &str) -> Option<ColumnType> {
    Some(match name {
        "boolean" => ColumnType::Boolean,
        "int16" => ColumnType::Int16,
        "int32" => ColumnType::Int32,
        "int64" => ColumnType::Int64,
        "float32" => ColumnType::Float32,
        "float64" => ColumnType::Float64,
        "numeric" => ColumnType::Numeric,
        "text" => ColumnType::Text,
        "uuid" => ColumnType::Uuid,
        "json" => ColumnType::Json,
        "jsonb" => ColumnType::Jsonb,
        "binary" => ColumnType::Binary,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time,
        "timestamp" => ColumnType::Timestamp,
        "timestamptz" => ColumnType::TimestampTz,
        "interval" => ColumnType::Interval,
        "duration" => ColumnType::Duration,
        "hstore" => ColumnType::Hstore,
        "vector" => ColumnType::Vector,
        "halfvec" => ColumnType::HalfVector,
        _ => {
            if let Some(other) = name.strip_prefix("other:") {
                return Some(ColumnType::Other(other.to_owned()));
            }
            if let Some(shape) = change::Shape::of_name(name) {
                return Some(ColumnType::Geometric(shape));
            }
            let parameters = |kind: &str| name.strip_prefix(kind)?.strip_suffix(')');
            if let Some(length) = parameters("bit(") {
                return length.parse().ok().map(ColumnType::Bits);
            }
            if let Some(element) = name.strip_prefix("array<") {
                return type_of_name(element.strip_suffix('>')?)
                    .map(|element| ColumnType::Array(Box::new(element)));
            }
            let (precision, scale) = parameters("decimal(")?.split_once(',')?;
            ColumnType::Decimal { precision: precision.parse().ok()?, scale: scale.parse().ok()? }
        }
    })
}
