//! Another reader sees the same tables: Python's `deltalake`, by the query builder that knows deletion vectors.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use crate::shop::{Plan, TABLES};
use crate::stack::{path_text, project};
use crate::workload::{seed, work};

/// Prints the rows of each table and the sum of a column.
const SCRIPT: &str = r#"
import sys
from deltalake import DeltaTable, QueryBuilder
import pyarrow
for table in sys.argv[2:]:
    name, column = table.split(":")
    query = QueryBuilder().register("data", DeltaTable(f"{sys.argv[1]}/{name}"))
    rows = pyarrow.table(query.execute(f'SELECT count(*), sum("{column}") FROM data'))
    print(name, rows.column(0)[0].as_py(), rows.column(1)[0].as_py())
"#;

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
        let sql = format!(
            "SELECT count(*)::text || ' ' || coalesce(sum({})::text, 'None') FROM public.{table}",
            columns[table]
        );
        let row = shop.source.query_one(&sql, &[]).await.unwrap();
        writeln!(expected, "{table} {}", row.get::<_, String>(0)).unwrap();
    }
    let records = shop.broker().read_all(&format!("{}.public.", shop.name));
    let (count, sum) = records
        .iter()
        .filter(|record| record.value.is_some())
        .fold((0, 0), |(count, sum), record| (count + 1, sum + record.offset));
    writeln!(expected, "cdc_events {count} {sum}").unwrap();

    let mut command = Command::new("bash");
    command.arg(project().join("scripts/stack/python.sh")).args(["-c", SCRIPT]).arg(path_text(&shop.lake));
    command.args(TABLES.map(|table| format!("{table}:{}", columns[table]))).arg("cdc_events:offset");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "Python (left) and the source (right)");
}
