//! Types: how a value travels to Postgres, which column it gets, and which existing columns can hold it.
//!
//! The rule for existing columns: every value arrives exactly, or Postgres raises an error. Casts that round or cut off
//! silently are refused. So casts go to the type *without* length or precision, and the assignment to the column, which
//! complains, does the rest; where even the assignment rounds (numbers, times), the scale is compared or checked.

use crate::change::ColumnType;

/// How values of a column are staged: Postgres types with a binary form that we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// With the scale, where it is fixed.
    Numeric(Option<i8>),
    Text,
    Uuid,
    Json,
    Jsonb,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    TextArray,
}

impl Wire {
    /// How values of that type travel.
    pub(super) fn of(column_type: &ColumnType) -> Self {
        match column_type {
            ColumnType::Boolean => Self::Bool,
            ColumnType::Int16 => Self::Int2,
            ColumnType::Int32 => Self::Int4,
            ColumnType::Int64 => Self::Int8,
            ColumnType::Float32 => Self::Float4,
            ColumnType::Float64 => Self::Float8,
            ColumnType::Decimal { scale, .. } => Self::Numeric(Some(*scale)),
            ColumnType::Numeric => Self::Numeric(None),
            ColumnType::Text | ColumnType::Other(_) => Self::Text,
            ColumnType::Uuid => Self::Uuid,
            ColumnType::Json => Self::Json,
            ColumnType::Jsonb => Self::Jsonb,
            ColumnType::Binary => Self::Bytea,
            ColumnType::Date => Self::Date,
            ColumnType::Time => Self::Time,
            ColumnType::Timestamp => Self::Timestamp,
            ColumnType::TimestampTz => Self::Timestamptz,
        }
    }

    /// The type of a staging column.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Float4 => "real",
            Self::Float8 => "double precision",
            Self::Numeric(_) => "numeric",
            Self::Text => "text",
            Self::Uuid => "uuid",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::TextArray => "text[]",
        }
    }
}

/// The type of a column that the mirror makes itself. A type without a mapping of its own is kept as text.
pub(super) fn created(column_type: &ColumnType) -> String {
    match column_type {
        // Scales below zero and above the precision exist since Postgres 15 only.
        ColumnType::Decimal { precision, scale } if (0..=*precision as i8).contains(scale) => {
            format!("numeric({precision}, {scale})")
        }
        other => Wire::of(other).sql().to_owned(),
    }
}

/// Object ids of built-in types, which no release changes (src/include/catalog/pg_type.dat).
pub(super) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const NAME: u32 = 19;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const OID: u32 = 26;
    pub(crate) const JSON: u32 = 114;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const MONEY: u32 = 790;
    pub(crate) const TEXT_ARRAY: u32 = 1009;
    pub(crate) const BPCHAR: u32 = 1042;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const TIME: u32 = 1083;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const INTERVAL: u32 = 1186;
    pub(crate) const BIT: u32 = 1560;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const JSONB: u32 = 3802;
}

/// The type of an existing column; of a domain, the type below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetType {
    /// Object id.
    pub(super) oid: u32,
    /// Type modifier as in `pg_attribute.atttypmod`; -1 for none.
    pub(super) modifier: i32,
    /// The type without modifier, as SQL.
    pub(super) name: String,
}

impl TargetType {
    /// Precision and scale of a `numeric`. The scale is 11 bits with sign since Postgres 15, and the same bits before.
    fn precision_and_scale(&self) -> Option<(i32, i32)> {
        let bits = self.modifier.checked_sub(4).filter(|bits| *bits >= 0)?;
        Some(((bits >> 16) & 0xffff, ((bits & 0x7ff) ^ 1024) - 1024))
    }

    /// Microseconds of the smallest step of a time or timestamp.
    fn step(&self) -> i64 {
        match self.modifier {
            digits @ 0..=5 => 10_i64.pow(6 - digits as u32),
            _ => 1,
        }
    }

    /// What values of the column mean.
    pub(super) fn column_type(&self) -> ColumnType {
        match self.oid {
            oid::BOOL => ColumnType::Boolean,
            oid::INT2 => ColumnType::Int16,
            oid::INT4 => ColumnType::Int32,
            oid::INT8 | oid::OID => ColumnType::Int64,
            oid::FLOAT4 => ColumnType::Float32,
            oid::FLOAT8 => ColumnType::Float64,
            oid::NUMERIC => match self.precision_and_scale() {
                Some((precision, scale)) if precision <= 38 && (0..=precision).contains(&scale) => {
                    ColumnType::Decimal { precision: precision as u8, scale: scale as i8 }
                }
                _ => ColumnType::Numeric,
            },
            oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME => ColumnType::Text,
            oid::UUID => ColumnType::Uuid,
            oid::JSON => ColumnType::Json,
            oid::JSONB => ColumnType::Jsonb,
            oid::BYTEA => ColumnType::Binary,
            oid::DATE => ColumnType::Date,
            oid::TIME => ColumnType::Time,
            oid::TIMESTAMP => ColumnType::Timestamp,
            oid::TIMESTAMPTZ => ColumnType::TimestampTz,
            _ => ColumnType::Other(self.name.clone()),
        }
    }
}

/// What the encoder checks because Postgres would round without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Limit {
    /// Digits behind the point that the column keeps.
    pub(super) scale: Option<u16>,
    /// Microseconds of the smallest step that the column keeps; 0 or 1 for all of them.
    pub(super) step: i64,
}

/// How a staged value gets into an existing column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The type to cast to, as SQL; `None` where the staged type is the column's.
    pub(super) cast: Option<String>,
    /// What to check on the way.
    pub(super) limit: Limit,
}

