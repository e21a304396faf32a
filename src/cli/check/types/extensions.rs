//! Types of extensions, domains and composite types: whole events of a real Debezium, as every sink takes them.
//!
//! The extensions are not part of the stack that tests run on, so their events were recorded (`tests/captures`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;

use super::*;
use crate::change::ChangeBatch;

const EXTENSIONS: &str = include_str!("../../../../tests/captures/extensions.jsonl");

#[derive(Deserialize)]
struct Event {
    topic: String,
    offset: i64,
    key: String,
    value: String,
}

/// The changes of a topic's records, with these types where the events do not say any.
fn changes(topic: &str, types: &[(&str, &str)]) -> ChangeBatch {
    let table = topic.split_once('.').unwrap().1;
    let types = types.iter().map(|(name, type_name)| ((*name).to_owned(), type_name.parse().unwrap()));
    let types = HashMap::from([(table.to_owned(), types.collect())]);
    let mut decoder = Decoder::new(DecoderOptions { types, ..DecoderOptions::default() }, |_: &_| None);
    decoder.begin_partition(TopicPartition::new(topic, 0), 0);
    let mut found = 0;
    for line in EXTENSIONS.lines() {
        let event: Event = serde_json::from_str(line).unwrap();
        if event.topic != topic {
            continue;
        }
        let topic: Arc<str> = topic.into();
        let record = record(&topic, event.offset, &event.key, &event.value);
        decoder.push(record, &TopicIdentity::unknown()).unwrap_or_else(|error| panic!("{error}"));
        found += 1;
    }
    assert!(found > 0, "no record of {topic}");
    let mut batch = decoder.finish().unwrap();
    assert_eq!(batch.changes.len(), 1, "one schema");
    batch.changes.remove(0)
}

/// The cell of the row with that `id`.
fn cell(changes: &ChangeBatch, id: i64, column: &str) -> String {
    let of = |name: &str| changes.rows.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    let text = |array: &ArrayRef, row: usize| {
        if array.is_null(row) { "NULL".to_owned() } else { array_value_to_string(array, row).unwrap() }
    };
    let rows = 0..changes.len();
    let row = rows.rev().find(|&row| text(of("id"), row) == id.to_string()).expect("a row");
    text(of(column), row)
}

/// Delta's type and the mirror's, and the value of the row with that `id`.
fn seen(changes: &ChangeBatch, id: i64, column: &str) -> [String; 3] {
    let index = changes.schema.index_of(column).unwrap_or_else(|| panic!("no column {column}"));
    let column_type = &changes.schema.columns().get(index).unwrap().column_type;
    [lake::delta_type(column_type), mirror::created_type(column_type), cell(changes, id, column)]
}

