//! Tables of the source: their names, columns and types.
//!
//! A [`ColumnType`] is what a value *means*; how Debezium wrote it on the wire is the decoder's business, and how a
//! sink stores it is the sink's. The Arrow type of a column is a function of its [`ColumnType`] alone, so that every
//! batch of one schema has the same Arrow schema.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// A table of the source database, as named by `source.db`, `source.schema` and `source.table` of its events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// Database name; empty where the events do not say.
    pub database: Arc<str>,
    /// Schema name, for example `public`.
    pub schema: Arc<str>,
    /// Table name.
    pub table: Arc<str>,
}

impl TableId {
    /// A table by its three names.
    pub fn new(database: &str, schema: &str, table: &str) -> Self {
        Self { database: database.into(), schema: schema.into(), table: table.into() }
    }
}

/// `schema.table`, the form used in settings, messages and metric labels.
impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// What the values of a column mean.
///
/// Its JSON form is persisted by sinks that keep a source's schema; **do not rename a variant or a member**.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// `true` or `false`.
    Boolean,
    /// 16-bit integer.
    Int16,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// IEEE single.
    Float32,
    /// IEEE double.
    Float64,
    /// Exact decimal of at most 38 digits.
    Decimal {
        /// Digits in total, 1 to 38.
        precision: u8,
        /// Digits behind the point.
        scale: i8,
    },
    /// A number that no decimal of 38 digits is known to hold: decimal text, also `NaN`, `Infinity`, `-Infinity`.
    Numeric,
    /// Text.
    Text,
    /// A UUID in its text form.
    Uuid,
    /// JSON text, as the source wrote it.
    Json,
    /// JSON text of a `jsonb` column: the source normalises it, so equality is by value.
    Jsonb,
    /// Bytes.
    Binary,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since midnight, 0 to 86 400 000 000 (`24:00:00` is a value).
    Time,
    /// Microseconds since 1970-01-01 00:00 of a wall clock without zone.
    Timestamp,
    /// Microseconds since 1970-01-01 00:00 UTC.
    TimestampTz,
    /// A span of time as ISO 8601 text, `P1Y2M3DT4H5M6.7S`: months, days and seconds stay apart.
    Interval,
    /// A span of time as a number of microseconds, in which months and days were counted as such.
    Duration,
    /// So many bits, as text of `0` and `1`.
    Bits(u32),
    /// Pairs of texts, as the JSON text of one object; a value may be null.
    Hstore,
    /// A geometric value in the text form that Postgres reads and writes.
    Geometric(Shape),
    /// pgvector's `vector`, as doubles.
    Vector,
    /// pgvector's `halfvec`, as singles.
    HalfVector,
    /// Values of one type in a row, nulls among them. Of one dimension, and never of arrays.
    Array(Box<ColumnType>),
    /// A type whose values are carried as text, as Debezium writes them; the name is the source's or Debezium's.
    Other(String),
}

/// The geometric types of Postgres, but for `polygon`: Debezium closes some polygons and does not say which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `(x,y)`
    Point,
    /// `{A,B,C}` of Ax + By + C = 0
    Line,
    /// `[(x,y),(x,y)]`
    Lseg,
    /// `(x,y),(x,y)`: upper right and lower left corner
    Box,
    /// `[(x,y),…]` where it is open, `((x,y),…)` where it is closed
    Path,
    /// `<(x,y),radius>`
    Circle,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Point, Self::Line, Self::Lseg, Self::Box, Self::Path, Self::Circle];

    /// The name of the type in Postgres.
    pub fn name(self) -> &'static str {
        match self {
            Self::Point => "point",
            Self::Line => "line",
            Self::Lseg => "lseg",
            Self::Box => "box",
            Self::Path => "path",
            Self::Circle => "circle",
        }
    }

    /// The type of that name, in any case.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name().eq_ignore_ascii_case(name))
    }
}

impl ColumnType {
    /// The Arrow type of a column of this type.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 | Self::Time | Self::Duration => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Self::Numeric
            | Self::Text
            | Self::Uuid
            | Self::Json
            | Self::Jsonb
            | Self::Interval
            | Self::Bits(_)
            | Self::Hstore
            | Self::Geometric(_)
            | Self::Other(_) => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Vector => list(DataType::Float64),
            Self::HalfVector => list(DataType::Float32),
            Self::Array(element) => list(element.arrow()),
        }
    }

    /// Whether values are stored as text, whatever the text means.
    pub fn is_text(&self) -> bool {
        self.arrow() == DataType::Utf8
    }
}

/// A list whose elements have the name that Delta gives them in files.
fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, true)))
}

/// A column of a source table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    /// Name as in the source.
    pub name: Arc<str>,
    /// What its values mean.
    pub column_type: ColumnType,
    /// Whether the source declares that it may be null. Sinks store every non-key column as nullable: a delete has
    /// only its key, and a source may drop the column later.
    pub nullable: bool,
}

/// The columns of a table and which of them are its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    columns: Vec<Column>,
    key: Vec<usize>,
    arrow: SchemaRef,
}

impl TableSchema {
    /// A schema of `columns` whose key are the columns at the indexes `key` (in key order; empty: a table without
    /// key).
    ///
    /// # Panics
    /// Never: key indexes beyond the columns are dropped.
    pub fn new(columns: Vec<Column>, mut key: Vec<usize>) -> Self {
        key.retain(|&index| index < columns.len());
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| Field::new(column.name.as_ref(), column.column_type.arrow(), true))
            .collect();
        Self { columns, key, arrow: Arc::new(Schema::new(fields)) }
    }

    /// All columns, in the source's order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Indexes of the key columns, in key order.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Names of the key columns, in key order.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key.iter().filter_map(|&index| self.columns.get(index)).map(|column| column.name.as_ref())
    }

    /// Index of the column of that name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.as_ref() == name)
    }

    /// One nullable Arrow field a column, in order.
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }
}
