//! Events that Debezium wrote, compared with the SQL that caused them.

use super::*;
use crate::change::{ColumnType, Operation};

const DEFAULT_MODES: &str = include_str!("../../../tests/captures/default-modes.jsonl");
const CONNECT_TIMES: &str = include_str!("../../../tests/captures/connect-times-no-schema.jsonl");

#[derive(serde::Deserialize)]
struct Recorded {
    topic: String,
    offset: i64,
    ts: i64,
    key: Option<String>,
    value: Option<String>,
}

fn records(capture: &str) -> Vec<Record> {
    capture
        .lines()
        .map(|line| {
            let recorded: Recorded = serde_json::from_str(line).unwrap();
            Record {
                topic: recorded.topic.into(),
                offset: recorded.offset,
                timestamp_ms: recorded.ts,
                key: recorded.key,
                value: recorded.value,
                new_key: None,
                old_key: None,
                headers: Vec::new(),
            }
        })
        .collect()
}

/// The records of one table, without those that must be refused.
fn decoded(capture: &str, table: &str, refused: &[i64]) -> Batch {
    let mut decoder = decoder();
    let records: Vec<Record> = records(capture)
        .into_iter()
        .filter(|record| record.topic.ends_with(table) && !refused.contains(&record.offset))
        .collect();
    decode(&mut decoder, &records)
}

/// Offsets of `all_types` with a timestamp in the year 294276, which is beyond 64 bits of microseconds since 1970.
const BEYOND_MICROS: [i64; 2] = [2, 8];

#[test]
fn each_record_ends_as_change_filtered_or_named_error() {
    let mut decoder = decoder();
    let mut ends: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for record in records(DEFAULT_MODES) {
        let end = match record.push(&mut decoder) {
            Ok(Outcome::Change(operation)) => operation.code().to_owned(),
            Ok(Outcome::Filtered(reason)) => reason.to_owned(),
            Ok(Outcome::Truncate { .. }) => "t".to_owned(),
            Err(error) => format!("{} {}", record.topic, error.kind.code()),
        };
        *ends.entry(end).or_default() += 1;
    }
    let ends: Vec<(&str, usize)> = ends.iter().map(|(end, count)| (end.as_str(), *count)).collect();
    assert_eq!(
        ends,
        [
            ("c", 11),
            ("d", 7),
            ("d1.inv.all_types invalid_value", 2),
            ("empty", 2),
            ("message", 1),
            ("r", 10),
            ("tombstone", 5),
            ("u", 7),
        ]
    );
    assert_eq!(decoder.rows(), 35);
}