/// How values staged as `wire` can be stored exactly in a column of type `target`; `None` where they cannot.
pub(super) fn assignment(wire: Wire, target: &TargetType) -> Option<Assignment> {
    let direct = |limit| Some(Assignment { cast: None, limit });
    let cast = |limit| Some(Assignment { cast: Some(target.name.clone()), limit });
    let any = Limit::default();
    let step = Limit { step: target.step(), ..any };
    let is_text = matches!(target.oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR);
    match (wire, target.oid) {
        (Wire::Bool, oid::BOOL)
        | (Wire::Int2, oid::INT2)
        | (Wire::Int4, oid::INT4)
        | (Wire::Int8, oid::INT8)
        | (Wire::Float4, oid::FLOAT4)
        | (Wire::Float8, oid::FLOAT8)
        | (Wire::Uuid, oid::UUID)
        | (Wire::Json, oid::JSON)
        | (Wire::Jsonb, oid::JSONB)
        | (Wire::Bytea, oid::BYTEA)
        | (Wire::Date, oid::DATE)
        | (Wire::Text, oid::TEXT)
        | (Wire::TextArray, oid::TEXT_ARRAY) => direct(any),
        (Wire::Time, oid::TIME)
        | (Wire::Timestamp, oid::TIMESTAMP)
        | (Wire::Timestamptz, oid::TIMESTAMPTZ) => direct(step),
        // Session time zone is UTC: the wall clock of a timestamp is kept.
        (Wire::Timestamp, oid::TIMESTAMPTZ)
        | (Wire::Timestamptz | Wire::Date, oid::TIMESTAMP)
        | (Wire::Time, oid::INTERVAL) => cast(step),
        (Wire::Bool, oid::BIT) => Some(Assignment { cast: Some("integer::bit".to_owned()), limit: any }),
        // Out of range is an error, not a loss.
        (Wire::Int2 | Wire::Int4 | Wire::Int8, oid::INT2 | oid::INT4 | oid::INT8 | oid::OID)
        | (Wire::Bool, oid::INT4)
        | (Wire::Int2, oid::FLOAT4)
        | (Wire::Int2 | Wire::Int4 | Wire::Float4, oid::FLOAT8)
        | (Wire::Numeric(Some(0)), oid::INT2 | oid::INT4 | oid::INT8)
        | (Wire::Numeric(Some(0..=2)), oid::MONEY)
        | (Wire::Json, oid::JSONB)
        | (Wire::Jsonb, oid::JSON) => cast(any),
        (Wire::Int2 | Wire::Int4 | Wire::Int8, oid::NUMERIC) => match target.precision_and_scale() {
            Some((_, scale)) if scale < 0 => None,
            _ => cast(any),
        },
        (Wire::Numeric(scale), oid::NUMERIC) => match (scale, target.precision_and_scale()) {
            (_, None) => direct(any),
            (Some(from), Some((_, to))) => {
                if i32::from(from) <= to {
                    direct(any)
                } else {
                    None
                }
            }
            (None, Some((_, to))) => direct(Limit { scale: Some(u16::try_from(to).ok()?), ..any }),
        },
        (Wire::Bytea | Wire::TextArray, _) => None,
        // Text can become whatever the type's input function reads; only a name is cut off without a word.
        (Wire::Text, other) if other != oid::NAME => cast(any),
        _ if is_text => cast(any),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(oid: u32, modifier: i32) -> TargetType {
        TargetType { oid, modifier, name: "t".to_owned() }
    }

    fn numeric(precision: i32, scale: i32) -> TargetType {
        target(oid::NUMERIC, ((precision << 16) | (scale & 0x7ff)) + 4)
    }

    #[test]
    fn a_created_column_holds_every_value_of_its_type() {
        assert_eq!(created(&ColumnType::Decimal { precision: 12, scale: 2 }), "numeric(12, 2)");
        assert_eq!(created(&ColumnType::Decimal { precision: 2, scale: 5 }), "numeric");
        assert_eq!(created(&ColumnType::Decimal { precision: 5, scale: -2 }), "numeric");
        assert_eq!(created(&ColumnType::Other("inet".to_owned())), "text");
        assert_eq!(created(&ColumnType::TimestampTz), "timestamptz");
    }

    #[test]
    fn a_numeric_column_that_would_round_is_refused() {
        assert!(assignment(Wire::Numeric(Some(4)), &numeric(12, 2)).is_none());
        assert!(assignment(Wire::Numeric(Some(2)), &numeric(12, 2)).unwrap().cast.is_none());
        assert_eq!(assignment(Wire::Numeric(None), &numeric(60, 3)).unwrap().limit.scale, Some(3));
        assert!(assignment(Wire::Int4, &numeric(5, -2)).is_none());
        assert!(assignment(Wire::Float8, &numeric(12, 2)).is_none());
        assert!(assignment(Wire::Float8, &target(oid::FLOAT4, -1)).is_none());
    }

    #[test]
    fn the_precision_of_a_time_becomes_a_step() {
        assert_eq!(assignment(Wire::Timestamp, &target(oid::TIMESTAMP, 3)).unwrap().limit.step, 1000);
        assert_eq!(assignment(Wire::Timestamp, &target(oid::TIMESTAMP, -1)).unwrap().limit.step, 1);
    }

    #[test]
    fn the_catalog_type_says_what_values_mean() {
        assert_eq!(numeric(10, 2).column_type(), ColumnType::Decimal { precision: 10, scale: 2 });
        assert_eq!(numeric(50, 2).column_type(), ColumnType::Numeric);
        assert_eq!(target(oid::NUMERIC, -1).column_type(), ColumnType::Numeric);
        assert_eq!(target(869, -1).column_type(), ColumnType::Other("t".to_owned()));
    }
}
