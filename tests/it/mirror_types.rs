//! Every column type arrives in Postgres exactly, its extreme values too.

use std::sync::Arc;

use alluvium::change::{ColumnType, Operation, Shape, Sink};
use alluvium::mirror::{Mirror, MirrorOptions};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Float64Builder, Int16Array, Int32Array, Int32Builder, Int64Array, ListBuilder, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field};

use super::mirror_changes::{batch, changes, schema};
use super::postgres_server::Database;

/// A column, its values, and what Postgres shows for them.
struct Case {
    column_type: ColumnType,
    values: ArrayRef,
    shown: [Option<&'static str>; 4],
}

fn case(
    column_type: ColumnType,
    values: impl arrow::array::Array + 'static,
    shown: [Option<&'static str>; 4],
) -> Case {
    Case { column_type, values: Arc::new(values), shown }
}

#[allow(clippy::too_many_lines)] // A table of cases.
fn numbers() -> Vec<Case> {
    let decimal = |values: [Option<i128>; 4], precision, scale| {
        Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap()
    };
    let largest = 10_i128.pow(38) - 1;
    vec![
        case(
            ColumnType::Boolean,
            BooleanArray::from(vec![Some(true), Some(false), None, None]),
            [Some("true"), Some("false"), None, None],
        ),
        case(
            ColumnType::Int16,
            Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), None, Some(0)]),
            [Some("-32768"), Some("32767"), None, Some("0")],
        ),
        case(
            ColumnType::Int32,
            Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None, Some(0)]),
            [Some("-2147483648"), Some("2147483647"), None, Some("0")],
        ),
        case(
            ColumnType::Int64,
            Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None, Some(0)]),
            [Some("-9223372036854775808"), Some("9223372036854775807"), None, Some("0")],
        ),
        case(
            ColumnType::Float32,
            Float32Array::from(vec![Some(f32::NAN), Some(f32::NEG_INFINITY), None, Some(0.1)]),
            [Some("NaN"), Some("-Infinity"), None, Some("0.1")],
        ),
        case(
            ColumnType::Float64,
            Float64Array::from(vec![Some(f64::MIN_POSITIVE), Some(-0.0), None, Some(0.1 + 0.2)]),
            [Some("2.2250738585072014e-308"), Some("-0"), None, Some("0.30000000000000004")],
        ),
        case(
            ColumnType::Decimal { precision: 12, scale: 2 },
            decimal([Some(-1), Some(123_456_789_012), None, Some(0)], 12, 2),
            [Some("-0.01"), Some("1234567890.12"), None, Some("0.00")],
        ),
        case(
            ColumnType::Decimal { precision: 38, scale: 38 },
            decimal([Some(largest), Some(-largest), None, Some(1)], 38, 38),
            [
                Some("0.99999999999999999999999999999999999999"),
                Some("-0.99999999999999999999999999999999999999"),
                None,
                Some("0.00000000000000000000000000000000000001"),
            ],
        ),
        case(
            ColumnType::Decimal { precision: 38, scale: 0 },
            decimal([Some(largest), Some(-largest), None, Some(10_000)], 38, 0),
            [
                Some("99999999999999999999999999999999999999"),
                Some("-99999999999999999999999999999999999999"),
                None,
                Some("10000"),
            ],
        ),
        case(
            ColumnType::Decimal { precision: 5, scale: -2 },
            decimal([Some(123), Some(-1), None, Some(0)], 5, -2),
            [Some("12300"), Some("-100"), None, Some("0")],
        ),
        case(
            ColumnType::Numeric,
            StringArray::from(vec![
                Some("NaN"),
                Some("-Infinity"),
                None,
                Some("1234567890123456789012345678901234567890.5000"),
            ]),
            [Some("NaN"), Some("-Infinity"), None, Some("1234567890123456789012345678901234567890.5000")],
        ),
    ]
}

