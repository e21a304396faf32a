//! What a copy has to hold of a column, under a setting of the connector.
//!
//! What is expected is SQL, run in the source: its text is compared with the text of the mirror's column, and with that
//! of the lake's cell as [`super::cells`] writes it (dates as days, times as microseconds, arrays as `[a, NULL]`).

use super::setting::Setting;

/// What the copies of a column hold, as SQL over the source's column.
pub struct Expected {
    /// In the lake.
    pub lake: String,
    /// In the mirrors.
    pub mirror: String,
    /// How the texts are compared.
    pub compare: Compare,
}

/// How two texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// They are the same.
    Text,
    /// They are the same but for numbers, which are the same doubles.
    Doubles,
    /// They are the same singles.
    Singles,
    /// They are numbers of microseconds, at most one apart.
    Near,
    /// They are the same spans, to the microsecond.
    Spans,
    /// They are the same JSON.
    Json,
    /// The copy is the base64 of these bits, the lowest byte first.
    Bits,
    /// The copy is an object with well-known binary.
    Object,
}

fn both(sql: String) -> Expected {
    Expected { lake: sql.clone(), mirror: sql, compare: Compare::Text }
}

fn apart(lake: String, mirror: String) -> Expected {
    Expected { lake, mirror, compare: Compare::Text }
}

/// The text of the value itself.
pub fn same(_: &Setting, c: &str) -> Expected {
    both(format!("{c}::text"))
}

pub fn doubles(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Doubles, ..both(format!("{c}::text")) }
}

pub fn singles(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Singles, ..both(format!("{c}::text")) }
}

/// As the type itself writes it: a cast to text always adds the length of the network.
pub fn address(_: &Setting, c: &str) -> Expected {
    both(format!("CASE WHEN {c} IS NOT NULL THEN format('%s', {c}) END"))
}

/// An array whose elements are written as the column type's text.
fn list(c: &str, element: &str) -> String {
    format!(
        "CASE WHEN {c} IS NOT NULL THEN '[' || coalesce((SELECT string_agg(coalesce({element}, 'NULL'), ', ' ORDER BY o) \
         FROM unnest({c}) WITH ORDINALITY u(e, o)), '') || ']' END"
    )
}

pub fn array(_: &Setting, c: &str) -> Expected {
    apart(list(c, "e::text"), format!("{c}::text"))
}

pub fn array_of_addresses(_: &Setting, c: &str) -> Expected {
    apart(list(c, "CASE WHEN e IS NOT NULL THEN format('%s', e) END"), format!("{c}::text"))
}

pub fn array_of_doubles(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Doubles, ..apart(list(c, "e::text"), format!("{c}::text")) }
}

pub fn decimal(setting: &Setting, c: &str) -> Expected {
    match setting.decimals {
        "double" => Expected { compare: Compare::Doubles, ..both(format!("{c}::float8::text")) },
        "string" if setting.source_types => both(format!("{c}::text")),
        "string" => both(format!(
            "CASE {c}::text WHEN 'NaN' THEN 'NAN' WHEN 'Infinity' THEN 'POSITIVE_INFINITY' \
             WHEN '-Infinity' THEN 'NEGATIVE_INFINITY' ELSE {c}::text END"
        )),
        _ => both(format!("CASE WHEN {c}::text NOT IN ('NaN', 'Infinity', '-Infinity') THEN {c}::text END")),
    }
}

pub fn free_decimal(setting: &Setting, c: &str) -> Expected {
    match setting.decimals {
        "precise" => both(format!(
            "CASE WHEN {c}::text NOT IN ('NaN', 'Infinity', '-Infinity') THEN trim_scale({c})::text END"
        )),
        _ => decimal(setting, c),
    }
}

/// The connector names the domain, and not what it is made of.
pub fn decimal_of_a_domain(setting: &Setting, c: &str) -> Expected {
    decimal(&Setting { source_types: false, ..*setting }, c)
}

pub fn money(setting: &Setting, c: &str) -> Expected {
    decimal(setting, &format!("{c}::numeric"))
}

