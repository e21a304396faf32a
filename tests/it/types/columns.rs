//! The columns of the table that has every type, how random values of them are made, and the values at their edges.
//!
//! The values are made by the source itself, so that they are none that Postgres would not hold.

use super::expected::{
    Expected, address, array, array_of_addresses, array_of_bytes, array_of_dates, array_of_decimals,
    array_of_doubles, array_of_instants, array_of_texts_in_bytes, array_of_times, bit, bits,
    bits_of_any_length, bytes, date, decimal, decimal_of_a_domain, doubles, free_decimal, geometric, instant,
    interval, money, object, padded, pairs, same, singles, text_in_bytes, text_in_bytes_unless_named, time,
    time_with_zone, timestamp,
};
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

macro_rules! columns {
    ($(#[$about:meta])* $list:ident: $($name:ident: $ddl:literal, $random:literal, $expected:expr;)*) => {
        $(#[$about])*
        pub const $list: &[Column] = &[$(Column {
            name: stringify!($name), ddl: $ddl, random: $random, expected: $expected,
        }),*];
    };
}

columns! {
    /// All columns but the key that are sent whatever the connector's settings are.
    COLUMNS:
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
    bk: "isbn", "('0' || lpad((random() * 99999999)::int::text, 8, '0') || '?')::isbn", same;
    d_bk: "book", "('0' || lpad((random() * 99999999)::int::text, 8, '0') || '?')::isbn", same;
    d_ct: "email", "initcap(md5(random()::text)) || '@example.org'", same;
    d_lt: "branch", "('Top.' || md5(random()::text))::ltree", same;
    d_n: "price", "round((random() * 1e9 - 5e8)::numeric, 2)", decimal_of_a_domain;
    d_nn: "list_price", "round((random() * 1e9)::numeric, 2)", decimal_of_a_domain;
    d_d: "day", "date '1583-01-01' + (random() * 500000)::int", date;
    d_tz: "moment", "timestamptz '1700-01-01 00:00+00' + random() * interval '550 years'", instant;
    d_jb: "doc", "jsonb_build_object('k', random())", same;
    d_r4: "stretch", "int4range((random() * 100)::int, 100 + (random() * 100)::int)", same;
    d_ip: "peer", "('10.0.0.0'::inet + (random() * 16777215)::int)", address;
    d_u: "uid", "gen_random_uuid()", same;
    d_a: "numbers", "ARRAY[(random() * 1000)::int, NULL]", array;
    a_ct: "citext[]", "ARRAY[initcap(md5(random()::text))::citext, NULL]", array;
    a_lt: "ltree[]", "ARRAY[('Top.' || md5(random()::text))::ltree]", array;
    a_bk: "isbn[]", "ARRAY[('0' || lpad((random() * 99999999)::int::text, 8, '0') || '?')::isbn]", array;
}

columns! {
    /// Columns of types that the connector does not know: it sends them with `include.unknown.datatypes` only.
    UNKNOWN:
    co: "pair", "ROW((random() * 100)::int, CASE WHEN random() < 0.3 THEN NULL ELSE 'it''s \"' || random() END)::pair", text_in_bytes;
    d_co: "checked_pair", "ROW(1, md5(random()::text))::pair", text_in_bytes;
    a_co: "pair[]", "ARRAY[ROW((random() * 100)::int, 'a,b')::pair]", array_of_texts_in_bytes;
    bk13: "isbn13", "('978' || lpad((random() * 999999999)::int::text, 9, '0') || '?')::isbn13", text_in_bytes_unless_named;
    ean: "ean13", "('400' || lpad((random() * 999999999)::int::text, 9, '0') || '?')::ean13", text_in_bytes_unless_named;
    lq: "lquery", "('*.' || md5(random()::text))::lquery", text_in_bytes_unless_named;
    cu: "cube", "cube(ARRAY[random(), random()])", text_in_bytes_unless_named;
    mr: "int4multirange", "int4multirange(int4range(1, 5), int4range(10, 11 + (random() * 9)::int))", text_in_bytes_unless_named;
    tq: "tsquery", "to_tsquery('simple', md5(random()::text) || ' & it')", text_in_bytes_unless_named;
    pl: "pg_lsn", "'0/0'::pg_lsn + (random() * 1e15)::bigint", text_in_bytes_unless_named;
}

fn all() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().chain(UNKNOWN)
}

/// The columns that a connector sends.
pub fn sent(setting: &Setting) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().chain(UNKNOWN.iter().filter(|_| setting.unknown))
}

/// The statement that makes `count` random rows behind `base`.
pub fn random_rows(base: i64, count: u64) -> String {
    let values: Vec<String> = all()
        .map(|column| format!("CASE WHEN random() < 0.15 THEN NULL ELSE ({}) END", column.random))
        .collect();
    let names: Vec<&str> = all().map(|column| column.name).collect();
    format!(
        "INSERT INTO public.every_type (id, {}) SELECT id, {} FROM generate_series({base} + 100, {base} + 99 + {count}) id",
        names.join(", "),
        values.join(", ")
    )
}

/// Makes the extensions whose types the table has.
pub const EXTENSIONS: &str = "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION isn; CREATE EXTENSION cube";

/// The statement that makes the table. Nothing of its rows is stored out of line: of most types the connector would send
/// null for what an update leaves there.
pub fn create() -> String {
    let columns: Vec<String> = all().map(|column| format!("{} {}", column.name, column.ddl)).collect();
    format!(
        "{EXTENSIONS};
         CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s, \"fine\"');
         CREATE DOMAIN posint AS integer CHECK (VALUE > 0);
         CREATE DOMAIN book AS isbn; CREATE DOMAIN email AS citext CHECK (VALUE LIKE '%@%'); CREATE DOMAIN branch AS ltree;
         CREATE DOMAIN price AS numeric(12,2); CREATE DOMAIN list_price AS price CHECK (VALUE >= 0); CREATE DOMAIN day AS date;
         CREATE DOMAIN moment AS timestamptz; CREATE DOMAIN doc AS jsonb; CREATE DOMAIN stretch AS int4range;
         CREATE DOMAIN peer AS inet; CREATE DOMAIN uid AS uuid; CREATE DOMAIN numbers AS integer[];
         CREATE TYPE pair AS (a integer, b text); CREATE DOMAIN checked_pair AS pair CHECK ((VALUE).a = 1);
         CREATE TABLE public.every_type (id bigint PRIMARY KEY, {}) WITH (toast_tuple_target = 8160);",
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
INSERT INTO public.every_type (id, bk, d_bk, ean, d_ct, a_ct, a_bk, co)
VALUES (BASE + 8, '0-393-04002-0!', '0-393-04002-X', '400-638133393-0!', 'A@b', '{}', '{}', '(,)');
"#;
