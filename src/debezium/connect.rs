//! Kafka Connect's schema block: from a struct's fields to columns with their encodings.
//!
//! Types are recognised by Connect type and semantic name together, and by the type of the source where the connector
//! adds it (`column.propagate.source.type`). What is not recognised is carried as text ([`ColumnType::Other`]), never
//! refused. The value of a declared default is not even read: Debezium's may be placeholders.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::change::{Column, ColumnType, RecordErrorKind, Shape};

use super::fault::{Decoded, Fault};
use super::instant::Unit;
use super::modes::Modes;
use super::placeholder::Placeholder;
use super::source_type::SourceType;
use super::wire::{Base64, Wire};

/// The columns of rows, as a schema block describes them.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    pub(super) columns: Vec<Column>,
    /// One a column.
    pub(super) wires: Vec<Wire>,
    /// Whether tables that were made by earlier versions, or before the source's type was known, have the column as text.
    pub(super) once_text: Vec<bool>,
}

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
    /// Whether there is one that is not null; what it is does not matter.
    #[serde(default)]
    default: Option<IgnoredAny>,
    /// Of an array.
    #[serde(default)]
    items: Option<Box<ConnectSchema>>,
    /// Of a map.
    #[serde(default)]
    keys: Option<Box<ConnectSchema>>,
    /// Of a map.
    #[serde(default)]
    values: Option<Box<ConnectSchema>>,
}

/// Names that Debezium gives to one type of Postgres alone.
const SAY_ONE_TYPE: [&str; 6] = [
    "io.debezium.data.Ltree",
    "io.debezium.data.Xml",
    "io.debezium.data.Tsvector",
    "io.debezium.time.ZonedTime",
    "io.debezium.time.StructuredZonedTime",
    "io.debezium.data.geometry.Geography",
];

