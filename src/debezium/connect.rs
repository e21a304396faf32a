//! Kafka Connect's schema block: from a struct's fields to columns with their encodings.
//!
//! Types are recognised by Connect type and semantic name together. What is not recognised is carried as text
//! ([`ColumnType::Other`]), never refused. A declared default is not even read: Debezium's may be placeholders.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::change::{Column, ColumnType, RecordErrorKind};

use super::fault::{Decoded, Fault};
use super::instant::Unit;
use super::placeholder::Placeholder;
use super::wire::Wire;

/// Parameter of a field's schema that names the placeholder of its column, in versions of Debezium that write it.
const PLACEHOLDER_PARAMETER: &str = "__debezium.unavailable.value.placeholder";

/// One node of a schema block, with the members that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct ConnectSchema {
    #[serde(rename = "type", default)]
    connect_type: String,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    parameters: Option<HashMap<String, String>>,
    #[serde(default)]
    fields: Option<Vec<ConnectSchema>>,
}

impl ConnectSchema {
    /// Parses the `schema` member of the record's `part`.
    pub(super) fn parse(part: &str, text: &str) -> Decoded<Self> {
        let schema = if text.starts_with('{') { serde_json::from_str(text).ok() } else { None };
        schema.ok_or_else(|| {
            let detail = format!("the schema block of the {part} cannot be read");
            Fault::new(RecordErrorKind::InvalidSchema, detail)
        })
    }

    /// Whether it lacks a type, and so is no schema.
    pub(super) fn is_untyped(&self) -> bool {
        self.connect_type.is_empty()
    }

