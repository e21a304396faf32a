//! Vacuum and compaction by hand, beside everything else: nothing that somebody needs goes, the rest does.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use alluvium::failpoint;
use serde_json::Value;

use crate::eventually::PATIENCE;
use crate::oracle::assert_all_equal;
use crate::shop::{Plan, Shop, TABLES};
use crate::workload::{seed, work};

const MONTH: Duration = Duration::from_hours(30 * 24);

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// The data files of a table, its vectors and its change data.
pub fn data_files(table: &Path) -> usize {
    files_below(table).iter().filter(|path| !path.starts_with(table.join("_delta_log"))).count()
}

/// Has everything that a lake did so far look as if it had been done a month ago. Nobody may be writing.
pub fn age(lake: &Path) {
    let then = SystemTime::now() - MONTH;
    for path in files_below(lake) {
        let in_log = path.parent().is_some_and(|folder| folder.ends_with("_delta_log"));
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if in_log && (name.contains("checkpoint")) {
            // They hold times as well, and say nothing that the entries do not.
            std::fs::remove_file(&path).unwrap();
            continue;
        }
        if in_log && path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines: Vec<String> = text.lines().map(older).collect();
            std::fs::write(&path, lines.join("\n")).unwrap();
        }
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    }
}

/// A line of a log with its times a month earlier.
fn older(line: &str) -> String {
    let mut action: Value = serde_json::from_str(line).unwrap();
    let month = i64::try_from(MONTH.as_millis()).unwrap();
    for (kind, member) in
        [("commitInfo", "timestamp"), ("remove", "deletionTimestamp"), ("add", "modificationTime")]
    {
        if let Some(millis) = action[kind][member].as_i64() {
            action[kind][member] = (millis - month).into();
        }
    }
    action.to_string()
}

/// Changes a third of the rows that are there, whichever files they lie in, and brings that into every copy.
pub async fn touch(shop: &Shop, third: u32) {
    let changes = format!(
        "UPDATE public.customers SET name = name || '.' WHERE id % 3 = {third};
         UPDATE public.products SET stock = stock + 1 WHERE id % 3 = {third};
         UPDATE public.order_items SET gift_wrap = NOT gift_wrap WHERE order_id % 3 = {third};
         DELETE FROM public.order_items WHERE order_id % 7 = {third};"
    );
    shop.source.batch_execute(&changes).await.unwrap();
    shop.catch_up().await;
}

/// The report of a command over all tables, by table.
pub fn report(shop: &Shop, command: &str, arguments: &[&str]) -> Vec<Value> {
    let program =
        arguments.iter().fold(shop.program(command), |program, argument| program.argument(argument));
    let rows = program.argument("--output").argument("json").output().json();
    rows.as_array().unwrap().clone()
}

/// The sum of a figure over all tables.
pub fn total(report: &[Value], figure: &str) -> u64 {
    report.iter().map(|table| table[figure].as_u64().unwrap_or_else(|| panic!("{table:#}"))).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vacuum_takes_what_nobody_needs_and_no_copy_notices() {
    let mut plan = Plan::new("upkeep");
    plan.settings = "[defaults]\nchange_data_feed = true\n".to_owned();
    let shop = plan.open().await;
    for third in 0..3 {
        work(&shop, seed(), 2, 200).await;
        touch(&shop, third).await;
    }
    touch(&shop, 0).await;
    let optimized = report(&shop, "optimize", &[]);
    assert!(total(&optimized, "files") <= total(&optimized, "files_before"), "{optimized:#?}");
    age(&shop.lake);
    work(&shop, seed(), 2, 300).await;
    shop.catch_up().await;

    let before: usize = TABLES.iter().map(|table| data_files(&shop.lake.join(table))).sum();
    let would = report(&shop, "vacuum", &["--dry-run"]);
    assert!(total(&would, "data_files") > 0 && total(&would, "vector_files") > 0, "{would:#?}");
    assert!(total(&would, "change_files") > 0, "{would:#?}");
    let unchanged: usize = TABLES.iter().map(|table| data_files(&shop.lake.join(table))).sum();
    assert_eq!(before, unchanged, "a dry run removed something");

    // Killed after its first removals, and once more to the end.
    let mut killed = shop.program("vacuum").environment(failpoint::VARIABLE, failpoint::VACUUM).start();
    assert_eq!(killed.ends(PATIENCE).await.signal(), Some(9));
    let removed = report(&shop, "vacuum", &[]);
    assert!(total(&removed, "files") < total(&would, "files"), "nothing was removed before the kill");
    assert_eq!(total(&report(&shop, "vacuum", &[]), "files"), 0, "a second run finds nothing");
    let after: usize = TABLES.iter().map(|table| data_files(&shop.lake.join(table))).sum();
    assert!(after < before, "{after} files of {before}");
    assert_all_equal(&shop).await;

    work(&shop, seed(), 2, 200).await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;
    let refused = shop.program("vacuum").argument("--retention").argument("1h").output();
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("--force"), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_compaction_and_change_data_lose_and_double_nothing() {
    let mut plan = Plan::new("upkeep_kills");
    plan.settings = "[defaults]\nchange_data_feed = true\n".to_owned();
    let shop = plan.open().await;
    shop.catch_up().await;
    for place in failpoint::UPKEEP {
        let mut killed = false;
        for _ in 0..12 {
            work(&shop, seed(), 1, 40).await;
            shop.delivered().await;
            let mut run = shop.program("run").argument("--until-caught-up");
            run = run.environment(failpoint::VARIABLE, place);
            let status = run.start().ends(PATIENCE).await;
            killed = status.signal() == Some(9);
            if killed {
                break;
            }
        }
        assert!(killed, "{place} was not reached");
        shop.catch_up().await;
        assert_all_equal(&shop).await;
    }
}
