//! `alluvium check` as the binary that is shipped, offline and against the real stack: output and exit code.
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Daemon, Output as Answer};
use crate::shop::{Plan, Shop};

/// A folder with an `alluvium.toml`, and the binary run in it.
struct Folder(TempDir);

impl Folder {
    fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("alluvium.toml"), settings).unwrap();
        Self(folder)
    }

    /// Runs with these variables alone as environment.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_alluvium"))
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }
}

#[track_caller]
fn assert_output(output: &Output, code: i32, stdout: &str) {
    let found = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), found.as_ref()), (Some(code), stdout), "stderr: {stderr}");
}

#[test]
fn the_file_of_the_working_directory_is_checked() {
    let folder = Folder::with("[kafka]\ntopics = ['^cdc']\n");
    assert_output(&folder.run(&["check"], &[]), 0, "ok    settings  alluvium.toml\n");
}

#[test]
fn all_problems_are_printed_with_their_place_and_exit_with_2() {
    let folder = Folder::with("[kafka]\ntopcs = ['^cdc']\n\n[mirrors.target]\nurl = 'localhost'\n");
    let output = folder.run(&["check", "--set", "batch.max_rows=0"], &[("ALLUVIUM__LAKE__URI", "ftp://x")]);
    assert_output(
        &output,
        2,
        "alluvium.toml:2: kafka.topcs: unknown key; did you mean `topics`?\n\
         alluvium.toml:5: mirrors.target.url: not a database URL (relative URL without a base): write \
         postgres://user:password@host:port/database\n\
         environment variable ALLUVIUM__LAKE__URI: lake.uri: the scheme `ftp` is not supported: a local path or \
         s3://bucket/path\n\
         --set batch.max_rows: batch.max_rows: `0` is too small: at least 1\n\
         default: kafka.topics: no topics: set names, or regular expressions that begin with ^\n",
    );
}

