//! The columns of the table that has every type: how random values are made, and what a copy has to hold.
//!
//! What is expected is SQL, run in the source: its text is compared with the text of the mirror's column, and with that
//! of the lake's cell as [`super::cells`] writes it (dates as days, times as microseconds, arrays as `[a, NULL]`).

use super::setting::Setting;

/// A column of the table.
pub struct Column {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub ddl: &'static str,
    /// An expression that makes a random value.
    random: &'static str,
    /// What has to be there under a setting of the connector.
    pub expected: fn(&Setting, &str) -> Expected,
}

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
fn same(_: &Setting, c: &str) -> Expected {
    both(format!("{c}::text"))
}

fn doubles(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Doubles, ..both(format!("{c}::text")) }
}

fn singles(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Singles, ..both(format!("{c}::text")) }
}

/// As the type itself writes it: a cast to text always adds the length of the network.
fn address(_: &Setting, c: &str) -> Expected {
    both(format!("CASE WHEN {c} IS NOT NULL THEN format('%s', {c}) END"))
}

/// An array whose elements are written as the column type's text.
fn list(c: &str, element: &str) -> String {
    format!(
        "CASE WHEN {c} IS NOT NULL THEN '[' || coalesce((SELECT string_agg(coalesce({element}, 'NULL'), ', ' ORDER BY o) \
         FROM unnest({c}) WITH ORDINALITY u(e, o)), '') || ']' END"
    )
}

fn array(_: &Setting, c: &str) -> Expected {
    apart(list(c, "e::text"), format!("{c}::text"))
}

fn array_of_addresses(_: &Setting, c: &str) -> Expected {
    apart(list(c, "CASE WHEN e IS NOT NULL THEN format('%s', e) END"), format!("{c}::text"))
}

fn array_of_doubles(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Doubles, ..apart(list(c, "e::text"), format!("{c}::text")) }
}

fn decimal(setting: &Setting, c: &str) -> Expected {
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

fn free_decimal(setting: &Setting, c: &str) -> Expected {
    match setting.decimals {
        "precise" => both(format!(
            "CASE WHEN {c}::text NOT IN ('NaN', 'Infinity', '-Infinity') THEN trim_scale({c})::text END"
        )),
        _ => decimal(setting, c),
    }
}

fn money(setting: &Setting, c: &str) -> Expected {
    decimal(setting, &format!("{c}::numeric"))
}

fn array_of_decimals(setting: &Setting, c: &str) -> Expected {
    match setting.decimals {
        "double" => array_of_doubles(setting, &format!("{c}::float8[]")),
        _ => array(setting, c),
    }
}

fn bit(_: &Setting, c: &str) -> Expected {
    both(format!("({c} = B'1')::text"))
}

fn bits(setting: &Setting, c: &str) -> Expected {
    let compare = if setting.source_types || setting.catalog { Compare::Text } else { Compare::Bits };
    Expected { compare, ..both(format!("{c}::text")) }
}

fn bits_of_any_length(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Bits, ..both(format!("{c}::text")) }
}

fn padded(_: &Setting, c: &str) -> Expected {
    both(format!("rpad({c}::text, 8)"))
}

fn bytes(setting: &Setting, c: &str) -> Expected {
    let known = setting.source_types || setting.catalog;
    match setting.binary {
        "hex" if !known => both(format!("encode({c}, 'hex')")),
        "base64" if !known => both(format!("encode({c}, 'base64')")),
        "base64-url-safe" if !known => both(format!("translate(encode({c}, 'base64'), '+/', '-_')")),
        _ => both(format!("{c}::text")),
    }
}

