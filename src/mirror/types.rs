//! Types: how a value travels to Postgres, and what the columns of the target's tables are.

use std::borrow::Cow;

use crate::change::{ColumnType, Shape};

/// How values of a column are staged: Postgres types with a binary form that we write.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A span of so many microseconds.
    Interval,
    /// Text that is the JSON of pairs.
    Pairs,
    /// Of elements that travel so.
    Array(Box<Wire>),
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
            ColumnType::Text
            | ColumnType::Interval
            | ColumnType::Bits(_)
            | ColumnType::Geometric(_)
            | ColumnType::Other(_) => Self::Text,
            ColumnType::Hstore => Self::Pairs,
            ColumnType::Uuid => Self::Uuid,
            ColumnType::Json => Self::Json,
            ColumnType::Jsonb => Self::Jsonb,
            ColumnType::Binary => Self::Bytea,
            ColumnType::Date => Self::Date,
            ColumnType::Time => Self::Time,
            ColumnType::Timestamp => Self::Timestamp,
            ColumnType::TimestampTz => Self::Timestamptz,
            ColumnType::Duration => Self::Interval,
            ColumnType::Vector => Self::Array(Box::new(Self::Float8)),
            ColumnType::HalfVector => Self::Array(Box::new(Self::Float4)),
            ColumnType::Array(element) => Self::Array(Box::new(Self::of(element))),
        }
    }

    /// The type of a staging column.
    pub(super) fn sql(&self) -> Cow<'static, str> {
        if let Self::Array(element) = self {
            return format!("{}[]", element.sql()).into();
        }
        self.scalar().0.into()
    }

    /// Name and object id of the staged type; of an array, of its elements.
    fn scalar(&self) -> (&'static str, u32) {
        match self {
            Self::Bool => ("boolean", oid::BOOL),
            Self::Int2 => ("smallint", oid::INT2),
            Self::Int4 => ("integer", oid::INT4),
            Self::Int8 => ("bigint", oid::INT8),
            Self::Float4 => ("real", oid::FLOAT4),
            Self::Float8 => ("double precision", oid::FLOAT8),
            Self::Numeric(_) => ("numeric", oid::NUMERIC),
            Self::Text | Self::Pairs => ("text", oid::TEXT),
            Self::Uuid => ("uuid", oid::UUID),
            Self::Json => ("json", oid::JSON),
            Self::Jsonb => ("jsonb", oid::JSONB),
            Self::Bytea => ("bytea", oid::BYTEA),
            Self::Date => ("date", oid::DATE),
            Self::Time => ("time", oid::TIME),
            Self::Timestamp => ("timestamp", oid::TIMESTAMP),
            Self::Timestamptz => ("timestamptz", oid::TIMESTAMPTZ),
            Self::Interval => ("interval", oid::INTERVAL),
            Self::Array(element) => element.scalar(),
        }
    }

    /// Object id of the staged type; of an array, of its elements.
    pub(super) fn oid(&self) -> u32 {
        self.scalar().1
    }
}

/// Object ids of built-in types, which no release changes (src/include/catalog/pg_type.dat).
pub mod oid {
    #![allow(missing_docs)] // the names say all
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const JSON: u32 = 114;
    pub const POINT: u32 = 600;
    pub const LSEG: u32 = 601;
    pub const PATH: u32 = 602;
    pub const BOX: u32 = 603;
    pub const LINE: u32 = 628;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const CIRCLE: u32 = 718;
    pub const MONEY: u32 = 790;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const TIMETZ: u32 = 1266;
    pub const BIT: u32 = 1560;
    pub const VARBIT: u32 = 1562;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// The type of an existing column; of a domain, the type below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetType {
    /// Object id.
    pub oid: u32,
    /// Type modifier as in `pg_attribute.atttypmod`; -1 for none.
    pub modifier: i32,
    /// The type without modifier, as SQL.
    pub name: String,
    /// Of an array, object id and name of the type of its elements, which have the same modifier.
    pub element: Option<(u32, String)>,
}

