//! The name of a column's type in the source, as `column.propagate.source.type` adds it to a schema block.
//!
//! Debezium writes it in capitals, arrays with `_` before it, and for a domain the domain's name. So a name is trusted
//! only where it is one of Postgres' own or of a known extension's, and where it agrees with how the values come.

use crate::change::ColumnType;

use super::modes::{Binary, Modes};
use super::wire::{Base64, Wire};

/// Types whose values come as strings in the form that Postgres reads, and which mean more than text.
const TEXTS: [&str; 15] = [
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "xml",
    "tsvector",
    "ltree",
    "citext",
    "isbn",
];

/// Types that Debezium does not know: with `include.unknown.datatypes` they come as the bytes of their text.
const BYTES_OF_TEXT: [&str; 29] = [
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "tsmultirange",
    "tstzmultirange",
    "datemultirange",
    "tsquery",
    "pg_lsn",
    "pg_snapshot",
    "txid_snapshot",
    "jsonpath",
    "xid",
    "xid8",
    "cid",
    "tid",
    "int2vector",
    "isbn13",
    "issn",
    "issn13",
    "ismn",
    "ismn13",
    "ean13",
    "upc",
    "lquery",
    "ltxtquery",
    "cube",
    "seg",
    "box2d",
    "box3d",
];

/// The type, in small letters; nothing where it is not known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SourceType<'a> {
    written: Option<&'a str>,
    known: Option<&'static str>,
}

impl<'a> SourceType<'a> {
    /// The type of that name.
    pub(super) fn of(written: Option<&'a str>) -> Self {
        const REST: [&str; 15] = [
            "numeric", "money", "bytea", "bit", "varbit", "json", "jsonb", "hstore", "point", "line", "lseg",
            "box", "path", "circle", "timetz",
        ];
        let known = written.and_then(|written| {
            TEXTS.into_iter().chain(BYTES_OF_TEXT).chain(REST).find(|name| name.eq_ignore_ascii_case(written))
        });
        Self { written, known }
    }

    /// The type of an array's elements.
    pub(super) fn element(self) -> Self {
        Self::of(self.written.and_then(|written| written.strip_prefix('_')))
    }

    /// The name, where it is one that is known; else as it was written.
    pub(super) fn name(&self) -> Option<&str> {
        self.known.or(self.written)
    }

    /// Whether it is a type, and not a domain or one that somebody made.
    pub(super) fn is_known(self) -> bool {
        self.known.is_some()
    }

    /// Whether it is that type.
    pub(super) fn is(self, name: &str) -> bool {
        self.known == Some(name)
    }

    /// Whether its values are bytes of a text.
    pub(super) fn comes_as_bytes_of_text(self) -> bool {
        self.known.is_some_and(|known| BYTES_OF_TEXT.contains(&known))
    }

    /// What a string of that type means, where it means more than text.
    pub(super) fn of_text(self, modes: Modes) -> Option<(ColumnType, Wire)> {
        Some(match self.known? {
            "numeric" | "money" => (ColumnType::Numeric, Wire::Numeric),
            "bytea" => {
                let wire = match modes.binary {
                    Binary::Bytes => return None,
                    Binary::Base64 => Wire::Binary(Base64::Standard),
                    Binary::Base64UrlSafe => Wire::Binary(Base64::Url),
                    Binary::Hex => Wire::Hex,
                };
                (ColumnType::Binary, wire)
            }
            name if TEXTS.contains(&name) => (ColumnType::Other(name.to_owned()), Wire::Text),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of_text(name: &str, binary: Binary) -> Option<(ColumnType, Wire)> {
        SourceType::of(Some(name)).of_text(Modes { binary, ..Modes::default() })
    }

    #[test]
    fn names_are_recognised_in_any_case_and_within_arrays() {
        assert_eq!(of_text("INET", Binary::Bytes).unwrap().0, ColumnType::Other("inet".into()));
        let element = SourceType::of(Some("_INET")).element();
        assert_eq!(element.of_text(Modes::default()).unwrap().0, ColumnType::Other("inet".into()));
        assert_eq!(of_text("POSINT", Binary::Bytes), None);
        assert_eq!(SourceType::of(Some("MOOD")).name(), Some("MOOD"));
    }

    #[test]
    fn bytes_are_read_from_text_where_the_setting_says_how() {
        assert_eq!(of_text("BYTEA", Binary::Bytes), None, "the text itself");
        assert_eq!(of_text("BYTEA", Binary::Hex), Some((ColumnType::Binary, Wire::Hex)));
        let url = of_text("BYTEA", Binary::Base64UrlSafe);
        assert_eq!(url, Some((ColumnType::Binary, Wire::Binary(Base64::Url))));
    }

    #[test]
    fn decimal_text_is_a_number_where_the_source_says_so() {
        assert_eq!(of_text("NUMERIC", Binary::Bytes), Some((ColumnType::Numeric, Wire::Numeric)));
    }
}