pub fn array_of_decimals(setting: &Setting, c: &str) -> Expected {
    match setting.decimals {
        "double" => array_of_doubles(setting, &format!("{c}::float8[]")),
        _ => array(setting, c),
    }
}

pub fn bit(_: &Setting, c: &str) -> Expected {
    both(format!("({c} = B'1')::text"))
}

pub fn bits(setting: &Setting, c: &str) -> Expected {
    let compare = if setting.source_types || setting.catalog { Compare::Text } else { Compare::Bits };
    Expected { compare, ..both(format!("{c}::text")) }
}

pub fn bits_of_any_length(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Bits, ..both(format!("{c}::text")) }
}

pub fn padded(_: &Setting, c: &str) -> Expected {
    both(format!("rpad({c}::text, 8)"))
}

pub fn bytes(setting: &Setting, c: &str) -> Expected {
    let known = setting.source_types || setting.catalog;
    match setting.binary {
        "hex" if !known => both(format!("encode({c}, 'hex')")),
        "base64" if !known => both(format!("encode({c}, 'base64')")),
        "base64-url-safe" if !known => both(format!("translate(encode({c}, 'base64'), '+/', '-_')")),
        _ => both(format!("{c}::text")),
    }
}

pub fn array_of_bytes(setting: &Setting, c: &str) -> Expected {
    let known = setting.source_types || setting.catalog;
    match setting.binary {
        _ if known => array(setting, c),
        "bytes" => array(setting, c),
        "hex" => {
            let elements = format!(
                "(SELECT array_agg(encode(e, 'hex') ORDER BY o) FROM unnest({c}) WITH ORDINALITY u(e, o))"
            );
            apart(
                list(c, "encode(e, 'hex')"),
                format!("CASE WHEN {c} = '{{}}' THEN '{{}}' ELSE {elements}::text END"),
            )
        }
        mode => {
            let encoded = if mode == "base64" {
                "encode(e, 'base64')"
            } else {
                "translate(encode(e, 'base64'), '+/', '-_')"
            };
            let elements =
                format!("(SELECT array_agg({encoded} ORDER BY o) FROM unnest({c}) WITH ORDINALITY u(e, o))");
            apart(list(c, encoded), format!("CASE WHEN {c} = '{{}}' THEN '{{}}' ELSE {elements}::text END"))
        }
    }
}

/// Days since 1970, and what a snapshot makes of a year BC: the same year AD.
pub fn date(_: &Setting, c: &str) -> Expected {
    let seen = format!(
        "(CASE WHEN id < 1000 AND isfinite({c}) THEN replace({c}::text, ' BC', '')::date ELSE {c} END)"
    );
    apart(
        format!("CASE WHEN isfinite({c}) THEN ({seen} - date '1970-01-01')::text ELSE {c}::text END"),
        format!("{seen}::text"),
    )
}

pub fn time(setting: &Setting, c: &str) -> Expected {
    let seen = match setting.times {
        "isostring" => format!("(CASE WHEN {c} = '24:00' THEN '00:00' ELSE {c} END)"),
        "structured" => format!("nullif({c}, '24:00')"),
        "connect" => format!(
            "(CASE WHEN {c} = '24:00' THEN {c} ELSE date_trunc('milliseconds', {c}::interval)::time END)"
        ),
        _ => c.to_owned(),
    };
    apart(format!("(extract(epoch FROM {seen}) * 1000000)::bigint::text"), format!("{seen}::text"))
}

pub fn timestamp(setting: &Setting, c: &str) -> Expected {
    let seen = match setting.times {
        "connect" => format!(
            "(CASE WHEN isfinite({c}) THEN timestamp '1970-01-01' + make_interval(secs => 0) + \
             (floor(extract(epoch FROM {c}) * 1000) * interval '1 millisecond') ELSE {c} END)"
        ),
        "nanoseconds" => format!(
            "(CASE WHEN NOT isfinite({c}) OR {c} BETWEEN '1677-09-21 00:12:44' AND '2262-04-11 23:47:16' THEN {c} END)"
        ),
        _ => c.to_owned(),
    };
    apart(micros(&seen), format!("{seen}::text"))
}

