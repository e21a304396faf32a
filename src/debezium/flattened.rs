//! Flattened events: the row alone, as the transformation `ExtractNewRecordState` leaves it.
//!
//! They have no envelope. What it said may be in fields of the row (`add.fields`), whose names begin with a prefix that
//! the transformation adds; those are never columns. Or it is in headers of the record (`add.headers`) of the same names,
//! whose values are plain text or JSON, as the worker's `header.converter` writes them. Without either a row is an update that may be an insert, and
//! its table is the one that the topic's name ends with. A delete is a tombstone, or a row with `__deleted` true, or
//! nothing at all (`delete.tombstone.handling.mode` says which); truncates are always left out by the transformation.
//!
//! Invariant: nothing becomes a table by accident. A value counts as flattened only if its schema is that of a row
//! (`….Value`), or it has one of those fields or headers, or the settings say so of its topic.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use regex::Regex;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::{Integer, Source, Text};
use super::fault::{Decoded, Fault};
use super::record::RecordHeaders;

/// The transformation's default for `add.fields.prefix`.
pub const DEFAULT_PREFIX: &str = "__";

/// How flattened events are recognised.
#[derive(Debug, Clone)]
pub struct FlattenedOptions {
    /// What names of metadata fields begin with; not empty.
    pub prefix: Arc<str>,
    /// Topics whose events are flattened though nothing in them says so: names, or expressions that begin with `^`.
    pub topics: TopicNames,
}

impl Default for FlattenedOptions {
    fn default() -> Self {
        Self { prefix: DEFAULT_PREFIX.into(), topics: TopicNames::default() }
    }
}

/// A choice of topics.
#[derive(Debug, Clone, Default)]
pub struct TopicNames {
    names: Vec<String>,
    expressions: Vec<Regex>,
}

impl TopicNames {
    /// Topics by name, or by regular expressions that begin with `^`.
    ///
    /// # Errors
    /// Where an expression is none.
    pub fn new(topics: &[String]) -> Result<Self, regex::Error> {
        let (expressions, names): (Vec<&String>, Vec<&String>) =
            topics.iter().partition(|topic| topic.starts_with('^'));
        let expressions = expressions.into_iter().map(|text| Regex::new(text)).collect::<Result<_, _>>()?;
        Ok(Self { names: names.into_iter().cloned().collect(), expressions })
    }

    /// Whether `topic` is one of them.
    pub fn matches(&self, topic: &str) -> bool {
        self.names.iter().any(|name| name == topic)
            || self.expressions.iter().any(|expression| expression.is_match(topic))
    }
}

/// What the metadata fields of a row say.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    /// Whether there was any.
    pub(super) any: bool,
    pub(super) op: Option<Text<'a>>,
    /// Whether it is a delete; `None` where nothing says so.
    pub(super) deleted: Option<bool>,
    pub(super) source: Source<'a>,
}

/// Reads the fields of `row` whose names begin with `prefix`.
pub(super) fn metadata<'a>(row: &'a str, prefix: &str) -> Decoded<Metadata<'a>> {
    let mut deserializer = serde_json::Deserializer::from_str(row);
    let found = Fields(prefix).deserialize(&mut deserializer);
    found.map_err(|error| Fault::json("value", &error))
}

/// Reads the headers whose names begin with `prefix`.
pub(super) fn said_in<'a>(headers: &'a dyn RecordHeaders, prefix: &str) -> Metadata<'a> {
    let mut found = Metadata::default();
    headers.each(&mut |name, value| {
        let (Ok(name), Some(Ok(value))) = (std::str::from_utf8(name), value.map(std::str::from_utf8)) else {
            return;
        };
        if is_metadata(name, prefix) {
            found.any = true;
            found.take(name.strip_prefix(prefix).unwrap_or_default(), Said::of(value));
        }
    });
    found
}

