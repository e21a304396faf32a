//! What is said about connectors, from what Kafka Connect tells of them.

use serde_json::{Value, json};

use super::*;
use crate::cli::check::{FoundTopic, Level};
use crate::config::{Purpose, Sources, load};

/// The settings of `connectors/`, which lose nothing.
fn good() -> Value {
    serde_json::from_str(include_str!("../../../../connectors/postgres-source-connector.json")).unwrap()
}

fn connectors(name: &str, config: &Value, state: &str) -> Vec<FoundConnector> {
    let answer = json!({ name: { "info": { "name": name, "config": config, "tasks": [], "type": "source" },
        "status": { "tasks": [{ "id": 0, "state": state }] } } });
    FoundConnector::all(answer.to_string().as_bytes()).unwrap()
}

fn settings(folder: &tempfile::TempDir, text: &str) -> Settings {
    let path = folder.path().join("a.toml");
    std::fs::write(&path, format!("kafka.topics = ['^cdc']\n{text}")).unwrap();
    load(&Sources { file: Some(path), ..Sources::default() }, Purpose::Run).unwrap()
}

fn column(type_name: &str) -> FoundColumn {
    let may_toast = !matches!(type_name, "int4" | "interval" | "timestamp" | "time" | "money");
    FoundColumn {
        name: format!("c_{type_name}"),
        type_name: type_name.into(),
        nullable: true,
        has_default: type_name == "int4",
        may_toast,
        ..FoundColumn::default()
    }
}

/// A source with one table of columns of these types.
fn source(types: &[&str]) -> FoundSource {
    let table = FoundTable {
        schema: "public".into(),
        name: "t".into(),
        has_primary_key: true,
        replica_identity: 'd',
        partition_of: None,
        columns: types.iter().map(|type_name| column(type_name)).collect(),
    };
    FoundSource::of(vec![table])
}

fn with(changes: &[(&str, &str)]) -> Value {
    let mut config = good();
    for (name, value) in changes {
        if value.is_empty() {
            config.as_object_mut().unwrap().remove(*name);
        } else {
            config[*name] = (*value).into();
        }
    }
    config
}

/// The findings as level and message, of a connector with these settings changed.
fn said(changes: &[(&str, &str)], source: Option<&FoundSource>) -> Vec<(Level, String)> {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder, "");
    let around = Surroundings { settings: &settings, topics: None, source };
    let findings = judge(&connectors("shop", &with(changes), "RUNNING"), &around);
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok || finding.cure.is_some()),
        "{findings:?}"
    );
    findings.into_iter().map(|finding| (finding.level, finding.message)).collect()
}

#[test]
fn the_connector_that_comes_with_the_program_loses_nothing() {
    let everything = source(&["int4", "text", "bytea", "jsonb", "timestamp"]);
    assert_eq!(
        said(&[], Some(&everything)),
        [(Level::Ok, "shop: runs, and none of its settings loses values".to_owned())]
    );
}

#[test]
fn each_setting_that_loses_values_is_found_where_it_concerns_something() {
    let concerned =
        source(&["int4", "numeric", "bytea", "interval", "time", "timestamp", "_float8", "bit", "varbit"]);
    let unconcerned = source(&["text"]);
    for (setting, value, words) in [
        ("value.converter.replace.null.with.default", "", "arrives as the default: public.t.c_int4"),
        ("decimal.handling.mode", "double", "are rounded (decimal.handling.mode=double): public.t.c_numeric"),
        (
            "decimal.handling.mode",
            "precise",
            "NaN and infinities of numeric have no form in decimal.handling.mode=precise",
        ),
        (
            "time.precision.mode",
            "connect",
            "microseconds are cut off (time.precision.mode=connect): public.t.c_time, public.t.c_timestamp",
        ),
        ("time.precision.mode", "isostring", "24:00:00 arrives as 00:00:00"),
        (
            "time.precision.mode",
            "structured",
            "24:00:00 arrives as null (time.precision.mode=structured): public.t.c_time",
        ),
        ("time.precision.mode", "nanoseconds", "(time.precision.mode=nanoseconds): public.t.c_timestamp"),
        ("interval.handling.mode", "numeric", "a month of an interval arrives as 30.4375 days"),
        ("binary.handling.mode", "base64", "arrives as null (binary.handling.mode=base64): public.t.c_bytea"),
        (
            "snapshot.mode",
            "initial",
            "has no placeholder and stops the connector: public.t.c__float8, public.t.c_bit, public.t.c_varbit",
        ),
        (
            "event.converting.failure.handling.mode",
            "warn",
            "has no placeholder and arrives as null: public.t.c__float8, public.t.c_bit, public.t.c_varbit",
        ),
        ("snapshot.mode", "initial", "a number of thousands of digits that an update does not change"),
    ] {
        let said_of = |source: &FoundSource| said(&[(setting, value)], Some(source));
        let found = said_of(&concerned);
        assert!(found.iter().any(|(_, text)| text.contains(words)), "no {words:?} in {found:#?}");
        let found = said_of(&unconcerned);
        assert!(
            !found.iter().any(|(_, text)| text.contains(words)),
            "{words:?} concerns nothing: {found:#?}"
        );
    }
}

