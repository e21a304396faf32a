//! Columns whose nulls may have been replaced by their default before Kafka.

use super::*;

/// Decodes one event of a table whose column `v` has a default.
fn suspects(events: &[(&str, &str)]) -> Vec<u64> {
    let fields = [("id", r#""type":"int64""#), ("v", r#""type":"string","default":"none""#)];
    let mut decoder = decoder();
    let mut found = Vec::new();
    for (offset, (operation, after)) in events.iter().enumerate() {
        let value = with_schema(&fields, &event(operation, "null", after));
        Record::new(offset as i64, &key_with_schema(1), &value).push(&mut decoder).unwrap();
        found.extend(decoder.finish().unwrap().suspect_defaults.into_values());
    }
    found
}

#[test]
fn a_nullable_column_with_a_default_is_suspect_until_a_null_of_it_is_seen() {
    let events = [
        ("c", r#"{"id":1,"v":"none"}"#),
        ("d", "null"),
        ("u", r#"{"id":1,"v":"__debezium_unavailable_value"}"#),
        ("u", r#"{"id":1,"v":null}"#),
        ("u", r#"{"id":1,"v":"none"}"#),
    ];
    assert_eq!(suspects(&events), [1, 1, 1, 0, 0]);
}
