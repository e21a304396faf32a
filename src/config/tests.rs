//! What is accepted, what wins, and what is said about each kind of problem.
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// A folder with a settings file; names in messages are shortened to the file's.
struct Case {
    folder: TempDir,
    sources: Sources,
}

impl Case {
    fn file(name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Self { folder, sources: Sources { file: Some(path), ..Sources::default() } }
    }

    /// Settings with topics, and `text` behind them.
    fn toml(text: &str) -> Self {
        Self::file("a.toml", &format!("kafka.topics = ['t']\n{text}"))
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn set(mut self, assignment: &str) -> Self {
        self.sources.overrides.push(assignment.to_owned());
        self
    }

    fn settings(&self) -> Settings {
        load(&self.sources, Purpose::Run).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn problems(&self) -> String {
        let folder = format!("{}/", self.folder.path().display());
        load(&self.sources, Purpose::Run)
            .map_or_else(|problems| problems.to_string(), |_| "none".into())
            .replace(&folder, "")
    }
}

fn assert_problems(case: &Case, expected: &[&str]) {
    assert_eq!(case.problems().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_defaults_hold_where_nothing_is_set() {
    let settings = Case::toml("").settings();
    assert_eq!(settings.pipeline.name, "alluvium");
    assert_eq!(settings.kafka.topics, ["t"]);
    assert_eq!(settings.kafka.on_data_loss, OnDataLoss::Halt);
    assert_eq!(settings.batch.max_delay, Duration::from_secs(1));
    assert_eq!(settings.batch.max_bytes, ByteSize(64 << 20));
    assert_eq!(settings.lake.raw_table, "cdc_events");
    assert_eq!(settings.admin.listen.unwrap().to_string(), "127.0.0.1:8090");
    assert!(settings.source.url.is_none() && settings.mirrors.is_empty() && settings.tables.is_empty());
}

#[test]
fn the_defaults_alone_lack_only_the_topics() {
    let case = Case { folder: tempfile::tempdir().unwrap(), sources: Sources::default() };
    assert_problems(
        &case,
        &["default: kafka.topics: no topics: set names, or regular expressions that begin with ^"],
    );
}

#[test]
fn only_topics_may_be_missing_to_look_at_the_result() {
    let look = |text: &str| {
        let case = Case::file("a.toml", text);
        load(&case.sources, Purpose::Look).map_or_else(|problems| problems.0.len(), |_| 0)
    };
    assert_eq!(look("lake.uri = 's3://b/lake'"), 0);
    assert_eq!(look("kafka.topics = ['^a(']\nbatch.max_rows = 0\nmirrors.m.schema = 'x'"), 3);
}

#[test]
fn later_layers_win() {
    let case = Case::toml("[batch]\nmax_rows = 1\nmax_delay = '2s'\n[pipeline]\nname = 'file'");
    assert_eq!((case.settings().batch.max_rows, case.settings().pipeline.name.as_str()), (1, "file"));
    let case = case.env("ALLUVIUM__BATCH__MAX_ROWS", "2").env("ALLUVIUM__PIPELINE__NAME", "env");
    assert_eq!((case.settings().batch.max_rows, case.settings().pipeline.name.as_str()), (2, "env"));
    let case = case.set("batch.max_rows=3");
    let settings = case.settings();
    assert_eq!((settings.batch.max_rows, settings.pipeline.name.as_str()), (3, "env"));
    assert_eq!(settings.batch.max_delay, Duration::from_secs(2), "what later layers do not set stays");
}

#[test]
fn yaml_is_read_as_toml_is() {
    let case = Case::file(
        "a.yaml",
        "kafka:\n  topics: [a, '^b.*']\n  properties:\n    security.protocol: ssl\n    socket.timeout.ms: 9000\n\
         tables:\n- source: public.a\n  types: {id: int64}\n",
    );
    let settings = case.settings();
    assert_eq!(settings.kafka.topics, ["a", "^b.*"]);
    assert_eq!(settings.kafka.properties.get("security.protocol"), Some("ssl"));
    assert_eq!(settings.kafka.properties.get("socket.timeout.ms"), Some("9000"));
    assert_eq!(settings.table("public.a").unwrap().types.len(), 1);
    assert_eq!(settings.column_types()["public.a"]["id"], "int64".parse().unwrap());
}

#[test]
fn text_layers_take_lists_maps_and_options() {
    let case = Case::toml("")
        .env("ALLUVIUM__KAFKA__TOPICS", "a, b")
        .env("ALLUVIUM__KAFKA__PROPERTIES__SASL_USERNAME", "u")
        .env("ALLUVIUM__LAKE__STORAGE_OPTIONS__AWS_REGION", "eu")
        .env("ALLUVIUM__MIRRORS__TARGET__URL", "{ env = 'T' }")
        .env("T", "postgres://u:p@h/d")
        .set("kafka.properties.sasl.mechanism=PLAIN");
    let settings = case.settings();
    assert_eq!(settings.kafka.topics, ["a", "b"]);
    assert_eq!(settings.kafka.properties.get("sasl.username"), Some("u"));
    assert_eq!(settings.kafka.properties.get("sasl.mechanism"), Some("PLAIN"));
    assert_eq!(settings.lake.storage_options.get("AWS_REGION"), Some("eu"));
    assert_eq!(settings.mirrors["target"].url.reveal(), "postgres://u:p@h/d");
    let settings = case.set("kafka.topics=['x', '^y{1,2}']").settings();
    assert_eq!(settings.kafka.topics, ["x", "^y{1,2}"]);
}

#[test]
fn secrets_come_from_variables_and_files_and_are_never_shown() {
    let case = Case::toml("");
    let path = case.folder.path().join("password");
    std::fs::write(&path, "hunter2\n").unwrap();
    let case = Case::toml(&format!(
        "kafka.properties = {{ 'sasl.password' = {{ file = '{}' }}, 'sasl.username' = {{ env = 'NAME' }} }}\n\
         lake.storage_options = {{ AWS_SECRET_ACCESS_KEY = 'hunter2', AWS_REGION = 'eu' }}\n\
         mirrors.m.url = 'postgres://u:hunter2@h/d'\nsource.url = {{ env = 'URL' }}",
        path.display()
    ))
    .env("NAME", "hunter2")
    .env("URL", "postgres://u:hunter2@h/d?sslcert=hunter2");
    let settings = case.settings();
    assert_eq!(settings.kafka.properties.get("sasl.password"), Some("hunter2"));
    assert_eq!(settings.kafka.properties.get("sasl.username"), Some("hunter2"));
    let shown = format!(
        "{settings:?} {} {}",
        serde_json::to_string(&settings).unwrap(),
        show::toml(&settings).unwrap()
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("postgres://u:***@h/d") && shown.contains("AWS_REGION = \"eu\""), "{shown}");
}

#[test]
fn the_dump_reads_back() {
    let text = "lake.storage_options = { AWS_REGION = 'eu' }\nmirrors.m.url = 'postgres://u@h/d'\n\
                [[tables]]\nsource = 'public.a'\ntypes = { 'a b' = 'decimal(10,2)' }\n[[tables]]\nsource = 'public.b'";
    let dump = show::toml(&Case::toml(text).settings()).unwrap();
    let again = show::toml(&Case::file("b.toml", &dump).settings()).unwrap();
    assert_eq!(dump, again);
    assert!(
        dump.contains("[mirrors.m]\n") && dump.contains("types = { \"a b\" = \"decimal(10,2)\" }"),
        "{dump}"
    );
}

#[test]
#[allow(clippy::too_many_lines)] // A table of cases.
fn every_kind_of_problem_has_its_message_and_place() {
    const URL: &str = "write postgres://user:password@host:port/database";
    let cases: &[(&str, String)] = &[
        ("[kafka2]\na = 1", "2: kafka2: unknown key; did you mean `kafka`?".into()),
        ("[zebra]", "2: zebra: unknown key; known are pipeline, kafka, debezium, batch, lake, defaults, mirrors, \
                     source, connect, quarantine, tables, admin, shutdown".into()),
        ("[batch]\nmax_row = 1", "3: batch.max_row: unknown key; did you mean `max_rows`?".into()),
        ("[batch]\n\nmax_rows = 'x'", "4: batch.max_rows: expected a whole number, found a text".into()),
        ("batch.max_rows = -1", "2: batch.max_rows: expected a whole number that is not negative".into()),
        ("batch.max_rows = 0", "2: batch.max_rows: `0` is too small: at least 1".into()),
        ("batch.max_delay = 'soon'",
         "2: batch.max_delay: `soon` is not a duration such as \"1s\", \"500ms\" or \"7days\"".into()),
        ("batch.max_delay = '2h'", "2: batch.max_delay: `2h` is too large: at most 1h".into()),
        ("batch.max_bytes = '64 apples'",
         "2: batch.max_bytes: `64 apples` is not a size: write a number and a unit, for example \"64MiB\" or \"64MB\""
             .into()),
        ("batch = 1", "2: batch: expected a table, found a number".into()),
        ("kafka.bootstrap_servers = 'a:1,b'",
         "2: kafka.bootstrap_servers: `b` is not a broker: write host:port, comma-separated".into()),
        ("kafka.on_data_loss = 'stop'",
         "2: kafka.on_data_loss: `stop` is not accepted: halt or continue".into()),
        ("[kafka.properties]\n'group.id' = 'x'",
         "3: kafka.properties.group.id: cannot be set: the group is made from pipeline.name and the lane; set \
          pipeline.name instead".into()),
        ("[kafka.properties]\n'nonsense.ms' = 'x'",
         "3: kafka.properties.nonsense.ms: librdkafka has no property of this name".into()),
        ("[kafka.properties]\n'socket.timeout.ms' = 'nonsense'",
         "3: kafka.properties.socket.timeout.ms: librdkafka does not accept this value".into()),
        ("pipeline.name = 'a b'",
         "2: pipeline.name: `a b` is not accepted: 1 to 100 letters, digits and `.`, `_`, `-`".into()),
        ("lake.uri = 'ftp://x'",
         "2: lake.uri: the scheme `ftp` is not supported: a local path or s3://bucket/path".into()),
        ("lake.uri = 's3://key:hunter2@bucket'",
         "2: lake.uri: holds credentials: set them in lake.storage_options".into()),
        ("lake.uri = 's3:///path'",
         "2: lake.uri: `s3:///path` names no bucket: a local path or s3://bucket/path".into()),
        ("'a[999999999]' = 1",
         "2: a[999999999]: unknown key; known are pipeline, kafka, debezium, batch, lake, defaults, mirrors, source, connect, quarantine, tables, admin, \
          shutdown".into()),
        ("lake.uri = ''", "2: lake.uri: nothing to write to: set lake.uri or add a [mirrors.NAME]".into()),
        ("lake.current_tables = 1", "2: lake.current_tables: expected true or false, found a number".into()),
        ("lake.current_tables = false\nlake.raw_table = ''",
         "2: lake.current_tables: without current tables and raw table, set lake.uri = \"\"".into()),
        ("lake.layout = '{tabel}'",
         "2: lake.layout: unknown variable {tabel} in `{tabel}`: variables are {database}, {schema}, {table}".into()),
        ("lake.layout = '{schema}'",
         "2: lake.layout: `{schema}` gives all tables one folder: it has to hold {table}".into()),
        ("lake.layout = 'cdc_events/{table}'",
         "2: lake.layout: `cdc_events/{table}` puts tables into the raw table's folder `cdc_events`".into()),
        ("lake.raw_table = '../x'",
         "2: lake.raw_table: `../x` is not a folder name: letters, digits and `.`, `_`, `-`, not beginning with a \
          point".into()),
        ("[mirrors.m]\nschema = 'a'", "2: mirrors.m.url: is required".into()),
        ("[mirrors.m]\nurl = 'nowhere'",
         format!("3: mirrors.m.url: not a database URL (relative URL without a base): {URL}")),
        ("[mirrors.m]\nurl = { env = 'NOPE' }",
         "3: mirrors.m.url: the environment variable NOPE is not set".into()),
        ("[mirrors.m]\nurl = { file = '/no/such' }",
         "3: mirrors.m.url: cannot read the file /no/such: No such file or directory (os error 2)".into()),
        ("[mirrors.m]\nurl = { vault = 'x' }",
         "3: mirrors.m.url: unknown key `vault`; expected a text, { env = \"NAME\" } or { file = \"path\" }".into()),
        ("[mirrors.m]\nurl = 'postgres://h/d'\nschema = '{tbl}'",
         "4: mirrors.m.schema: unknown variable {tbl} in `{tbl}`: variables are {database}, {schema}".into()),
        ("[mirrors.m]\nurl = 'postgres://h/d'\nschema = '{schema'",
         "4: mirrors.m.schema: `{schema` has a brace without its other: variables are {database}, {schema}".into()),
        ("[mirrors.m]\nurl = 'postgres://h/d'\nraw = 'events'",
         "4: mirrors.m.raw: `events` is not a table: write schema.table".into()),
        ("[mirrors.lake]\nurl = 'postgres://h/d'",
         "2: mirrors.lake: a mirror cannot be called `lake`: that is the name of the lake's lane".into()),
        ("[mirrors.a]\nurl = 'postgres://h/d'\n[mirrors.b]\nurl = 'postgres://h/d'",
         "4: mirrors.b: writes to the same tables as mirrors.a: the same database and the same schema".into()),
        ("[[tables]]\nsource = 'orders'",
         "3: tables[0].source: `orders` is not a table: write schema.table".into()),
        ("[[tables]]\nsource = 'a.b'\n[[tables]]\nsource = 'a.b'",
         "5: tables[1].source: `a.b` is set twice: first at a.toml:3".into()),
        ("[[tables]]\nsource = 'a.t'\n[[tables]]\nsource = 'b.t'",
         "5: tables[1].source: `b.t` would share the folder `t` with `a.t`: set lake.layout, for example to \
          \"{schema}/{table}\"".into()),
        ("[[tables]]\nsource = 'a.cdc_events'",
         "3: tables[0].source: `a.cdc_events` would share the folder `cdc_events` with the raw table: set \
          lake.raw_table or lake.layout".into()),
        ("[[tables]]\nsource = 'a.b'\n[tables.types]\nx = 'decimal(5,1001)'",
         "5: tables[0].types.x: `decimal(5,1001)` does not say the digits of a decimal: write decimal(p,s) with 1 <= p <= \
          1000 and -1000 <= s <= 1000, for example decimal(10,2)".into()),
        ("[[tables]]\nsource = 'a.b'\nzebra = 'soft'",
         "4: tables[0].zebra: unknown key; known are source, write, mode, delete, change_data_feed, schema_change, on_error, \
          on_truncate, keyless, types, sources".into()),
        ("[[tables]]\nsource = 'a.b'\ndelete = 'softly'",
         "4: tables[0].delete: `softly` is not accepted: hard or soft".into()),
        ("[[tables]]\nsource = 'a.b'\n[tables.types]\nx = 1",
         "5: tables[0].types.x: expected a column type such as \"int64\" or \"decimal(10,2)\", found a number".into()),
        ("connect.url = 'https://h:8083'",
         "2: connect.url: https is not supported: use an http address of Kafka Connect".into()),
        ("connect.url = 'ftp://h'",
         "2: connect.url: is not an address of Kafka Connect: write http://host:8083".into()),
        ("tables = 1", "2: tables: expected a list of tables, found a number".into()),
        ("admin.listen = 'localhost'",
         "2: admin.listen: `localhost` is not an address: write IP:port, for example \"0.0.0.0:8090\"".into()),
        ("shutdown.deadline = 5",
         "2: shutdown.deadline: expected a duration such as \"1s\", \"500ms\" or \"7days\", found a number".into()),
    ];
    for (text, expected) in cases {
        assert_eq!(Case::toml(text).problems(), format!("a.toml:{expected}"), "{text}");
    }
}

#[test]
fn each_topic_is_checked_in_its_place() {
    let case = Case::file("a.toml", "[kafka]\ntopics = [\n  'ok',\n  '^a(',\n  'cdc.*',\n  '',\n]");
    let name = "is not a topic name (letters, digits, `.`, `_`, `-`); regular expressions begin with ^";
    assert_problems(
        &case,
        &[
            "a.toml:4: kafka.topics[1]: `^a(` is not a regular expression: unclosed group",
            &format!("a.toml:5: kafka.topics[2]: `cdc.*` {name}"),
            &format!("a.toml:6: kafka.topics[3]: `` {name}"),
        ],
    );
}

#[test]
fn all_problems_are_reported_at_once_by_place() {
    let case = Case::file("a.toml", "[kafka]\ntopcs = ['a']\n[batch]\nmax_rows = 'x'\n[admin]\nlisten = 'y'")
        .env("ALLUVIUM__LAKE__URI", "ftp://x")
        .env("ALLUVIUM__KAFKA__NOPE", "x")
        .set("shutdown.deadline=later")
        .set("tables=x")
        .set("pipeline.name");
    assert_problems(
        &case,
        &[
            "a.toml:2: kafka.topcs: unknown key; did you mean `topics`?",
            "a.toml:4: batch.max_rows: expected a whole number, found a text",
            "a.toml:6: admin.listen: `y` is not an address: write IP:port, for example \"0.0.0.0:8090\"",
            "environment variable ALLUVIUM__KAFKA__NOPE: kafka.nope: unknown key; known are bootstrap_servers, topics, \
             properties, on_data_loss",
            "environment variable ALLUVIUM__LAKE__URI: lake.uri: the scheme `ftp` is not supported: a local path or \
             s3://bucket/path",
            "--set pipeline.name: no value: write --set section.key=value",
            "--set shutdown.deadline: shutdown.deadline: `later` is not a duration such as \"1s\", \"500ms\" or \
             \"7days\"",
            "--set tables: tables: [[tables]] is a list: write it in the settings file",
            "default: kafka.topics: no topics: set names, or regular expressions that begin with ^",
        ],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let case = Case::file("a.toml", "[kafka]\npassword = hunter2\n");
    let problems = case.problems();
    assert!(
        problems.starts_with("a.toml:2: not valid TOML: ") && !problems.contains("hunter2"),
        "{problems}"
    );
    let problems = Case::file("a.yaml", "kafka:\n  a: [1\n").problems();
    assert!(problems.starts_with("a.yaml:3: not valid YAML: "), "{problems}");
    assert!(Case::file("a.ini", "").problems().starts_with("a.ini: the settings file has to end in .toml"));
    let mut case = Case::toml("");
    case.sources.file = Some(PathBuf::from("/no/such.toml"));
    let problems = case.problems();
    assert!(problems.starts_with("/no/such.toml: cannot read the settings file: No such file"), "{problems}");
}

#[test]
fn yaml_problems_have_their_line() {
    let case =
        Case::file("a.yml", "kafka:\n  topics: [a]\n\nbatch:\n  max_rows: 1.5\ntables:\n  - source: x\n");
    assert_problems(
        &case,
        &[
            "a.yml:5: batch.max_rows: expected a whole number, found a fraction",
            "a.yml:7: tables[0].source: `x` is not a table: write schema.table",
        ],
    );
}

#[test]
fn tables_with_a_layout_that_separates_them_are_accepted() {
    let text = "lake.layout = '{schema}/{table}'\n[[tables]]\nsource = 'a.t'\n[[tables]]\nsource = 'b.t'";
    assert_eq!(Case::toml(text).settings().tables.len(), 2);
}

#[test]
fn a_history_says_what_it_cannot_be() {
    let table = "[[tables]]\nsource = 'public.orders'\nmode = 'history'\n";
    assert_eq!(Case::toml(table).problems(), "none");
    let problems =
        Case::toml(&format!("{table}write = 'copy-on-write'\nchange_data_feed = true\n")).problems();
    for expected in ["set write = \"merge-on-read\"", "set change_data_feed = false"] {
        assert!(problems.contains("tables[0].mode") && problems.contains(expected), "{problems}");
    }
}