fn geometric(shape: Shape) -> (ColumnType, Wire) {
    (ColumnType::Geometric(shape), Wire::Geometric(shape))
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

    /// Whether it is a struct.
    pub(super) fn is_struct(&self) -> bool {
        self.connect_type == "struct"
    }

    /// Names of the struct's fields.
    pub(super) fn field_names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().flatten().filter_map(|field| field.field.as_deref())
    }

    /// The struct's field of that name.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        self.fields.iter().flatten().find(|field| field.field.as_deref() == Some(name))
    }

    /// The columns of a row struct with their encodings.
    pub(super) fn columns(&self, modes: Modes) -> Decoded<Described> {
        let mut described = Described::default();
        for field in self.fields.iter().flatten() {
            let Some(name) = field.field.as_deref() else {
                return Err(Fault::new(
                    RecordErrorKind::InvalidSchema,
                    "a field of the row's schema has no name",
                ));
            };
            if described.columns.iter().any(|column| column.name.as_ref() == name) {
                let detail = format!("the row's schema has column `{name}` twice");
                return Err(Fault::new(RecordErrorKind::InvalidSchema, detail));
            }
            let source = SourceType::of(field.parameter("__debezium.source.column.type"));
            let (column_type, wire) = field.column_type(name, &source, modes)?;
            described.columns.push(Column { name: name.into(), column_type, nullable: field.optional });
            described.wires.push(wire);
            described.once_text.push(field.basic(name)?.is_none_or(|(basic, _)| basic == ColumnType::Text));
        }
        Ok(described)
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

    /// The row struct's columns that may be null and have a default: a converter may write the default for a null.
    pub(super) fn nullable_with_default(&self) -> Vec<Arc<str>> {
        let fields = self.fields.iter().flatten();
        fields
            .filter(|field| field.optional && field.default.is_some())
            .filter_map(|field| field.field.as_deref().map(Arc::from))
            .collect()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.as_ref()?.get(name).map(String::as_str)
    }

    fn semantic(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// What the values of a column mean and how they are written. What is not recognised is text.
    fn column_type(
        &self,
        column: &str,
        source: &SourceType<'_>,
        modes: Modes,
    ) -> Decoded<(ColumnType, Wire)> {
        if let Some(known) = self.further(column, source, modes)? {
            return Ok(known);
        }
        if let Some(basic) = self.basic(column)? {
            return Ok(basic);
        }
        let name = match (source.name(), self.semantic()) {
            // The source's name is that of a domain, or adds nothing.
            (_, semantic) if !source.is_known() && SAY_ONE_TYPE.contains(&semantic) => semantic.to_owned(),
            (Some(name), _) => name.to_owned(),
            (None, "") => self.connect_type.clone(),
            (None, semantic) => semantic.to_owned(),
        };
        let zoned =
            matches!(self.semantic(), "io.debezium.time.ZonedTime" | "io.debezium.time.StructuredZonedTime");
        Ok((ColumnType::Other(name), if zoned { Wire::ZonedTime } else { Wire::AnyText }))
    }

    /// The types that are recognised without the source's, and that have always been.
    fn basic(&self, column: &str) -> Decoded<Option<(ColumnType, Wire)>> {
        let timestamp = |unit| (ColumnType::Timestamp, Wire::Timestamp(unit));
        let time = |unit| (ColumnType::Time, Wire::Time(unit));
        Ok(Some(match (self.connect_type.as_str(), self.semantic()) {
            ("boolean", "") => (ColumnType::Boolean, Wire::Boolean),
            ("int8" | "int16", "") => (ColumnType::Int16, Wire::Int16),
            ("int32", "") => (ColumnType::Int32, Wire::Int32),
            ("int64", "") => (ColumnType::Int64, Wire::Int64),
            ("float" | "float32", "") => (ColumnType::Float32, Wire::Float32),
            ("double" | "float64", "") => (ColumnType::Float64, Wire::Float64),
            ("string", "") => (ColumnType::Text, Wire::Text),
            ("bytes", "") => (ColumnType::Binary, Wire::Binary(Base64::Standard)),
            ("bytes", "org.apache.kafka.connect.data.Decimal") => self.decimal(column)?,
            ("struct", "io.debezium.data.VariableScaleDecimal") => (ColumnType::Numeric, Wire::Numeric),
            ("string", "io.debezium.data.Uuid") => (ColumnType::Uuid, Wire::Text),
            ("string", "io.debezium.data.Json") => (ColumnType::Json, Wire::Text),
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
            _ => return Ok(None),
        }))
    }

    /// The types that earlier versions carried as text, and those that the source's type says more of.
    fn further(
        &self,
        column: &str,
        source: &SourceType<'_>,
        modes: Modes,
    ) -> Decoded<Option<(ColumnType, Wire)>> {
        let members = self.fields.as_ref().map_or(0, Vec::len);
        Ok(Some(match (self.connect_type.as_str(), self.semantic()) {
            ("string", "") => return Ok(source.of_text(modes)),
            ("string", "io.debezium.data.Json") if source.is("jsonb") => (ColumnType::Jsonb, Wire::Text),
            ("string", "io.debezium.data.Json") if source.is("hstore") => (ColumnType::Hstore, Wire::Hstore),
            ("map", "") if self.maps_texts() => (ColumnType::Hstore, Wire::Hstore),
            ("bytes", "") if source.comes_as_bytes_of_text() => {
                (ColumnType::Other(source.name().unwrap_or_default().to_owned()), Wire::TextBytes)
            }
            ("bytes", "io.debezium.data.Bits") if source.is("bit") => {
                let Some(length) = self.parameter("length").and_then(|length| length.parse().ok()) else {
                    return Ok(None);
                };
                (ColumnType::Bits(length), Wire::Bits(length))
            }
            ("string", "io.debezium.time.IsoDate") | ("struct", "io.debezium.time.StructuredDate") => {
                (ColumnType::Date, Wire::Date)
            }
            ("string", "io.debezium.time.IsoTime") | ("struct", "io.debezium.time.StructuredTime") => {
                (ColumnType::Time, Wire::Time(Unit::Micros))
            }
            ("string", "io.debezium.time.IsoTimestamp")
            | ("struct", "io.debezium.time.StructuredTimestamp") => {
                (ColumnType::Timestamp, Wire::Timestamp(Unit::Micros))
            }
            ("struct", "io.debezium.time.StructuredZonedTimestamp") => (ColumnType::TimestampTz, Wire::Iso),
            ("string", "io.debezium.time.Interval") | ("struct", "io.debezium.time.StructuredDuration") => {
                (ColumnType::Interval, Wire::Interval)
            }
            ("int64", "io.debezium.time.MicroDuration") => (ColumnType::Duration, Wire::Duration),
            ("struct", "io.debezium.data.geometry.Point") => geometric(Shape::Point),
            ("struct", "io.debezium.data.geometry.Line") if members == 3 => geometric(Shape::Line),
            ("struct", "io.debezium.data.geometry.Circle") => geometric(Shape::Circle),
            ("struct", "io.debezium.data.geometry.Geometry") => {
                let shape = source.name().and_then(Shape::of_name);
                return Ok(shape.map(geometric));
            }
            ("array", "io.debezium.data.DoubleVector") => (ColumnType::Vector, Wire::array(Wire::Float64)),
            ("array", "io.debezium.data.FloatVector") => (ColumnType::HalfVector, Wire::array(Wire::Float32)),
            ("array", "") => return self.array(column, source, modes),
            _ => return Ok(None),
        }))
    }

    /// An array of a type that is recognised.
    fn array(
        &self,
        column: &str,
        source: &SourceType<'_>,
        modes: Modes,
    ) -> Decoded<Option<(ColumnType, Wire)>> {
        let Some(items) = self.items.as_deref() else { return Ok(None) };
        let (element, wire) = items.column_type(column, &source.element(), modes)?;
        let nested = matches!(element, ColumnType::Array(_) | ColumnType::Vector | ColumnType::HalfVector);
        // Text without a name of its type may be the JSON of anything; strings are strings, and so are bytes of a text.
        let is_text = items.connect_type == "string" || wire == Wire::TextBytes;
        let unknown = matches!(element, ColumnType::Other(_)) && !is_text;
        Ok((!nested && !unknown).then(|| (ColumnType::Array(Box::new(element)), Wire::array(wire))))
    }

    fn maps_texts(&self) -> bool {
        [&self.keys, &self.values]
            .into_iter()
            .all(|part| part.as_ref().is_some_and(|part| part.connect_type == "string"))
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
        let field = ConnectSchema::parse("value", field).unwrap();
        field.column_type(
            "c",
            &SourceType::of(field.parameter("__debezium.source.column.type")),
            Modes::default(),
        )
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
            (r#"{"type":"array","items":{"type":"struct","name":"x"}}"#, "array"),
            (r#"{"type":"array","items":{"type":"array","items":{"type":"int32"}}}"#, "array"),
            (r#"{"type":"string","name":"io.debezium.data.Xml"}"#, "io.debezium.data.Xml"),
            (r#"{"type":"string","name":"io.debezium.time.Date"}"#, "io.debezium.time.Date"),
            (
                r#"{"type":"struct","name":"io.debezium.data.geometry.Geometry","parameters":{"__debezium.source.column.type":"POLYGON"}}"#,
                "POLYGON",
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
