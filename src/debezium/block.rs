//! Records with a schema block: recognising a block that was seen before by its bytes.
//!
//! Kafka Connect writes the same schema in the same bytes each time, and first: `{"schema":<S>,"payload":<P>}`. So the
//! bytes up to the payload are compared with those of earlier records of the topic, which is some ten times faster
//! than reading them; only the payload is parsed. Anything else (another order, other white space, a new schema) takes
//! the slow path, which reads the whole record.
//!
//! A record that begins with a known prefix and whose rest is one JSON value and `}` *is* that object, so the fast
//! path accepts nothing that the slow path would read differently.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Prefixes kept for a topic's keys or values. A topic has as many at a time as connectors or schema versions.
const MOST_PREFIXES: usize = 4;

const BEFORE_SCHEMA: &[u8] = b"{\"schema\":";
const BEFORE_PAYLOAD: &[u8] = b",\"payload\":";

/// What was learned from schema blocks, by the bytes before the payload; newest use first.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    known: Vec<(Box<[u8]>, T)>,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { known: Vec::new() }
    }
}

impl<T: Clone> Blocks<T> {
    /// The payload's bytes and what is known of its schema.
    pub(super) fn find<'a>(&mut self, bytes: &'a [u8]) -> Option<(&'a [u8], T)> {
        let index = self.known.iter().position(|(prefix, _)| bytes.starts_with(prefix))?;
        self.known.swap(0, index);
        let (prefix, schema) = self.known.first()?;
        let payload = bytes.get(prefix.len()..)?.strip_suffix(b"}")?;
        Some((payload, schema.clone()))
    }

    /// Remembers the schema of a record with this payload, if the record has the order that [`Self::find`] needs.
    pub(super) fn learn(&mut self, bytes: &[u8], payload: &str, schema: T) {
        let prefix = bytes.strip_suffix(b"}").and_then(|rest| rest.strip_suffix(payload.as_bytes()));
        let Some(prefix) = prefix else { return };
        let usual = prefix.starts_with(BEFORE_SCHEMA) && prefix.ends_with(BEFORE_PAYLOAD);
        if !usual || self.known.iter().any(|(known, _)| known.as_ref() == prefix) {
            return;
        }
        self.known.insert(0, (prefix.into(), schema));
        self.known.truncate(MOST_PREFIXES);
    }
}

/// Whether a record looks like one with a schema block.
pub(super) fn begins_with_schema(bytes: &[u8]) -> bool {
    bytes.starts_with(BEFORE_SCHEMA)
}

/// A record with a schema block, read by its member names. `None` stands for a JSON null too.
#[derive(Debug, Deserialize)]
pub(super) struct Wrapped<'a> {
    #[serde(borrow, default)]
    pub(super) schema: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) payload: Option<&'a RawValue>,
}
