//! Records that cannot become changes are kept, listed, replayed and discarded, and everything else goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{Running, lane};
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{count_rows, rows_of, table_equal};
use crate::shop::{Plan, Shop};
use crate::workload::seed;

const LANES: [&str; 3] = ["lake", "datalake", "target"];

/// Rows of the table, and how many of them the wrong settings cannot read.
fn sizes() -> (i64, i64) {
    let rows = std::env::var("ALLUVIUM_QUARANTINE_ROWS").ok().and_then(|text| text.parse().ok());
    let rows = rows.unwrap_or(20_000);
    (rows, rows / 100)
}

/// Events without schema block, whose decimals the settings call text: where one is not null, its record is bad.
const WRONG: &str = "amount = \"decimal_text(12,2)\"";
const RIGHT: &str = "amount = \"decimal(12,2)\"";

/// Portions in which good and bad records take turns.
const PORTIONS: i64 = 10;

fn plan(name: &'static str) -> Plan {
    Plan {
        schema_blocks: false,
        prepare:
            "CREATE TABLE public.readings (id int PRIMARY KEY, note text, body text, amount numeric(12,2));
                  ALTER TABLE public.readings ALTER body SET STORAGE EXTERNAL;",
        settings: format!(
            "[[tables]]\nsource = \"public.readings\"\ntypes = {{ id = \"int32\", note = \"text\", body = \"text\", {WRONG} }}\n\
             [[tables]]\nsource = \"public.barrier\"\ntypes = {{ id = \"int32\", passed = \"int64\" }}\n"
        ),
        ..Plan::new(name)
    }
}

pub fn set(shop: &Shop, wrong: &str, right: &str) {
    let settings = std::fs::read_to_string(&shop.settings).unwrap();
    assert!(settings.contains(wrong), "the settings have no {wrong:?}");
    std::fs::write(&shop.settings, settings.replace(wrong, right)).unwrap();
}

/// Nine kinds of record that nothing cures, of keys that the source does not have.
fn spoiled(shop: &Shop, number: usize) -> (&'static str, Option<Vec<u8>>, Option<Vec<u8>>) {
    let id = -(number as i64) - 1;
    let key = json!({ "id": id }).to_string().into_bytes();
    let event = |change: &dyn Fn(&mut Value)| {
        let mut event = json!({
            "before": null,
            "after": { "id": id, "note": "spoiled", "body": null, "amount": null },
            "source": { "version": "3.7.0.Final", "connector": "postgresql", "name": shop.name, "ts_ms": 1, "snapshot": "false",
                        "db": shop.name, "schema": "public", "table": "readings", "txId": 1, "lsn": 1 },
            "transaction": null, "op": "c", "ts_ms": 1
        });
        change(&mut event);
        Some(event.to_string().into_bytes())
    };
    match number % 9 {
        0 => ("not_json", Some(key), Some(b"{\"op\": oops".to_vec())),
        1 => ("not_json", Some(key), Some(vec![b'"', 0xff, b'"'])),
        2 => ("not_json", Some(b"{\"id\":".to_vec()), event(&|_| {})),
        3 => ("not_an_event", Some(key), Some(b"[1, 2, 3]".to_vec())),
        4 => ("not_an_event", Some(key), event(&|event| event["after"] = Value::Null)),
        5 => (
            "not_an_event",
            Some(key),
            event(&|event| drop(event["source"].as_object_mut().unwrap().remove("table"))),
        ),
        6 => ("unknown_operation", Some(key), event(&|event| event["op"] = "x".into())),
        7 => ("missing_key", Some(b"17".to_vec()), event(&|_| {})),
        _ => ("invalid_value", Some(key), event(&|event| event["after"]["id"] = "a dozen".into())),
    }
}

/// What `alluvium quarantine list` says: records by lane and code.
fn listed(shop: &Shop, arguments: &[&str]) -> BTreeMap<(String, String), u64> {
    let mut command = shop.program("quarantine").argument("list").argument("--output").argument("json");
    for argument in arguments {
        command = command.argument(argument);
    }
    let mut counts = BTreeMap::new();
    for group in command.output().json().as_array().unwrap() {
        let text = |name: &str| group[name].as_str().unwrap().to_owned();
        *counts.entry((text("lane"), text("code"))).or_default() += group["records"].as_u64().unwrap();
    }
    counts
}

