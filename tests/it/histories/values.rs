//! Values of the model's columns: how Debezium writes each as JSON, and which cell it must become.
//!
//! A value is a small number, so that a history is short to print and to shrink; what the number stands for is looked
//! up here. Both forms of a value are written down by hand and by kind, never by the code under test.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int8,
    Int4,
    Bool,
    Double,
    Numeric,
    Date,
    TimestampTz,
    Uuid,
    Text,
    Jsonb,
    Bytea,
    TextArray,
    IntArray,
    UuidArray,
    ByteaArray,
    HstoreMap,
}

/// A value of some kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Small(u8),
    /// Large enough to be stored out of line (TOAST), so that an update that leaves it alone does not send it.
    Big(u8),
}

/// Debezium's default placeholder.
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

const TEXTS: [&str; 8] = [
    "",
    "a",
    "null",
    "a \"quoted\" \\ text\n",
    "日本語 é",
    "__debezium_unavailable_valu",
    "{\"a\":1}",
    "  spaces  ",
];
const INT8: [i64; 7] = [0, 1, -1, i64::MAX, i64::MIN, 9_007_199_254_740_993, 42];
const INT4: [i32; 5] = [0, 7, -7, i32::MAX, i32::MIN];
/// As Jackson writes them, and as Arrow shows them.
const DOUBLES: [(&str, &str); 7] = [
    ("0.0", "0.0"),
    ("0.1", "0.1"),
    ("-1.5", "-1.5"),
    ("1.7976931348623157E308", "1.7976931348623157e308"),
    ("\"NaN\"", "NaN"),
    ("\"Infinity\"", "inf"),
    ("\"-Infinity\"", "-inf"),
];
/// Unscaled bytes of a `numeric(20,4)`, and its text.
const NUMERICS: [(&[u8], &str); 4] = [
    (&[0], "0.0000"),
    (&[1], "0.0001"),
    (&[0xff], "-0.0001"),
    (&[0x05, 0x6b, 0xc7, 0x5e, 0x2d, 0x63, 0x0f, 0xff, 0xff], "9999999999999999.9999"),
];
const DATES: [(i32, &str); 4] =
    [(0, "1970-01-01"), (-1, "1969-12-31"), (19_782, "2024-02-29"), (2_932_896, "9999-12-31")];
const INSTANTS: [(&str, &str); 3] = [
    ("1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:00Z"),
    ("2024-02-29T23:59:59.999999Z", "2024-02-29T23:59:59.999999Z"),
    ("1969-12-31T23:59:59.500000Z", "1969-12-31T23:59:59.500Z"),
];

fn nth<T: Copy>(list: &[T], number: u8) -> T {
    list[number as usize % list.len()]
}

impl Kind {
    /// Whether Postgres may store a value of it out of line.
    pub fn is_toastable(self) -> bool {
        matches!(
            self,
            Self::Text
                | Self::Jsonb
                | Self::Bytea
                | Self::TextArray
                | Self::IntArray
                | Self::UuidArray
                | Self::ByteaArray
                | Self::HstoreMap
        )
    }

    /// Members of the Connect schema of a column.
    pub fn connect(self) -> &'static str {
        match self {
            Self::Int8 => r#""type":"int64""#,
            Self::Int4 => r#""type":"int32""#,
            Self::Bool => r#""type":"boolean""#,
            Self::Double => r#""type":"double""#,
            Self::Numeric => {
                r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"4","connect.decimal.precision":"20"}"#
            }
            Self::Date => r#""type":"int32","name":"io.debezium.time.Date","version":1"#,
            Self::TimestampTz => r#""type":"string","name":"io.debezium.time.ZonedTimestamp","version":1"#,
            Self::Uuid => r#""type":"string","name":"io.debezium.data.Uuid","version":1"#,
            Self::Text => r#""type":"string""#,
            Self::Jsonb => r#""type":"string","name":"io.debezium.data.Json","version":1"#,
            Self::Bytea => r#""type":"bytes""#,
            Self::TextArray => r#""type":"array","items":{"type":"string","optional":true}"#,
            Self::IntArray => r#""type":"array","items":{"type":"int32","optional":true}"#,
            Self::UuidArray => {
                r#""type":"array","items":{"type":"string","optional":true,"name":"io.debezium.data.Uuid","version":1}"#
            }
            Self::ByteaArray => r#""type":"array","items":{"type":"bytes","optional":true}"#,
            Self::HstoreMap => {
                r#""type":"map","keys":{"type":"string","optional":false},"values":{"type":"string","optional":true}"#
            }
        }
    }

    /// The type to configure for events without schema block; `None` where the values say it well enough.
    pub fn configured(self) -> Option<&'static str> {
        match self {
            Self::Int8 => Some("int64"),
            Self::Int4 => Some("int32"),
            Self::Bool => Some("boolean"),
            Self::Double => Some("float64"),
            Self::Numeric => Some("decimal(20,4)"),
            Self::Date => Some("date"),
            Self::TimestampTz => Some("timestamptz"),
            Self::Uuid => Some("uuid"),
            Self::Text => Some("text"),
            // Without the type of the source, a schema block cannot tell the two.
            Self::Jsonb => Some("json"),
            Self::Bytea => Some("bytes"),
            Self::TextArray | Self::IntArray | Self::UuidArray | Self::ByteaArray | Self::HstoreMap => None,
        }
    }

    /// What Debezium sends for a value that an update leaves alone.
    pub fn placeholder(self) -> String {
        let base64 = STANDARD.encode(PLACEHOLDER);
        match self {
            Self::Bytea => quoted(&base64),
            Self::TextArray => format!("[\"{PLACEHOLDER}\"]"),
            Self::ByteaArray => format!("[\"{base64}\"]"),
            Self::UuidArray => r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#.to_owned(),
            Self::IntArray => {
                let numbers: Vec<String> = PLACEHOLDER.bytes().map(|byte| byte.to_string()).collect();
                format!("[{}]", numbers.join(","))
            }
            Self::HstoreMap => format!("{{\"{PLACEHOLDER}\":\"{PLACEHOLDER}\"}}"),
            _ => quoted(PLACEHOLDER),
        }
    }
}

