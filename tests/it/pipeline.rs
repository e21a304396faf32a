//! The whole path: a snapshot, then thousands of mixed changes, in the lake and in both mirrors.

use std::time::Duration;

use crate::daemon::lane;
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{all_equal, assert_all_equal, becomes_equal, table_becomes_equal, table_equal};
use crate::shop::{Plan, TABLES};
use crate::workload::{seed, work};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_and_mixed_changes_reach_every_copy() {
    let shop = Plan::new("pipeline").open().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;

    work(&shop, seed(), 4, 8_000).await;
    becomes_equal(&shop, &run).await;

    run.ready().await;
    let (code, metrics) = run.get("metrics").await.unwrap();
    assert_eq!(code, 200, "{metrics}");
    for name in [
        "alluvium_records_total{lane=\"lake\",operation=\"u\",table=\"public.orders\"}",
        "alluvium_filtered_records_total{lane=\"lake\"",
        "alluvium_freshness_seconds_bucket{lane=\"target\"",
        "alluvium_lane_state{lane=\"datalake\",state=\"running\"} 1",
    ] {
        assert!(metrics.contains(name), "no {name} in /metrics:\n{metrics}");
    }
    // For lag tools only, but they have to see it.
    let topic = shop.topic("orders");
    eventually("the group's offset on Kafka follows", PATIENCE, || async {
        let end = shop.broker().watermarks(&topic, 0).1;
        let committed = shop.broker().committed(&format!("{}-lake", shop.name), &topic, 0);
        if committed == Some(end) { Ok(()) } else { Err(format!("committed {committed:?}, end {end}")) }
    })
    .await;

    run.stop().await;
    assert_all_equal(&shop).await;
    // Nothing is read twice by a run that finds everything done.
    shop.catch_up().await;
    assert_all_equal(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_seen_in_every_copy_within_seconds() {
    let shop = Plan::new("fresh").open().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;
    for name in ["one", "two", "three"] {
        shop.source.execute("UPDATE public.customers SET name = $1 WHERE id = 1", &[&name]).await.unwrap();
        // Two seconds on an idle machine; a busy one may take several times as long.
        eventually("the update is everywhere", Duration::from_secs(15), || table_equal(&shop, "customers"))
            .await;
    }
    run.stop().await;
}

/// A column for each type of which the design says that it is carried exactly.
const EVERY_TYPE: &str = "
CREATE TABLE public.every_type (
    id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision,
    n_money numeric(12,2), n_wide numeric(38,10), n_whole numeric(20,0), n_huge numeric(60,5), n_free numeric,
    t text, v varchar(40), u uuid, j json, jb jsonb, by bytea, d date,
    ts timestamp, ts3 timestamp(3), ts0 timestamp(0), tz timestamptz, tz3 timestamptz(3), ti time, ti3 time(3));
INSERT INTO public.every_type (id) VALUES (0);
";

const EDGES: &str = r#"
INSERT INTO public.every_type VALUES
(BASE + 1, true, -32768, -2147483648, -9223372036854775808, '-3.4028235e38', '-1.7976931348623157e308',
 -9999999999.99, '-9999999999999999999999999999.9999999999', '-99999999999999999999', '-1e54', '-1e100',
 '', '', '00000000-0000-0000-0000-000000000000', '[]', '[]', '', '0001-01-01',
 '0001-01-01 00:00:00', '0001-01-01 00:00:00.001', '0001-01-01', '0001-01-01 00:00:00+00', '0001-01-01 00:00:00.001+00', '00:00', '00:00:00.001'),
(BASE + 2, false, 32767, 2147483647, 9223372036854775807, '1e-45', '5e-324',
 0.00, '0.0000000001', 0, '0.00001', '0.10', 'ünï 茶 🫖 "q" \ \\ ''', 'null', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
 '{"b": 1,  "a": 1.50, "a": null}', '{"b": 1, "a": 1.50, "n": 12345678901234567890123.5}', '\x00ff7f80', '9999-12-31',
 '9999-12-31 23:59:59.999999', '9999-12-31 23:59:59.999', '9999-12-31 23:59:59', '9999-12-31 23:59:59.999999+00', '9999-12-31 23:59:59.999+00', '23:59:59.999999', '23:59:59.999'),
(BASE + 3, NULL, 0, 0, 0, '0.1', '0.30000000000000004',
 1000.10, '1234567890123456789012345678.0123456789', '12345678901234567890', '1234567890123456789012345678901234567890.12345', '123456789.000',
 E'line\nbreak\ttab\u0001', '  spaces  ', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'null', 'null', '\x', '1969-12-31',
 '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999', '1970-01-01', '1969-12-31 23:59:59.999999+00', '1582-10-04 12:00:00.5+02', '24:00:00', '24:00:00'),
(BASE + 4, true, 1, 1, 1, 'NaN', 'NaN', 0.01, 0.5, 1, 1.5, '5e-10', 'x', 'x', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12',
 '"t"', '"t"', '\xdeadbeef', '2024-02-29',
 '2024-02-29 12:34:56.1', '2024-02-29 12:34:56.12', '2024-02-29 12:34:56', '2024-02-29 12:34:56.123456+14', '2024-02-29 12:34:56.123-12', '12:34:56.1', '12:34:56.12'),
(BASE + 5, true, 1, 1, 1, 'Infinity', '-Infinity', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
 NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
(BASE + 6, true, 1, 1, 1, '-0', '-0', 7, 7, 7, 7, 7, 'x', 'x', NULL, '1', '1.00', '\x00', '1900-01-01',
 '1900-01-01 00:00', '1900-01-01 00:00', '1900-01-01 00:00', '1900-01-01 00:00+00', '1900-01-01 00:00+00', '12:00', '12:00');
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_arrives_exactly_from_snapshot_and_stream() {
    let snapshot = format!("{EVERY_TYPE}{}", EDGES.replace("BASE", "100"));
    let mut plan = Plan::new("types");
    plan.prepare = Box::leak(snapshot.into_boxed_str());
    let shop = plan.open().await;
    let mut run = shop.program("run").start();
    shop.source.batch_execute(&EDGES.replace("BASE", "200")).await.unwrap();
    shop.source
        .batch_execute("UPDATE public.every_type SET i4 = 5; DELETE FROM public.every_type WHERE id = 104")
        .await
        .unwrap();
    shop.delivered().await;
    table_becomes_equal(&shop, &run, "every_type").await;
    run.stop().await;
}

/// Types that have no mapping of their own in this version.
const OTHER_TYPES: &str = "
CREATE TABLE public.others (id int PRIMARY KEY, ip inet, span interval, range int4range, list int[], point point, bits bit(3));
INSERT INTO public.others VALUES (1, '10.0.0.1/8', '1 day 2 hours', '[1,5)', '{1,NULL,3}', '(1,2)', B'101');
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_without_mapping_is_no_error() {
    let mut plan = Plan::new("others");
    plan.prepare = OTHER_TYPES;
    let shop = plan.open().await;
    shop.source.batch_execute("INSERT INTO public.others (id) VALUES (2)").await.unwrap();
    shop.catch_up().await;
    let rows = crate::oracle::count_rows(&shop.lake.join("others")).await.unwrap();
    let mirrored: i64 =
        shop.target().await.query_one("SELECT count(*) FROM public.others", &[]).await.unwrap().get(0);
    assert_eq!((rows, mirrored), (2, 2), "rows in the lake and in the mirror");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_at_the_end_of_kafka_leaves_all_copies_equal() {
    let shop = Plan::new("once").open().await;
    work(&shop, seed(), 2, 500).await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;
    work(&shop, seed(), 2, 500).await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_made_while_running_is_picked_up() {
    let shop = Plan::new("newcomer").open().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;
    shop.source
        .batch_execute("CREATE TABLE public.reviews (id int PRIMARY KEY, stars smallint); INSERT INTO public.reviews VALUES (1, 5), (2, NULL)")
        .await
        .unwrap();
    shop.delivered().await;
    table_becomes_equal(&shop, &run, "reviews").await;
    let status = run.status().await.unwrap();
    let tables =
        lane(&status, "lake").and_then(|lane| lane["tables"].as_object()).expect("tables of the lane");
    for table in TABLES {
        assert!(tables.contains_key(&format!("public.{table}")), "no {table} in {tables:?}");
    }
    run.stop().await;
    assert!(all_equal(&shop).await.is_ok());
}