/// The value of a metadata field or header.
#[derive(Clone, Copy)]
enum Said<'a> {
    Json(&'a RawValue),
    /// Text as it is, of anything.
    Plain(&'a str),
}

/// A header's value with the schema that a JSON converter puts around it.
#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl<'a> Said<'a> {
    /// The value of a header: a JSON text or an object with a `payload`, or else plain.
    fn of(header: &'a str) -> Self {
        let json = match header.trim_ascii_start().as_bytes().first() {
            Some(b'{') => serde_json::from_str::<Wrapped<'a>>(header).ok().map(|wrapped| wrapped.payload),
            Some(b'"') => serde_json::from_str(header).ok(),
            _ => None,
        };
        json.map_or(Self::Plain(header), Self::Json)
    }

    fn text(self) -> Option<Text<'a>> {
        match self {
            Self::Json(value) => Text::deserialize(value).ok(),
            Self::Plain(text) => Some(Text(Cow::Borrowed(text))),
        }
    }

    fn integer(self) -> Integer {
        match self {
            Self::Json(value) => Integer::deserialize(value).unwrap_or_default(),
            Self::Plain(text) => Integer(text.trim().parse().ok()),
        }
    }

    /// A text that holds JSON.
    fn raw(self) -> Option<&'a RawValue> {
        match self {
            Self::Json(value) => Some(value),
            Self::Plain(text) => serde_json::from_str(text).ok(),
        }
    }
}

/// Whether a field of that name says something about the event, and is no column: the members of the envelope that the
/// transformation is known to add, and whatever it takes from the source and transaction blocks under their names.
pub(super) fn is_metadata(name: &str, prefix: &str) -> bool {
    const NAMES: [&str; 17] = [
        "op",
        "deleted",
        "table",
        "schema",
        "db",
        "lsn",
        "sequence",
        "txId",
        "xmin",
        "snapshot",
        "ts_ms",
        "ts_us",
        "ts_ns",
        "connector",
        "name",
        "version",
        "origin",
    ];
    name.strip_prefix(prefix).is_some_and(|field| {
        NAMES.contains(&field) || field.starts_with("source_") || field.starts_with("transaction_")
    })
}

/// Schema and table that a topic's name ends with.
pub(super) fn table_of_topic(topic: &str) -> (&str, &str) {
    let mut parts = topic.rsplitn(3, '.');
    let table = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default(), table)
}

struct Fields<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Metadata<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Metadata<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the columns of a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Metadata::default();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            let value: &RawValue = map.next_value()?;
            if is_metadata(&name.0, self.0) {
                found.any = true;
                found.take(name.0.strip_prefix(self.0).unwrap_or_default(), Said::Json(value));
            }
        }
        Ok(found)
    }
}

impl<'a> Metadata<'a> {
    /// The same, with what only `other` says.
    pub(super) fn or(self, other: Self) -> Self {
        let (one, two) = (self.source, other.source);
        Self {
            any: self.any || other.any,
            op: self.op.or(other.op),
            deleted: self.deleted.max(other.deleted),
            source: Source {
                db: one.db.or(two.db),
                schema: one.schema.or(two.schema),
                table: one.table.or(two.table),
                ts_ms: Integer(one.ts_ms.0.or(two.ts_ms.0)),
                ts_us: Integer(one.ts_us.0.or(two.ts_us.0)),
                lsn: Integer(one.lsn.0.or(two.lsn.0)),
                sequence: one.sequence.or(two.sequence),
                tx_id: Integer(one.tx_id.0.or(two.tx_id.0)),
                snapshot: one.snapshot.or(two.snapshot),
            },
        }
    }