#[test]
fn without_the_source_a_hazard_is_told_without_names() {
    let found = said(&[("value.converter.replace.null.with.default", "true")], None);
    let expected = "arrives as the default (set source.url to see which)";
    assert!(found.iter().any(|(_, text)| text.contains(expected)), "{found:#?}");
}

#[test]
fn each_setting_that_leaves_something_out_is_found() {
    for (setting, value, level, words) in [
        (
            "value.converter",
            "io.confluent.connect.avro.AvroConverter",
            Level::Fail,
            "events are read as JSON",
        ),
        ("unavailable.value.placeholder", "n/a", Level::Fail, "placeholders would be taken for values"),
        ("event.converting.failure.handling.mode", "warn", Level::Warn, "becomes null"),
        ("event.converting.failure.handling.mode", "", Level::Warn, "becomes null"),
        ("event.processing.failure.handling.mode", "skip", Level::Warn, "cannot process is left out"),
        ("errors.tolerance", "all", Level::Warn, "is left out"),
        ("skipped.operations", "u,t", Level::Warn, "changes are left out (skipped.operations=u,t)"),
        ("skipped.operations", "", Level::Note, "truncates are not sent"),
        ("snapshot.mode", "no_data", Level::Warn, "rows from before its start are not read"),
        ("snapshot.mode", "initial_only", Level::Warn, "it ends after the snapshot"),
        (
            "column.mask.with.8.chars",
            "public.t.c",
            Level::Note,
            "masked or cut before Kafka: column.mask.with.8.chars",
        ),
        ("converters", "mine", Level::Note, "custom converters"),
        ("value.converter.schemas.enable", "false", Level::Warn, "column types are taken from values"),
    ] {
        let found = said(&[(setting, value)], None);
        let is = |(of, text): &(Level, String)| *of == level && text.contains(words);
        assert!(found.iter().any(is), "no {level:?} {words:?} for {setting}={value} in {found:#?}");
    }
}

/// The failures, of a connector with these settings changed, under these settings of ours.
fn failures(changes: &[(&str, &str)], source: Option<&FoundSource>, text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder, text);
    let around = Surroundings { settings: &settings, topics: None, source };
    let findings = judge(&connectors("shop", &with(changes), "RUNNING"), &around).into_iter();
    findings.filter(|finding| finding.level == Level::Fail).map(|finding| finding.message).collect()
}

const BARE: (&str, &str) = ("value.converter.schemas.enable", "false");

#[test]
fn a_mode_that_is_not_the_connectors_fails_where_no_schema_block_says_it() {
    let concerned = source(&["numeric", "money", "time", "bytea"]);
    let unconcerned = source(&["text"]);
    for (setting, value, words) in [
        (
            "decimal.handling.mode",
            "string",
            "decimal.handling.mode=string, and debezium.decimal_handling_mode is precise",
        ),
        (
            "time.precision.mode",
            "microseconds",
            "time.precision.mode=microseconds, and debezium.time_precision_mode is adaptive",
        ),
        (
            "binary.handling.mode",
            "hex",
            "binary.handling.mode=hex, and debezium.binary_handling_mode is bytes",
        ),
        ("money.fraction.digits", "3", "money.fraction.digits=3"),
    ] {
        let said = failures(&[BARE, (setting, value)], Some(&concerned), "");
        assert!(matches!(&said[..], [message] if message.contains(words)), "no {words:?} in {said:#?}");
        assert_eq!(failures(&[BARE, (setting, value)], Some(&unconcerned), ""), [""; 0], "{setting}");
        assert_eq!(
            failures(&[(setting, value)], Some(&concerned), ""),
            [""; 0],
            "{setting} with schema blocks"
        );
        assert_eq!(failures(&[BARE, (setting, value)], None, "").len(), 1, "{setting} without the source");
    }
    let same = "debezium.time_precision_mode = 'microseconds'";
    assert_eq!(failures(&[BARE, ("time.precision.mode", "MICROSECONDS")], Some(&concerned), same), [""; 0]);
    let said = failures(&[BARE, ("time.precision.mode", "")], Some(&concerned), same);
    assert!(said[0].contains("time.precision.mode=adaptive, and"), "its default: {said:?}");
}

