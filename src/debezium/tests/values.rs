//! Values: each type to its edges, what it cannot hold, and placeholders in all of them.

use super::rows::create_with_schema;
use super::*;

const NANOS: &str = r#""type":"int64","name":"io.debezium.time.NanoTimestamp""#;

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
        (
            r#""type":"struct","name":"io.debezium.data.VariableScaleDecimal""#,
            r#"{"scale":-9223372036854775808,"value":"AQ=="}"#,
        ),
        (r#""type":"int32","name":"io.debezium.time.Date""#, "-2440589"),
        (r#""type":"int64","name":"io.debezium.time.MicroTime""#, "86400000001"),
        (r#""type":"int64","name":"io.debezium.time.Timestamp""#, "9224318015999999"),
        (NANOS, "1"),
        (r#""type":"string","name":"io.debezium.time.ZonedTimestamp""#, "\"yesterday\""),
        (r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#, "-9223372036853775810"),
        (r#""type":"int64","name":"io.debezium.time.MicroDuration""#, "9223372036854775807"),
        (r#""type":"string","name":"io.debezium.time.IsoDate""#, "\"2024-02-30Z\""),
        (r#""type":"struct","name":"io.debezium.time.StructuredTime""#, r#"{"hour":12}"#),
        (
            r#""type":"struct","name":"io.debezium.time.StructuredDate""#,
            r#"{"year":50505469855535200,"month":1,"day":1}"#,
        ),
        (
            r#""type":"struct","name":"io.debezium.time.StructuredZonedTime""#,
            r#"{"hour":12,"minute":34,"second":56,"nanos":0,"offsetSeconds":-9223372036854775808,"precision":6}"#,
        ),
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
#[allow(clippy::too_many_lines)] // A table of cases.
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
        (NANOS, "-1000", "-1"),
        (NANOS, "9223372036825200000", "9223372036825200"),
        (NANOS, "9223372036854775807", "9223372036854775807"),
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
