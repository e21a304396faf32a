//! Types of columns as settings name them: Postgres' names.

use serde::{Serialize, Serializer};

use crate::change::ColumnType;

/// A column type with the text it was set by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName {
    text: String,
    column_type: ColumnType,
}

impl TypeName {
    /// Parses a type: Postgres' name or alias, in any case, with `(precision,scale)` for `numeric`. The error says what
    /// is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let column_type = match lower.as_str() {
            "boolean" | "bool" => ColumnType::Boolean,
            "smallint" | "int2" => ColumnType::Int16,
            "integer" | "int" | "int4" => ColumnType::Int32,
            "bigint" | "int8" => ColumnType::Int64,
            "real" | "float4" => ColumnType::Float32,
            "double precision" | "float8" => ColumnType::Float64,
            "numeric" | "decimal" => ColumnType::Numeric,
            "text" | "varchar" | "character varying" => ColumnType::Text,
            "uuid" => ColumnType::Uuid,
            "json" => ColumnType::Json,
            "jsonb" => ColumnType::Jsonb,
            "bytea" => ColumnType::Binary,
            "date" => ColumnType::Date,
            "time" | "time without time zone" => ColumnType::Time,
            "timestamp" | "timestamp without time zone" => ColumnType::Timestamp,
            "timestamptz" | "timestamp with time zone" => ColumnType::TimestampTz,
            other => numeric(other).unwrap_or_else(|| Err(unknown(text)))?,
        };
        Ok(Self { text: text.to_owned(), column_type })
    }

    /// What its values mean.
    pub fn column_type(&self) -> &ColumnType {
        &self.column_type
    }
}

impl Serialize for TypeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

fn unknown(text: &str) -> String {
    format!(
        "`{text}` is not a column type: boolean, smallint, integer, bigint, real, double precision, numeric, \
         numeric(10,2), text, uuid, json, jsonb, bytea, date, time, timestamp or timestamptz"
    )
}

/// `numeric(p)` and `numeric(p,s)`; `None` for other names.
fn numeric(text: &str) -> Option<Result<ColumnType, String>> {
    let (name, arguments) = text.split_once('(')?;
    if !matches!(name.trim(), "numeric" | "decimal") {
        return None;
    }
    let mut numbers = arguments.strip_suffix(')')?.split(',').map(|number| number.trim().parse::<i16>());
    let (precision, scale) = (numbers.next()?.ok()?, numbers.next().unwrap_or(Ok(0)).ok()?);
    if numbers.next().is_some() {
        return None;
    }
    Some(match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) if (0..=precision as i8).contains(&scale) => {
            Ok(ColumnType::Decimal { precision, scale })
        }
        _ => Err(format!(
            "`{text}`: precision is 1 to 38 and scale 0 to the precision; beyond that set `numeric`"
        )),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn types_parse_by_postgres_names() {
        for (text, expected) in [
            ("Boolean", ColumnType::Boolean),
            ("int8", ColumnType::Int64),
            ("double precision", ColumnType::Float64),
            ("decimal(10,2)", ColumnType::Decimal { precision: 10, scale: 2 }),
            ("numeric( 38 )", ColumnType::Decimal { precision: 38, scale: 0 }),
            ("numeric", ColumnType::Numeric),
            ("timestamp with time zone", ColumnType::TimestampTz),
        ] {
            assert_eq!(TypeName::parse(text).unwrap().column_type(), &expected, "{text}");
        }
    }

    #[test]
    fn other_types_are_refused_with_what_is_accepted() {
        for text in ["", "money", "decimal(", "decimal(a,b)", "decimal(1,2,3)", "varchar(x)"] {
            assert_eq!(TypeName::parse(text).unwrap_err(), unknown(text));
        }
        for text in ["numeric(39,2)", "numeric(0)", "numeric(5,6)", "numeric(5,-1)"] {
            assert!(TypeName::parse(text).unwrap_err().contains("precision is 1 to 38"), "{text}");
        }
    }
}
