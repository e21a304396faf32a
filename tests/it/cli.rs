//! Commands that look at the result, and what they say when they cannot.

use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::PROGRAM;
use crate::oracle::becomes_equal;
use crate::shop::{Plan, Shop};
use crate::stack::path_text;

/// The rows that a query prints as JSON.
fn query(shop: &Shop, arguments: &[&str]) -> Value {
    let mut program = shop.program("query");
    for argument in arguments {
        program = program.argument(argument);
    }
    program.argument("--output").argument("json").output().json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_can_be_queried_as_it_is_and_as_it_was() {
    let shop = Plan::new("cli").open().await;
    shop.catch_up().await;
    let before = query(&shop, &["SELECT count(*) AS n FROM customers"]);
    assert_eq!(before, json!([{ "n": 4 }]));
    shop.source
        .execute("INSERT INTO public.customers (id, name, email) VALUES (50, 'new', 'n@example.com')", &[])
        .await
        .unwrap();
    shop.catch_up().await;

    assert_eq!(query(&shop, &["SELECT count(*) AS n FROM customers"]), json!([{ "n": 5 }]));
    assert_eq!(
        query(
            &shop,
            &["SELECT c.name, o.total FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = 1"]
        )
        .as_array()
        .map(Vec::len),
        Some(1)
    );
    let history =
        shop.program("history").argument("customers").argument("--output").argument("json").output().json();
    let versions: Vec<i64> =
        history.as_array().unwrap().iter().filter_map(|commit| commit["version"].as_i64()).collect();
    let newest = versions.iter().max().expect("a version in the history");
    let earlier = (newest - 1).to_string();
    assert_eq!(query(&shop, &["SELECT count(*) AS n FROM customers", "--at", &earlier]), json!([{ "n": 4 }]));

    let tables = shop.program("tables").argument("--output").argument("json").output().json();
    let customers = tables.as_array().unwrap().iter().find(|table| table["table"] == "customers");
    let customers = customers.unwrap_or_else(|| panic!("no customers in {tables:#}"));
    assert_eq!(customers["rows"], 5, "{customers:#}");
    assert_eq!(customers["version"].as_i64(), Some(*newest), "{customers:#}");

    let csv = shop
        .program("query")
        .argument("SELECT id, name FROM customers WHERE id = 50")
        .argument("--output")
        .argument("csv")
        .output();
    assert_eq!((csv.code, csv.stdout.as_str()), (Some(0), "id,name\n50,new\n"), "{csv:#?}");
}

/// Runs a command in a folder whose settings name the lake of the shop and nothing else.
fn with_the_lake_alone(shop: &Shop, arguments: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("lake.uri = {:?}\nadmin.listen = '127.0.0.1:1'\n", path_text(&shop.lake));
    std::fs::write(folder.path().join("alluvium.toml"), settings).unwrap();
    std::process::Command::new(PROGRAM).args(arguments).current_dir(folder.path()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_needs_no_topics() {
    let shop = Plan::new("cli_look").open().await;
    shop.catch_up().await;
    for (arguments, code) in [
        (vec!["query", "SELECT count(*) FROM orders"], 0),
        (vec!["tables"], 0),
        (vec!["history", "orders"], 0),
        // Nobody listens there: the settings are read, and the daemon is asked.
        (vec!["status"], 3),
        (vec!["check"], 2),
        (vec!["run"], 2),
    ] {
        let output = with_the_lake_alone(&shop, &arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
}

#[test]
fn who_looks_at_a_lake_that_is_not_there_is_told_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        vec!["query", "SELECT 1"],
        vec!["tables"],
        vec!["history", "orders"],
        vec!["optimize"],
        vec!["vacuum"],
        vec!["quarantine", "list"],
        vec!["schema", "plan"],
    ] {
        let output = std::process::Command::new(PROGRAM)
            .args(&arguments)
            .current_dir(folder.path())
            .env_clear()
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains("lake.uri \"./deltalake\" does not exist"), "{arguments:?}: {stderr}");
    }
    assert!(!folder.path().join("deltalake").exists(), "a command has made the lake's folder");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_of_the_user_are_answered_with_what_to_do() {
    let shop = Plan::new("cli_errors").open().await;
    shop.catch_up().await;
    let wrong = shop.program("query").argument("SELECT nothing FROM customers").output();
    assert_eq!(wrong.code, Some(1), "{wrong:#?}");
    assert!(wrong.stderr.contains("nothing"), "{wrong:#?}");
    let unknown = shop.program("query").argument("SELECT 1 FROM nowhere").output();
    assert_eq!(unknown.code, Some(1), "{unknown:#?}");
    assert!(unknown.stderr.contains("nowhere"), "{unknown:#?}");
    let version =
        shop.program("query").argument("SELECT 1 FROM customers").argument("--at").argument("99999").output();
    assert_eq!(version.code, Some(1), "{version:#?}");
    let writing = shop.program("query").argument("DROP TABLE customers").output();
    assert_ne!(writing.code, Some(0), "{writing:#?}");
    let nobody = shop.program("status").output();
    assert_eq!(nobody.code, Some(3), "a daemon that does not run: {nobody:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_asks_the_running_daemon() {
    let shop = Plan::new("cli_status").open().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;
    let status = shop
        .program("status")
        .environment("ALLUVIUM__ADMIN__LISTEN", &run.admin().to_string())
        .argument("--output")
        .argument("json")
        .output();
    let lanes = status.json()["lanes"].as_array().map(Vec::len);
    assert_eq!(lanes, Some(3), "{status:#?}");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_the_same_port_says_so() {
    let shop = Plan::new("cli_port").open().await;
    let mut run = shop.program("run").start();
    run.ready().await;
    let mut second =
        shop.program("run").environment("ALLUVIUM__ADMIN__LISTEN", &run.admin().to_string()).start();
    let status = second.ends(Duration::from_secs(30)).await;
    assert!(!status.success(), "{status}");
    assert!(second.log().contains("admin.listen"), "{}", second.log());
    run.stop().await;
}
