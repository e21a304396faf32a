//! Random rows, written as Debezium writes them, decode to the values that went in.

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

/// A column of the generated table: name, Connect field, configured type.
const COLUMNS: [(&str, &str, &str); 12] = [
    ("id", r#""type":"int64""#, "int64"),
    ("flag", r#""type":"boolean""#, "boolean"),
    ("small", r#""type":"int16""#, "int16"),
    ("real", r#""type":"float""#, "float32"),
    ("double", r#""type":"double""#, "float64"),
    (
        "amount",
        r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"3","connect.decimal.precision":"38"}"#,
        "decimal(38,3)",
    ),
    ("free", r#""type":"struct","name":"io.debezium.data.VariableScaleDecimal""#, "numeric"),
    ("text", r#""type":"string""#, "text"),
    ("bytes", r#""type":"bytes""#, "bytes"),
    ("day", r#""type":"int32","name":"io.debezium.time.Date""#, "date"),
    ("at", r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#, "timestamp"),
    ("zoned", r#""type":"string","name":"io.debezium.time.ZonedTimestamp""#, "timestamptz"),
];

/// A value as JSON, and the cell it must become.
type Written = (String, String);

#[allow(clippy::needless_pass_by_value)]
fn written(json: impl Display, cell: impl Display) -> Written {
    (json.to_string(), cell.to_string())
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Plain text of `unscaled / 10^scale`, by string arithmetic.
fn plain(unscaled: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Java's `BigInteger.toByteArray`: as few bytes as the sign allows.
fn java_bytes(value: i128) -> Vec<u8> {
    let all = value.to_be_bytes();
    let needless = |pair: &[u8]| matches!((pair[0], pair[1] & 0x80), (0, 0) | (0xff, 0x80));
    let skip = all.windows(2).take_while(|pair| needless(pair)).count();
    all[skip..].to_vec()
}

fn value(column: usize) -> BoxedStrategy<Written> {
    match column {
        0 => any::<i64>().prop_map(|v| written(v, v)).boxed(),
        1 => any::<bool>().prop_map(|v| written(v, v)).boxed(),
        2 => any::<i16>().prop_map(|v| written(v, v)).boxed(),
        3 => any::<f32>().prop_map(|v| (float(f64::from(v), &format!("{v:?}")), format!("{v:?}"))).boxed(),
        4 => any::<f64>().prop_map(|v| (float(v, &format!("{v:?}")), format!("{v:?}"))).boxed(),
        5 => (-10_i128.pow(38) + 1..10_i128.pow(38))
            .prop_map(|v| written(quoted(&STANDARD.encode(java_bytes(v))), plain(v, 3)))
            .boxed(),
        6 => (any::<i128>(), 0_usize..60)
            .prop_map(|(v, scale)| {
                let json = format!(r#"{{"scale":{scale},"value":"{}"}}"#, STANDARD.encode(java_bytes(v)));
                written(json, plain(v, scale))
            })
            .boxed(),
        7 => any::<String>().prop_map(|v| written(quoted(&v), &v)).boxed(),
        8 => proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|v| {
                let hex = v.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
                written(quoted(&STANDARD.encode(&v)), hex)
            })
            .boxed(),
        9 => (-2_440_588..2_145_042_905_i32).prop_map(|v| written(v, v)).boxed(),
        10 => (-210_866_803_200_000_000..i64::MAX).prop_map(|v| written(v, v)).boxed(),
        _ => (-62_135_596_800_000_000_i64..253_402_300_799_999_999)
            .prop_map(|v| {
                let time = chrono::DateTime::from_timestamp_micros(v).unwrap();
                written(quoted(&time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()), v)
            })
            .boxed(),
    }
}

/// A float as Jackson writes it: what is no number becomes a string.
fn float(value: f64, shown: &str) -> String {
    if value.is_nan() {
        "\"NaN\"".to_owned()
    } else if value.is_infinite() {
        quoted(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        shown.to_owned()
    }
}

/// A cell: null in one of four, never for the key.
fn maybe(column: usize) -> BoxedStrategy<Written> {
    if column == 0 {
        return value(0);
    }
    prop_oneof![3 => value(column), 1 => Just(written("null", "NULL"))].boxed()
}

fn row() -> impl Strategy<Value = Vec<Written>> {
    (0..COLUMNS.len()).map(maybe).collect::<Vec<_>>()
}

fn row_json(row: &[Written]) -> String {
    let members: Vec<String> =
        COLUMNS.iter().zip(row).map(|((name, ..), (json, _))| format!("\"{name}\":{json}")).collect();
    format!("{{{}}}", members.join(","))
}

fn expected(rows: &[Vec<Written>]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(|(_, cell)| cell.clone()).collect()).collect()
}

proptest! {
    #[test]
    fn rows_with_schema_decode_to_what_was_written(rows in proptest::collection::vec(row(), 1..20)) {
        let fields: Vec<(&str, &str)> = COLUMNS.iter().map(|(name, field, _)| (*name, *field)).collect();
        let records: Vec<Record> = rows
            .iter()
            .enumerate()
            .map(|(offset, row)| {
                let value = with_schema(&fields, &event("c", "null", &row_json(row)));
                Record::new(offset as i64, &key_with_schema(0), &value)
            })
            .collect();
        let batch = decode(&mut decoder(), &records);
        prop_assert_eq!(batch.changes.len(), 1);
        prop_assert_eq!(cells(&batch.changes[0]), expected(&rows));
    }

    #[test]
    fn rows_without_schema_decode_to_what_was_written(rows in proptest::collection::vec(row(), 1..20)) {
        let types: Vec<(&str, &str)> = COLUMNS.iter().map(|(name, _, configured)| (*name, *configured)).collect();
        let records: Vec<Record> = rows
            .iter()
            .enumerate()
            .map(|(offset, row)| {
                Record::new(offset as i64, r#"{"id":0}"#, &event("c", "null", &row_json(row)))
            })
            .collect();
        let batch = decode(&mut decoder_with(&types), &records);
        prop_assert_eq!(batch.changes.len(), 1);
        prop_assert_eq!(cells(&batch.changes[0]), expected(&rows));
    }
}
