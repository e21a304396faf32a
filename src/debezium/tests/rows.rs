//! Rows: keys, schemas that change from row to row, and what a bad row leaves behind.

use super::*;
use crate::change::ColumnType;

pub(super) const KEY: &str = r#"{"id":1}"#;

pub(super) fn create(offset: i64, row: &str) -> Record {
    Record::new(offset, KEY, &event("c", "null", row))
}

pub(super) fn create_with_schema(offset: i64, fields: &[(&str, &str)], row: &str) -> Record {
    let value = with_schema(fields, &event("c", "null", row));
    Record::new(offset, &key_with_schema(1), &value)
}

#[test]
fn an_absent_key_is_a_missing_key() {
    let fields = [("id", r#""type":"string""#)];
    let record = create_with_schema(0, &fields, r#"{"id":"__debezium_unavailable_value"}"#);
    assert_eq!(record.push(&mut decoder()).unwrap_err().kind, RecordErrorKind::MissingKey);
}

#[test]
fn a_bad_row_leaves_the_batch_as_it_was() {
    let mut decoder = decoder_with(&[("a", "text"), ("b", "int32"), ("c", "boolean")]);
    let good = create(0, r#"{"id":1,"a":"x","b":1,"c":true}"#);
    good.push(&mut decoder).unwrap();
    for bad in [
        r#"{"id":1,"a":"discarded","b":"no","c":true}"#,
        r#"{"id":1,"a":"discarded","b":1,"c":"no"}"#,
        r#"{"id":1,"a":"discarded","a":"twice"}"#,
        r#"{"a":"discarded"}"#,
        r#"{"id":1,"a":"__debezium_unavailable_value","b":[]}"#,
        "[1]",
    ] {
        assert!(create(1, bad).push(&mut decoder).is_err(), "{bad}");
        assert_eq!((decoder.rows(), decoder.records()), (1, 1), "{bad}");
    }
    create(2, r#"{"c":false,"b":2,"id":2}"#).push(&mut decoder).unwrap();
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.changes.len(), 1);
    assert_eq!(cells(&batch.changes[0]), [["1", "x", "1", "true"], ["2", "NULL", "2", "false"]]);
    assert!(batch.changes[0].absent.iter().all(Option::is_none));
    assert_eq!(batch.raw.unwrap().num_rows(), 2);
    let span = batch.spans.values().next().unwrap();
    assert_eq!((span.first, span.next), (0, 3));
}

#[test]
fn a_bad_row_of_a_new_schema_does_not_end_the_open_segment() {
    let mut decoder = decoder();
    let old = [("id", r#""type":"int64""#), ("v", r#""type":"int32""#)];
    let new = [("id", r#""type":"int64""#), ("v", r#""type":"int64""#)];
    create_with_schema(0, &old, r#"{"id":1,"v":1}"#).push(&mut decoder).unwrap();
    create_with_schema(1, &new, r#"{"id":1,"v":"no"}"#).push(&mut decoder).unwrap_err();
    create_with_schema(2, &old, r#"{"id":1,"v":2}"#).push(&mut decoder).unwrap();
    assert_eq!(decoder.finish().unwrap().changes.len(), 1);
}

#[test]
fn schemas_that_alternate_give_segments_in_order() {
    let mut decoder = decoder();
    let narrow = [("id", r#""type":"int64""#)];
    let wide = [("id", r#""type":"int64""#), ("v", r#""type":"string""#)];
    let records = [
        create_with_schema(0, &narrow, r#"{"id":1}"#),
        create_with_schema(1, &wide, r#"{"id":2,"v":"a"}"#),
        create_with_schema(2, &wide, r#"{"id":3}"#),
        create_with_schema(3, &narrow, r#"{"id":4}"#),
    ];
    let batch = decode(&mut decoder, &records);
    let offsets: Vec<Vec<i64>> = batch.changes.iter().map(|changes| changes.offsets.clone()).collect();
    assert_eq!(offsets, [vec![0], vec![1, 2], vec![3]]);
    assert_eq!(cell(&batch.changes[1], 1, "v"), "NULL", "a field that is missing is null");
}

#[test]
fn a_member_that_the_schema_block_does_not_have_is_an_invalid_schema() {
    let record = create_with_schema(0, &[("id", r#""type":"int64""#)], r#"{"id":1,"extra":2}"#);
    let error = record.push(&mut decoder()).unwrap_err();
    assert_eq!(error.kind, RecordErrorKind::InvalidSchema);
    assert!(error.detail.contains("`extra`"), "{}", error.detail);
}

#[test]
fn a_delete_before_any_row_has_its_key_alone_until_a_row_brings_more() {
    let mut decoder = decoder();
    let delete = Record::new(0, KEY, &event("d", r#"{"id":1,"c":null}"#, "null"));
    let batch = decode(&mut decoder, &[delete, create(1, r#"{"id":2,"c":5}"#)]);
    assert_eq!(cells(&batch.changes[0]), [["1"]]);
    assert_eq!(cells(&batch.changes[1]), [["2", "5"]]);
    assert_eq!(batch.changes[1].schema.columns()[1].column_type, ColumnType::Int64);
}

#[test]
fn a_key_with_other_fields_is_another_schema() {
    let mut decoder = decoder();
    let two = Record::new(1, r#"{"id":1,"b":2}"#, &event("c", "null", r#"{"id":1,"b":2}"#));
    let batch = decode(&mut decoder, &[create(0, r#"{"id":1,"b":2}"#), two]);
    let keys: Vec<Vec<&str>> =
        batch.changes.iter().map(|changes| changes.schema.key_names().collect()).collect();
    assert_eq!(keys, [vec!["id"], vec!["id", "b"]]);
}

#[test]
fn a_schema_block_of_the_same_bytes_is_recognised_in_any_member_order() {
    let mut decoder = decoder();
    let fields = [("id", r#""type":"int64""#)];
    let usual = create_with_schema(0, &fields, r#"{"id":1}"#);
    let value = usual.value.clone().unwrap();
    let (schema, payload) = value
        .strip_prefix("{\"schema\":")
        .unwrap()
        .strip_suffix('}')
        .unwrap()
        .split_once(",\"payload\":")
        .unwrap();
    let turned = format!(r#"{{"payload":{payload},"schema":{schema}}}"#);
    let trailing = format!(r#"{{"schema":{schema},"payload":{payload},"more":1}}"#);
    let key = key_with_schema(1);
    let records = [usual, Record::new(1, &key, &turned), Record::new(2, &key, &trailing)];
    let batch = decode(&mut decoder, &records);
    assert_eq!(batch.changes.len(), 1);
    assert_eq!(cells(&batch.changes[0]), [["1"], ["1"], ["1"]]);
}

#[test]
fn options_set_the_placeholder_and_turn_the_raw_table_off() {
    let options = DecoderOptions { raw: false, placeholder: "n/a".to_owned(), ..DecoderOptions::default() };
    let mut decoder = Decoder::new(options, nothing_known);
    let row = r#"{"id":1,"a":"n/a","b":"bi9h","c":["n/a"],"d":"__debezium_unavailable_value"}"#;
    let batch = decode(&mut decoder, &[create(0, row)]);
    assert!(batch.raw.is_none());
    assert_eq!(
        cells(&batch.changes[0]),
        [["1", "ABSENT", "ABSENT", "ABSENT", "__debezium_unavailable_value"]]
    );
}

#[test]
fn two_tables_of_one_topic_keep_their_own_segments() {
    let mut decoder = decoder();
    let fields = [("id", r#""type":"int64""#)];
    let of = |offset: i64, table: &str| {
        let event = event("c", "null", &format!(r#"{{"id":{offset}}}"#));
        let event = event.replace(r#""table":"t""#, &format!(r#""table":"{table}""#));
        Record::new(offset, &key_with_schema(1), &with_schema(&fields, &event))
    };
    let batch = decode(&mut decoder, &[of(0, "a"), of(1, "b"), of(2, "a"), of(3, "b")]);
    let segments: Vec<(String, Vec<i64>)> =
        batch.changes.iter().map(|changes| (changes.table.to_string(), changes.offsets.clone())).collect();
    assert_eq!(segments, [("public.a".to_owned(), vec![0, 2]), ("public.b".to_owned(), vec![1, 3])]);
}

#[test]
fn a_null_in_the_key_is_refused_because_no_row_can_be_found_by_it() {
    let row = r#"{"id":null,"a":1}"#;
    assert_eq!(error_of(r#"{"id":null}"#, &event("c", "null", row)), RecordErrorKind::MissingKey);
    assert_eq!(error_of(r#"{"id":null}"#, &event("d", row, "null")), RecordErrorKind::MissingKey);
}

#[test]
fn a_key_that_names_a_column_twice_is_refused() {
    let row = r#"{"id":1,"a":1}"#;
    assert_eq!(error_of(r#"{"id":1,"id":1}"#, &event("c", "null", row)), RecordErrorKind::MissingKey);
}
