//! Bad input: each kind of it has its error, and none of it a panic or a trace of values.

use proptest::prelude::*;

use super::*;

const KEY: &str = r#"{"id":1}"#;

#[test]
fn each_kind_of_bad_record_has_its_error() {
    let good = event("c", "null", r#"{"id":1}"#);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (value, kind) in [
        ("", RecordErrorKind::NotJson),
        ("not json", RecordErrorKind::NotJson),
        (&good[..good.len() - 1], RecordErrorKind::NotJson),
        (&format!("{good} x"), RecordErrorKind::NotJson),
        (&good.replace("\"ts_us\":17", "\"ts_us\":1e99917"), RecordErrorKind::NotJson),
        ("17", RecordErrorKind::NotAnEvent),
        ("[]", RecordErrorKind::NotAnEvent),
        ("{}", RecordErrorKind::NotAnEvent),
        (&deep, RecordErrorKind::NotAnEvent),
        (r#"[null,{"id":1},{"db":"d","schema":"s","table":"t"},"c"]"#, RecordErrorKind::NotAnEvent),
        (r#"{"op":"c","after":{"id":1},"source":["d","public","t"]}"#, RecordErrorKind::NotAnEvent),
        (r#"{"id":1,"name":"flattened"}"#, RecordErrorKind::NotAnEvent),
        (&good.replace("\"source\"", "\"origin\""), RecordErrorKind::NotAnEvent),
        (&event("u", "null", "null"), RecordErrorKind::NotAnEvent),
        (&event("c", "null", "[1]"), RecordErrorKind::NotAnEvent),
        (&event("c", "null", "7"), RecordErrorKind::NotAnEvent),
        (&event("x", "null", "null"), RecordErrorKind::UnknownOperation),
        (&event("c", "null", r#"{"other":1}"#), RecordErrorKind::InvalidSchema),
        (&format!(r#"{{"schema":[],"payload":{good}}}"#), RecordErrorKind::InvalidSchema),
        (
            &format!(r#"{{"schema":{{"type":"struct","fields":[]}},"payload":{good}}}"#),
            RecordErrorKind::InvalidSchema,
        ),
        (&with_schema(&[("x", r#""type":"int64""#)], &good), RecordErrorKind::InvalidSchema),
        (
            &with_schema(&[("id", r#""type":"int64""#), ("id", r#""type":"int64""#)], &good),
            RecordErrorKind::InvalidSchema,
        ),
        (&with_schema(&[("id", r#""type":"boolean""#)], &good), RecordErrorKind::InvalidValue),
    ] {
        let shown: String = value.chars().take(120).collect();
        assert_eq!(error_of(KEY, value), kind, "{shown}");
    }
}

#[test]
fn a_row_without_a_usable_key_is_a_missing_key() {
    let good = event("c", "null", r#"{"id":1}"#);
    for key in ["{}", "5", "\"a\"", "[1]"] {
        assert_eq!(error_of(key, &good), RecordErrorKind::MissingKey, "{key}");
    }
    for key in ["", "{", r#"{"id":}"#] {
        assert_eq!(error_of(key, &good), RecordErrorKind::NotJson, "{key}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_not_json() {
    let topic: Arc<str> = "cdc.public.t".into();
    let bad = [b'{', b'"', 0xff, b'"', b'}'];
    let good = event("c", "null", r#"{"id":1}"#);
    for (key, value) in [(bad.as_slice(), good.as_bytes()), (KEY.as_bytes(), bad.as_slice())] {
        let record = RecordRef {
            topic: &topic,
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(key),
            value: Some(value),
            new_key: None,
            old_key: None,
            headers: &(),
        };
        let error = decoder().push(record, &TopicIdentity::unknown()).unwrap_err();
        assert_eq!(error.kind, RecordErrorKind::NotJson);
    }
}

#[test]
fn an_error_names_its_place_and_column_and_no_value() {
    let mut decoder = decoder_with(&[("pin", "int16")]);
    let record = Record::new(9, KEY, &event("c", "null", r#"{"id":1,"pin":"hunter2"}"#));
    let text = record.push(&mut decoder).unwrap_err().to_string();
    assert_eq!(
        text,
        "record cdc.public.t/0@9: column `pin` of public.t: expected an integer of 16 bits (invalid_value)"
    );
}

#[test]
fn after_an_error_the_good_records_before_it_are_still_there() {
    let mut decoder = decoder();
    let good = |offset| Record::new(offset, KEY, &event("c", "null", r#"{"id":1}"#));
    good(0).push(&mut decoder).unwrap();
    Record::new(1, KEY, "poison").push(&mut decoder).unwrap_err();
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.records, 1);
    assert_eq!(batch.spans.values().next().unwrap().next, 1);
    let other = Record { topic: "cdc.public.other".into(), ..good(0) };
    assert!(other.push(&mut decoder).is_ok(), "other topics go on");
}

proptest! {
    #[test]
    fn any_damage_to_a_record_gives_an_answer_and_no_panic(
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let fields = [("id", r#""type":"int64""#), ("v", r#""type":"string""#)];
        let value = with_schema(&fields, &event("c", "null", r#"{"id":1,"v":"a\"b"}"#));
        let mut bytes = value.into_bytes();
        let at = position.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let topic: Arc<str> = "cdc.public.t".into();
        let key = key_with_schema(1);
        let record = RecordRef {
            topic: &topic,
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(key.as_bytes()),
            value: Some(&bytes),
            new_key: None,
            old_key: None,
            headers: &(),
        };
        let mut decoder = decoder();
        let good = Record::new(0, &key, &with_schema(&fields, &event("c", "null", r#"{"id":1,"v":"a"}"#)));
        good.push(&mut decoder).unwrap();
        let accepted = decoder.push(record, &TopicIdentity::unknown()).is_ok();
        let batch = decoder.finish().unwrap();
        prop_assert_eq!(batch.records, 1 + u64::from(accepted));
    }
}