pub fn command(shop: &Shop, arguments: &[&str]) -> crate::daemon::Output {
    let mut command = shop.program("quarantine");
    for argument in arguments {
        command = command.argument(argument);
    }
    command.output()
}

/// The program under load, killed at random instants, then once more to the end of what is on Kafka.
async fn with_kills(shop: &Shop, kills: usize, random: &mut fastrand::Rng) {
    for _ in 0..kills {
        let mut run = shop.program("run").start();
        // Not a wait for something: the random instant is what this is about.
        tokio::time::sleep(Duration::from_millis(random.u64(200..1_500))).await;
        assert!(run.ended().is_none(), "it ended by itself");
        run.kill();
    }
    shop.catch_up().await;
}

/// Rows with long bodies whose records become bad, and then partial updates on them.
async fn partial_updates(shop: &Shop, first: i64, rows: i64) {
    let statements = format!(
        "INSERT INTO public.readings SELECT id, 'toasted', repeat(md5(id::text), 200), NULL FROM generate_series({first}, {last}) id;
         UPDATE public.readings SET amount = 1.23 WHERE id BETWEEN {first} AND {last};
         UPDATE public.readings SET amount = NULL, note = 'partial' WHERE id BETWEEN {first} AND {last};",
        last = first + rows - 1,
    );
    for statement in statements.split_inclusive(';') {
        shop.source.batch_execute(statement).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_among_good_ones_are_kept_and_replayed_once_their_cause_is_cured() {
    let shop = plan("quarantine").open().await;
    let mut random = fastrand::Rng::with_seed(seed());
    let (rows, bad) = sizes();
    // The snapshot makes the table known in every sink.
    shop.source.execute("INSERT INTO public.readings VALUES (0, 'first', NULL, NULL)", &[]).await.unwrap();
    shop.catch_up().await;
    let spoiled: Vec<_> = (0..bad as usize).map(|number| spoiled(&shop, number)).collect();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (code, ..) in &spoiled {
        *expected.entry((*code).to_owned()).or_default() += 1;
    }
    // In portions, so that bad records lie among good ones, and their share stays below the limit.
    let mut spoiled = spoiled.into_iter().map(|(_, key, value)| (key, value));
    for portion in 0..PORTIONS {
        let insert = format!(
            "INSERT INTO public.readings SELECT id, 'n' || id, NULL, CASE WHEN id % 100 = 0 THEN (id % 30000) / 100.0 END
             FROM generate_series({}, {}) id",
            portion * rows / PORTIONS + 1,
            (portion + 1) * rows / PORTIONS,
        );
        shop.source.batch_execute(&insert).await.unwrap();
        shop.delivered().await;
        let records: Vec<_> = spoiled.by_ref().take((bad / PORTIONS) as usize).collect();
        shop.broker().write_all(&shop.topic("readings"), &records);
    }
    assert!(spoiled.next().is_none(), "rows must be a multiple of {}", 100 * PORTIONS);
    let partial = 40;
    partial_updates(&shop, rows + 1, partial).await;
    shop.delivered().await;
    *expected.entry("invalid_value".to_owned()).or_default() += (bad + partial) as u64;
    expected.insert("base_quarantined".to_owned(), partial as u64);
    with_kills(&shop, 6, &mut random).await;

    let found = listed(&shop, &[]);
    for lane in LANES {
        let of_lane: BTreeMap<String, u64> = found
            .iter()
            .filter(|((name, _), _)| name == lane)
            .map(|((_, code), count)| (code.clone(), *count))
            .collect();
        assert_eq!(of_lane, expected, "records that {lane} keeps");
    }
    let lake_rows = count_rows(&shop.lake.join("readings")).await.unwrap() as i64;
    assert_eq!(lake_rows, rows - bad + 1 + partial, "good rows are applied");

    set(&shop, WRONG, RIGHT);
    let replay = ["replay", "--table", "public.readings", "--code", "invalid_value", "--wait", "0"];
    assert_eq!(command(&shop, &replay).code, Some(0));
    // What has a wrong base comes after that, by a daemon that runs.
    with_kills(&shop, 3, &mut random).await;
    let replay = ["replay", "--code", "base_quarantined", "--wait", "0"];
    assert_eq!(command(&shop, &replay).code, Some(0));
    shop.catch_up().await;
    table_equal(&shop, "readings").await.unwrap();

    // The others are beyond cure.
    let left = listed(&shop, &[]);
    let hopeless: u64 = expected.values().sum::<u64>() - (bad + 2 * partial) as u64;
    assert_eq!(left.values().sum::<u64>(), 3 * hopeless, "{left:?}");
    // Not by table: what is no event, and came first after a start, names none.
    for lane in LANES {
        let discard = ["discard", "--lane", lane, "--reason", "made by a test"];
        assert_eq!(command(&shop, &discard).code, Some(0));
    }
    assert_eq!(listed(&shop, &[]), BTreeMap::new());
    every_record_is_in_the_history_or_in_quarantine(&shop).await;
}

/// Each record of the topic is a raw row exactly once, or closed in quarantine without one.
async fn every_record_is_in_the_history_or_in_quarantine(shop: &Shop) {
    let topic = shop.topic("readings");
    let records = shop.broker().read_all(&topic).len();
    let raw = format!("SELECT \"offset\" FROM t WHERE topic = '{topic}'");
    let distinct = format!("SELECT DISTINCT \"offset\" FROM t WHERE topic = '{topic}'");
    let count = async |query: &str| -> usize {
        let batches = rows_of(&shop.lake.join("cdc_events"), query).await.unwrap();
        batches.iter().map(arrow::array::RecordBatch::num_rows).sum()
    };
    assert_eq!(count(&raw).await, count(&distinct).await, "raw rows that are there twice");
    let closed = "SELECT id FROM t WHERE event = 'discarded'";
    let discarded = rows_of(&shop.lake.join("quarantine"), closed).await.unwrap();
    let discarded: usize = discarded.iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert_eq!(count(&raw).await + discarded, records, "raw rows and discarded records");
}

/// Waits until the lane has so many open records.
pub async fn open_records(run: &Running, name: &str, expected: u64) {
    run.reports(&format!("{expected} open records of {name}"), |status| {
        let open = lane(status, name)?["quarantine"].as_object()?;
        (open.values().filter_map(Value::as_u64).sum::<u64>() == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_a_later_change_has_overtaken_is_not_replayed_unless_forced() {
    let shop = plan("overtaken").open().await;
    shop.source
        .batch_execute(
            "INSERT INTO public.readings VALUES (1, 'first', NULL, NULL), (2, 'first', NULL, NULL)",
        )
        .await
        .unwrap();
    shop.catch_up().await;
    let mut run = shop.program("run").start();
    run.ready().await;
    shop.source.batch_execute("UPDATE public.readings SET amount = 5, note = 'bad'").await.unwrap();
    for name in LANES {
        open_records(&run, name, 2).await;
    }
    // A whole row of key 1 supersedes its record; key 2 stays marked.
    shop.source
        .batch_execute("UPDATE public.readings SET amount = NULL, note = 'newer' WHERE id = 1")
        .await
        .unwrap();
    for name in LANES {
        open_records(&run, name, 1).await;
    }
    run.stop().await;
    set(&shop, WRONG, RIGHT);
    let mut run = shop.program("run").start();
    run.ready().await;
    let admin = format!("admin.listen={}", run.admin());
    let records =
        command(&shop, &["list", "--records", "--state", "all", "--lane", "lake", "--output", "json"]);
    let records = records.json();
    let id_of = |state: &str| -> String {
        let found = records.as_array().unwrap().iter().find(|record| record["state"] == state);
        found.unwrap_or_else(|| panic!("no {state} record in {records}"))["id"].as_str().unwrap().to_owned()
    };
    let (superseded, open) = (id_of("superseded"), id_of("open"));
    let refused = replay_by(&shop, &admin, &[&superseded]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stdout.contains("a later change of its key has been applied"), "{refused:#?}");
    let done = replay_by(&shop, &admin, &[&open]);
    assert!(done.code == Some(0) && done.stdout.contains("replayed 1, refused 0"), "{done:#?}");
    for name in ["datalake", "target"] {
        let done = replay_by(&shop, &admin, &["--lane", name, "--code", "invalid_value"]);
        assert!(done.code == Some(0) && done.stdout.contains("replayed 1, refused 0"), "{done:#?}");
    }
    table_equal(&shop, "readings").await.unwrap();
    // Forced, the old record overwrites the newer row.
    let forced = replay_by(&shop, &admin, &[&superseded, "--force"]);
    assert!(forced.code == Some(0) && forced.stdout.contains("replayed 1"), "{forced:#?}");
    eventually("the lake has the old row", PATIENCE, || async {
        let query = "SELECT id FROM t WHERE id = 1 AND note = 'bad'";
        let found = rows_of(&shop.lake.join("readings"), query).await?;
        let rows: usize = found.iter().map(arrow::array::RecordBatch::num_rows).sum();
        if rows == 1 { Ok(()) } else { Err(format!("{rows} rows")) }
    })
    .await;
    let shown = command(&shop, &["show", &superseded, "--output", "json"]);
    assert!(!shown.stdout.contains("newer") && !shown.stdout.contains("\"note\""), "{shown:#?}");
    let shown = command(&shop, &["show", &superseded, "--payload", "--output", "json"]).json();
    assert!(shown["value"].as_str().unwrap().contains("\"note\":\"bad\""), "{shown}");
    assert!(shown["headers"].to_string().contains("__debezium.context"), "{shown}");
    run.stop().await;
}

/// Asks the daemon with these endpoints for a replay.
pub fn replay_by(shop: &Shop, admin: &str, arguments: &[&str]) -> crate::daemon::Output {
    let mut all = vec!["replay", "--set", admin];
    all.extend(arguments);
    let mut command = shop.program("quarantine");
    for argument in all {
        command = command.argument(argument);
    }
    command.environment("ALLUVIUM__ADMIN__LISTEN", admin.trim_start_matches("admin.listen=")).output()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_bad_records_stop_the_lane_and_say_so() {
    let mut plan = plan("toomany");
    plan.settings.push_str("\n[quarantine]\nmax_records = 25\n");
    let shop = plan.open().await;
    shop.source.execute("INSERT INTO public.readings VALUES (0, 'first', NULL, NULL)", &[]).await.unwrap();
    shop.catch_up().await;
    let records: Vec<_> =
        (0..60).map(|number| spoiled(&shop, number)).map(|(_, key, value)| (key, value)).collect();
    shop.broker().write_all(&shop.topic("readings"), &records);
    let mut run = shop.program("run").argument("--until-caught-up").start();
    run.exits_with(1, Duration::from_secs(90)).await;
    assert!(run.log().contains("quarantine.max_records"), "the log does not name the limit");
    let kept = listed(&shop, &["--lane", "lake"]);
    assert_eq!(kept.values().sum::<u64>(), 25, "{kept:?}");
    // Another run has no new allowance while nobody has decided about them.
    let mut run = shop.program("run").argument("--until-caught-up").start();
    run.exits_with(1, Duration::from_secs(90)).await;
    let again = listed(&shop, &["--lane", "lake"]);
    assert_eq!(again, kept, "a restart has added records");
    // Nothing is skipped, and nothing kept twice.
    shop.catches_up_without_limit().await;
    for lane in LANES {
        let kept = listed(&shop, &["--lane", lane]);
        assert_eq!(kept.values().sum::<u64>(), 60, "{lane}: {kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_each_failpoint_of_the_quarantine_loses_and_doubles_nothing() {
    let shop = plan("quarantine_failpoints").open().await;
    shop.source.execute("INSERT INTO public.readings VALUES (0, 'first', NULL, NULL)", &[]).await.unwrap();
    shop.catch_up().await;
    let mut written = 0;
    for name in alluvium::failpoint::WITH_BAD_RECORDS {
        let records: Vec<_> = (written..written + 9)
            .map(|number| spoiled(&shop, number))
            .map(|(_, key, value)| (key, value))
            .collect();
        written += 9;
        shop.broker().write_all(&shop.topic("readings"), &records);
        let insert = format!("INSERT INTO public.readings VALUES ({written}, 'good', NULL, NULL)");
        shop.source.batch_execute(&insert).await.unwrap();
        shop.delivered().await;
        let mut run = shop.program("run").environment(alluvium::failpoint::VARIABLE, name).start();
        let status = run.ends(PATIENCE).await;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "at {name}: {status}");
        shop.catch_up().await;
        for lane in LANES {
            let kept = listed(&shop, &["--lane", lane]);
            assert_eq!(kept.values().sum::<u64>(), written as u64, "{lane} after {name}");
        }
        table_equal(&shop, "readings").await.unwrap();
    }
}