fn assert_seen(changes: &ChangeBatch, id: i64, expected: &[(&str, [&str; 3])]) {
    let wrong: Vec<String> = expected
        .iter()
        .map(|(column, expected)| (column, expected, seen(changes, id, column)))
        .filter(|(_, expected, seen)| **expected != *seen)
        .map(|(column, expected, seen)| format!("{column}: expected {expected:?}, found {seen:?}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const POINT: &str = r#"{"wkb":"AQEAACDmEAAAAAAAAAAA+D8AAAAAAAAAwA==","srid":4326,"extensions":null}"#;
const GEOGRAPHY: &str = r#"{"wkb":"AQEAACDmEAAAzczMzMzMKkAAAAAAAEBKQA==","srid":4326}"#;

#[test]
fn shapes_of_postgis_are_their_json_in_the_lake_and_themselves_in_a_mirror_that_is_told() {
    let named = changes("named.public.shapes", &[]);
    let array = r#"[{"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAPA/","srid":null,"extensions":null},null]"#;
    let domain = r#"{"wkb":"AQEAACDmEAAAAAAAAAAAHEAAAAAAAAAcQA==","srid":4326,"extensions":null}"#;
    assert_seen(
        &named,
        1001,
        &[
            ("gp", ["string", "geometry", POINT]),
            ("geogp", ["string", "geography", GEOGRAPHY]),
            ("gd", ["string", "text", domain]),
            ("ga", ["string", "text", array]),
        ],
    );
    // Without the source's type: geographies have a name of their own, geometries have that of polygons.
    let plain = changes("plain.public.shapes", &[]);
    let point = r#"{"wkb":"AQEAACDmEAAAzczMzMzMKkAAAAAAAEBKQA==","srid":4326,"extensions":null}"#;
    assert_seen(&plain, 2, &[("g", ["string", "text", point])]);
    assert_eq!(seen(&plain, 2, "geog")[1], "geography");
    assert!(plain.schema.index_of("b2").is_none(), "a box2d is not sent");
}

#[test]
fn shapes_without_schema_block_are_their_json() {
    let bare = changes("bare.public.shapes", &[("gp", "text"), ("geogp", "text"), ("ga", "text")]);
    let array = r#"[{"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAPA/","srid":null,"extensions":null},null]"#;
    assert_seen(
        &bare,
        1001,
        &[
            ("gp", ["string", "text", POINT]),
            ("geogp", ["string", "text", GEOGRAPHY]),
            ("ga", ["string", "text", array]),
        ],
    );
    assert_eq!(cell(&bare, 12, "g"), "NULL");
}

#[test]
fn vectors_of_pgvector_are_lists_of_numbers_and_sparse_ones_their_json() {
    for topic in ["named.public.vectors", "plain.public.vectors"] {
        let vectors = changes(topic, &[]);
        let sparse = r#"{"dimensions":5,"vector":[[1,1.5],[3,-2.0]]}"#;
        assert_seen(
            &vectors,
            1,
            &[
                ("v", ["array<double>", "vector", "[1.0, 2.5, -3.0]"]),
                ("v_free", ["array<double>", "vector", "[0.1, 0.2]"]),
                ("h", ["array<float>", "halfvec", "[1.0, 2.5, -0.30004883]"]),
                ("s", ["string", "text", sparse]),
                ("vd", ["array<double>", "vector", "[1.0, 2.0, 3.0]"]),
                ("va", ["string", "text", "NULL"]),
            ],
        );
    }
    let named = changes("named.public.vectors", &[]);
    assert_eq!(cell(&named, 3, "v"), "[3.4028235e38, -1e-45, 0.0]");
    assert_eq!(cell(&named, 3, "h"), "[65504.0, -5.9604645e-8, 0.0]");
    let types = [("v", "vector"), ("v_free", "vector"), ("h", "halfvec"), ("s", "text")];
    let bare = changes("bare.public.vectors", &types);
    assert_eq!(cell(&bare, 4, "v"), "[-0.0, 0.0, 16777216.0]");
    assert_eq!(cell(&bare, 3, "s"), r#"{"dimensions":5,"vector":[]}"#);
    assert_eq!(cell(&bare, 2, "v"), "NULL");
}

/// What `docs/types.md` says under "What the connector loses".
#[test]
fn a_large_vector_that_an_update_does_not_change_arrives_as_null_and_has_no_placeholder() {
    for (topic, types) in
        [("named.public.vectors", [].as_slice()), ("bare.public.vectors", &[("v_free", "vector")])]
    {
        assert_eq!(cell(&changes(topic, types), 1030, "v_free"), "NULL", "{topic}");
    }
}

#[test]
fn types_that_the_connector_does_not_know_are_texts_where_it_names_them_and_bytes_else() {
    let unknown = changes("unknown.public.extras", &[]);
    assert_seen(
        &unknown,
        1,
        &[
            ("i", ["string", "isbn", "0-393-04002-X"]),
            ("i13", ["string", "isbn13", "978-0-393-04002-9"]),
            ("sn", ["string", "issn", "1436-4522"]),
            ("sn13", ["string", "issn13", "977-1436-452-00-8"]),
            ("mn", ["string", "ismn", "M-2306-7118-7"]),
            ("mn13", ["string", "ismn13", "979-0-2306-7118-7"]),
            ("e13", ["string", "ean13", "978-0-393-04002-9"]),
            ("up", ["string", "upc", "220356483481"]),
            ("lq", ["string", "lquery", "*.Astro*"]),
            ("ltq", ["string", "ltxtquery", "Europe & Russia*"]),
            ("cu", ["string", "cube", "(1, 2),(3, 4)"]),
            ("sg", ["string", "seg", "1.5 .. 2"]),
            ("lsn", ["string", "pg_lsn", "16/B374D848"]),
            ("tq", ["string", "tsquery", "'fat' & 'rat'"]),
            // A composite type, and a domain over it: the bytes of Postgres' text.
            ("comp", ["binary", "bytea", "28312c22782022227922222229"]),
            ("comp_d", ["binary", "bytea", "28322c29"]),
            ("comp_a", ["array<binary>", "bytea[]", "NULL"]),
        ],
    );
    let bare = changes("bare.public.extras", &[]);
    assert!(bare.schema.index_of("comp").is_none(), "a composite type is not sent");
}

#[test]
fn domains_are_what_they_are_made_of() {
    let named = changes("unknown.public.extras", &[]);
    assert_seen(
        &named,
        1,
        &[
            ("bk", ["string", "text", "0-393-04002-X"]),
            ("em", ["string", "text", "A@b.c"]),
            ("br", ["string", "ltree", "Top.Science"]),
            ("pr", ["decimal(12,2)", "numeric(12, 2)", "12.50"]),
            ("pr2", ["decimal(12,2)", "numeric(12, 2)", "-0.01"]),
            ("dy", ["date", "date", "2024-02-29"]),
            ("ia", ["array<integer>", "integer[]", "[1, , 3]"]),
            ("dc", ["string", "json", r#"{"a": 1.50}"#]),
            ("sp", ["string", "text", "[1,10)"]),
            ("ad", ["string", "text", "192.168.0.1/24"]),
            ("ui", ["string", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
            ("mo", ["timestamp", "timestamptz", "2024-02-29T18:29:59.999999Z"]),
            ("ct_a", ["array<string>", "citext[]", "[Ab, ]"]),
        ],
    );
}
