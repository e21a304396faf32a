//! The vacuum: every version within the retention stays as it was, everything else goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use deltalake::DeltaTable;

use super::fixture::{Cell, Event, Fixture, batch, event, value};
use crate::change::{Operation, Sink, WriteMode};
use crate::lake::location::Location;
use crate::lake::log::Log;
use crate::lake::read::At;
use crate::lake::upkeep::{Upkeep, VacuumPlan};
use crate::lake::vacuum::{Begun, Limits, Removed, Vacuum};
use crate::lake::{Lake, LakeOptions, now_millis};

/// A moment that lies after everything so far and before everything that follows.
fn moment() -> i64 {
    let before = now_millis();
    let tick = |than: i64| {
        while now_millis() == than {
            std::thread::yield_now();
        }
        now_millis()
    };
    let moment = tick(before);
    tick(moment);
    moment
}

pub(super) fn log(fixture: &Fixture, table: &str) -> Log {
    let location = Location::open(&fixture.options().uri, &[].into()).unwrap();
    Log::new(table, location.table(table).unwrap())
}

/// The limits at a moment at which nothing was being written.
fn since(moment: i64) -> Limits {
    Limits { readable_since: moment, written_before: moment, kept_before: moment }
}

async fn begin(fixture: &Fixture, table: &str, limits: Limits, dry_run: bool) -> Vacuum {
    match Vacuum::begin(log(fixture, table), "shop", limits, dry_run).await.unwrap() {
        Begun::Run(vacuum) => *vacuum,
        Begun::TooEarly { unknown_before } => panic!("unknown before {unknown_before}"),
        Begun::NotOurs => panic!("{table} is not ours"),
    }
}

async fn vacuum(fixture: &Fixture, table: &str, limits: Limits, dry_run: bool) -> Removed {
    let mut vacuum = begin(fixture, table, limits, dry_run).await;
    while vacuum.step().await.unwrap() {}
    vacuum.removed()
}

/// Files of a table that are not of its log.
fn files(fixture: &Fixture, table: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let root = fixture.dir.path().join(table);
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.retain(|file| !file.starts_with("_delta_log"));
    found
}

/// What the newest version needs.
async fn needed_now(fixture: &Fixture, table: &str) -> BTreeSet<String> {
    let state = log(fixture, table).read().await.unwrap().unwrap();
    let vectors = state.files().values().filter_map(|file| file.vector.as_deref());
    let vectors = vectors.map(|vector| crate::lake::mor::vector_path(vector).unwrap().to_string());
    state.files().keys().map(ToString::to_string).chain(vectors).collect()
}

/// Has a file look as if it had been written `days` ago.
fn age(fixture: &Fixture, file: &str, days: u32) {
    let file = std::fs::File::options().write(true).open(fixture.dir.path().join(file)).unwrap();
    file.set_modified(SystemTime::now() - days * Duration::from_hours(24)).unwrap();
}

/// One lake and what each of its versions holds.
pub(super) struct World {
    pub(super) fixture: Fixture,
    options: LakeOptions,
    pub(super) lake: Lake,
    offset: i64,
    /// Rows of `items` and of the history by version, and a moment after it and before what follows.
    items: BTreeMap<u64, (Vec<String>, i64)>,
    raw: BTreeMap<u64, (Vec<String>, i64)>,
    readable_since: i64,
}

const ITEMS: &str = "SELECT id, name, note FROM items ORDER BY id";
const RAW: &str = "SELECT \"offset\", operation FROM cdc_events ORDER BY 1";

impl World {
    pub(super) async fn new(write: WriteMode, checkpoints: u64) -> Self {
        let fixture = Fixture::new();
        let mut options = fixture.options();
        options.checkpoint_interval = checkpoints;
        options.policies.defaults.write = write;
        let mut lake = Lake::open(options.clone()).await.unwrap();
        lake.load().await.unwrap();
        let (items, raw) = (BTreeMap::new(), BTreeMap::new());
        Self { fixture, options, lake, offset: 0, items, raw, readable_since: i64::MIN }
    }