#[test]
fn types_of_the_source_in_the_schema_block_leave_the_form_of_bytes_to_the_settings() {
    let named = [("column.propagate.source.type", ".*"), ("binary.handling.mode", "hex")];
    let said = failures(&named, Some(&source(&["bytea"])), "");
    assert!(matches!(&said[..], [message] if message.ends_with(": public.t.c_bytea")), "{said:?}");
}

#[test]
fn columns_with_a_configured_type_need_no_mode() {
    let changes = [BARE, ("time.precision.mode", "microseconds")];
    let typed = "[[tables]]\nsource = 'public.t'\ntypes = { c_time = 'time' }";
    assert_eq!(failures(&changes, Some(&source(&["time"])), typed), [""; 0]);
    assert_eq!(failures(&changes, Some(&source(&["time", "timestamp"])), typed).len(), 1);
    assert_eq!(failures(&changes, None, typed), [""; 0], "a warning: perhaps all columns have types");
}

#[test]
fn prefixes_of_metadata_are_compared_with_the_transform_that_adds_it() {
    let flat = [
        ("transforms", "flat"),
        ("transforms.flat.type", "io.debezium.transforms.ExtractNewRecordState"),
        ("transforms.flat.add.fields", "op,lsn"),
    ];
    assert_eq!(failures(&flat, None, ""), [""; 0]);
    let other = [&flat[..], &[("transforms.flat.add.fields.prefix", "dbz_")][..]].concat();
    let said = failures(&other, None, "");
    assert!(matches!(&said[..], [message] if message.contains("flattened_prefix is __")), "{said:?}");
    assert_eq!(failures(&other, None, "debezium.flattened_prefix = 'dbz_'"), [""; 0]);
    let headers = [&flat[..], &[("transforms.flat.add.headers.prefix", "dbz_")][..]].concat();
    assert_eq!(failures(&headers, None, ""), [""; 0], "no headers are added");
}

#[test]
fn transforms_are_named_with_what_they_lose() {
    let flat = ("transforms.flat.type", "io.debezium.transforms.ExtractNewRecordState");
    let drop = ("transforms.flat.delete.tombstone.handling.mode", "drop");
    let found = said(
        &[("transforms", "flat, part"), flat, drop, ("transforms.part.type", "x.PartitionRouting")],
        None,
    );
    for words in
        ["flat drops deletes", "flat flattens events", "part puts changes of one row on several partitions"]
    {
        assert!(found.iter().any(|(_, text)| text.contains(words)), "no {words:?} in {found:#?}");
    }
    let found = said(&[("transforms", "mine"), ("transforms.mine.type", "org.example.Mine")], None);
    let words = "the transform mine (Mine) changes or leaves out records";
    assert!(found.iter().any(|(_, text)| text.contains(words)), "no {words:?} in {found:#?}");
}

#[test]
fn a_connector_that_does_not_run_or_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder, "");
    let topic = FoundTopic { name: "other.public.t".into(), partitions: 1, cleanup_policy: None };
    let topics = FoundTopics { cluster_id: None, topics: vec![topic] };
    let around = |topics| Surroundings { settings: &settings, topics, source: None };
    let found = judge(&connectors("shop", &good(), "FAILED"), &around(None));
    assert!(found[0].level == Level::Fail && found[0].message.contains("(FAILED)"), "{found:?}");
    let found = judge(&connectors("shop", &good(), "RUNNING"), &around(Some(&topics)));
    assert!(found[0].message.contains("no Debezium connector here"), "{found:?}");
}

#[test]
fn neither_an_answer_nor_a_connector_shows_its_secrets() {
    let found = connectors("shop", &with(&[("database.password", "hunter2")]), "RUNNING");
    assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
    let error = FoundConnector::all(b"{\"a\":{\"info\":\"hunter2\"}}").unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}
