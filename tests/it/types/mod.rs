//! Every Postgres type, under the settings of the connector that change how values are written: edge values and random
//! ones, from snapshot and stream, equal the source by the rule that `docs/types.md` gives for each type.

mod cells;
mod columns;
mod expected;
mod setting;

use std::fmt::Write as _;

use tokio_postgres::Client;

use crate::oracle::{reason, rows_of};
use crate::shop::{Plan, Shop};
use crate::workload::seed;

use columns::{COLUMNS, Column, EXTENSIONS, UNKNOWN, sent};
use expected::Compare;
use setting::Setting;

/// Random rows in the snapshot, and again in the stream.
const RANDOM: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_under_the_default_settings() {
    equal("types_default", &Setting::DEFAULT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_from_the_catalog_of_the_source() {
    let setting = Setting { decimals: "double", times: "connect", catalog: true, ..Setting::DEFAULT };
    equal("types_catalog", &setting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_as_strings() {
    let setting = Setting {
        decimals: "string",
        times: "isostring",
        binary: "base64",
        intervals: "string",
        ..Setting::DEFAULT
    };
    equal("types_strings", &setting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_in_microseconds_hexadecimal_and_maps() {
    let setting =
        Setting { times: "microseconds", binary: "hex", pairs: "map", unknown: true, ..Setting::DEFAULT };
    equal("types_micros", &setting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_in_nanoseconds_and_doubles() {
    let setting =
        Setting { decimals: "double", times: "nanoseconds", binary: "base64-url-safe", ..Setting::DEFAULT };
    equal("types_nanos", &setting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_that_the_connector_names() {
    let setting = Setting {
        decimals: "string",
        times: "adaptive_time_microseconds",
        binary: "hex",
        intervals: "string",
        pairs: "map",
        source_types: true,
        ..Setting::DEFAULT
    };
    let shop = equal("types_named", &setting).await;
    native(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_as_objects() {
    let setting = Setting {
        times: "structured",
        intervals: "string",
        source_types: true,
        unknown: true,
        ..Setting::DEFAULT
    };
    equal("types_objects", &setting).await;
}

/// Brings up a shop with that connector, and compares all copies.
async fn equal(name: &'static str, setting: &Setting) -> Shop {
    #[allow(clippy::cast_precision_loss)] // any number in the range does
    let random = (seed() % 2_000_001) as f64 / 1e6 - 1.0;
    let rows = |base| format!("{};{};", columns::edges(base), columns::random_rows(base, RANDOM));
    let prepare = format!("{}SELECT setseed({random});{}", columns::create(), rows(0));
    let mut plan = Plan::new(name);
    plan.prepare = Box::leak(prepare.into_boxed_str());
    plan.schema_blocks = !setting.catalog;
    plan.connector = setting.connector();
    plan.settings = setting.debezium();
    plan.asks_source = setting.catalog;
    let shop = plan.open().await;
    // One mirror has the extensions, the other has not.
    shop.target().await.batch_execute(EXTENSIONS).await.unwrap();

    let changes = format!(
        "{} UPDATE public.every_type SET i4 = 5 WHERE id > 1100 AND id % 3 = 0;
         DELETE FROM public.every_type WHERE id % 10 = 4 AND id % 1000 > 99",
        rows(1000)
    );
    shop.source.batch_execute(&changes).await.unwrap_or_else(|error| panic!("{error:?}"));
    shop.catch_up().await;
    let mut differences = lake(&shop, setting).await;
    differences.push_str(&mirror("target", &shop, setting, &shop.target().await, "public").await);
    differences.push_str(&mirror("datalake", &shop, setting, &shop.datalake().await, "cdc_processed").await);
    assert!(differences.is_empty(), "{name}, setseed({random}):\n{differences}");
    shop
}

/// What SQL over the source gives for each row of a column, by its key.
async fn expected(shop: &Shop, sql: &str) -> Vec<(i64, Option<String>)> {
    let sql = format!("SELECT id, {sql} FROM public.every_type ORDER BY id");
    let rows = shop.source.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn lake(shop: &Shop, setting: &Setting) -> String {
    let batches = rows_of(&shop.lake.join("every_type"), "SELECT * FROM t ORDER BY id").await.unwrap();
    let mut text = String::new();
    for column in UNKNOWN.iter().filter(|_| !setting.unknown) {
        if batches.iter().any(|batch| batch.column_by_name(column.name).is_some()) {
            writeln!(text, "lake: {} is there, which the connector does not send", column.name).unwrap();
        }
    }
    for column in sent(setting) {
        let mut found = Vec::new();
        for batch in &batches {
            let array = batch.column_by_name(column.name).unwrap_or_else(|| panic!("no {}", column.name));
            let ids = batch.column_by_name("id").unwrap();
            for row in 0..batch.num_rows() {
                let id = cells::text(ids.as_ref(), row).unwrap().parse().unwrap();
                found.push((id, cells::text(array.as_ref(), row)));
            }
        }
        let rule = (column.expected)(setting, column.name);
        differences(&mut text, "lake", column, rule.compare, &expected(shop, &rule.lake).await, &found);
    }
    text
}

async fn mirror(what: &str, shop: &Shop, setting: &Setting, client: &Client, schema: &str) -> String {
    let mut text = String::new();
    for column in sent(setting) {
        // A hstore is compared as its JSON; without the extension that is what the column has.
        let native = column.ddl == "hstore" && what == "target" && is_hstore(client).await;
        let rule = (column.expected)(setting, column.name);
        let shown = match (column.ddl, rule.compare) {
            ("hstore", _) if native => "hstore_to_json(h)::text".to_owned(),
            ("inet" | "peer", _) => {
                format!("CASE WHEN {0} IS NOT NULL THEN format('%s', {0}) END", column.name)
            }
            (_, Compare::Near) => format!("(extract(epoch FROM {}) * 1000000)::bigint::text", column.name),
            _ => shown(column),
        };
        let sql = format!("SELECT id, {shown} FROM {schema}.every_type ORDER BY id");
        let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {}", reason(&error)));
        let found: Vec<(i64, Option<String>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        differences(&mut text, what, column, rule.compare, &expected(shop, &rule.mirror).await, &found);
    }
    text
}

fn shown(column: &Column) -> String {
    format!("{}::text", column.name)
}

async fn is_hstore(client: &Client) -> bool {
    let sql = "SELECT udt_name = 'hstore' FROM information_schema.columns WHERE table_name = 'every_type' AND column_name = 'h'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn differences(
    text: &mut String,
    what: &str,
    column: &Column,
    compare: Compare,
    source: &[(i64, Option<String>)],
    copy: &[(i64, Option<String>)],
) {
    let ids = |rows: &[(i64, Option<String>)]| rows.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    if ids(source) != ids(copy) {
        writeln!(text, "{what}: {} rows in the source, {} in the copy", source.len(), copy.len()).unwrap();
        return;
    }
    let wrong = source
        .iter()
        .zip(copy)
        .filter(|((_, from), (_, to))| !cells::agree(compare, from.as_deref(), to.as_deref()));
    for ((id, from), (_, to)) in wrong.take(3) {
        writeln!(text, "{what} {} {} id {id}: expected {from:?}, found {to:?}", column.name, column.ddl)
            .unwrap();
    }
}

/// The types of the mirror's columns are the source's own, where the target has them.
async fn native(shop: &Shop) {
    let sql = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
               WHERE attrelid = 'public.every_type'::regclass AND attname = $1";
    // Text in the target: enums and lengths of text add nothing to what it holds. Of numbers Debezium sends text here.
    let other = [
        ("num", "numeric"),
        ("num38", "numeric"),
        ("num60", "numeric"),
        ("cash", "numeric"),
        ("oid", "bigint"),
        ("bit1", "boolean"),
        ("varbits", "text"),
        ("ch", "text"),
        ("vc", "text"),
        ("mood", "text"),
        ("pos", "integer"),
        ("ti3", "time without time zone"),
        ("ts3", "timestamp without time zone"),
        ("pg", "text"),
        ("a_n", "numeric[]"),
        ("a_jb", "jsonb[]"),
        // Of a domain the connector says its own name.
        ("d_bk", "text"),
        ("d_ct", "text"),
        ("d_lt", "ltree"),
        ("d_n", "text"),
        ("d_nn", "text"),
        ("d_d", "date"),
        ("d_tz", "timestamp with time zone"),
        ("d_jb", "json"),
        ("d_r4", "text"),
        ("d_ip", "text"),
        ("d_u", "uuid"),
        ("d_a", "integer[]"),
    ];
    let target = shop.target().await;
    let mut wrong = Vec::new();
    for column in COLUMNS {
        let own: String = shop.source.query_one(sql, &[&column.name]).await.unwrap().get(0);
        let wanted =
            other.iter().find(|(name, _)| *name == column.name).map_or(own, |(_, text)| (*text).to_owned());
        let found: String = target.query_one(sql, &[&column.name]).await.unwrap().get(0);
        if wanted != found {
            wrong.push(format!("{}: expected {wanted}, found {found}", column.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