    pub(super) async fn change(&mut self, random: &mut fastrand::Rng) {
        let events: Vec<Event> = (0..random.i64(1..12))
            .map(|_| {
                self.offset += 1;
                let (id, name) = (random.i64(0..20), format!("n{}", random.u8(..)));
                if random.u8(0..4) == 0 {
                    return super::fixture::delete(self.offset, id);
                }
                let note = if random.bool() { value("note") } else { Cell::Absent };
                event(self.offset, Operation::Update, id, &name, note)
            })
            .collect();
        self.lake.commit(&batch("items", &events)).await.unwrap();
    }

    /// Remembers what the versions hold that are new.
    pub(super) async fn remember(&mut self) {
        let now = moment();
        for (name, sql) in [("items", ITEMS), ("cdc_events", RAW)] {
            let newest = self.fixture.version(name).await;
            let known = if name == "items" { &mut self.items } else { &mut self.raw };
            let next = known.keys().next_back().map_or(1, |version| version + 1);
            for version in next..=newest {
                known.insert(version, (self.fixture.query(sql, At::Version(version)).await, now));
            }
        }
    }

    /// Vacuums up to a random moment, or begins to and is killed.
    async fn vacuum(&mut self, random: &mut fastrand::Rng) {
        let moments: Vec<i64> = self.items.values().map(|(_, moment)| *moment).collect();
        let Some(&moment) = moments.get(random.usize(0..=moments.len())) else { return };
        self.readable_since = self.readable_since.max(moment);
        for table in ["items", "cdc_events"] {
            let mut vacuum = begin(&self.fixture, table, since(self.readable_since), false).await;
            let steps = if random.bool() { usize::MAX } else { random.usize(0..4) };
            for _ in 0..steps {
                if !vacuum.step().await.unwrap() {
                    break;
                }
            }
        }
    }