#[test]
fn printed_settings_hold_no_secret() {
    let folder = Folder::with(
        "[kafka]\ntopics = ['^cdc']\n[mirrors.target]\nurl = { env = 'TARGET_URL' }\n[kafka.properties]\n\
         'sasl.password' = 'hunter2'\n",
    );
    let environment = [("TARGET_URL", "postgres://user:hunter2@host/shop")];
    for arguments in [vec!["check", "--print"], vec!["check", "--print", "--output", "json"]] {
        let output = folder.run(&arguments, &environment);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0));
        assert!(text.contains("postgres://user:***@host/shop") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_wrong_flag_exits_with_2() {
    assert_eq!(Folder::with("").run(&["check", "--nope"], &[]).status.code(), Some(2));
}

#[test]
fn brokers_that_do_not_answer_exit_with_3() {
    let folder = Folder::with("[kafka]\ntopics = ['^cdc']\nbootstrap_servers = '127.0.0.1:1'\n");
    let output = folder.run(&["check", "--connect"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("fail  kafka") && text.contains("ok    lake"), "{text}");
    assert!(!folder.0.path().join("deltalake").exists(), "the check leaves no folder behind");
}

/// `alluvium check --connect` of a shop, with its source in the settings.
fn connecting(shop: &Shop, source: &str) -> Daemon {
    shop.program("check").argument("--connect").environment("ALLUVIUM__SOURCE__URL", source)
}

/// Fails unless each of these is a finding: level, subject, and a part of the message.
#[track_caller]
fn assert_findings(answer: &Answer, code: i32, expected: &[(&str, &str, &str)]) {
    assert_eq!(answer.code, Some(code), "{answer:#?}");
    let report: Value =
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:#?}"));
    assert_eq!(report["ok"], code == 0, "{report:#}");
    let findings = report["findings"].as_array().unwrap();
    for (level, subject, message) in expected {
        let found = findings.iter().any(|finding| {
            finding["level"] == *level
                && finding["subject"] == *subject
                && finding["message"].as_str().is_some_and(|text| text.contains(message))
        });
        assert!(found, "no {level} of {subject} that says {message:?} in {report:#}");
    }
    assert!(!answer.stdout.contains("not a secret") && !answer.stdout.contains("not%20a"), "{answer:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_without_hazards_passes() {
    let shop = Plan::new("check_clean").open().await;
    shop.delivered().await;
    let answer = connecting(&shop, &shop.stack.source.url(&shop.name)).output();
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    for line in [
        "ok    kafka             6 topics with 6 partitions on cluster ",
        " can be written",
        "ok    source            wal_level logical, 5 tables with a key",
        "note  source            an update leaves out large values (TOAST) that it does not change: ",
        ": public.customers, public.products",
    ] {
        assert!(answer.stdout.contains(line), "no {line:?} in\n{}", answer.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hazard_is_found_on_the_real_stack() {
    let mut plan = Plan::new("check_hazards");
    plan.prepare = "CREATE TABLE nokey (a int);
        CREATE TABLE nokey_full (a int); ALTER TABLE nokey_full REPLICA IDENTITY FULL;
        CREATE TABLE nothing (a int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
        CREATE TABLE \"Odd Name\" (a int);
        INSERT INTO nokey VALUES (1); INSERT INTO nokey_full VALUES (1); INSERT INTO nothing VALUES (1);
        INSERT INTO \"Odd Name\" VALUES (1);
        ALTER TABLE products REPLICA IDENTITY FULL";
    let shop = plan.open().await;
    shop.broker().create_compacted_topic(&shop.topic("compacted"), 3).await;
    shop.delivered().await;
    let good = shop.stack.source.url(&shop.name);
    let json = |source: &str| connecting(&shop, source).argument("--output").argument("json");
    let (compacted, others) = (shop.topic("compacted"), "neither primary key nor replica identity");
    assert_findings(
        &json(&good).output(),
        1,
        &[
            (
                "warn",
                "kafka",
                &format!(
                    "compacted, so that the raw history loses changes that were overwritten: {compacted}"
                ),
            ),
            ("warn", "kafka", &format!("order between its two rows: {compacted}")),
            ("warn", "source", &format!("public.nokey has {others}")),
            ("warn", "source", &format!("public.\"Odd Name\" has {others}")),
            ("note", "source", "public.nokey_full has no primary key"),
            ("note", "connect", "the connector's settings are not looked at"),
            ("fail", "source", "public.nothing has replica identity nothing"),
            ("note", "source", "absent_columns: public.customers"),
            ("ok", "mirrors.target", "can be written"),
        ],
    );

    // The servers of the mirrors write no logical log.
    let other = shop.stack.mirrors.url(&format!("{}_target", shop.name));
    assert_findings(
        &json(&other).output(),
        1,
        &[("fail", "source", "wal_level is minimal, and Debezium needs logical")],
    );

    let wrong_password = good.replace("not%20a%20secret", "guessed");
    let answer = json(&wrong_password)
        .environment("ALLUVIUM__MIRRORS__TARGET__URL", "postgres://u:guessed@127.0.0.1:1/d")
        .output();
    assert_findings(
        &answer,
        3,
        &[
            ("fail", "source", "password authentication failed for user"),
            ("fail", "mirrors.target", "Connection refused"),
            ("ok", "mirrors.datalake", "can be written"),
        ],
    );
    assert!(!answer.stdout.contains("guessed"), "{answer:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_connector_that_lose_values_are_found_with_their_cures() {
    let mut plan = Plan::new("check_connect");
    plan.prepare = "CREATE TABLE lossy (id int PRIMARY KEY, nullable_default text DEFAULT 'none', raw bytea, span interval,
            at timestamp, amount numeric(20, 10), twice int GENERATED ALWAYS AS (id * 2) STORED);
        ALTER TABLE lossy ALTER COLUMN raw SET STORAGE EXTERNAL;
        INSERT INTO lossy (id) VALUES (1);
        CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE whole_low PARTITION OF whole FOR VALUES FROM (0) TO (10);
        INSERT INTO whole VALUES (1)";
    plan.connector = vec![
        ("value.converter.replace.null.with.default", "true"),
        ("decimal.handling.mode", "double"),
        ("time.precision.mode", "connect"),
        ("binary.handling.mode", "base64"),
        ("event.converting.failure.handling.mode", "warn"),
        ("unavailable.value.placeholder", "another"),
        ("skipped.operations", "t"),
        ("errors.tolerance", "all"),
    ];
    let shop = plan.open().await;
    shop.delivered().await;
    let source = shop.stack.source.url(&shop.name);
    let connect = shop.stack.connect().address();
    let check = |connect: &str| {
        connecting(&shop, &source)
            .argument("--output")
            .argument("json")
            .environment("ALLUVIUM__CONNECT__URL", connect)
    };
    let answer = check(&connect).output();
    assert_findings(
        &answer,
        1,
        &[
            (
                "warn",
                "connect",
                "arrives as the default: public.customers.credit_limit, public.lossy.nullable_default",
            ),
            ("warn", "connect", "(decimal.handling.mode=double): "),
            ("warn", "connect", "(time.precision.mode=connect): "),
            ("warn", "connect", "(binary.handling.mode=base64): "),
            ("warn", "connect", "(interval.handling.mode=numeric): public.lossy.span"),
            ("warn", "connect", "cannot convert becomes null"),
            ("fail", "connect", "placeholders would be taken for values"),
            ("note", "connect", "truncates are not sent"),
            ("warn", "connect", "converted or sent is left out"),
            ("warn", "source", "public.lossy has generated columns"),
            ("warn", "source", "partitions have topics beside the table that they are part of"),
        ],
    );
    assert!(answer.stdout.contains("value.converter.replace.null.with.default=false"), "{answer:#?}");

    assert_findings(
        &check("http://127.0.0.1:1").output(),
        3,
        &[("fail", "connect", "Connection refused"), ("ok", "mirrors.target", "can be written")],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connector_that_comes_with_the_program_passes() {
    let shop = Plan::new("check_connector").open().await;
    shop.delivered().await;
    let answer = connecting(&shop, &shop.stack.source.url(&shop.name))
        .environment("ALLUVIUM__CONNECT__URL", &shop.stack.connect().address())
        .output();
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    assert!(answer.stdout.contains("check_connector: "), "{}", answer.stdout);
    assert!(!answer.stdout.contains("warn  connect"), "{}", answer.stdout);
}
