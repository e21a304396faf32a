//! The record key: the names of its fields are the key of the table.
//!
//! Lists of names are shared: two keys with the same fields get the same `Arc`, so that a compiled layout recognises
//! its key by comparing two pointers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::change::RecordErrorKind;

use super::block::{Blocks, Wrapped, begins_with_schema};
use super::connect::ConnectSchema;
use super::fault::{Decoded, Fault};

/// Lists of key names that a topic may have at a time.
const MOST_NAME_LISTS: usize = 8;

/// Names of a key's fields, in order.
pub(super) type KeyNames = Arc<[Arc<str>]>;

/// What the name of the field begins with that Debezium's `ByLogicalTableRouter` adds to keys.
const ROUTER: &str = "__dbz__";

/// Whether a key's field was put there by Debezium's `ByLogicalTableRouter`, to keep apart equal keys of the tables that
/// it sends into one topic. It is no column; rows are told apart by the table that their event names.
pub(super) fn is_of_router(name: &str) -> bool {
    name.starts_with(ROUTER)
}

/// What that field of a key says: the topic that its table would have, unless the router is told otherwise. Empty where
/// it is no text, `None` where the key has no such field.
pub(super) fn of_router(key: &str) -> Option<String> {
    if !key.contains(ROUTER) {
        return None;
    }
    let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(key).ok()?;
    let (_, value) = members.into_iter().find(|(name, _)| is_of_router(name))?;
    Some(serde_json::from_str(value.get()).unwrap_or_default())
}

/// A key with at least one field.
#[derive(Debug)]
pub(super) struct RecordKey<'a> {
    pub(super) names: KeyNames,
    /// The key's object, without schema block.
    pub(super) text: &'a str,
}

/// What is known of the keys of one topic.
#[derive(Debug, Default)]
pub(super) struct Keys {
    blocks: Blocks<()>,
    lists: Vec<KeyNames>,
    none: Option<KeyNames>,
}

impl Keys {
    /// The key of a table without one.
    pub(super) fn none(&mut self) -> KeyNames {
        Arc::clone(self.none.get_or_insert_with(|| Arc::from([])))
    }

    /// Reads a key; `None` where it is null.
    pub(super) fn read<'a>(&mut self, key: &'a [u8]) -> Decoded<Option<RecordKey<'a>>> {
        if let Some((payload, ())) = self.blocks.find(key) {
            let payload = std::str::from_utf8(payload).map_err(|_| Fault::not_utf8("key"))?;
            // A failure here is looked at again with the whole key.
            if let Ok(Some(key)) = self.object(payload) {
                return Ok(Some(key));
            }
        }
        let text = std::str::from_utf8(key).map_err(|_| Fault::not_utf8("key"))?;
        if begins_with_schema(key)
            && let Some(wrapped) = wrapped(text)
        {
            let Some(payload) = wrapped.payload else { return Ok(None) };
            let read = self.object(payload.get())?;
            if wrapped.schema.is_some() && read.is_some() {
                self.blocks.learn(key, payload.get(), ());
            }
            return Ok(read);
        }
        self.object(text)
    }

    fn object<'a>(&mut self, text: &'a str) -> Decoded<Option<RecordKey<'a>>> {
        let text = text.trim_ascii();
        if text == "null" {
            return Ok(None);
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let newest: &[Arc<str>] = self.lists.first().map_or(&[], |list| list);
        let names = NamesSeed(newest).deserialize(&mut deserializer).and_then(|names| {
            deserializer.end()?;
            Ok(names)
        });
        let names = match names {
            Ok(Names::AsExpected) => self.lists.first().map(Arc::clone),
            Ok(Names::Other(names)) => self.shared(names),
            Err(error) if error.is_data() => {
                let detail = "the record key is not an object whose members are the key columns";
                return Err(Fault::new(RecordErrorKind::MissingKey, detail));
            }
            Err(error) => return Err(Fault::json("key", &error)),
        };
        let Some(names) = names.filter(|names| !names.is_empty()) else {
            return Err(Fault::new(RecordErrorKind::MissingKey, "the record key has no fields"));
        };
        Ok(Some(RecordKey { names, text }))
    }

    fn shared(&mut self, names: Vec<String>) -> Option<KeyNames> {
        let same = |list: &KeyNames| list.iter().map(AsRef::as_ref).eq(names.iter().map(String::as_str));
        if let Some(index) = self.lists.iter().position(same) {
            self.lists.swap(0, index);
        } else {
            self.lists.insert(0, names.into_iter().map(Arc::from).collect());
            self.lists.truncate(MOST_NAME_LISTS);
        }
        self.lists.first().map(Arc::clone)
    }
}

/// The key as schema and payload, where it is that and not an object with columns of these names.
fn wrapped(text: &str) -> Option<Wrapped<'_>> {
    let wrapped: Wrapped<'_> = serde_json::from_str(text).ok()?;
    let describes = match wrapped.schema {
        None => true,
        Some(schema) => ConnectSchema::parse("key", schema.get()).is_ok_and(|schema| !schema.is_untyped()),
    };
    describes.then_some(wrapped)
}

/// Whether the members of an object are the expected names.
enum Names {
    AsExpected,
    Other(Vec<String>),
}

struct NamesSeed<'a>(&'a [Arc<str>]);

impl<'de> DeserializeSeed<'de> for NamesSeed<'_> {
    type Value = Names;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Names, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NamesSeed<'_> {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let mut matched = 0;
        let mut other: Option<Vec<String>> = None;
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let _: IgnoredAny = map.next_value()?;
            if is_of_router(&name) {
                continue;
            }
            let before = self.0.get(..matched).unwrap_or_default();
            if before.iter().any(|known| known.as_ref() == name)
                || other.iter().flatten().any(|known| *known == name)
            {
                return Err(A::Error::custom("a member of the key is there twice"));
            }
            if let Some(other) = &mut other {
                other.push(name.into_owned());
            } else if self.0.get(matched).is_some_and(|expected| expected.as_ref() == name) {
                matched += 1;
            } else {
                let mut names: Vec<String> =
                    self.0.iter().take(matched).map(|name| name.as_ref().to_owned()).collect();
                names.push(name.into_owned());
                other = Some(names);
            }
        }
        Ok(match other {
            Some(names) => Names::Other(names),
            None if matched == self.0.len() => Names::AsExpected,
            None => Names::Other(self.0.iter().take(matched).map(|name| name.as_ref().to_owned()).collect()),
        })
    }
}

struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column name")
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}
