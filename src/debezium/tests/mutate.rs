//! Damage to records: bytes, and the structure of JSON.
//!
//! JSON is held as it was written, with repeated members, any order and any number, which a map of values would lose.

use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A piece of JSON.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A text that is written as it is: a number, `null`, or something that is no JSON at all.
    Plain(String),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    pub(super) fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    pub(super) fn json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::Text(text) => write!(out, "{}", serde_json::Value::String(text.clone())).unwrap(),
            Self::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    out.push(if at == 0 { '[' } else { ',' });
                    item.write(out);
                }
                out.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Self::Object(members) => {
                for (at, (name, member)) in members.iter().enumerate() {
                    out.push(if at == 0 { '{' } else { ',' });
                    write!(out, "{}:", serde_json::Value::String(name.clone())).unwrap();
                    member.write(out);
                }
                out.push_str(if members.is_empty() { "{}" } else { "}" });
            }
        }
    }

    fn children(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Array(items) => items.iter_mut().collect(),
            Self::Object(members) => members.iter_mut().map(|(_, member)| member).collect(),
            _ => Vec::new(),
        }
    }

    /// A node somewhere below, or this one: each step down goes into a random child.
    fn pick(&mut self, random: &mut fastrand::Rng) -> &mut Self {
        let count = self.children().len();
        if count == 0 || random.u8(..) < 50 {
            return self;
        }
        let chosen = random.usize(..count);
        match self {
            Self::Array(items) => items[chosen].pick(random),
            Self::Object(members) => members[chosen].1.pick(random),
            _ => self,
        }
    }

    /// The member of that name, of an object.
    pub(super) fn member(&mut self, name: &str) -> Option<&mut Self> {
        match self {
            Self::Object(members) => {
                members.iter_mut().find(|(known, _)| known == name).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    /// Puts `mark` into each text below.
    pub(super) fn mark(&mut self, mark: &str) {
        if let Self::Text(text) = self {
            text.push_str(mark);
        }
        self.children().into_iter().for_each(|child| child.mark(mark));
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Plain("null".to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Plain(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Plain(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Plain(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Plain(format!("{value:?}")))
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Names that mean something somewhere in a record.
const NAMES: [&str; 24] = [
    "op",
    "before",
    "after",
    "source",
    "payload",
    "schema",
    "type",
    "fields",
    "field",
    "name",
    "optional",
    "parameters",
    "scale",
    "value",
    "items",
    "table",
    "db",
    "snapshot",
    "lsn",
    "ts_us",
    "id",
    "status",
    "connect.decimal.precision",
    "",
];

/// Values that break readers.
fn junk(random: &mut fastrand::Rng) -> Node {
    const PLAIN: [&str; 20] = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "1.5",
        "1e400",
        "-1e400",
        "1e-400",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "2147483648",
        "32768",
        "86400000001",
        "NaN",
        "[]",
        "{}",
    ];
    const TEXTS: [&str; 20] = [
        "",
        "NaN",
        "Infinity",
        "-Infinity",
        "infinity",
        "POSITIVE_INFINITY",
        "AA==",
        "/////////////////////w==",
        "A",
        "====",
        "1e1000000000",
        "-0.0",
        "+1",
        "0x10",
        "294277-01-01T00:00:00Z",
        "+294247-01-10T04:00:54.775808Z",
        "-4713-01-01T00:00:00Z",
        "2024-02-30T25:61:61.9999999999Z",
        "\u{0}",
        "__debezium_unavailable_value",
    ];
    match random.u8(0..12) {
        0..=4 => Node::Plain(PLAIN[random.usize(..PLAIN.len())].to_owned()),
        5..=8 => Node::Text(TEXTS[random.usize(..TEXTS.len())].to_owned()),
        9 => {
            let depth = [3, 120, 128, 129, 5_000, 200_000][random.usize(..6)];
            let (open, close) = if random.bool() { ("[", "]") } else { ("{\"a\":", "}") };
            Node::Plain(format!("{}1{}", open.repeat(depth), close.repeat(depth)))
        }
        10 => Node::Text("9".repeat(1 << random.u8(4..17))),
        _ => Node::Plain("9".repeat(1 << random.u8(4..17))),
    }
}

/// One change of a record's structure; `other` gives parts of another record.
pub(super) fn structure(node: &mut Node, other: &Node, random: &mut fastrand::Rng) {
    let spare = other.clone().pick(random).clone();
    let place = node.pick(random);
    match (random.u8(0..9), place) {
        (0 | 1, place) => *place = junk(random),
        (2, place) => *place = spare,
        (3, Node::Object(members)) if !members.is_empty() => {
            members.remove(random.usize(..members.len()));
        }
        (3, Node::Array(items)) if !items.is_empty() => {
            items.remove(random.usize(..items.len()));
        }
        (4, Node::Object(members)) if !members.is_empty() => {
            let member = members[random.usize(..members.len())].clone();
            members.insert(random.usize(..=members.len()), member);
        }
        (5, Node::Object(members)) if !members.is_empty() => {
            let member = random.usize(..members.len());
            members[member].0 = NAMES[random.usize(..NAMES.len())].to_owned();
        }
        (6, Node::Object(members)) if members.len() > 1 => {
            let (one, two) = (random.usize(..members.len()), random.usize(..members.len()));
            members.swap(one, two);
        }
        (7, Node::Object(members)) => {
            members.push((NAMES[random.usize(..NAMES.len())].to_owned(), junk(random)));
        }
        (_, Node::Plain(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.push(char::from(random.digit(10) as u8));
        }
        (_, Node::Text(text)) => text.push(random.char(..)),
        (_, place) => *place = junk(random),
    }
}

/// Some changes of a record's bytes.
pub(super) fn bytes(record: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
    for _ in 0..=random.u8(0..3) {
        let length = record.len();
        let at = random.usize(..=length);
        let to = (at + random.usize(..40)).min(length);
        match random.u8(0..7) {
            0 if at < length => record[at] ^= 1 << random.u8(0..8),
            1 if at < length => record[at] = random.u8(..),
            2 => record.truncate(at),
            3 => drop(record.drain(at..to)),
            4 => {
                let part = record[at..to].to_vec();
                record.splice(at..at, part);
            }
            5 => {
                let from = random.usize(..=other.len());
                record.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let byte = b"\"\\{}[]:,\x00\xff\xc3 e-"[random.usize(..14)];
                record.insert(at, byte);
            }
        }
    }
}