pub fn instant(_: &Setting, c: &str) -> Expected {
    apart(micros(c), format!("{c}::text"))
}

fn micros(c: &str) -> String {
    format!(
        "CASE WHEN isfinite({c}) THEN (extract(epoch FROM {c}) * 1000000)::bigint::text ELSE {c}::text END"
    )
}

pub fn time_with_zone(setting: &Setting, c: &str) -> Expected {
    match setting.times {
        "structured" => both(format!("{c}::text")),
        _ => apart(
            format!("regexp_replace(({c} AT TIME ZONE 'UTC')::text, '\\+00$', 'Z')"),
            format!("({c} AT TIME ZONE 'UTC')::text"),
        ),
    }
}

pub fn interval(setting: &Setting, c: &str) -> Expected {
    let micros = format!(
        "(((extract(year FROM {c}) * 12 + extract(month FROM {c})) * 2629800000000 + extract(day FROM {c}) * 86400000000 \
         + extract(hour FROM {c}) * 3600000000 + extract(minute FROM {c}) * 60000000 + extract(second FROM {c}) * 1000000)::bigint)"
    );
    let text = format!(
        "format('P%sY%sM%sDT%sH%sM%sS', extract(year FROM {c}), extract(month FROM {c}), extract(day FROM {c}), \
         extract(hour FROM {c}), extract(minute FROM {c}), trim_scale(extract(second FROM {c})))"
    );
    let text = format!("CASE WHEN {c} IS NOT NULL THEN {text} END");
    match setting.intervals {
        "string" => Expected { compare: Compare::Spans, ..apart(text, format!("{c}::text")) },
        // Debezium counts the seconds as a double.
        _ => Expected { compare: Compare::Near, ..both(format!("{micros}::text")) },
    }
}

pub fn pairs(setting: &Setting, c: &str) -> Expected {
    let json = format!("hstore_to_json({c})::text");
    if setting.source_types || setting.catalog || setting.pairs == "map" {
        // The datalake lacks the extension and has the JSON, which is compared as such.
        return Expected { compare: Compare::Json, ..apart(json.clone(), json) };
    }
    Expected { compare: Compare::Json, ..both(json) }
}

pub fn geometric(setting: &Setting, c: &str) -> Expected {
    let compare = if setting.source_types || setting.catalog { Compare::Doubles } else { Compare::Object };
    Expected { compare, ..both(format!("{c}::text")) }
}

pub fn object(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Object, ..both(format!("{c}::text")) }
}

pub fn array_of_dates(_: &Setting, c: &str) -> Expected {
    apart(
        list(c, "CASE WHEN isfinite(e) THEN (e - date '1970-01-01')::text ELSE e::text END"),
        format!("{c}::text"),
    )
}

pub fn array_of_instants(_: &Setting, c: &str) -> Expected {
    apart(list(c, &micros("e")), format!("{c}::text"))
}

pub fn array_of_times(_: &Setting, c: &str) -> Expected {
    apart(list(c, "(extract(epoch FROM e) * 1000000)::bigint::text"), format!("{c}::text"))
}

/// The bytes of the text that Postgres has for the value, in the form that the connector gives to bytes.
pub fn text_in_bytes(setting: &Setting, c: &str) -> Expected {
    let unnamed = Setting { source_types: false, ..*setting };
    bytes(&unnamed, &format!("convert_to({c}::text, 'UTF8')"))
}

/// The text itself, where the connector says whose it is, and sends bytes.
pub fn text_in_bytes_unless_named(setting: &Setting, c: &str) -> Expected {
    let is_named = setting.source_types && setting.binary == "bytes";
    if is_named { same(setting, c) } else { text_in_bytes(setting, c) }
}

pub fn array_of_texts_in_bytes(setting: &Setting, c: &str) -> Expected {
    let unnamed = Setting { source_types: false, ..*setting };
    // Unnested as it is, a composite type would come apart.
    let elements = format!(
        "(SELECT array_agg(convert_to(e, 'UTF8') ORDER BY o) FROM unnest({c}::text[]) WITH ORDINALITY w(e, o))"
    );
    array_of_bytes(&unnamed, &elements)
}
