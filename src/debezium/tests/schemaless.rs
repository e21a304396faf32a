//! Rows without a schema block: columns that come with the rows, and where their types come from.

use super::rows::create;
use super::*;
use crate::change::{Column, ColumnType};

#[test]
fn without_schema_columns_are_added_as_rows_bring_them() {
    let mut decoder = decoder();
    let records = [create(0, r#"{"id":1}"#), create(1, r#"{"id":2,"late":"x"}"#), create(2, r#"{"id":3}"#)];
    let batch = decode(&mut decoder, &records);
    assert_eq!(batch.changes.len(), 2);
    assert_eq!(cells(&batch.changes[1]), [["2", "x"], ["3", "NULL"]]);
}

#[test]
fn without_schema_a_column_first_seen_null_takes_any_value_as_text() {
    for undecided in ["null", "\"__debezium_unavailable_value\"", "[\"__debezium_unavailable_value\"]"] {
        let mut decoder = decoder();
        let first = format!(r#"{{"id":1,"c":{undecided}}}"#);
        let records =
            [create(0, &first), create(1, r#"{"id":2,"c":1.50}"#), create(2, r#"{"id":3,"c":[1, 2]}"#)];
        let batch = decode(&mut decoder, &records);
        assert_eq!(batch.changes.len(), 1);
        assert_eq!(cell(&batch.changes[0], 1, "c"), "1.50");
        assert_eq!(cell(&batch.changes[0], 2, "c"), "[1,2]");
    }
}

#[test]
fn without_schema_a_value_that_does_not_fit_the_type_taken_from_values_is_invalid() {
    let mut decoder = decoder();
    create(0, r#"{"id":1,"c":1}"#).push(&mut decoder).unwrap();
    let error = create(1, r#"{"id":1,"c":"secret"}"#).push(&mut decoder).unwrap_err();
    assert_eq!(error.kind, RecordErrorKind::InvalidValue);
    assert_eq!(error.detail, "column `c` of public.t: expected an integer of 64 bits");
}

#[test]
fn without_schema_configured_types_come_before_known_ones_and_those_before_values() {
    let known = Arc::new(TableSchema::new(
        ["configured", "known", "id"]
            .map(|name| Column { name: name.into(), column_type: ColumnType::Timestamp, nullable: true })
            .to_vec(),
        vec![2],
    ));
    let types = HashMap::from([("configured".to_owned(), "timestamp_ms".parse().unwrap())]);
    let types = HashMap::from([("public.t".to_owned(), types)]);
    let options = DecoderOptions { types, ..DecoderOptions::default() };
    let mut decoder = Decoder::new(options, move |_: &TableId| Some(Arc::clone(&known)));
    let batch = decode(&mut decoder, &[create(0, r#"{"id":1,"configured":5,"known":5,"value":5}"#)]);
    assert_eq!(cells(&batch.changes[0]), [["1", "5000", "5", "5"]]);
    let column_type = |index: usize| batch.changes[0].schema.columns()[index].column_type.clone();
    assert_eq!((column_type(2), column_type(3)), (ColumnType::Timestamp, ColumnType::Int64));
}

#[test]
fn without_schema_configured_types_read_debeziums_default_encodings() {
    let mut decoder = decoder_with(&[
        ("d", "decimal(10,2)"),
        ("dt", "decimal_text(10,2)"),
        ("day", "date"),
        ("ts", "timestamp"),
        ("tz", "timestamptz"),
        ("t", "time_ms"),
        ("b", "bytes"),
        ("n", "numeric"),
        ("j", "jsonb"),
    ]);
    let row = r#"{"id":1,"d":"AJY=","dt":"1.5","day":1,"ts":7,"tz":"1970-01-01T00:00:00.000001Z","t":3,"b":"AP8=",
        "n":{"scale":1,"value":"DA=="},"j":"{\"a\": 1}"}"#;
    let batch = decode(&mut decoder, &[create(0, row)]);
    assert_eq!(
        cells(&batch.changes[0]),
        [["1", "1.50", "1.50", "1", "7", "1", "3000", "00ff", "1.2", "{\"a\": 1}"]]
    );
}
