//! The envelope of an event: what happened, to which table, when.
//!
//! Members are found by name, in any order: it changed between Debezium versions. The rows themselves stay text here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::order::Sequence;

/// An event without its schema block.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) after: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "source_object")]
    pub(super) source: Option<Source<'a>>,
    #[serde(borrow, default)]
    pub(super) op: Option<Text<'a>>,
    /// When the connector sent it; of a heartbeat the only member.
    #[serde(default)]
    pub(super) ts_ms: Integer,
}

/// Where an event comes from. Absent and null members are `None`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Source<'a> {
    #[serde(borrow, default)]
    pub(super) db: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) schema: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) table: Option<Text<'a>>,
    #[serde(default)]
    pub(super) ts_ms: Integer,
    #[serde(default)]
    pub(super) ts_us: Integer,
    #[serde(default)]
    pub(super) lsn: Integer,
    #[serde(borrow, default)]
    pub(super) sequence: Option<&'a RawValue>,
    #[serde(rename = "txId", default)]
    pub(super) tx_id: Integer,
    #[serde(borrow, default)]
    pub(super) snapshot: Option<Text<'a>>,
}

/// An object or null: by itself serde would read an array as the members of a struct in their order, too.
fn source_object<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Source<'a>>, D::Error> {
    struct SourceVisitor;
    impl<'de> Visitor<'de> for SourceVisitor {
        type Value = Option<Source<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a source block or null")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Source::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(SourceVisitor)
}

impl Source<'_> {
    /// Commit time in the source, microseconds since 1970 UTC; `None` where the event does not say.
    pub(super) fn micros(&self) -> Option<i64> {
        self.ts_us.0.or_else(|| self.ts_ms.0?.checked_mul(1000))
    }

    /// The pair that orders streamed changes, if the event has all of it.
    pub(super) fn pair(&self) -> Sequence {
        self.sequence.map(|text| Sequence::of_json(text.get())).unwrap_or_default()
    }

    /// Place in the source's log; 0 where the event does not say. Rows of an incremental snapshot have no `lsn`, but the
    /// `sequence` says where the stream stood when they were sent: `["<last commit>","<event>"]`, either may be null.
    pub(super) fn order(&self) -> i64 {
        self.lsn.0.or_else(|| last_of(self.sequence?.get())).unwrap_or(0)
    }
}

/// The newest place that a `sequence` names; it is a JSON text in a JSON string.
fn last_of(sequence: &str) -> Option<i64> {
    let text: String = serde_json::from_str(sequence).ok()?;
    let [commit, event]: [Option<String>; 2] = serde_json::from_str(&text).ok()?;
    event.or(commit)?.parse().ok()
}

/// A string, borrowed from the record where it has no escapes; a boolean counts as its text, because `snapshot` was
/// one in old versions.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text of an optional one; empty where there is none.
pub(super) fn or_empty<'a>(text: Option<&'a Text<'_>>) -> &'a str {
    text.map_or("", Text::as_str)
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(value)))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(value.to_owned())))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(if value { "true" } else { "false" })))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// An integer of the source block, which is recorded but never decides anything: what is no integer counts as none.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Integer(pub(super) Option<i64>);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntegerVisitor;
        impl Visitor<'_> for IntegerVisitor {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or null")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(Some(value)))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
                Ok(Integer(i64::try_from(value).ok()))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Integer, E> {
                Ok(Integer(None))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Integer, E> {
                Ok(Integer(value.parse().ok()))
            }

            fn visit_unit<E: Error>(self) -> Result<Integer, E> {
                Ok(Integer(None))
            }
        }
        deserializer.deserialize_any(IntegerVisitor)
    }
}

/// What a message of `pg_logical_emit_message` says, as JSON. No member of the envelope, because no change has one.
pub(super) fn message(payload: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        message: &'a RawValue,
    }
    serde_json::from_str::<Message<'_>>(payload).ok().map(|of| of.message.get())
}

/// Why a value without `op` is not a change but a record that Debezium writes for other purposes; `None` where it is
/// none of those.
pub(super) fn purpose(schema_name: Option<&str>, payload: &str) -> Option<&'static str> {
    match schema_name {
        Some("io.debezium.connector.common.Heartbeat") => return Some("heartbeat"),
        Some("io.debezium.connector.common.TransactionMetadataValue") => return Some("transaction"),
        Some(name) if name.ends_with(".SchemaChangeValue") => return Some("schema_change"),
        _ => {}
    }
    let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(payload).ok()?;
    let has = |name: &str| members.contains_key(name);
    let status = members.get("status").map(|status| status.get());
    if members.len() == 1 && has("ts_ms") {
        Some("heartbeat")
    } else if matches!(status, Some("\"BEGIN\"" | "\"END\"")) && has("id") && has("event_count") {
        Some("transaction")
    } else if has("tableChanges") && (has("ddl") || has("databaseName")) {
        Some("schema_change")
    } else if has("aggregate_type") && has("additional_data") {
        Some("notification")
    } else {
        None
    }
}