fn array_of_bytes(setting: &Setting, c: &str) -> Expected {
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
fn date(_: &Setting, c: &str) -> Expected {
    let seen = format!(
        "(CASE WHEN id < 1000 AND isfinite({c}) THEN replace({c}::text, ' BC', '')::date ELSE {c} END)"
    );
    apart(
        format!("CASE WHEN isfinite({c}) THEN ({seen} - date '1970-01-01')::text ELSE {c}::text END"),
        format!("{seen}::text"),
    )
}

fn time(setting: &Setting, c: &str) -> Expected {
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

fn timestamp(setting: &Setting, c: &str) -> Expected {
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

fn instant(_: &Setting, c: &str) -> Expected {
    apart(micros(c), format!("{c}::text"))
}

fn micros(c: &str) -> String {
    format!(
        "CASE WHEN isfinite({c}) THEN (extract(epoch FROM {c}) * 1000000)::bigint::text ELSE {c}::text END"
    )
}

fn time_with_zone(setting: &Setting, c: &str) -> Expected {
    match setting.times {
        "structured" => both(format!("{c}::text")),
        _ => apart(
            format!("regexp_replace(({c} AT TIME ZONE 'UTC')::text, '\\+00$', 'Z')"),
            format!("({c} AT TIME ZONE 'UTC')::text"),
        ),
    }
}

fn interval(setting: &Setting, c: &str) -> Expected {
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

fn pairs(setting: &Setting, c: &str) -> Expected {
    let json = format!("hstore_to_json({c})::text");
    if setting.source_types || setting.catalog || setting.pairs == "map" {
        // The datalake lacks the extension and has the JSON, which is compared as such.
        return Expected { compare: Compare::Json, ..apart(json.clone(), json) };
    }
    Expected { compare: Compare::Json, ..both(json) }
}

fn geometric(setting: &Setting, c: &str) -> Expected {
    let compare = if setting.source_types || setting.catalog { Compare::Doubles } else { Compare::Object };
    Expected { compare, ..both(format!("{c}::text")) }
}

fn object(_: &Setting, c: &str) -> Expected {
    Expected { compare: Compare::Object, ..both(format!("{c}::text")) }
}

fn array_of_dates(_: &Setting, c: &str) -> Expected {
    apart(
        list(c, "CASE WHEN isfinite(e) THEN (e - date '1970-01-01')::text ELSE e::text END"),
        format!("{c}::text"),
    )
}

fn array_of_instants(_: &Setting, c: &str) -> Expected {
    apart(list(c, &micros("e")), format!("{c}::text"))
}

fn array_of_times(_: &Setting, c: &str) -> Expected {
    apart(list(c, "(extract(epoch FROM e) * 1000000)::bigint::text"), format!("{c}::text"))
}

macro_rules! columns {
    ($($name:ident: $ddl:literal, $random:literal, $expected:expr;)*) => {
        /// All columns but the key.
        pub const COLUMNS: &[Column] = &[$(Column {
            name: stringify!($name), ddl: $ddl, random: $random, expected: $expected,
        }),*];
    };
}

columns! {
    b: "boolean", "random() < 0.5", same;
    i2: "smallint", "(random() * 65535 - 32768)::int2", same;
    i4: "integer", "(random() * 4294967294 - 2147483647)::int", same;
    i8: "bigint", "(random() * 1e18)::bigint * (CASE WHEN random() < 0.5 THEN -9 ELSE 9 END)", same;
    oid: "oid", "(random() * 4e9)::bigint::oid", same;
    f4: "real", "(random() * 10 ^ (random() * 60 - 30))::real", singles;
    f8: "double precision", "(random() - 0.5) * 10::float8 ^ (random() * 500 - 250)", doubles;
    num: "numeric(20,4)", "round((random() * 1e15 - 5e14)::numeric, 4)", decimal;
    num38: "numeric(38,10)", "round((random() * 1e15)::numeric * 1234567890123 + random()::numeric, 10)", decimal;
    num60: "numeric(60,5)", "round((random() * 1e15)::numeric * 10::numeric ^ 35 + random()::numeric, 5)", decimal;
    num_free: "numeric", "(random() * 1e15)::numeric * 10::numeric ^ (random() * 40 - 20)::int", free_decimal;
    cash: "money", "((random() * 1e6 - 5e5)::numeric)::money", money;
    bit1: "bit(1)", "(random() < 0.5)::int::bit(1)", bit;
    bit20: "bit(20)", "(random() * 1048575)::int::bit(20)", bits;
    varbits: "bit varying", "(random() * 1048575)::int::bit(20)::varbit", bits_of_any_length;
    ch: "char(8)", "substr(md5(random()::text), 1, (random() * 8)::int)", padded;
    vc: "varchar(40)", "md5(random()::text)", same;
    t: "text", "repeat(chr((random() * 50000)::int + 32), (random() * 5)::int) || md5(random()::text)", same;
    ct: "citext", "initcap(md5(random()::text))", same;
    by: "bytea", "decode(md5(random()::text), 'hex')", bytes;
    u: "uuid", "gen_random_uuid()", same;
    j: "json", "format('{\"a\": %s,  \"b\":[null]}', random())::json", same;
    jb: "jsonb", "jsonb_build_object('k', random(), md5(random()::text), NULL)", same;
    x: "xml", "format('<a b=\"%s\"/>', random())::xml", same;
    mood: "mood", "(ARRAY['sad', 'ok', 'it''s, \"fine\"'])[1 + (random() * 2)::int]::mood", same;
    pos: "posint", "1 + (random() * 1e9)::int", same;
    d: "date", "date '1583-01-01' + (random() * 500000)::int", date;
    ti: "time", "time '00:00' + random() * interval '24 hours'", time;
    ti3: "time(3)", "(time '00:00' + random() * interval '23 hours')::time(3)", time;
    tz_time: "timetz", "(time '00:00' + random() * interval '23 hours') AT TIME ZONE make_interval(mins => (random() * 1400 - 700)::int)", time_with_zone;
    ts: "timestamp", "timestamp '1700-01-01' + random() * interval '550 years'", timestamp;
    ts3: "timestamp(3)", "(timestamp '1700-01-01' + random() * interval '550 years')::timestamp(3)", timestamp;
    tz: "timestamptz", "timestamptz '0001-01-01 00:00+00' + random() * interval '9998 years'", instant;
    span: "interval", "make_interval((random() * 20 - 10)::int, (random() * 24 - 12)::int, 0, (random() * 60 - 30)::int, (random() * 48 - 24)::int, 0, (random() * 120 - 60)::int) + round((random() * 1000000))::int * interval '1 microsecond'", interval;
    r4: "int4range", "int4range((random() * 100)::int, 100 + (random() * 100)::int, '[]')", same;
    r8: "int8range", "int8range(NULL, (random() * 1e15)::bigint)", same;
    rn: "numrange", "numrange(random()::numeric, 1 + random()::numeric, '(]')", same;
    rts: "tsrange", "tsrange(timestamp '2000-01-01' + random() * interval '9 years', NULL)", same;
    rtz: "tstzrange", "tstzrange(timestamptz '2000-01-01' + random() * interval '9 years', 'infinity')", same;
    rd: "daterange", "daterange(date '2000-01-01' + (random() * 1000)::int, 'infinity')", same;
    h: "hstore", "hstore(ARRAY['a', md5(random()::text), 'q\"u'], ARRAY[random()::text, NULL, 'b\\c, =>'])", pairs;
    lt: "ltree", "('Top.' || md5(random()::text))::ltree", same;
    ip: "inet", "('10.0.0.0'::inet + (random() * 16777215)::int)", address;
    net: "cidr", "set_masklen(('10.0.0.0'::cidr + ((random() * 255)::int * 65536)), 16)::cidr", same;
    mac: "macaddr", "substr(md5(random()::text), 1, 12)::macaddr", same;
    mac8: "macaddr8", "substr(md5(random()::text), 1, 16)::macaddr8", same;
    words: "tsvector", "to_tsvector('simple', md5(random()::text) || ' it''s a ' || random())", same;
    p: "point", "point(random() * 1e6 - 5e5, random() * 10::float8 ^ (random() * 60 - 30))", doubles;
    ln: "line", "line(point(random(), random()), point(2 + random(), 3 + random()))", doubles;
    seg: "lseg", "lseg(point(random(), random()), point(random(), 1e20 * random()))", geometric;
    bx: "box", "box(point(random(), random()), point(random(), random()))", geometric;
    pa: "path", "format('%s(%s,%s),(%s,7)%s', CASE WHEN id % 2 = 0 THEN '(' ELSE '[' END, random(), random(), random(), CASE WHEN id % 2 = 0 THEN ')' ELSE ']' END)::path", geometric;
    pg: "polygon", "polygon(box(point(random(), random()), point(random(), random())))", object;
    ci: "circle", "circle(point(random(), random()), random() * 100)", doubles;
    a_b: "boolean[]", "ARRAY[random() < 0.5, NULL]", array;
    a_i4: "integer[]", "ARRAY[(random() * 1000)::int, NULL, -1]", array;
    a_i8: "bigint[]", "ARRAY[(random() * 1e18)::bigint]", array;
    a_f8: "double precision[]", "ARRAY[random() * 1e30, NULL, 'NaN', '-Infinity']", array_of_doubles;
    a_n: "numeric(10,2)[]", "ARRAY[round(random()::numeric * 1000, 2), NULL]", array_of_decimals;
    a_t: "text[]", "ARRAY[md5(random()::text), NULL, 'NULL', '', 'a,\"b\\']", array;
    a_u: "uuid[]", "ARRAY[gen_random_uuid(), NULL]", array;
    a_jb: "jsonb[]", "ARRAY[jsonb_build_object('k', random()), NULL]", array;
    a_by: "bytea[]", "ARRAY[decode(md5(random()::text), 'hex'), NULL]", array_of_bytes;
    a_d: "date[]", "ARRAY[date '1583-01-01' + (random() * 500000)::int, NULL, 'infinity']", array_of_dates;
    a_ti: "time[]", "ARRAY[date_trunc('milliseconds', random() * interval '23 hours')::time, NULL]", array_of_times;
    a_ts: "timestamp[]", "ARRAY[date_trunc('milliseconds', timestamp '1700-01-01' + random() * interval '550 years'), NULL, 'infinity', '-infinity']", array_of_instants;
    a_tz: "timestamptz[]", "ARRAY[timestamptz '1700-01-01' + random() * interval '550 years', NULL, 'infinity', '-infinity']", array_of_instants;
    a_ip: "inet[]", "ARRAY['10.0.0.1/8'::inet, NULL]", array_of_addresses;
    a_r4: "int4range[]", "ARRAY[int4range(1, 2 + (random() * 100)::int), NULL]", array;
}

/// The statement that makes `count` random rows behind `base`.
pub fn random_rows(base: i64, count: u64) -> String {
    let values: Vec<String> = COLUMNS
        .iter()
        .map(|column| format!("CASE WHEN random() < 0.15 THEN NULL ELSE ({}) END", column.random))
        .collect();
    let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    format!(
        "INSERT INTO public.every_type (id, {}) SELECT id, {} FROM generate_series({base} + 100, {base} + 99 + {count}) id",
        names.join(", "),
        values.join(", ")
    )
}

/// The statement that makes the table.
pub fn create() -> String {
    let columns: Vec<String> =
        COLUMNS.iter().map(|column| format!("{} {}", column.name, column.ddl)).collect();
    format!(
        "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
         CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s, \"fine\"');
         CREATE DOMAIN posint AS integer CHECK (VALUE > 0);
         CREATE TABLE public.every_type (id bigint PRIMARY KEY, {});",
        columns.join(", ")
    )
}

/// Rows at the edges of their types, behind `base`.
pub fn edges(base: i64) -> String {
    EDGES.replace("BASE", &base.to_string())
}

const EDGES: &str = r#"
INSERT INTO public.every_type (id, b, i2, i4, i8, oid, f4, f8, num, num38, num60, num_free, cash, bit1, bit20, varbits, ch, vc, t, by, u, j, jb, d, ti, ti3, tz_time, ts, ts3, tz, span, h, p, a_i4, a_t, a_d)
VALUES (BASE + 1, true, -32768, -2147483648, -9223372036854775808, 4294967295, '-3.4028235e38', '-1.7976931348623157e308', '-9999999999999999.9999',
 '-9999999999999999999999999999.9999999999', '-1e54', '-1e100', '-92233720368547758.08', B'1', B'00000000000000000001', B'0010', 'ab', '', E'日本 "q" \\ \u0001',
 '\x00ff10', '00000000-0000-0000-0000-000000000000', 'null', 'null', '0001-01-01', '24:00:00', '24:00:00', '24:00:00-15:59', '0001-01-01', '0001-01-01', '0001-01-01 00:00+00',
 '-1 day +00:00:00.000001', '', '(NaN,Infinity)', '{}', '{}', '{}');
INSERT INTO public.every_type (id, i8, f4, f8, num, num60, num_free, ch, d, ti, ts, ts3, tz, tz_time, span, rts, rd, varbits, h, pa, bx)
VALUES (BASE + 2, 9223372036854775807, 'Infinity', 'NaN', 'NaN', 'NaN', 'NaN', '', 'infinity', '23:59:59.999999', 'infinity', 'infinity', 'infinity', '00:00:00.000001+15:59',
 '1 mon -1 day +100000:00:00.000009', '(-infinity,infinity)', 'empty', '', 'a=>"",b=>NULL', '((0,0))', '(Infinity,1),(-Infinity,0)');
INSERT INTO public.every_type (id, f4, f8, num_free, d, ts, ts3, tz, span, p)
VALUES (BASE + 3, '-Infinity', '-0', '-Infinity', '-infinity', '-infinity', '-infinity', '-infinity', '-1 year -2 mons +3 days -04:05:06.789', '(1e15,0.0001)');
INSERT INTO public.every_type (id, f4, f8, num_free, d, ts, ts3, tz, span, num)
VALUES (BASE + 4, '1e-45', '5e-324', '1000.00', '0044-03-15 BC', '0044-03-15 12:00:00.5 BC', '0044-03-15 12:00:00.5 BC', '0044-03-15 12:00:00.5+00 BC', '00:00:00.5', '0.0001');
INSERT INTO public.every_type (id, d, ts, ts3, tz, num_free)
VALUES (BASE + 5, '5874897-12-31', '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999', '1969-12-31 23:59:59.999999+00', '0');
INSERT INTO public.every_type (id, d, ts, tz, tz_time, ti)
VALUES (BASE + 6, '1500-02-28', '1582-10-04 23:59:59.123456', '4714-11-24 00:00:00+00 BC', '12:34:56.789012+02', '12:00');
INSERT INTO public.every_type (id) VALUES (BASE + 7);
"#;
