//! What the sink already has decides how columns are carried.

use super::*;
use crate::change::{Column, ColumnType};

/// A decoder for a sink that has the table `public.t` with these columns.
fn decoder_of(columns: &[(&str, ColumnType)]) -> Decoder {
    let columns = columns
        .iter()
        .map(|(name, column_type)| Column {
            name: (*name).into(),
            column_type: column_type.clone(),
            nullable: true,
        })
        .collect();
    let schema = Arc::new(TableSchema::new(columns, vec![]));
    Decoder::new(DecoderOptions::default(), move |_: &TableId| Some(Arc::clone(&schema)))
}

const ARRAY: &str = r#""type":"array","items":{"type":"int32"}"#;
const BITS: &str = r#""type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"8","__debezium.source.column.type":"BIT"}"#;
const DAY: &str = r#""type":"string","name":"io.debezium.time.IsoDate""#;
const TEXT: &str = r#""type":"string","parameters":{"__debezium.source.column.type":"NUMERIC"}"#;

/// The cells of one row with these columns, by a sink that has them as `stored`.
fn row(stored: &[(&str, ColumnType)]) -> Vec<String> {
    let fields = [("id", r#""type":"int64""#), ("a", ARRAY), ("b", BITS), ("d", DAY), ("t", TEXT)];
    let after = r#"{"id":0,"a":[1, null],"b":"oQ==","d":"2024-02-29Z","t":"NAN"}"#;
    let record = Record::new(0, &key_with_schema(0), &with_schema(&fields, &event("c", "null", after)));
    cells(&decode(&mut decoder_of(stored), &[record]).changes[0]).remove(0)
}

#[test]
fn what_an_earlier_version_stored_as_text_goes_on_as_that_text() {
    let other = |name: &str| ColumnType::Other(name.to_owned());
    let stored = [
        ("a", other("array")),
        ("b", other("io.debezium.data.Bits")),
        ("d", other("io.debezium.time.IsoDate")),
        ("t", ColumnType::Text),
    ];
    assert_eq!(row(&stored), ["0", "[1,null]", "oQ==", "2024-02-29Z", "NAN"]);
}

/// The connector was not told to say the source's type when the table was made.
#[test]
fn bytes_of_a_text_that_were_stored_as_bytes_go_on_as_bytes() {
    let parameters = |name: &str| format!(r#""parameters":{{"__debezium.source.column.type":"{name}"}}"#);
    let book = format!(r#""type":"bytes",{}"#, parameters("ISBN13"));
    let books = format!(r#""type":"array","items":{{"type":"bytes"}},{}"#, parameters("_ISBN13"));
    let fields = [("id", r#""type":"int64""#), ("b", book.as_str()), ("l", books.as_str())];
    let after = r#"{"id":0,"b":"OTc4LTA=","l":["OTc4LTA="]}"#;
    let record = Record::new(0, &key_with_schema(0), &with_schema(&fields, &event("c", "null", after)));
    let row = |stored: &[(&str, ColumnType)]| {
        cells(&decode(&mut decoder_of(stored), std::slice::from_ref(&record)).changes[0]).remove(0)
    };
    assert_eq!(row(&[]), ["0", "978-0", "[978-0]"]);
    let stored = [("b", ColumnType::Binary), ("l", ColumnType::Array(Box::new(ColumnType::Binary)))];
    assert_eq!(row(&stored), ["0", "3937382d30", "[3937382d30]"]);
}

#[test]
fn new_columns_have_the_type_that_is_meant() {
    let expected = ["0", "[1, ]", "10100001", "19782", "NaN"];
    assert_eq!(row(&[]), expected);
    let stored = [
        ("a", ColumnType::Array(Box::new(ColumnType::Int32))),
        ("b", ColumnType::Bits(8)),
        ("d", ColumnType::Date),
    ];
    assert_eq!(row(&stored), expected);
}

#[test]
fn an_array_within_a_key_is_json_text() {
    let field = r#"{"type":"array","items":{"type":"int32","optional":true},"optional":false,"field":"id"}"#;
    let key = format!(r#"{{"schema":{{"type":"struct","fields":[{field}]}},"payload":{{"id":[1,2]}}}}"#);
    let value = with_schema(&[("id", ARRAY)], &event("c", "null", r#"{"id":[1, 2]}"#));
    let batch = decode(&mut decoder(), &[Record::new(0, &key, &value)]);
    assert_eq!(cells(&batch.changes[0]), [["[1,2]"]]);
}

#[test]
fn a_configured_type_says_what_a_mere_string_is() {
    let fields = [("id", r#""type":"int64""#), ("by", r#""type":"string""#), ("n", r#""type":"string""#)];
    let after = r#"{"id":0,"by":"00ff10","n":"1.50"}"#;
    let record = Record::new(0, &key_with_schema(0), &with_schema(&fields, &event("c", "null", after)));
    let mut decoder = decoder_with(&[("by", "bytes_hex"), ("n", "decimal_text(10,2)"), ("id", "text")]);
    let batch = decode(&mut decoder, &[record]);
    assert_eq!(cells(&batch.changes[0]), [["0", "00ff10", "1.50"]]);
    let types: Vec<&ColumnType> =
        batch.changes[0].schema.columns().iter().map(|column| &column.column_type).collect();
    let decimal = ColumnType::Decimal { precision: 10, scale: 2 };
    assert_eq!(types, [&ColumnType::Int64, &ColumnType::Binary, &decimal], "only strings are refined");
}

/// A catalog that knows these types of every table.
#[derive(Debug)]
struct Catalog(Vec<(&'static str, &'static str)>);

impl crate::debezium::SourceTypes for Catalog {
    fn of(
        &self,
        _: &TableId,
        _: crate::debezium::Modes,
    ) -> Option<HashMap<String, crate::debezium::ConfiguredType>> {
        Some(self.0.iter().map(|(name, text)| ((*name).to_owned(), text.parse().unwrap())).collect())
    }
}

#[test]
fn the_catalog_of_the_source_gives_types_to_events_without_schema() {
    let types = vec![("id", "int64"), ("a", "int32[]"), ("at", "timestamp_ms"), ("ip", "inet")];
    let options = DecoderOptions { source: Some(Arc::new(Catalog(types))), ..DecoderOptions::default() };
    let mut decoder = Decoder::new(options.clone(), nothing_known);
    let after = r#"{"id":0,"a":[1,null],"at":1709251199999,"ip":"10.0.0.1"}"#;
    let record = Record::new(0, r#"{"id":0}"#, &event("c", "null", after));
    let batch = decode(&mut decoder, std::slice::from_ref(&record));
    assert_eq!(cells(&batch.changes[0]), [["0", "[1, ]", "1709251199999000", "10.0.0.1"]]);

    // A table that was made from values keeps what it has.
    let columns =
        [("id", ColumnType::Int64), ("at", ColumnType::Int64), ("a", ColumnType::Other("array".into()))];
    let columns =
        columns.map(|(name, column_type)| Column { name: name.into(), column_type, nullable: true });
    let schema = Arc::new(TableSchema::new(columns.to_vec(), vec![0]));
    let mut decoder = Decoder::new(options, move |_: &TableId| Some(Arc::clone(&schema)));
    let batch = decode(&mut decoder, &[record]);
    assert_eq!(cells(&batch.changes[0]), [["0", "[1,null]", "1709251199999", "10.0.0.1"]]);
}