impl Value {
    /// The value that a random number stands for in a column of this kind.
    pub fn chosen(kind: Kind, choice: u8) -> Self {
        match choice {
            0..=40 => Self::Null,
            200.. if kind.is_toastable() => Self::Big(choice),
            _ => Self::Small(choice),
        }
    }

    /// As Debezium writes it.
    pub fn json(self, kind: Kind) -> String {
        let n = match self {
            Self::Null => return "null".to_owned(),
            Self::Small(n) | Self::Big(n) => n,
        };
        match kind {
            Kind::Int8 => nth(&INT8, n).to_string(),
            Kind::Int4 => nth(&INT4, n).to_string(),
            Kind::Bool => (n % 2 == 0).to_string(),
            Kind::Double => nth(&DOUBLES, n).0.to_owned(),
            Kind::Numeric => quoted(&STANDARD.encode(nth(&NUMERICS, n).0)),
            Kind::Date => nth(&DATES, n).0.to_string(),
            Kind::TimestampTz => quoted(nth(&INSTANTS, n).0),
            Kind::Bytea => quoted(&STANDARD.encode(self.bytes(n))),
            Kind::Uuid | Kind::Text | Kind::Jsonb => quoted(&self.text(kind, n)),
            Kind::TextArray | Kind::IntArray | Kind::UuidArray | Kind::ByteaArray | Kind::HstoreMap => {
                self.text(kind, n)
            }
        }
    }

    /// The cell that it must become, as text; `None` for null.
    pub fn shown(self, kind: Kind) -> Option<String> {
        let n = match self {
            Self::Null => return None,
            Self::Small(n) | Self::Big(n) => n,
        };
        Some(match kind {
            Kind::Int8 => nth(&INT8, n).to_string(),
            Kind::Int4 => nth(&INT4, n).to_string(),
            Kind::Bool => (n % 2 == 0).to_string(),
            Kind::Double => nth(&DOUBLES, n).1.to_owned(),
            Kind::Numeric => nth(&NUMERICS, n).1.to_owned(),
            Kind::Date => nth(&DATES, n).1.to_owned(),
            Kind::TimestampTz => nth(&INSTANTS, n).1.to_owned(),
            Kind::Bytea => hex(&self.bytes(n)),
            _ => self.text(kind, n),
        })
    }

    fn bytes(self, n: u8) -> Vec<u8> {
        match self {
            Self::Big(_) => vec![n; 70],
            _ => (0..n % 5).map(|at| n.wrapping_mul(at)).collect(),
        }
    }

    /// The text of a value, or the compact JSON of an array or map.
    fn text(self, kind: Kind, n: u8) -> String {
        let big = matches!(self, Self::Big(_));
        match kind {
            Kind::Uuid => format!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a{n:02x}"),
            Kind::Jsonb if big => format!("{{\"big\": \"{}\"}}", "j".repeat(60 + n as usize)),
            Kind::Jsonb => nth(&["null", "{}", "[1.50, null]", "\"text\"", "100000"], n).to_owned(),
            Kind::Text if big => "t".repeat(60 + n as usize),
            Kind::Text => nth(&TEXTS, n).to_owned(),
            Kind::TextArray if big => format!("[\"{}\",null]", "x".repeat(60 + n as usize)),
            Kind::TextArray => nth(&["[]", "[\"a\",\"b,c\",null]", "[null]"], n).to_owned(),
            Kind::IntArray if big => format!("[{}{n}]", "1,".repeat(40)),
            Kind::IntArray => nth(&["[]", "[1,null,-3]", "[95]"], n).to_owned(),
            Kind::UuidArray if big => {
                format!("[{}null]", format!("\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a{n:02x}\",").repeat(3))
            }
            Kind::UuidArray => nth(&["[]", "[\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"]"], n).to_owned(),
            Kind::ByteaArray if big => format!("[\"{}\"]", STANDARD.encode(vec![n; 70])),
            Kind::ByteaArray => nth(&["[]", "[\"AP8Q\",null]"], n).to_owned(),
            Kind::HstoreMap if big => format!("{{\"k\":\"{}\"}}", "h".repeat(60 + n as usize)),
            _ => nth(&["{}", "{\"a\":\"1\",\"b\":null}"], n).to_owned(),
        }
    }
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
