//! Rows: types, placeholders, columns that come and go, and what a bad row leaves behind.

use super::*;
use crate::change::{Column, ColumnType};

const KEY: &str = r#"{"id":1}"#;

fn create(offset: i64, row: &str) -> Record {
    Record::new(offset, KEY, &event("c", "null", row))
}

fn create_with_schema(offset: i64, fields: &[(&str, &str)], row: &str) -> Record {
    let value = with_schema(fields, &event("c", "null", row));
    Record::new(offset, &key_with_schema(1), &value)
}

/// The only cell `c` of a row whose schema block gives it this type.
fn decoded_cell(field: &str, value: &str) -> Result<String, RecordErrorKind> {
    let mut decoder = decoder();
    let row = format!(r#"{{"id":1,"c":{value}}}"#);
    let fields = [("id", r#""type":"int64""#), ("c", field)];
    create_with_schema(0, &fields, &row).push(&mut decoder).map_err(|error| error.kind)?;
    Ok(cell(&decoder.finish().unwrap().changes[0], 0, "c"))
}

fn decimal_field(scale: &str, precision: &str) -> String {
    format!(
        r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal",
        "parameters":{{"scale":"{scale}","connect.decimal.precision":"{precision}"}}"#
    )
}

#[test]
fn a_value_that_its_type_cannot_hold_is_invalid() {
    let decimal = decimal_field("2", "5");
    for (field, value) in [
        (r#""type":"boolean""#, "1"),
        (r#""type":"int16""#, "32768"),
        (r#""type":"int32""#, "2147483648"),
        (r#""type":"int64""#, "9223372036854775808"),
        (r#""type":"int64""#, "1.5"),
        (r#""type":"int64""#, "\"1\""),
        (r#""type":"float""#, "1e39"),
        (r#""type":"float""#, "\"nan\""),
        (r#""type":"double""#, "1e999"),
        (r#""type":"string""#, "1"),
        (r#""type":"string""#, "[\"a\"]"),
        (r#""type":"string""#, r#""\ud800""#),
        (r#""type":"bytes""#, "\"?\""),
        (&decimal, "\"AYag\""),
        (&decimal, "\"1.50\""),
        (&decimal, "1.555"),
        (&decimal, "{}"),
        (r#""type":"struct","name":"io.debezium.data.VariableScaleDecimal""#, r#"{"scale":0}"#),
        (r#""type":"struct","name":"io.debezium.data.VariableScaleDecimal""#, r#"[0,"AQ=="]"#),
        (r#""type":"int32","name":"io.debezium.time.Date""#, "-2440589"),
        (r#""type":"int64","name":"io.debezium.time.MicroTime""#, "86400000001"),
        (r#""type":"int64","name":"io.debezium.time.Timestamp""#, "9224318015999999"),
        (r#""type":"int64","name":"io.debezium.time.NanoTimestamp""#, "1"),
        (r#""type":"string","name":"io.debezium.time.ZonedTimestamp""#, "\"yesterday\""),
        (r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#, "-9223372036853775810"),
        (r#""type":"int64","name":"io.debezium.time.MicroDuration""#, "9223372036854775807"),
        (r#""type":"string","name":"io.debezium.time.IsoDate""#, "\"2024-02-30Z\""),
        (r#""type":"struct","name":"io.debezium.time.StructuredTime""#, r#"{"hour":12}"#),
        (r#""type":"array","items":{"type":"int32"}"#, "[1, 2147483648]"),
        (r#""type":"array","items":{"type":"int32"}"#, "[[1], [2]]"),
        (r#""type":"array","items":{"type":"int32"}"#, "{}"),
        (r#""type":"array","items":{"type":"string"}"#, r#"["[Ljava.lang.String;@695673e7"]"#),
        (r#""type":"struct","name":"io.debezium.data.geometry.Point""#, r#"{"x":1}"#),
        (
            r#""type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"2","__debezium.source.column.type":"BIT"}"#,
            "\"BQ==\"",
        ),
    ] {
        assert_eq!(decoded_cell(field, value), Err(RecordErrorKind::InvalidValue), "{field}: {value}");
    }
}

#[test]
fn values_at_the_edges_of_their_types_are_exact() {
    let decimal = decimal_field("2", "5");
    let numeric = r#""type":"struct","name":"io.debezium.data.VariableScaleDecimal""#;
    for (field, value, expected) in [
        (r#""type":"int64""#, "-9223372036854775808", "-9223372036854775808"),
        (r#""type":"float""#, "3.4028235E38", "3.4028235e38"),
        (r#""type":"float""#, "16777217", "16777216.0"),
        (r#""type":"double""#, "5e-324", "5e-324"),
        (r#""type":"double""#, "\"-Infinity\"", "-inf"),
        (r#""type":"double""#, "7", "7.0"),
        (r#""type":"string""#, r#""a\"\u00e9\n""#, "a\"é\n"),
        (r#""type":"bytes""#, "\"\"", ""),
        (&decimal, "\"AYaf\"", "999.99"),
        (&decimal, "-0.5", "-0.50"),
        (&decimal, "\"/w==\"", "-0.01"),
        (numeric, r#"{"scale":-3,"value":"BQ=="}"#, "5000"),
        (numeric, "\"POSITIVE_INFINITY\"", "Infinity"),
        (numeric, "1E+2", "100"),
        (r#""type":"int64","name":"io.debezium.time.NanoTimestamp""#, "-1000", "-1"),
        (r#""type":"int32","name":"org.apache.kafka.connect.data.Time""#, "1", "1000"),
        (r#""type":"array","items":{"type":"double"}"#, "[1.10, \"NaN\", null]", "[1.1, NaN, ]"),
        (r#""type":"array","items":{"type":"struct","name":"x"}"#, "[{\"a\": 1}]", "[{\"a\":1}]"),
        (r#""type":"array","items":{"type":"string"}"#, "[]", "[]"),
        (
            r#""type":"array","items":{"type":"string"}"#,
            r#"["[Ljava.lang.String; is a text"]"#,
            "[[Ljava.lang.String; is a text]",
        ),
        (
            r#""type":"array","items":{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2","connect.decimal.precision":"10"}}"#,
            r#"["bg==", null, "ANw="]"#,
            "[1.10, , 2.20]",
        ),
        (
            r#""type":"array","items":{"type":"string"}"#,
            r#"["__debezium_unavailable_value", "b"]"#,
            "[__debezium_unavailable_value, b]",
        ),
        (r#""type":"string","name":"io.debezium.time.IsoDate""#, "\"-0043-03-15Z\"", "-735160"),
        (r#""type":"string","name":"io.debezium.time.IsoDate""#, "\"+5877611-06-21Z\"", "2147483647"),
        (r#""type":"string","name":"io.debezium.time.IsoTime""#, "\"12:34:56.789Z\"", "45296789000"),
        (
            r#""type":"string","name":"io.debezium.time.IsoTimestamp""#,
            "\"2024-02-29T23:59:59.999999Z\"",
            "1709251199999999",
        ),
        (
            r#""type":"struct","name":"io.debezium.time.StructuredDate""#,
            r#"{"year":null,"month":null,"day":null,"specialValue":"POSITIVE_INFINITY"}"#,
            "2147483647",
        ),
        (
            r#""type":"struct","name":"io.debezium.time.StructuredZonedTime""#,
            r#"{"hour":12,"minute":34,"second":56,"nanos":0,"offsetSeconds":7200,"precision":6}"#,
            "12:34:56+02",
        ),
        (r#""type":"int64","name":"io.debezium.time.MicroDuration""#, "-86399999999", "-86399999999"),
        (
            r#""type":"string","name":"io.debezium.time.Interval""#,
            "\"P0Y0M-1DT0H0M0.000001S\"",
            "P0Y0M-1DT0H0M0.000001S",
        ),
        (
            r#""type":"map","keys":{"type":"string"},"values":{"type":"string"}"#,
            r#"{"a": "1", "b": null}"#,
            r#"{"a":"1","b":null}"#,
        ),
        (
            r#""type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"20","__debezium.source.column.type":"BIT"}"#,
            "\"BQ==\"",
            "00000000000000000101",
        ),
        (r#""type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"20"}"#, "\"BQ==\"", "BQ=="),
        (
            r#""type":"string","parameters":{"__debezium.source.column.type":"NUMERIC"}"#,
            "\"NEGATIVE_INFINITY\"",
            "-Infinity",
        ),
        (
            r#""type":"bytes","parameters":{"__debezium.source.column.type":"INT4MULTIRANGE"}"#,
            "\"e1sxLDMpLFs1LDcpfQ==\"",
            "{[1,3),[5,7)}",
        ),
        (
            r#""type":"array","name":"io.debezium.data.DoubleVector","items":{"type":"double"}"#,
            "[1.5, 2]",
            "[1.5, 2.0]",
        ),
        (r#""type":"map""#, r#"{"a b": null}"#, r#"{"a b":null}"#),
        (r#""type":"string","name":"io.debezium.data.Xml""#, "\"<a b='c d'/>\"", "<a b='c d'/>"),
    ] {
        assert_eq!(decoded_cell(field, value), Ok(expected.to_owned()), "{field}: {value}");
        assert_eq!(decoded_cell(field, "null"), Ok("NULL".to_owned()), "{field}: null");
    }
}

#[test]
fn the_placeholder_is_absent_in_columns_of_every_type() {
    let text = "\"__debezium_unavailable_value\"";
    let bytes = "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"";
    let decimal = decimal_field("2", "5");
    for field in [
        r#""type":"boolean""#,
        r#""type":"int64""#,
        r#""type":"float""#,
        r#""type":"double""#,
        r#""type":"string""#,
        r#""type":"bytes""#,
        &decimal,
        &decimal_field("2", "60"),
        r#""type":"struct","name":"io.debezium.data.VariableScaleDecimal""#,
        r#""type":"string","name":"io.debezium.data.Uuid""#,
        r#""type":"string","name":"io.debezium.data.Json""#,
        r#""type":"int32","name":"io.debezium.time.Date""#,
        r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#,
        r#""type":"string","name":"io.debezium.time.ZonedTimestamp""#,
        r#""type":"array","items":{"type":"string"}"#,
    ] {
        assert_eq!(decoded_cell(field, text), Ok("ABSENT".to_owned()), "{field}");
        // A text may be anything, also what the base64 of a short placeholder looks like.
        if !field.starts_with(r#""type":"string""#) || field.contains("ZonedTimestamp") {
            assert_eq!(decoded_cell(field, bytes), Ok("ABSENT".to_owned()), "{field}: {bytes}");
        }
    }
    for value in [
        r#"["__debezium_unavailable_value"]"#,
        r#"["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]"#,
        r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#,
        r#"{"__debezium_unavailable_value": "__debezium_unavailable_value"}"#,
    ] {
        assert_eq!(decoded_cell(r#""type":"array""#, value), Ok("ABSENT".to_owned()), "{value}");
    }
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

#[test]
fn a_placeholder_that_a_columns_schema_names_counts_for_that_column() {
    let fields = [
        ("id", r#""type":"int64""#),
        ("a", r#""type":"string","parameters":{"__debezium.unavailable.value.placeholder":"n/a"}"#),
        ("b", r#""type":"string""#),
        ("c", r#""type":"bytes","parameters":{"__debezium.unavailable.value.placeholder":"n/a"}"#),
    ];
    let row = r#"{"id":1,"a":"n/a","b":"n/a","c":"bi9h"}"#;
    let batch = decode(&mut decoder(), &[create_with_schema(0, &fields, row)]);
    assert_eq!(cells(&batch.changes[0]), [["1", "ABSENT", "n/a", "ABSENT"]]);
}
