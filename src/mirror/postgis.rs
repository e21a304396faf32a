//! Values of PostGIS: from Debezium's object to the text that the extension reads.
//!
//! The connector sends the well-known binary of the value, which in PostGIS' own form has the spatial reference system in it,
//! and that once more beside it. The extension reads that binary in hexadecimal digits. Anything else is handed to it as it
//! is: it knows better what it takes.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Says in the type of a value in PostGIS' form that the reference system follows.
const HAS_SRID: u32 = 0x2000_0000;

#[derive(Deserialize)]
struct Value {
    wkb: String,
    #[serde(default)]
    srid: Option<i32>,
}

/// The text of a value, given as Debezium's JSON.
pub(super) fn input(text: &str) -> Cow<'_, str> {
    let binary = || {
        let value: Value = serde_json::from_str(text).ok()?;
        with_srid(STANDARD.decode(value.wkb).ok()?, value.srid)
    };
    match binary() {
        None => Cow::Borrowed(text),
        Some(bytes) => {
            let mut digits = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                // Writing into a String does not fail.
                let _ = write!(digits, "{byte:02X}");
            }
            Cow::Owned(digits)
        }
    }
}

/// Puts the reference system into a binary that has none.
fn with_srid(wkb: Vec<u8>, srid: Option<i32>) -> Option<Vec<u8>> {
    let (order, kind, rest) = (*wkb.first()?, *wkb.get(1..)?.first_chunk::<4>()?, wkb.get(5..)?);
    let is_little = order == 1;
    let kind = if is_little { u32::from_le_bytes(kind) } else { u32::from_be_bytes(kind) };
    let Some(srid) = srid.filter(|srid| *srid != 0 && kind & HAS_SRID == 0) else { return Some(wkb) };
    let bytes = |word: u32| if is_little { word.to_le_bytes() } else { word.to_be_bytes() };
    let mut out = Vec::with_capacity(wkb.len() + 4);
    out.push(order);
    out.extend(bytes(kind | HAS_SRID));
    out.extend(bytes(srid.cast_unsigned()));
    out.extend(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    /// `POINT(1 2)` with SRID 4326 as PostGIS shows it, and the same without.
    const WITH_SRID: &str = "0101000020E6100000000000000000F03F0000000000000040";
    const WITHOUT: &str = "0101000000000000000000F03F0000000000000040";

    fn event(hex: &str, srid: &str) -> String {
        let digits: Vec<char> = hex.chars().collect();
        let byte =
            |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap_or_default();
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        format!(r#"{{"wkb":"{}","srid":{srid}}}"#, STANDARD.encode(bytes))
    }

    #[test]
    fn the_binary_becomes_what_postgis_shows() {
        for (hex, srid, expected) in [
            (WITH_SRID, "4326", WITH_SRID),
            (WITH_SRID, "null", WITH_SRID),
            (WITHOUT, "4326", WITH_SRID),
            (WITHOUT, "null", WITHOUT),
            (WITHOUT, "0", WITHOUT),
            (
                "00000000013FF00000000000004000000000000000",
                "4326",
                "0020000001000010E63FF00000000000004000000000000000",
            ),
        ] {
            assert_eq!(input(&event(hex, srid)), expected, "{hex} {srid}");
        }
    }

    #[test]
    fn what_is_no_object_of_debezium_is_left_to_postgis() {
        for text in ["POINT(1 2)", "{}", r#"{"wkb":"","srid":1}"#, r#"{"wkb":"!","srid":1}"#] {
            assert_eq!(input(text), text);
        }
    }

    /// Rows of a table with a `geometry`, as Debezium 3.7 sent them.
    const RECORDED: &str = include_str!("../../tests/captures/extensions.jsonl");

    /// What `ST_AsEWKB` says of them in the source, by id.
    const IN_SOURCE: [(i64, &str); 13] = [
        (2, "0101000020E6100000CDCCCCCCCCCC2A400000000000404A40"),
        (
            3,
            "0102000020110F00000300000000000000000000000000000000000000000000000000F03F000000000000F03F\
             CDCCCCCCCCCC00400000000000000840",
        ),
        (
            4,
            "0103000020E6100000020000000500000000000000000000000000000000000000000000000000244000000000\
             00000000000000000000244000000000000024400000000000000000000000000000244000000000000000000000\
             00000000000004000000000000000000F03F000000000000F03F0000000000000040000000000000F03F00000000\
             000000400000000000000040000000000000F03F000000000000F03F",
        ),
        (10, "0101000060E6100000000000000000F03F00000000000000400000000000000840"),
        (11, "01010000E0E6100000000000000000F03F000000000000004000000000000008400000000000001040"),
        (13, "0101000000000000000000F87F000000000000F87F"),
        (14, "0101000020E6100000000000000000F87F000000000000F87F"),
        (
            18,
            "010A00000001000000010800000005000000000000000000000000000000000000000000000000001040000000\
             00000000000000000000001040000000000000104000000000000000000000000000001040000000000000000000\
             00000000000000",
        ),
        (
            19,
            "01100000A0E610000001000000011100008001000000040000000000000000000000000000000000000000000\
             0000000000000000000000000000000000000000000000000000000F03F0000000000000000000000000000F03F\
             0000000000000000000000000000000000000000000000000000000000000000",
        ),
        (23, "0101000000000000000000F87F000000000000F07F"),
        (25, "01010000A0E6100000000000000000F87F000000000000F87F000000000000F87F"),
        (26, "0107000020E6100000020000000101000000000000000000F87F000000000000F87F010200000000000000"),
        // Behind the snapshot.
        (1001, "0101000000000000000000F83F00000000000000C0"),
    ];

    #[test]
    fn recorded_shapes_become_the_binary_that_the_source_has() {
        let mut seen = Vec::new();
        for line in RECORDED.lines().filter(|line| line.contains("bare.public.shapes")) {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let event: serde_json::Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
            let (id, shape) = (event["after"]["id"].as_i64().unwrap(), &event["after"]["g"]);
            match IN_SOURCE.iter().find(|(known, _)| *known == id) {
                Some((_, expected)) => assert_eq!(input(&shape.to_string()), *expected, "{id}"),
                None => assert!(shape.is_null(), "{id}"),
            }
            seen.push(id);
        }
        assert_eq!(seen.len(), IN_SOURCE.len() + 1);
    }
}
