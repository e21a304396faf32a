//! Flattened events: the row alone, as the transformation `ExtractNewRecordState` leaves it.
//!
//! They have no envelope. What it said may be in fields of the row (`add.fields`), whose names begin with a prefix that
//! the transformation adds; those are never columns. Without such a field a row is an update that may be an insert, and
//! its table is the one that the topic's name ends with. A delete is a tombstone, or a row with `__deleted` true, or
//! nothing at all (`delete.tombstone.handling.mode` says which); truncates are always left out by the transformation.
//!
//! Invariant: nothing becomes a table by accident. A value counts as flattened only if its schema is that of a row
//! (`….Value`), or it has one of those fields, or the settings say so of its topic.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use regex::Regex;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::{Integer, Source, Text};
use super::fault::{Decoded, Fault};

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
    pub(super) deleted: bool,
    pub(super) source: Source<'a>,
}

/// Reads the fields of `row` whose names begin with `prefix`.
pub(super) fn metadata<'a>(row: &'a str, prefix: &str) -> Decoded<Metadata<'a>> {
    let mut deserializer = serde_json::Deserializer::from_str(row);
    let found = Fields(prefix).deserialize(&mut deserializer);
    found.map_err(|error| Fault::json("value", &error))
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
                found.take(name.0.strip_prefix(self.0).unwrap_or_default(), value);
            }
        }
        Ok(found)
    }
}

impl<'a> Metadata<'a> {
    /// Fields of the source block may have been asked for with or without `source.` before their name.
    fn take(&mut self, field: &str, value: &'a RawValue) {
        let text = || Text::deserialize(value).ok();
        let integer = || Integer::deserialize(value).unwrap_or_default();
        let source = &mut self.source;
        match field.strip_prefix("source_").unwrap_or(field) {
            "op" => self.op = text(),
            "deleted" => self.deleted = text().is_some_and(|text| text.as_str() == "true"),
            "db" => source.db = text(),
            "schema" => source.schema = text(),
            "table" => source.table = text(),
            "lsn" => source.lsn = integer(),
            "sequence" => source.sequence = Some(value),
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
        assert!(found.any && !found.deleted);
        assert_eq!(found.op.unwrap().as_str(), "u");
        assert_eq!((found.source.order(), found.source.micros()), (5, Some(7000)));
        assert_eq!(found.source.schema.unwrap().as_str(), "s");
        let none = metadata(r#"{"id":1,"__my_own":2}"#, "__").unwrap();
        assert!(!none.any, "a column of the table's own");
        assert!(metadata(r#"{"id":1,"cdc.deleted":"true"}"#, "cdc.").unwrap().deleted);
    }

    #[test]
    fn the_table_is_what_the_topics_name_ends_with() {
        assert_eq!(table_of_topic("shop.eu.public.orders"), ("public", "orders"));
        assert_eq!(table_of_topic("orders"), ("", "orders"));
    }
}