impl TargetType {
    /// Precision and scale of a `numeric`. The scale is 11 bits with sign since Postgres 15, and the same bits before.
    pub fn precision_and_scale(&self) -> Option<(i32, i32)> {
        let bits = self.modifier.checked_sub(4).filter(|bits| *bits >= 0)?;
        Some(((bits >> 16) & 0xffff, ((bits & 0x7ff) ^ 1024) - 1024))
    }

    /// Digits behind the second that a time, timestamp or interval keeps; `None` for all six.
    pub fn digits(&self) -> Option<u16> {
        // An interval has its fields in the upper half.
        let digits = if self.oid == oid::INTERVAL { self.modifier & 0xffff } else { self.modifier };
        u16::try_from(digits).ok().filter(|digits| *digits < 6)
    }

    /// Whether an interval column keeps years as well as seconds.
    pub(super) fn keeps_all_fields(&self) -> bool {
        self.modifier < 0 || self.modifier >> 16 == 0x7fff
    }

    /// Microseconds of the smallest step of a time or timestamp.
    pub(super) fn step(&self) -> i64 {
        self.digits().map_or(1, |digits| 10_i64.pow(6 - u32::from(digits)))
    }

    /// The name without its schema, and without quotes.
    pub fn bare_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default().trim_matches('"')
    }

    /// Of an array, the type of its elements.
    pub fn element(&self) -> Option<Self> {
        let (oid, name) = self.element.clone()?;
        Some(Self { oid, modifier: self.modifier, name, element: None })
    }

    /// What values of the column mean.
    pub(super) fn column_type(&self) -> ColumnType {
        if let Some(element) = self.element() {
            return ColumnType::Array(Box::new(element.column_type()));
        }
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
            oid::INTERVAL => ColumnType::Interval,
            oid::BIT if self.modifier > 1 => ColumnType::Bits(self.modifier.unsigned_abs()),
            oid::POINT => ColumnType::Geometric(Shape::Point),
            oid::LINE => ColumnType::Geometric(Shape::Line),
            oid::LSEG => ColumnType::Geometric(Shape::Lseg),
            oid::BOX => ColumnType::Geometric(Shape::Box),
            oid::PATH => ColumnType::Geometric(Shape::Path),
            oid::CIRCLE => ColumnType::Geometric(Shape::Circle),
            _ => match self.bare_name() {
                "hstore" => ColumnType::Hstore,
                "vector" => ColumnType::Vector,
                "halfvec" => ColumnType::HalfVector,
                _ => ColumnType::Other(self.name.clone()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(oid: u32, modifier: i32) -> TargetType {
        TargetType { oid, modifier, name: "t".to_owned(), element: None }
    }

    fn numeric(precision: i32, scale: i32) -> TargetType {
        target(oid::NUMERIC, ((precision << 16) | (scale & 0x7ff)) + 4)
    }

    #[test]
    fn the_catalog_type_says_what_values_mean() {
        assert_eq!(numeric(10, 2).column_type(), ColumnType::Decimal { precision: 10, scale: 2 });
        assert_eq!(numeric(50, 2).column_type(), ColumnType::Numeric);
        assert_eq!(target(oid::NUMERIC, -1).column_type(), ColumnType::Numeric);
        assert_eq!(target(869, -1).column_type(), ColumnType::Other("t".to_owned()));
        assert_eq!(target(oid::BIT, 8).column_type(), ColumnType::Bits(8));
        let mut array = numeric(10, 2);
        array.element = Some((oid::NUMERIC, "numeric".to_owned()));
        let element = ColumnType::Decimal { precision: 10, scale: 2 };
        assert_eq!(array.column_type(), ColumnType::Array(Box::new(element)));
        let mut hstore = target(16_400, -1);
        hstore.name = "public.hstore".to_owned();
        assert_eq!(hstore.column_type(), ColumnType::Hstore);
    }

    #[test]
    fn an_interval_has_its_digits_in_the_lower_half_of_the_modifier() {
        assert_eq!(target(oid::INTERVAL, (0x7fff << 16) | 3).digits(), Some(3));
        assert_eq!(target(oid::INTERVAL, (0x7fff << 16) | 0xffff).digits(), None);
        assert_eq!(target(oid::INTERVAL, -1).digits(), None);
    }
}
