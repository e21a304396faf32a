//! Another reader sees the same tables: Python's `deltalake`, by the query builder that knows deletion vectors.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::shop::{Plan, Shop, TABLES};
use crate::stack::{path_text, project};
use crate::upkeep::touch;
use crate::workload::{seed, work};

/// Prints the rows of each table and the sum of a column, of those rows for which a condition holds.
const SCRIPT: &str = r#"
import sys
from deltalake import DeltaTable, QueryBuilder
import pyarrow
for table in sys.argv[2:]:
    name, column, condition = table.split(":")
    query = QueryBuilder().register("data", DeltaTable(f"{sys.argv[1]}/{name}"))
    rows = pyarrow.table(query.execute(f'SELECT count(*), sum("{column}") FROM data WHERE {condition}'))
    print(name, rows.column(0)[0].as_py(), rows.column(1)[0].as_py())
"#;

/// What Python reads, a line for each of `tables`: name, column, condition.
fn python(lake: &Path, tables: &[(&str, &str, &str)]) -> String {
    let mut command = Command::new("bash");
    command.arg(project().join("scripts/stack/python.sh")).args(["-c", SCRIPT]).arg(path_text(lake));
    command.args(tables.iter().map(|(name, column, condition)| format!("{name}:{column}:{condition}")));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same line from the source.
async fn of_source(shop: &Shop, table: &str, column: &str) -> String {
    let sql =
        format!("SELECT count(*)::text || ' ' || coalesce(sum({column})::text, 'None') FROM public.{table}");
    let row = shop.source.query_one(&sql, &[]).await.unwrap();
    format!("{table} {}\n", row.get::<_, String>(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reads_the_same_rows_and_sums() {
    let shop = Plan::new("readers").open().await;
    work(&shop, seed(), 2, 600).await;
    shop.catch_up().await;

    let columns = BTreeMap::from([
        ("customers", "credit_limit"),
        ("products", "price"),
        ("orders", "total"),
        ("order_items", "quantity"),
    ]);
    let mut expected = String::new();
    for table in TABLES {
        expected += &of_source(&shop, table, columns[table]).await;
    }
    let records = shop.broker().read_all(&format!("{}.public.", shop.name));
    let (count, sum) = records
        .iter()
        .filter(|record| record.value.is_some())
        .fold((0, 0), |(count, sum), record| (count + 1, sum + record.offset));
    writeln!(expected, "cdc_events {count} {sum}").unwrap();

    let mut tables: Vec<_> = TABLES.iter().map(|table| (*table, columns[table], "true")).collect();
    tables.push(("cdc_events", "offset", "true"));
    let found = python(&shop.lake, &tables);
    assert_eq!(found, expected, "Python (left) and the source (right)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_tells_deleted_rows_and_ended_versions_from_the_others() {
    let mut plan = Plan::new("readers_history");
    plan.settings = "[[tables]]\nsource = \"public.order_items\"\ndelete = \"soft\"\n
                     [[tables]]\nsource = \"public.orders\"\nmode = \"history\"\n"
        .to_owned();
    let shop = plan.open().await;
    for _ in 0..3 {
        work(&shop, seed(), 2, 300).await;
        shop.catch_up().await;
    }
    let (mut versions, mut offsets) = (0, 0);
    for record in shop.broker().read_all(&shop.topic("orders")) {
        let Some(value) = &record.value else { continue };
        let event: serde_json::Value = serde_json::from_slice(value).unwrap();
        if event["payload"]["op"] != "d" {
            (versions, offsets) = (versions + 1, offsets + record.offset);
        }
    }
    let expected = of_source(&shop, "order_items", "quantity").await
        + &of_source(&shop, "orders", "total").await
        + &format!("orders {versions} {offsets}\n");
    let tables = [
        ("order_items", "quantity", "__cdc_deleted IS NOT TRUE"),
        ("orders", "total", "__is_current"),
        ("orders", "__cdc_offset", "true"),
    ];
    assert_eq!(python(&shop.lake, &tables), expected, "Python (left) and the source (right)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_replays_the_change_data_feed_to_the_tables_themselves() {
    let mut plan = Plan::new("feed");
    plan.settings = "[defaults]\nchange_data_feed = true\n\n[[tables]]\nsource = \"public.products\"\n\
                     write = \"copy-on-write\"\n\n[[tables]]\nsource = \"public.orders\"\ndelete = \"soft\"\n"
        .to_owned();
    let shop = plan.open().await;
    for third in 0..3 {
        work(&shop, seed(), 2, 200).await;
        touch(&shop, third).await;
    }
    let mut command = Command::new("bash");
    command
        .arg(project().join("scripts/stack/python.sh"))
        .arg(project().join("scripts/readers/feed_check.py"));
    let output = command.arg(path_text(&shop.lake)).args(TABLES).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    for change in ["insert", "update_preimage", "update_postimage", "delete"] {
        assert!(report.contains(change), "no {change} took part: {report}");
    }
}