    /// Fields of the source block may have been asked for with or without `source.` before their name.
    fn take(&mut self, field: &str, value: Said<'a>) {
        let text = || value.text();
        let integer = || value.integer();
        let source = &mut self.source;
        match field.strip_prefix("source_").unwrap_or(field) {
            "op" => self.op = text(),
            "deleted" => self.deleted = Some(text().is_some_and(|text| text.as_str() == "true")),
            "db" => source.db = text(),
            "schema" => source.schema = text(),
            "table" => source.table = text(),
            "lsn" => source.lsn = integer(),
            "sequence" => source.sequence = value.raw(),
            "txId" => source.tx_id = integer(),
            "snapshot" => source.snapshot = text(),
            // Without `source` before it, `ts_ms` is the time at which the connector was busy with the event.
            "ts_ms" if field.starts_with("source_") => source.ts_ms = integer(),
            "ts_us" if field.starts_with("source_") => source.ts_us = integer(),
            _ => {}
        }
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_fields_that_the_transformation_adds_are_read_with_and_without_source() {
        let row = r#"{"id":1,"__op":"u","__deleted":"false","__table":"t","__source_schema":"s","__lsn":5,
            "__source_ts_ms":7,"__ts_ms":9}"#;
        let found = metadata(row, "__").unwrap();
        assert_eq!((found.any, found.deleted), (true, Some(false)));
        assert_eq!(found.op.unwrap().as_str(), "u");
        assert_eq!((found.source.order(), found.source.micros()), (5, Some(7000)));
        assert_eq!(found.source.schema.unwrap().as_str(), "s");
        let none = metadata(r#"{"id":1,"__my_own":2}"#, "__").unwrap();
        assert!(!none.any, "a column of the table's own");
        assert_eq!(metadata(r#"{"id":1,"cdc.deleted":"true"}"#, "cdc.").unwrap().deleted, Some(true));
        assert_eq!(metadata(r#"{"id":1,"__op":"c"}"#, "__").unwrap().deleted, None);
    }

    #[test]
    fn headers_say_what_fields_do_not_in_the_three_forms_of_their_converters() {
        let headers = |values: &[(&str, &str)]| -> Vec<(String, Option<Vec<u8>>)> {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(value.as_bytes().to_vec()));
            values.iter().map(owned).collect()
        };
        let plain = headers(&[
            ("__op", "d"),
            ("__deleted", "true"),
            ("__table", "123"),
            ("__lsn", "5"),
            ("__source_ts_ms", "7"),
            ("__debezium.newkey", "Struct{id=1}"),
        ]);
        let json = headers(&[
            ("__op", "\"d\""),
            ("__deleted", "\"true\""),
            ("__table", "\"123\""),
            ("__lsn", "5"),
            ("__source_ts_ms", "7"),
        ]);
        let block = |of: &str, payload: &str| {
            format!(r#"{{"schema":{{"type":"{of}","optional":false}},"payload":{payload}}}"#)
        };
        let wrapped = [
            ("__op", block("string", "\"d\"")),
            ("__deleted", block("boolean", "true")),
            ("__table", block("string", "\"123\"")),
            ("__lsn", block("int64", "5")),
            ("__source_ts_ms", block("int64", "7")),
        ];
        let wrapped = headers(&wrapped.each_ref().map(|(name, value)| (*name, value.as_str())));
        for form in [plain, json, wrapped] {
            let found = said_in(&form, "__");
            assert_eq!((found.any, found.deleted), (true, Some(true)), "{form:?}");
            assert_eq!(found.op.unwrap().as_str(), "d");
            assert_eq!((found.source.order(), found.source.micros()), (5, Some(7000)));
            assert_eq!(found.source.table.unwrap().as_str(), "123");
        }
        assert!(!said_in(&headers(&[("__debezium.newkey", "{}"), ("op", "d")]), "__").any);
        let (field, header) = (r#"{"__op":"c"}"#, headers(&[("__op", "d"), ("__lsn", "5")]));
        let both = metadata(field, "__").unwrap().or(said_in(&header, "__"));
        assert_eq!((both.op.unwrap().as_str(), both.source.order()), ("c", 5));
    }

    #[test]
    fn the_table_is_what_the_topics_name_ends_with() {
        assert_eq!(table_of_topic("shop.eu.public.orders"), ("public", "orders"));
        assert_eq!(table_of_topic("orders"), ("", "orders"));
    }
}