    pub(super) async fn check(&self) {
        for (sql, known) in [(ITEMS, &self.items), (RAW, &self.raw)] {
            // The version that was the newest at the moment, and all after it.
            let first = known.iter().rev().find(|(_, (_, moment))| *moment <= self.readable_since);
            for (version, (rows, _)) in known.range(first.map_or(0, |(version, _)| *version)..) {
                let now = self.fixture.query(sql, At::Version(*version)).await;
                assert_eq!(
                    now, *rows,
                    "version {version} by {sql}, {:?}",
                    self.options.policies.defaults.write
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_keep_every_version_within_the_retention_and_nothing_else() {
    for seed in 0..12_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let write = [WriteMode::MergeOnRead, WriteMode::CopyOnWrite][usize::from(seed % 4 == 3)];
        let mut world = World::new(write, random.u64(1..6)).await;
        for _ in 0..random.usize(4..14) {
            for _ in 0..random.usize(1..4) {
                world.change(&mut random).await;
            }
            if random.bool() {
                world.lake.maintain().await.unwrap();
            }
            world.remember().await;
            world.vacuum(&mut random).await;
            world.check().await;
        }
        world.readable_since = moment();
        let limits = since(world.readable_since);
        for table in ["items", "cdc_events"] {
            let would = vacuum(&world.fixture, table, limits, true).await;
            let before = files(&world.fixture, table);
            let removed = vacuum(&world.fixture, table, limits, false).await;
            let after = files(&world.fixture, table);
            assert_eq!(
                (would, before.len() - after.len()),
                (removed, removed.files() as usize),
                "seed {seed}"
            );
            assert_eq!(after, needed_now(&world.fixture, table).await, "seed {seed}");
        }
        world.check().await;
    }
}

pub(super) fn update(offset: i64, id: i64, name: &str) -> crate::change::Batch {
    batch("items", &[event(offset, Operation::Update, id, name, Cell::Null)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vector_that_was_replaced_lately_stays_however_old_it_is() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let events: Vec<_> = (0..9).map(|id| event(id, Operation::Create, id, "a", Cell::Null)).collect();
    lake.commit(&batch("items", &events)).await.unwrap();
    lake.commit(&update(9, 1, "b")).await.unwrap();
    let limits = since(moment());
    lake.commit(&update(10, 2, "c")).await.unwrap();
    for file in files(&fixture, "items") {
        age(&fixture, &format!("items/{file}"), 30);
    }
    assert_eq!(vacuum(&fixture, "items", limits, false).await, Removed::default());
    assert_eq!(fixture.query("SELECT count(*) FROM items WHERE name = 'a'", At::Version(2)).await, ["8"]);
    // Once that version is out of the retention its vector goes.
    let removed = vacuum(&fixture, "items", since(moment()), false).await;
    assert_eq!((removed.vectors, removed.data), (1, 0));
    assert_eq!(fixture.query("SELECT count(*) FROM items", At::Latest).await, ["9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_old_files_of_commits_that_never_happened_go_and_nobody_elses() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&update(0, 1, "a")).await.unwrap();
    std::fs::create_dir_all(fixture.dir.path().join("items/_change_data")).unwrap();
    std::fs::create_dir_all(fixture.dir.path().join("items/other")).unwrap();
    let stray = ["part-1.parquet", "deletion_vector_1.bin", "_change_data/cdc-1.parquet"];
    let foreign = ["README.md", "_part.parquet", ".part.parquet", "other/part-1.parquet"];
    for name in stray.iter().chain(&foreign).chain(&["part-young.parquet"]) {
        let file = format!("items/{name}");
        std::fs::write(fixture.dir.path().join(&file), "nothing").unwrap();
        if !name.contains("young") {
            age(&fixture, &file, 8);
        }
    }
    let upkeep = Upkeep::open(fixture.options()).unwrap();
    let removed = upkeep.vacuum(&["items".to_owned()], VacuumPlan::default(), |_| {}).await.unwrap();
    assert_eq!((removed[0].data_files, removed[0].vector_files, removed[0].change_files), (1, 1, 1));
    assert_eq!(removed[0].bytes, 21);
    let left = files(&fixture, "items");
    assert!(stray.iter().all(|name| !left.contains(*name)), "{left:?}");
    assert!(foreign.iter().chain(&["part-young.parquet"]).all(|name| left.contains(*name)), "{left:?}");
    assert_eq!(fixture.items().await, ["1 a -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_another_writer_brings_back_meanwhile_stay() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for (offset, name) in (0..).zip(["a", "b", "c"]) {
        lake.commit(&update(offset, 1, name)).await.unwrap();
    }
    let mut running = begin(&fixture, "items", since(moment()), false).await;
    let mut foreign = DeltaTable::new(log(&fixture, "items").guarded());
    foreign.load().await.unwrap();
    foreign.restore().with_version_to_restore(1).await.unwrap();
    while running.step().await.unwrap() {}
    assert_eq!(running.removed().data, 1, "that of version 2");
    assert_eq!(fixture.items().await, ["1 a -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_two_vacuums_at_the_same_time_harm_no_version() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&update(0, 0, "n0")).await.unwrap();
    // No version but the newest has to stay, and files of a commit that is being made are younger than the last one.
    let last_commit = AtomicI64::new(moment());
    let sweeping = || async {
        let mut removed = 0;
        while last_commit.load(Relaxed) < i64::MAX {
            // The clock of files is coarser than ours.
            let moment = last_commit.load(Relaxed);
            let limits = Limits { written_before: moment - 50, ..since(moment) };
            removed += vacuum(&fixture, "items", limits, false).await.files();
            tokio::task::yield_now().await;
        }
        removed
    };
    let writing = async {
        for offset in 1..60 {
            lake.commit(&update(offset, offset % 7, &format!("n{offset}"))).await.unwrap();
            if offset % 9 == 0 {
                lake.maintain().await.unwrap();
            }
            last_commit.store(moment(), Relaxed);
        }
        last_commit.store(i64::MAX, Relaxed);
    };
    let (one, other, ()) = tokio::join!(sweeping(), sweeping(), writing);
    assert!(one + other > 0, "nothing was removed meanwhile");
    let expected: Vec<String> = (0..7).map(|id| format!("{id} n{} -", 53 + (id + 3) % 7)).collect();
    assert_eq!(fixture.items().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_below_the_configured_one_has_to_be_forced() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&update(0, 1, "a")).await.unwrap();
    let upkeep = Upkeep::open(fixture.options()).unwrap();
    let mut plan = VacuumPlan { retention: Some(Duration::from_hours(1)), ..VacuumPlan::default() };
    let error = upkeep.vacuum(&[], plan, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("lake.vacuum_retention (7days)") && error.contains("--force"), "{error}");
    plan.force = true;
    let tables: Vec<String> =
        upkeep.vacuum(&[], plan, |_| {}).await.unwrap().into_iter().map(|done| done.table).collect();
    assert_eq!(tables, ["cdc_events", "items"]);
    let error = upkeep.vacuum(&["nothing".into()], plan, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("cdc_events, items"), "{error}");
}