    /// The struct's field of that name.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        self.fields.iter().flatten().find(|field| field.field.as_deref() == Some(name))
    }

    /// The columns of a row struct with their encodings.
    pub(super) fn columns(&self) -> Decoded<(Vec<Column>, Vec<Wire>)> {
        let mut columns: Vec<Column> = Vec::new();
        let mut wires = Vec::new();
        for field in self.fields.iter().flatten() {
            let Some(name) = field.field.as_deref() else {
                return Err(Fault::new(
                    RecordErrorKind::InvalidSchema,
                    "a field of the row's schema has no name",
                ));
            };
            if columns.iter().any(|column| column.name.as_ref() == name) {
                let detail = format!("the row's schema has column `{name}` twice");
                return Err(Fault::new(RecordErrorKind::InvalidSchema, detail));
            }
            let (column_type, wire) = field.column_type(name)?;
            columns.push(Column { name: name.into(), column_type, nullable: field.optional });
            wires.push(wire);
        }
        Ok((columns, wires))
    }

    /// The placeholder of each field whose schema names one; empty where none does.
    pub(super) fn placeholders(&self) -> Vec<Option<Arc<Placeholder>>> {
        let fields = self.fields.iter().flatten();
        let texts: Vec<Option<&str>> = fields.map(|field| field.parameter(PLACEHOLDER_PARAMETER)).collect();
        if texts.iter().all(Option::is_none) {
            return Vec::new();
        }
        texts.into_iter().map(|text| text.map(|text| Arc::new(Placeholder::new(text)))).collect()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.as_ref()?.get(name).map(String::as_str)
    }

    fn column_type(&self, column: &str) -> Decoded<(ColumnType, Wire)> {
        let semantic = self.name.as_deref().unwrap_or_default();
        let timestamp = |unit| (ColumnType::Timestamp, Wire::Timestamp(unit));
        let time = |unit| (ColumnType::Time, Wire::Time(unit));
        Ok(match (self.connect_type.as_str(), semantic) {
            ("boolean", "") => (ColumnType::Boolean, Wire::Boolean),
            ("int8" | "int16", "") => (ColumnType::Int16, Wire::Int16),
            ("int32", "") => (ColumnType::Int32, Wire::Int32),
            ("int64", "") => (ColumnType::Int64, Wire::Int64),
            ("float" | "float32", "") => (ColumnType::Float32, Wire::Float32),
            ("double" | "float64", "") => (ColumnType::Float64, Wire::Float64),
            ("string", "") => (ColumnType::Text, Wire::Text),
            ("bytes", "") => (ColumnType::Binary, Wire::Binary),
            ("bytes", "org.apache.kafka.connect.data.Decimal") => self.decimal(column)?,
            ("struct", "io.debezium.data.VariableScaleDecimal") => (ColumnType::Numeric, Wire::Numeric),
            ("string", "io.debezium.data.Uuid") => (ColumnType::Uuid, Wire::Text),
            ("string", "io.debezium.data.Json") => {
                let source = self.parameter("__debezium.source.column.type").unwrap_or_default();
                let jsonb = source.eq_ignore_ascii_case("jsonb");
                (if jsonb { ColumnType::Jsonb } else { ColumnType::Json }, Wire::Text)
            }
            ("int32", "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date") => {
                (ColumnType::Date, Wire::Date)
            }
            ("int32" | "int64", "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time") => {
                time(Unit::Millis)
            }
            ("int64", "io.debezium.time.MicroTime") => time(Unit::Micros),
            ("int64", "io.debezium.time.NanoTime") => time(Unit::Nanos),
            ("int64", "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp") => {
                timestamp(Unit::Millis)
            }
            ("int64", "io.debezium.time.MicroTimestamp") => timestamp(Unit::Micros),
            ("int64", "io.debezium.time.NanoTimestamp") => timestamp(Unit::Nanos),
            ("string", "io.debezium.time.ZonedTimestamp") => (ColumnType::TimestampTz, Wire::Iso),
            (connect_type, semantic) => {
                let name = self
                    .parameter("__debezium.source.column.type")
                    .unwrap_or(if semantic.is_empty() { connect_type } else { semantic });
                (ColumnType::Other(name.to_owned()), Wire::AnyText)
            }
        })
    }

    fn decimal(&self, column: &str) -> Decoded<(ColumnType, Wire)> {
        let scale = self.parameter("scale").and_then(|scale| scale.parse::<i32>().ok()).ok_or_else(|| {
            let detail = format!("the schema of decimal column `{column}` has no integer parameter `scale`");
            Fault::new(RecordErrorKind::InvalidSchema, detail)
        })?;
        let precision =
            self.parameter("connect.decimal.precision").and_then(|precision| precision.parse::<u8>().ok());
        Ok(match (precision, i8::try_from(scale)) {
            (Some(precision @ 1..=38), Ok(small)) if (0..=i32::from(precision)).contains(&scale) => {
                (ColumnType::Decimal { precision, scale: small }, Wire::Decimal { precision, scale: small })
            }
            _ => (ColumnType::Numeric, Wire::ScaledNumeric { scale: i64::from(scale) }),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn column_type(field: &str) -> Decoded<(ColumnType, Wire)> {
        ConnectSchema::parse("value", field).unwrap().column_type("c")
    }

    fn decimal(parameters: &str) -> (ColumnType, Wire) {
        column_type(&format!(
            r#"{{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{parameters}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn decimals_that_38_digits_hold_are_decimals_and_the_others_text() {
        let known = decimal(r#"{"scale":"4","connect.decimal.precision":"20"}"#);
        assert_eq!(known.0, ColumnType::Decimal { precision: 20, scale: 4 });
        for parameters in [
            r#"{"scale":"2"}"#,
            r#"{"scale":"2","connect.decimal.precision":"39"}"#,
            r#"{"scale":"-2","connect.decimal.precision":"5"}"#,
            r#"{"scale":"6","connect.decimal.precision":"5"}"#,
        ] {
            assert_eq!(decimal(parameters).0, ColumnType::Numeric, "{parameters}");
        }
    }

    #[test]
    fn a_decimal_without_scale_is_an_invalid_schema() {
        let fault =
            column_type(r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal"}"#).unwrap_err();
        assert_eq!(fault.kind, RecordErrorKind::InvalidSchema);
        assert!(fault.detail.contains("`c`"), "{}", fault.detail);
    }

    #[test]
    fn what_is_not_recognised_is_text_under_its_most_telling_name() {
        for (field, name) in [
            (r#"{"type":"array","items":{"type":"int32"}}"#, "array"),
            (r#"{"type":"string","name":"io.debezium.data.Xml"}"#, "io.debezium.data.Xml"),
            (r#"{"type":"string","name":"io.debezium.time.Date"}"#, "io.debezium.time.Date"),
            (
                r#"{"type":"struct","name":"x","parameters":{"__debezium.source.column.type":"POINT"}}"#,
                "POINT",
            ),
        ] {
            assert_eq!(column_type(field).unwrap(), (ColumnType::Other(name.into()), Wire::AnyText));
        }
    }

    #[test]
    fn jsonb_is_told_from_json_by_the_propagated_type() {
        let json = r#"{"type":"string","name":"io.debezium.data.Json"}"#;
        assert_eq!(column_type(json).unwrap().0, ColumnType::Json);
        let jsonb = r#"{"type":"string","name":"io.debezium.data.Json",
            "parameters":{"__debezium.source.column.type":"JSONB"}}"#;
        assert_eq!(column_type(jsonb).unwrap().0, ColumnType::Jsonb);
    }
}
