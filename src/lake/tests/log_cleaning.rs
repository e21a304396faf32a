//! The vacuum of a table's log: what checkpoints have forgotten, which of them go, and what a dry run says.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fixture::{Fixture, maintain, table};
use super::vacuum::{World, log, update};
use crate::change::{Sink, WriteMode};
use crate::lake::upkeep::{Upkeep, VacuumPlan};
use crate::lake::vacuum::clean_log;
use crate::lake::{Lake, now_millis};

#[tokio::test(flavor = "multi_thread")]
async fn what_checkpoints_have_forgotten_is_not_taken_for_waste() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.checkpoint_interval = 1;
    let mut lake = Lake::open(options.clone()).await.unwrap();
    lake.load().await.unwrap();
    lake.commit(&update(0, 1, "a")).await.unwrap();
    maintain(&mut lake).await;
    // Until now seven days were known; from the next commit on it is thirty.
    options.vacuum_retention = Duration::from_hours(30 * 24);
    let upkeep = Upkeep::open(options.clone()).unwrap();
    for commits in 0..2 {
        let done = upkeep.vacuum(&["items".into()], VacuumPlan::default(), |_| {}).await.unwrap();
        assert!(
            done[0].skipped.as_deref().is_some_and(|why| why.contains("is not known")),
            "{commits}: {done:?}"
        );
        let mut lake = Lake::open(options.clone()).await.unwrap();
        lake.load().await.unwrap();
        lake.commit(&update(1, 1, "b")).await.unwrap();
        maintain(&mut lake).await;
    }
    let properties = lake.tables[&table("items")].table.log.read().await.unwrap().unwrap();
    let properties = &properties.metadata().configuration;
    assert_eq!(properties["delta.deletedFileRetentionDuration"], "interval 2592600 seconds");
    assert!(properties.contains_key("alluvium.tombstonesSince"));
    assert_eq!(fixture.items().await, ["1 b -"]);
}

fn checkpoints(fixture: &Fixture, table: &str) -> Vec<u64> {
    let log = std::fs::read_dir(fixture.dir.path().join(table).join("_delta_log")).unwrap();
    let names = log.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut versions: Vec<u64> = names
        .filter_map(|name| name.strip_suffix(".checkpoint.parquet").map(|version| version.parse().unwrap()))
        .collect();
    versions.sort_unstable();
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_checkpoints_of_an_hour_one_stays_and_every_version_can_be_read_without_the_others() {
    let mut world = World::new(WriteMode::MergeOnRead, 1).await;
    let mut random = fastrand::Rng::with_seed(29);
    for _ in 0..9 {
        world.change(&mut random).await;
        maintain(&mut world.lake).await;
        world.remember().await;
    }
    let all = checkpoints(&world.fixture, "items");
    assert!(all.len() >= 9, "{all:?}");
    // Three hours of three checkpoints each and more, all of them long ago.
    let hour = Duration::from_hours(1);
    let start = now_millis() / 3_600_000 * 3_600_000;
    let start = std::time::UNIX_EPOCH + Duration::from_millis(start as u64) - 12 * hour;
    for (at, version) in (0..).zip(&all) {
        let path = format!("items/_delta_log/{version:020}.checkpoint.parquet");
        let file = std::fs::File::options().write(true).open(world.fixture.dir.path().join(path)).unwrap();
        file.set_modified(start + (at / 3) * hour + (at % 3) * Duration::from_mins(10)).unwrap();
    }
    let log = log(&world.fixture, "items");
    let expected: Vec<u64> = (0..).zip(&all).filter(|(at, _)| at % 3 == 0).map(|(_, v)| *v).collect();
    let expected: BTreeSet<u64> = expected.into_iter().chain(all.last().copied()).collect();
    let retention = Duration::from_hours(24);
    let would = clean_log(&log, now_millis(), retention, true).await.unwrap();
    assert_eq!((would, checkpoints(&world.fixture, "items")), (all.len() - expected.len(), all));
    let removed = clean_log(&log, now_millis(), retention, false).await.unwrap();
    assert_eq!(removed, would);
    assert_eq!(checkpoints(&world.fixture, "items"), expected.into_iter().collect::<Vec<_>>());
    world.check().await;
    let state = log.read().await.unwrap().unwrap();
    assert_eq!(state.version(), world.fixture.version("items").await);
    assert_eq!(clean_log(&log, now_millis(), retention, false).await.unwrap(), 0, "a second time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_go_of_the_log_as_well() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.log_retention = Duration::ZERO;
    let mut lake = Lake::open(options.clone()).await.unwrap();
    lake.load().await.unwrap();
    for offset in 0..3 {
        lake.commit(&update(offset, 1, "a")).await.unwrap();
    }
    lake.options.checkpoint_interval = 1;
    maintain(&mut lake).await;
    let (upkeep, items) = (Upkeep::open(options).unwrap(), ["items".to_owned()]);
    let entries = || std::fs::read_dir(fixture.dir.path().join("items/_delta_log")).unwrap().count() as u64;
    let (before, plan) = (entries(), VacuumPlan { dry_run: true, ..VacuumPlan::default() });
    let would = upkeep.vacuum(&items, plan, |_| {}).await.unwrap()[0].log_files;
    assert_eq!((would, entries()), (3, before), "versions 0 to 2, which are still there");
    let removed = upkeep.vacuum(&items, VacuumPlan::default(), |_| {}).await.unwrap()[0].log_files;
    assert_eq!((removed, entries()), (would, before - would));
}
