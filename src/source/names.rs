//! From a type of the source's catalog to the name that the settings would give it.
//!
//! The name says the meaning *and* how the connector writes it, so the connector's settings go in: a number of time does
//! not say its unit, nor a decimal whether it is base64. Everything else is told by its form.

use crate::debezium::{Binary, Decimals, Modes, Times};
use crate::mirror::{TargetType, oid};

/// Types whose values come as objects or arrays, so that an array of them is no array of texts.
const COMES_AS_OBJECT: [&str; 6] = ["geometry", "geography", "polygon", "vector", "halfvec", "sparsevec"];

/// The name of a type in the settings.
pub(super) fn of(found: &TargetType, modes: Modes) -> String {
    if let Some(element) = found.element() {
        if COMES_AS_OBJECT.contains(&element.bare_name()) {
            return "text".to_owned();
        }
        return format!("{}[]", of(&element, modes));
    }
    let fixed = match found.oid {
        oid::BOOL => "boolean",
        // Debezium makes a boolean of one bit, even of one that may be missing.
        oid::BIT | oid::VARBIT if found.modifier == 1 => "boolean",
        oid::BIT if found.modifier > 1 => return format!("bit({})", found.modifier),
        oid::INT2 => "int16",
        oid::INT4 => "int32",
        oid::INT8 | oid::OID => "int64",
        oid::FLOAT4 => "float32",
        oid::FLOAT8 => "float64",
        oid::NUMERIC => return decimal(found.precision_and_scale(), modes),
        // The digits of cents, in a type that holds more of them than a decimal.
        oid::MONEY => return decimal(Some((39, 2)), modes),
        oid::UUID => "uuid",
        oid::JSON => "json",
        oid::JSONB => "jsonb",
        oid::BYTEA => match modes.binary {
            Binary::Bytes | Binary::Base64 => "bytes",
            Binary::Base64UrlSafe => "bytes_base64url",
            Binary::Hex => "bytes_hex",
        },
        oid::DATE => "date",
        oid::TIME => return time("time", found, modes),
        oid::TIMESTAMP => return time("timestamp", found, modes),
        oid::TIMESTAMPTZ => "timestamptz",
        oid::TIMETZ => "timetz",
        oid::INTERVAL => "interval",
        oid::POINT => "point",
        oid::LINE => "line",
        oid::LSEG => "lseg",
        oid::BOX => "box",
        oid::PATH => "path",
        oid::CIRCLE => "circle",
        _ => return of_text(found.bare_name()).to_owned(),
    };
    fixed.to_owned()
}

/// Types that are carried as text, and those of extensions.
fn of_text(name: &str) -> &str {
    match name {
        "inet" | "cidr" | "macaddr" | "macaddr8" | "int4range" | "int8range" | "numrange" | "tsrange"
        | "tstzrange" | "daterange" | "xml" | "tsvector" | "ltree" | "citext" | "hstore" | "vector"
        | "halfvec" => name,
        _ => "text",
    }
}

fn decimal(digits: Option<(i32, i32)>, modes: Modes) -> String {
    match (digits, modes.decimal) {
        (_, Decimals::Double) => "float64".to_owned(),
        // Text may be NaN, which no decimal is.
        (None, _) | (_, Decimals::String) => "numeric".to_owned(),
        (Some((precision, scale)), Decimals::Precise) => format!("decimal({precision},{scale})"),
    }
}

fn time(name: &str, found: &TargetType, modes: Modes) -> String {
    let short = found.digits().is_some_and(|digits| digits <= 3);
    let unit = match modes.time {
        Times::Connect => "_ms",
        Times::Nanoseconds => "_ns",
        Times::Adaptive if short => "_ms",
        Times::AdaptiveTimeMicroseconds if short && name == "timestamp" => "_ms",
        _ => "",
    };
    format!("{name}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debezium::ConfiguredType;

    fn found(oid: u32, modifier: i32, name: &str) -> TargetType {
        TargetType { oid, modifier, name: name.to_owned(), element: None }
    }

    fn numeric(precision: i32, scale: i32) -> TargetType {
        found(oid::NUMERIC, ((precision << 16) | (scale & 0x7ff)) + 4, "numeric")
    }

    #[test]
    fn every_name_is_one_that_the_settings_know() {
        let modes = [
            Modes::default(),
            Modes { decimal: Decimals::Double, time: Times::Connect, binary: Binary::Hex },
            Modes { decimal: Decimals::String, time: Times::Nanoseconds, binary: Binary::Base64UrlSafe },
        ];
        let types = (1..4000).map(|oid| found(oid, -1, "public.something"));
        let sized = [
            found(oid::BIT, 1, "bit"),
            found(oid::BIT, 8, "bit"),
            numeric(10, 2),
            numeric(60, 5),
            numeric(5, -2),
            numeric(3, 5),
        ];
        for found in types.chain(sized) {
            for modes in modes {
                let name = of(&found, modes);
                assert!(name.parse::<ConfiguredType>().is_ok(), "{name} of {found:?}");
            }
        }
    }

    #[test]
    fn arrays_of_objects_are_the_json_of_the_whole() {
        for name in ["gis.geometry", "vector", "sparsevec"] {
            let mut array = found(16_400, -1, "public.something[]");
            array.element = Some((16_399, name.to_owned()));
            assert_eq!(of(&array, Modes::default()), "text", "{name}");
        }
    }

    #[test]
    fn times_have_the_unit_that_the_setting_gives_them() {
        let stamp = |digits| found(oid::TIMESTAMP, digits, "timestamp without time zone");
        let day = |digits| found(oid::TIME, digits, "time without time zone");
        let of = |found: TargetType, time| of(&found, Modes { time, ..Modes::default() });
        assert_eq!(of(stamp(3), Times::Adaptive), "timestamp_ms");
        assert_eq!(of(stamp(-1), Times::Adaptive), "timestamp");
        assert_eq!(of(day(0), Times::Adaptive), "time_ms");
        assert_eq!(of(day(0), Times::AdaptiveTimeMicroseconds), "time");
        assert_eq!(of(stamp(6), Times::Connect), "timestamp_ms");
        assert_eq!(of(day(3), Times::Nanoseconds), "time_ns");
        assert_eq!(of(stamp(3), Times::Isostring), "timestamp");
    }

    #[test]
    fn arrays_and_decimals_keep_what_the_catalog_says() {
        let mut array = numeric(10, 2);
        array.element = Some((oid::NUMERIC, "numeric".to_owned()));
        assert_eq!(of(&array, Modes::default()), "decimal(10,2)[]");
        assert_eq!(of(&numeric(5, -2), Modes::default()), "decimal(5,-2)");
        let text = Modes { decimal: Decimals::String, ..Modes::default() };
        assert_eq!(of(&numeric(5, 2), text), "numeric");
    }
}
