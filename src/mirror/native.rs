//! The types of columns that the mirror makes itself: Postgres' own where the source's type is known, text otherwise.
//!
//! A type is native only where its text is exactly what the events hold. An extension's type is used where the target has
//! the extension; the name that the catalog gives it is qualified, so that no search path is needed.

use std::collections::HashMap;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::types::Wire;
use crate::change::ColumnType;

/// Types that every supported release of Postgres has, by the names that the source or Debezium gives them.
const BUILT_IN: [(&str, &str); 19] = [
    ("inet", "inet"),
    ("cidr", "cidr"),
    ("macaddr", "macaddr"),
    ("macaddr8", "macaddr8"),
    ("int4range", "int4range"),
    ("int8range", "int8range"),
    ("numrange", "numrange"),
    ("tsrange", "tsrange"),
    ("tstzrange", "tstzrange"),
    ("daterange", "daterange"),
    ("xml", "xml"),
    ("io.debezium.data.Xml", "xml"),
    ("tsvector", "tsvector"),
    ("io.debezium.data.Tsvector", "tsvector"),
    ("tsquery", "tsquery"),
    ("timetz", "timetz"),
    ("io.debezium.time.ZonedTime", "timetz"),
    ("io.debezium.time.StructuredZonedTime", "timetz"),
    ("pg_lsn", "pg_lsn"),
];

/// Types of extensions and of newer releases, which a target may lack.
const OPTIONAL: [&str; 28] = [
    "hstore",
    "ltree",
    "citext",
    "vector",
    "halfvec",
    "isbn",
    "isbn13",
    "issn",
    "issn13",
    "ismn",
    "ismn13",
    "ean13",
    "upc",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "tsmultirange",
    "tstzmultirange",
    "datemultirange",
    "jsonpath",
    "geometry",
    "geography",
    "box2d",
    "box3d",
    "lquery",
    "ltxtquery",
    "cube",
    "seg",
];

/// Which of the types that a target may lack it has, as SQL.
#[derive(Debug, Clone, Default)]
pub(super) struct Available(HashMap<String, String>);

impl Available {
    /// Asks the target. Where a name exists in several schemas, one on the search path goes first.
    pub(super) async fn read(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let sql = "SELECT DISTINCT ON (typname) typname::text, pg_catalog.format_type(oid, -1)
                   FROM pg_catalog.pg_type WHERE typname = ANY ($1) AND typtype IN ('b', 'm')
                   ORDER BY typname, pg_catalog.pg_type_is_visible(oid) DESC, oid";
        let names = OPTIONAL.to_vec();
        let mut found = HashMap::new();
        for row in client.query_typed(sql, &[(&names, Type::TEXT_ARRAY)]).await? {
            found.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(Self(found))
    }

    /// All of them, under their plain names: for the documentation.
    pub(super) fn all() -> Self {
        Self(OPTIONAL.into_iter().map(|name| (name.to_owned(), name.to_owned())).collect())
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// The type of a column that the mirror makes itself.
    pub(super) fn created(&self, column_type: &ColumnType) -> String {
        match column_type {
            // Scales below zero and above the precision exist since Postgres 15 only.
            ColumnType::Decimal { precision, scale } if (0..=*precision as i8).contains(scale) => {
                format!("numeric({precision}, {scale})")
            }
            ColumnType::Interval | ColumnType::Duration => "interval".to_owned(),
            ColumnType::Bits(length) => format!("bit({length})"),
            ColumnType::Geometric(shape) => shape.name().to_owned(),
            ColumnType::Hstore => self.get("hstore").unwrap_or_else(|| "json".to_owned()),
            ColumnType::Vector => self.get("vector").unwrap_or_else(|| "double precision[]".to_owned()),
            ColumnType::HalfVector => self.get("halfvec").unwrap_or_else(|| "real[]".to_owned()),
            ColumnType::Array(element) => format!("{}[]", self.created(element)),
            ColumnType::Other(name) => self.of_text(name),
            other => Wire::of(other).sql().into_owned(),
        }
    }

    fn of_text(&self, name: &str) -> String {
        if let Some((_, native)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return (*native).to_owned();
        }
        // Debezium sends Postgres' own polygons and paths under the name of PostGIS' geometry, too: that alone says nothing.
        let optional = match name {
            "io.debezium.data.Ltree" => "ltree",
            "GEOMETRY" => "geometry",
            "GEOGRAPHY" | "io.debezium.data.geometry.Geography" => "geography",
            name => name,
        };
        // These two are made of numbers here, and of text under these names.
        let text = !matches!(optional, "vector" | "halfvec");
        self.get(optional).filter(|_| text).unwrap_or_else(|| "text".to_owned())
    }
}

/// The type of a column that a mirror makes where the target has every extension.
pub fn created_type(column_type: &ColumnType) -> String {
    Available::all().created(column_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Shape;

    fn other(name: &str) -> ColumnType {
        ColumnType::Other(name.to_owned())
    }

    #[test]
    fn a_created_column_holds_every_value_of_its_type() {
        let none = Available::default();
        for (column_type, created) in [
            (ColumnType::Decimal { precision: 12, scale: 2 }, "numeric(12, 2)"),
            (ColumnType::Decimal { precision: 2, scale: 5 }, "numeric"),
            (ColumnType::Decimal { precision: 5, scale: -2 }, "numeric"),
            (ColumnType::TimestampTz, "timestamptz"),
            (ColumnType::Duration, "interval"),
            (ColumnType::Bits(8), "bit(8)"),
            (ColumnType::Geometric(Shape::Box), "box"),
            (ColumnType::Array(Box::new(ColumnType::Decimal { precision: 5, scale: 2 })), "numeric(5, 2)[]"),
            (ColumnType::Array(Box::new(other("inet"))), "inet[]"),
            (other("inet"), "inet"),
            (other("io.debezium.time.ZonedTime"), "timetz"),
            (other("io.debezium.data.Enum"), "text"),
            (other("POLYGON"), "text"),
        ] {
            assert_eq!(none.created(&column_type), created, "{column_type:?}");
        }
    }

    #[test]
    fn a_type_of_an_extension_is_used_where_the_target_has_it() {
        let all = Available(HashMap::from([
            ("hstore".to_owned(), "extensions.hstore".to_owned()),
            ("ltree".to_owned(), "ltree".to_owned()),
            ("vector".to_owned(), "vector".to_owned()),
            ("geometry".to_owned(), "gis.geometry".to_owned()),
            ("geography".to_owned(), "gis.geography".to_owned()),
        ]));
        let none = Available::default();
        for (column_type, with, without) in [
            (ColumnType::Hstore, "extensions.hstore", "json"),
            (other("io.debezium.data.Ltree"), "ltree", "text"),
            (other("ltree"), "ltree", "text"),
            (ColumnType::Vector, "vector", "double precision[]"),
            (other("vector"), "text", "text"),
            (other("GEOMETRY"), "gis.geometry", "text"),
            (other("io.debezium.data.geometry.Geography"), "gis.geography", "text"),
            (other("io.debezium.data.geometry.Geometry"), "text", "text"),
        ] {
            assert_eq!(
                (all.created(&column_type), none.created(&column_type)),
                (with.into(), without.into())
            );
        }
    }
}
