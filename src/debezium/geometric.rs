//! Geometric values: from Debezium's objects to the text that Postgres reads and writes.
//!
//! Points, lines and circles come as their numbers, the others as well-known binary. A polygon is not read: Debezium
//! repeats the first point at the end where it is not there already, so that two polygons become one value.

use serde::Deserialize;
use serde_json::value::RawValue;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::change::Shape;

/// The members of all of them; each has some.
#[derive(Debug, Deserialize)]
struct Members<'a> {
    #[serde(borrow, default)]
    x: Option<&'a RawValue>,
    #[serde(borrow, default)]
    y: Option<&'a RawValue>,
    #[serde(borrow, default)]
    a: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b: Option<&'a RawValue>,
    #[serde(borrow, default)]
    c: Option<&'a RawValue>,
    #[serde(borrow, default)]
    center: Option<&'a RawValue>,
    #[serde(borrow, default)]
    radius: Option<&'a RawValue>,
    #[serde(default)]
    wkb: Option<String>,
    #[serde(default)]
    extensions: Option<Extensions>,
}

#[derive(Debug, Deserialize)]
struct Extensions {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    closed: Option<String>,
}

/// The text of an object, where it is one of that shape.
pub(super) fn text(shape: Shape, json: &str) -> Option<String> {
    let members: Members<'_> = serde_json::from_str(json).ok()?;
    Some(match shape {
        Shape::Point => point(number(members.x)?, number(members.y)?),
        Shape::Line => {
            let [a, b, c] = [members.a, members.b, members.c].map(|part| number(part).map(float));
            format!("{{{},{},{}}}", a?, b?, c?)
        }
        Shape::Circle => {
            let center: Members<'_> = serde_json::from_str(members.center?.get()).ok()?;
            let center = point(number(center.x)?, number(center.y)?);
            format!("<{center},{}>", float(number(members.radius)?))
        }
        Shape::Lseg | Shape::Box | Shape::Path => {
            let extensions = members.extensions.filter(|found| found.kind == shape.name())?;
            let points = points(shape, &STANDARD.decode(members.wkb?).ok()?)?;
            let points: Vec<String> = points.into_iter().map(|(x, y)| point(x, y)).collect();
            match (shape, points.as_slice()) {
                (Shape::Lseg, [from, to]) => format!("[{from},{to}]"),
                // The ring begins at the upper right corner.
                (Shape::Box, [high, _, low, _, _]) => format!("{high},{low}"),
                (Shape::Path, [_, ..]) if extensions.closed? == "true" => format!("({})", points.join(",")),
                (Shape::Path, [_, ..]) => format!("[{}]", points.join(",")),
                _ => return None,
            }
        }
    })
}

/// The points of a line string, or of the only ring of a polygon, in little-endian well-known binary.
fn points(shape: Shape, wkb: &[u8]) -> Option<Vec<(f64, f64)>> {
    let prefix: &[u8] = if shape == Shape::Box { &[1, 3, 0, 0, 0, 1, 0, 0, 0] } else { &[1, 2, 0, 0, 0] };
    let (count, rest) = wkb.strip_prefix(prefix)?.split_first_chunk::<4>()?;
    let (pairs, rest) = rest.as_chunks::<16>();
    if !rest.is_empty() || pairs.len() != usize::try_from(u32::from_le_bytes(*count)).ok()? {
        return None;
    }
    let coordinate = |bytes: &[u8]| Some(f64::from_le_bytes(bytes.try_into().ok()?));
    pairs
        .iter()
        .map(|pair| {
            let (x, y) = pair.split_at(8);
            Some((coordinate(x)?, coordinate(y)?))
        })
        .collect()
}

fn number(json: Option<&RawValue>) -> Option<f64> {
    match json?.get() {
        "\"NaN\"" => Some(f64::NAN),
        "\"Infinity\"" => Some(f64::INFINITY),
        "\"-Infinity\"" => Some(f64::NEG_INFINITY),
        text => text.parse().ok().filter(|value: &f64| value.is_finite()),
    }
}

fn point(x: f64, y: f64) -> String {
    format!("({},{})", float(x), float(y))
}

/// A double with as few digits as tell it from its neighbours, in Postgres' notation: without exponent from 1e-4 up to
/// 1e15.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ (..=-5 | 15..)) => format!("{mantissa}e{exponent:+03}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_objects_become_the_texts_of_their_source() {
        for (shape, json, expected) in [
            (
                Shape::Point,
                r#"{"x":1.5,"y":-2.0,"wkb":"AQEAAAAAAAAAAAD4PwAAAAAAAADA","srid":null}"#,
                "(1.5,-2)",
            ),
            (Shape::Point, r#"{"x":"NaN","y":"Infinity","wkb":null,"srid":null}"#, "(NaN,Infinity)"),
            (Shape::Line, r#"{"a":1.0E100,"b":-1.0E-100,"c":0.0}"#, "{1e+100,-1e-100,0}"),
            (
                Shape::Circle,
                r#"{"center":{"x":1.0,"y":2.0,"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAABA","srid":null},"radius":3.0}"#,
                "<(1,2),3>",
            ),
            (
                Shape::Lseg,
                r#"{"wkb":"AQIAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/AAAAAAAA8D8=","srid":null,"extensions":{"type":"lseg"}}"#,
                "[(0,0),(1,1)]",
            ),
            (
                Shape::Box,
                r#"{"wkb":"AQMAAAABAAAABQAAAAAAAAAAAPA/AAAAAAAA8D8AAAAAAADwPwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA8D8AAAAAAADwPwAAAAAAAPA/","srid":null,"extensions":{"type":"box"}}"#,
                "(1,1),(0,0)",
            ),
            (
                Shape::Path,
                r#"{"wkb":"AQIAAAADAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/AAAAAAAA8D8AAAAAAAAAQAAAAAAAAAAA","srid":null,"extensions":{"type":"path","closed":"false"}}"#,
                "[(0,0),(1,1),(2,0)]",
            ),
            (
                Shape::Path,
                r#"{"wkb":"AQIAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/AAAAAAAA8D8=","srid":null,"extensions":{"type":"path","closed":"true"}}"#,
                "((0,0),(1,1))",
            ),
        ] {
            assert_eq!(text(shape, json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn objects_of_another_shape_are_refused() {
        let lseg = r#"{"wkb":"AQIAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/AAAAAAAA8D8=","srid":null,"extensions":{"type":"lseg"}}"#;
        assert_eq!(text(Shape::Box, lseg), None);
        assert_eq!(text(Shape::Path, lseg), None);
        assert_eq!(text(Shape::Point, lseg), None);
        assert_eq!(text(Shape::Lseg, &lseg.replace("AQIAAAAC", "AQIAAAAD")), None, "too few points");
        assert_eq!(text(Shape::Lseg, &lseg.replace("AQIA", "AQ")), None);
        assert_eq!(text(Shape::Point, "[]"), None);
    }

    #[test]
    fn floats_are_written_as_postgres_writes_them() {
        for (value, expected) in [
            (0.1, "0.1"),
            (-0.0, "-0"),
            (100_000.0, "100000"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (0.0001, "0.0001"),
            (0.000_012, "1.2e-05"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            assert_eq!(float(value), expected);
        }
    }
}