fn texts() -> Vec<Case> {
    let text = |values: [Option<&'static str>; 4]| StringArray::from(values.to_vec());
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    vec![
        case(
            ColumnType::Text,
            text([Some(""), Some("padded  "), None, Some("naïve 😀")]),
            [Some(""), Some("padded  "), None, Some("naïve 😀")],
        ),
        case(ColumnType::Uuid, text([Some(uuid), None, None, None]), [Some(uuid), None, None, None]),
        case(
            ColumnType::Json,
            text([Some("{\"b\": 1,  \"a\":1.10}"), Some("null"), None, Some("[]")]),
            [Some("{\"b\": 1,  \"a\":1.10}"), Some("null"), None, Some("[]")],
        ),
        case(
            ColumnType::Jsonb,
            text([Some("{\"b\":1,\"a\":1.10}"), Some("null"), None, Some("[]")]),
            [Some("{\"a\": 1.10, \"b\": 1}"), Some("null"), None, Some("[]")],
        ),
        case(
            ColumnType::Other("inet".to_owned()),
            text([Some("10.0.0.1"), None, None, None]),
            [Some("10.0.0.1/32"), None, None, None],
        ),
        case(
            ColumnType::Binary,
            BinaryArray::from(vec![Some(&[0_u8, 255][..]), Some(&[]), None, None]),
            [Some("\\x00ff"), Some("\\x"), None, None],
        ),
    ]
}

fn times() -> Vec<Case> {
    let extremes = vec![Some(i64::MAX), Some(i64::MIN), None, Some(-1)];
    vec![
        case(
            ColumnType::Date,
            Date32Array::from(vec![Some(i32::MAX), Some(0), None, Some(-719_163)]),
            [Some("infinity"), Some("1970-01-01"), None, Some("0001-12-31 BC")],
        ),
        case(
            ColumnType::Time,
            Int64Array::from(vec![Some(0), Some(86_400_000_000), None, Some(1)]),
            [Some("00:00:00"), Some("24:00:00"), None, Some("00:00:00.000001")],
        ),
        case(
            ColumnType::Timestamp,
            TimestampMicrosecondArray::from(extremes.clone()),
            [Some("infinity"), Some("-infinity"), None, Some("1969-12-31 23:59:59.999999")],
        ),
        case(
            ColumnType::TimestampTz,
            TimestampMicrosecondArray::from(extremes).with_timezone("UTC"),
            [Some("infinity"), Some("-infinity"), None, Some("1969-12-31 23:59:59.999999+00")],
        ),
    ]
}

fn native() -> Vec<Case> {
    let text = |values: [Option<&'static str>; 4]| StringArray::from(values.to_vec());
    let element = |data_type| Field::new("element", data_type, true);
    let mut numbers = ListBuilder::new(Int32Builder::new()).with_field(element(DataType::Int32));
    let mut addresses = ListBuilder::new(StringBuilder::new()).with_field(element(DataType::Utf8));
    let mut floats = ListBuilder::new(Float64Builder::new()).with_field(element(DataType::Float64));
    numbers.extend([Some(vec![Some(1), None]), Some(vec![]), None, Some(vec![Some(i32::MIN)])]);
    addresses.extend([Some(vec![Some("10.0.0.1/8"), None]), Some(vec![]), None, Some(vec![Some("::1")])]);
    floats.extend([Some(vec![Some(0.1), Some(f64::NAN)]), Some(vec![]), None, Some(vec![Some(-0.0)])]);
    let array = |element| ColumnType::Array(Box::new(element));
    vec![
        case(
            array(ColumnType::Int32),
            numbers.finish(),
            [Some("{1,NULL}"), Some("{}"), None, Some("{-2147483648}")],
        ),
        case(
            array(ColumnType::Other("inet".to_owned())),
            addresses.finish(),
            [Some("{10.0.0.1/8,NULL}"), Some("{}"), None, Some("{::1}")],
        ),
        case(ColumnType::Vector, floats.finish(), [Some("{0.1,NaN}"), Some("{}"), None, Some("{-0}")]),
        case(
            ColumnType::Bits(3),
            text([Some("101"), Some("000"), None, Some("001")]),
            [Some("101"), Some("000"), None, Some("001")],
        ),
        case(
            ColumnType::Interval,
            text([Some("P1Y2M3DT4H5M6.5S"), Some("P0Y0M-1DT0H0M0.000001S"), None, Some("PT-2H0M0S")]),
            [
                Some("1 year 2 mons 3 days 04:05:06.5"),
                Some("-1 days +00:00:00.000001"),
                None,
                Some("-02:00:00"),
            ],
        ),
        case(
            ColumnType::Duration,
            Int64Array::from(vec![Some(90_000_001), Some(-1), None, Some(0)]),
            [Some("00:01:30.000001"), Some("-00:00:00.000001"), None, Some("00:00:00")],
        ),
        case(
            ColumnType::Geometric(Shape::Path),
            text([Some("[(0,0),(1,1)]"), Some("((0,0))"), None, Some("[(NaN,1e+20)]")]),
            [Some("[(0,0),(1,1)]"), Some("((0,0))"), None, Some("[(NaN,1e+20)]")],
        ),
        case(
            ColumnType::Hstore,
            text([Some("{\"a\":null}"), Some("{}"), None, None]),
            [Some("{\"a\":null}"), Some("{}"), None, None],
        ),
        case(
            ColumnType::Other("io.debezium.time.ZonedTime".to_owned()),
            text([Some("10:34:56.789012Z"), Some("24:00:00-15:59"), None, None]),
            [Some("10:34:56.789012+00"), Some("24:00:00-15:59"), None, None],
        ),
    ]
}

#[tokio::test]
async fn every_type_arrives_exactly() {
    let cases: Vec<Case> = numbers().into_iter().chain(texts()).chain(times()).chain(native()).collect();
    let names: Vec<String> = (0..cases.len()).map(|number| format!("Column \"{number}\"")).collect();
    let mut columns = vec![("id", ColumnType::Int32)];
    columns.extend(names.iter().map(String::as_str).zip(cases.iter().map(|case| case.column_type.clone())));
    let schema = schema(1, &columns);
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![0, 1, 2, 3]))];
    arrays.extend(cases.iter().map(|case| Arc::clone(&case.values)));

    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = Mirror::new(&MirrorOptions::new("target", "shop", &database.url())).unwrap();
    mirror.load().await.unwrap();
    let change = changes("every", &schema, 0, &[Operation::Read; 4], arrays);
    let report = mirror.commit(&batch(vec![("t.every", 0, 4, vec![change])])).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    client.batch_execute("SET timezone = 'UTC'").await.unwrap();
    for (case, name) in cases.iter().zip(&names) {
        let sql = format!("SELECT \"{}\"::text FROM public.every ORDER BY id", name.replace('"', "\"\""));
        let shown: Vec<Option<String>> =
            client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        let shown: Vec<Option<&str>> = shown.iter().map(Option::as_deref).collect();
        assert_eq!(shown, case.shown, "{:?}", case.column_type);
    }
}