#[test]
fn every_type_of_the_first_row_has_the_value_of_its_sql() {
    let batch = decoded(DEFAULT_MODES, "all_types", &BEYOND_MICROS);
    let changes = &batch.changes[0];
    for (column, expected) in [
        ("id", "1"),
        ("c_bool", "true"),
        ("c_i2", "-32768"),
        ("c_i4", "-2147483648"),
        ("c_i8", "9007199254740993"),
        ("c_f4", "1.1"),
        ("c_f8", "0.1"),
        ("c_num", "12345678901234.5678"),
        ("c_num_free", "123456789012345678901234567890.123456789"),
        ("c_money", "1234.56"),
        ("c_char", "ab      "),
        ("c_varchar", "héllo"),
        ("c_text", "日本語 \"q\" \\ \\n"),
        ("c_bytea", "00ff10"),
        ("c_date", "19782"),
        ("c_time", "86400000000"),
        ("c_time3", "45296789000"),
        ("c_timetz", "10:34:56.789012Z"),
        ("c_ts", "1709251199999999"),
        ("c_ts3", "1709251199999000"),
        ("c_tstz", "1709231399999999"),
        ("c_uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("c_json", r#"{"a":1.50, "b":null}"#),
        ("c_bit8", "oQ=="),
        ("c_interval", "37091106789000"),
        ("c_point", "(1.5,-2)"),
        ("c_i4_arr", "[1, , 3]"),
        ("c_text_arr", "[a, b,c, ]"),
        ("c_num_arr", "[1.10, 2.20]"),
        ("c_mood", "happy"),
        ("c_ltreeish", "dflt"),
    ] {
        assert_eq!(cell(changes, 0, column), expected, "{column}");
    }
    assert!(cell(changes, 0, "c_jsonb").ends_with("000}]}"), "jsonb numbers stay text");
}

#[test]
fn infinities_nan_and_extremes_survive() {
    let batch = decoded(DEFAULT_MODES, "all_types", &BEYOND_MICROS);
    let changes = &batch.changes[0];
    let row = |offset: i64| changes.offsets.iter().position(|&at| at == offset).unwrap();
    for (offset, column, expected) in [
        (1, "c_f4", "inf".to_owned()),
        (1, "c_f8", "NaN".to_owned()),
        (1, "c_num_free", "NULL".to_owned()),
        (1, "c_date", i32::MAX.to_string()),
        (1, "c_ts", i64::MIN.to_string()),
        (1, "c_tstz", i64::MAX.to_string()),
        (7, "c_date", i32::MAX.to_string()),
        (7, "c_ts3", i64::MAX.to_string()),
        (7, "c_money", "-0.01".to_owned()),
        (9, "c_date", "-735160".to_owned()),
        (9, "c_tstz", "-210863520000000000".to_owned()),
        (9, "c_json", "null".to_owned()),
        (9, "c_text", String::new()),
        (9, "c_uuid", "NULL".to_owned()),
    ] {
        assert_eq!(cell(changes, row(offset), column), expected, "{column} at {offset}");
    }
}

#[test]
fn a_delete_has_its_key_and_nothing_of_the_fabricated_before() {
    let batch = decoded(DEFAULT_MODES, "all_types", &BEYOND_MICROS);
    let changes = &batch.changes[0];
    let row = changes.operations.iter().position(|&operation| operation == Operation::Delete).unwrap();
    assert_eq!(cell(changes, row, "id"), "4");
    assert_eq!(cell(changes, row, "c_ltreeish"), "NULL");
}

#[test]
fn placeholders_of_unchanged_values_are_absent_and_listed() {
    for (capture, prefix) in [(DEFAULT_MODES, "d1"), (CONNECT_TIMES, "d2")] {
        let batch = decoded(capture, &format!("{prefix}.inv.toasty"), &[]);
        let changes = &batch.changes[0];
        let big: Vec<String> = (0..changes.len()).map(|row| cell(changes, row, "big")).collect();
        assert_eq!(&big[2..], ["ABSENT", "NULL", "NULL", "NULL"]);
        for column in ["big_json", "big_arr"] {
            for row in [2, 3, 5] {
                assert_eq!(cell(changes, row, column), "ABSENT", "{column} of row {row}");
            }
        }
        let listed = raw_column(&batch, "absent_columns");
        assert_eq!(
            listed,
            ["[]", "[]", "[big, big_json, big_arr]", "[big_json, big_arr]", "[]", "[big_json, big_arr]"]
        );
        let after = raw_column(&batch, "after");
        assert!(after[2].contains("__debezium_unavailable_value"), "the raw bytes keep the placeholder");
    }
}

#[test]
fn each_schema_of_a_table_is_a_segment_of_its_own_in_order() {
    let batch = decoded(DEFAULT_MODES, "composite", &[]);
    let columns: Vec<Vec<&str>> = batch
        .changes
        .iter()
        .map(|changes| changes.schema.columns().iter().map(|column| column.name.as_ref()).collect())
        .collect();
    assert_eq!(
        columns,
        [
            vec!["a", "b", "v"],
            vec!["a", "b", "v", "extra", "note"],
            vec!["a", "b", "v", "extra", "note"],
            vec!["a", "b", "v", "extra"],
            vec!["a", "b", "v", "extra2"],
        ]
    );
    let v = |segment: usize| &batch.changes[segment].schema.columns()[2].column_type;
    assert_eq!((v(1), v(2)), (&ColumnType::Int32, &ColumnType::Int64));
    assert_eq!(batch.changes[0].schema.key_names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(cells(&batch.changes[1]), [["5", "new", "5", "1.25", "n"]]);
    assert_eq!(cells(&batch.changes[2])[0][2], "5000000000");
    let offsets: Vec<i64> = batch.changes.iter().flat_map(|changes| changes.offsets.clone()).collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
}

#[test]
fn raw_rows_are_the_records_without_repeated_tombstones() {
    let batch = decoded(DEFAULT_MODES, "composite", &[]);
    assert_eq!(raw_column(&batch, "operation").concat(), "rrcuuddccccc");
    assert_eq!(raw_column(&batch, "key")[0], r#"{"a":1,"b":"x"}"#);
    assert_eq!(raw_column(&batch, "after")[2], r#"{"a":2,"b":"z","v":3}"#);
    assert_eq!(raw_column(&batch, "source_table")[0], "composite");
    assert_eq!(raw_column(&batch, "snapshot")[2], "false");
    assert_eq!(raw_column(&batch, "event_date")[0], "2026-11-23");
    let span = batch.spans.values().next().unwrap();
    assert_eq!((span.first, span.next), (0, 14));
}

#[test]
fn events_without_schema_take_types_from_their_values() {
    let batch = decoded(CONNECT_TIMES, "all_types", &[]);
    let changes = &batch.changes[0];
    for (column, expected) in [
        ("id", "1"),
        ("c_bool", "true"),
        ("c_i8", "9007199254740993"),
        ("c_num", "12345678901234.568"),
        ("c_text", "日本語 \"q\" \\ \\n"),
        ("c_ts3", "1709251199999"),
        ("c_text_arr", r#"["a","b,c",null]"#),
    ] {
        assert_eq!(cell(changes, 0, column), expected, "{column}");
    }
    let deletes = changes.operations.iter().filter(|&&operation| operation == Operation::Delete).count();
    assert_eq!(deletes, 1);
}

#[test]
fn a_message_of_the_source_is_in_the_history_with_its_content() {
    for capture in [DEFAULT_MODES, CONNECT_TIMES] {
        let batch = decoded(capture, ".message", &[]);
        assert_eq!(raw_column(&batch, "operation"), ["m"]);
        assert_eq!(raw_column(&batch, "key"), [r#"{"prefix":"app"}"#]);
        assert_eq!(raw_column(&batch, "after"), [r#"{"prefix":"app","content":"aGVsbG8="}"#]);
    }
}
