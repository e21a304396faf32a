//! Random batches, restarts, replays and other writers against a map, in both write modes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use deltalake::DeltaTable;
use deltalake::datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::fixture::{Cell, Event, Fixture, batch, batch_of, column, table, value};
use crate::change::{Batch, ColumnType, Operation, Sink, TablePolicy, TableSchema, WriteMode};
use crate::lake::read::At;
use crate::lake::{Lake, LakeOptions};

/// What happens between two batches.
#[derive(Debug, Clone, Copy)]
pub(super) enum Between {
    Nothing,
    /// The process starts again and reads from a stored position.
    Restart,
    /// The same, and the index is gone, is the one of an earlier start, or has a wrong byte.
    IndexDeleted,
    IndexOlder,
    IndexDamaged,
    /// The same, and an address in the index is another one than when it was closed.
    ShardDamaged,
    /// The same, and the table's folder is copied, or put back from the copy: the index is newer than the log.
    LogPutBack,
    /// The same records come again, together with the next ones.
    Replay,
    Maintain,
    /// Another writer adds a row, deletes one, puts the files together.
    ForeignAppend(i64),
    ForeignDelete(i64),
    ForeignOptimize,
}

#[derive(Debug, Clone)]
pub(super) struct Change {
    pub operation: Operation,
    pub id: i64,
    pub name: u8,
    pub note: u8,
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let operation = prop_oneof![
        3 => Just(Operation::Update),
        2 => Just(Operation::Create),
        2 => Just(Operation::Delete),
        1 => Just(Operation::Read)
    ];
    (operation, 0..12_i64, any::<u8>(), 0..6_u8).prop_map(|(operation, id, name, note)| Change {
        operation,
        id,
        name,
        note,
    })
}

/// The same, or now and then a truncate.
pub(super) fn change_or_truncate() -> impl Strategy<Value = Change> {
    let truncate = Change { operation: Operation::Truncate, id: 0, name: 0, note: 0 };
    prop_oneof![12 => change(), 1 => Just(truncate)]
}

pub(super) fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        2 => Just(Between::Nothing),
        2 => Just(Between::Restart),
        1 => Just(Between::IndexDeleted),
        2 => Just(Between::IndexOlder),
        1 => Just(Between::IndexDamaged),
        1 => Just(Between::ShardDamaged),
        1 => Just(Between::Replay),
        2 => Just(Between::Maintain),
        1 => (0..12_i64).prop_map(Between::ForeignAppend),
        2 => (0..12_i64).prop_map(Between::ForeignDelete),
        1 => Just(Between::ForeignOptimize),
    ]
}

/// The same, or the table is put back to what it was some batches ago.
fn between_or_put_back() -> impl Strategy<Value = Between> {
    prop_oneof![6 => between(), 1 => Just(Between::LogPutBack)]
}

pub(super) fn to_event(offset: i64, change: &Change) -> Event {
    // Only an update of a stored row can have absent cells.
    let note = match (change.operation, change.note) {
        (Operation::Delete, _) | (_, 0) => Cell::Null,
        (Operation::Update, 1 | 2) => Cell::Absent,
        (_, note) => value(&format!("n{note}")),
    };
    let name = change.operation.is_upsert().then(|| format!("n{}", change.name));
    Event { partition: 0, offset, operation: change.operation, id: change.id, name, note }
}

pub(super) type Model = BTreeMap<i64, (String, Option<String>)>;

/// The rows of a model as `Fixture::items` gives them.
pub(super) fn rows_of(model: &Model) -> Vec<String> {
    let row = |(id, (name, note)): (&i64, &(String, Option<String>))| {
        format!("{id} {name} {}", note.as_deref().unwrap_or("-"))
    };
    model.iter().map(row).collect()
}

pub(super) fn apply(model: &mut Model, event: &Event) {
    if !event.operation.is_upsert() {
        model.remove(&event.id);
        return;
    }
    let before = model.get(&event.id).and_then(|(_, note)| note.clone());
    let note = match &event.note {
        Cell::Value(text) => Some(text.clone()),
        Cell::Null => None,
        Cell::Absent => before,
    };
    model.insert(event.id, (event.name.clone().unwrap(), note));
}

/// Which columns are the key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Id,
    /// A text, and behind it the id.
    Composite,
}

/// The first key column of the composite key; long enough not to be stored in place anywhere.
fn region(id: i64) -> String {
    format!("a region with a long name, number {}", id % 3)
}

impl Key {
    pub fn batch(self, events: &[Event]) -> Batch {
        let plain = batch("items", events);
        if matches!(self, Self::Id) {
            return plain;
        }
        let mut columns = plain.changes[0].schema.columns().to_vec();
        columns.push(column("region", ColumnType::Text));
        let schema = Arc::new(TableSchema::new(columns, vec![3, 0]));
        let regions: StringArray = events.iter().map(|event| Some(region(event.id))).collect();
        let mut cells: Vec<ArrayRef> = plain.changes[0].rows.columns().to_vec();
        cells.push(Arc::new(regions));
        let mut absent = plain.changes[0].absent.clone();
        absent.push(None);
        batch_of("items", &schema, cells, absent, events)
    }
}

/// One lake and what it has been told.
pub(super) struct World {
    pub fixture: Fixture,
    pub options: LakeOptions,
    pub lake: Option<Lake>,
    /// The next change that it is to be told.
    pub from: usize,
    saved: PathBuf,
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Has the first entry of a shard name another row.
pub(super) fn damage(index: &Path) {
    let files = std::fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path());
    for shard in files.filter(|path| path.extension().is_some_and(|extension| extension == "slots")) {
        let mut bytes = std::fs::read(&shard).unwrap();
        let Some(slot) = bytes.chunks_exact_mut(24).find(|slot| slot[16..] != [0; 8]) else { continue };
        slot[16] ^= 1;
        std::fs::write(shard, bytes).unwrap();
    }
}

impl World {
    async fn new(write: WriteMode) -> Self {
        Self::with(TablePolicy { write, ..TablePolicy::default() }).await
    }

    pub async fn with(policy: TablePolicy) -> Self {
        let fixture = Fixture::new();
        let mut options = fixture.options();
        options.checkpoint_interval = 2;
        options.policies.defaults = policy;
        let saved = fixture.dir.path().join("_saved");
        let mut world = Self { fixture, options, lake: None, from: 0, saved };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        let mut lake = Lake::open(self.options.clone()).await.unwrap();
        let progress = lake.load().await.unwrap();
        self.from = progress.values().next().map_or(0, |stored| stored.next_offset as usize);
        self.lake = Some(lake);
    }

    async fn restart(&mut self, meanwhile: impl FnOnce(&Path, &Path)) {
        self.lake = None;
        let index = self.fixture.dir.path().join("_index/items");
        if index.exists() {
            meanwhile(&index, &self.saved);
        }
        self.start().await;
    }

    /// Copies the table's folder, or puts it back where there is a copy.
    async fn put_back(&mut self) {
        if let Some(lake) = self.lake.take() {
            // Who puts a folder back has ended the process before, and what it was writing with it: the checkpoint of a
            // version that the log then no longer has would be taken for one of the version of that number that comes.
            lake.checkpointer.wait().await;
        }
        let (items, copied) = (self.fixture.dir.path().join("items"), self.saved.join("items"));
        if copied.exists() {
            std::fs::remove_dir_all(&items).unwrap();
            std::fs::rename(copied, items).unwrap();
        } else {
            copy(&items, &copied);
        }
        self.start().await;
    }

    async fn foreign(&self) -> Option<DeltaTable> {
        let items = self.lake.as_ref().unwrap().tables.get(&table("items"))?;
        let mut foreign = DeltaTable::new(items.table.log.guarded());
        foreign.load().await.unwrap();
        Some(foreign)
    }

    /// Brings what it was not told yet.
    async fn told(&mut self, key: Key, log: &[Event]) {
        let changes = key.batch(&log[self.from..]);
        let report = self.lake.as_mut().unwrap().commit(&changes).await.unwrap();
        assert!(report.stopped.is_empty(), "{:?}", report.stopped);
        self.from = log.len();
    }

    pub async fn step(&mut self, between: Between, key: Key, present: bool) {
        match between {
            Between::Replay => self.from = self.from.saturating_sub(3),
            Between::Maintain => self.lake.as_mut().unwrap().maintain().await.unwrap(),
            Between::Restart => self.restart(|_, _| {}).await,
            Between::IndexDeleted => self.restart(|index, _| std::fs::remove_dir_all(index).unwrap()).await,
            Between::IndexOlder => {
                self.restart(|index, saved| {
                    let saved = saved.join("index");
                    if saved.exists() {
                        std::fs::remove_dir_all(index).unwrap();
                        std::fs::rename(saved, index).unwrap();
                    } else {
                        copy(index, &saved);
                    }
                })
                .await;
            }
            Between::IndexDamaged => {
                self.restart(|index, _| {
                    let header = index.join("header.json");
                    let text = std::fs::read_to_string(&header).unwrap().replace("version", "versiom");
                    std::fs::write(header, text).unwrap();
                })
                .await;
            }
            Between::ShardDamaged => self.restart(|index, _| damage(index)).await,
            Between::LogPutBack => self.put_back().await,
            Between::ForeignAppend(id) if !present => {
                let Some(foreign) = self.foreign().await else { return };
                let region = match key {
                    Key::Id => String::new(),
                    Key::Composite => format!(", '{}' AS region", region(id)),
                };
                let sql = format!("SELECT {id}::bigint AS id, 'foreign' AS name{region}");
                let row = SessionContext::new().sql(&sql).await.unwrap().collect().await.unwrap();
                let merge = deltalake::operations::write::SchemaMode::Merge;
                foreign.write(row).with_schema_mode(merge).await.unwrap();
            }
            Between::Nothing | Between::ForeignAppend(_) => {}
            Between::ForeignDelete(id) => {
                let Some(foreign) = self.foreign().await else { return };
                foreign.delete().with_predicate(format!("id = {id}")).await.unwrap();
            }
            Between::ForeignOptimize => {
                let Some(foreign) = self.foreign().await else { return };
                foreign.optimize().await.unwrap();
            }
        }
    }
}

async fn run(batches: Vec<(Vec<Change>, Between)>, key: Key) {
    let mut worlds = [World::new(WriteMode::CopyOnWrite).await, World::new(WriteMode::MergeOnRead).await];
    let (mut model, mut log) = (Model::new(), Vec::<Event>::new());
    let mut copied: Option<(Model, usize)> = None;
    for (changes, between) in batches {
        for change in &changes {
            let event = to_event(log.len() as i64, change);
            apply(&mut model, &event);
            log.push(event);
        }
        for world in &mut worlds {
            world.told(key, &log).await;
        }
        let before = model.clone();
        match between {
            Between::ForeignAppend(id) => {
                model.entry(id).or_insert(("foreign".to_owned(), None));
            }
            Between::ForeignDelete(id) => {
                model.remove(&id);
            }
            // What others did since the copy is lost; what it lacks of the log comes again.
            Between::LogPutBack => match copied.take() {
                None => copied = Some((model.clone(), log.len())),
                Some((older, told)) => {
                    model = older;
                    log[told..].iter().for_each(|event| apply(&mut model, event));
                }
            },
            _ => {}
        }
        let expected = rows_of(&model);
        for world in &mut worlds {
            let present = matches!(between, Between::ForeignAppend(id) if before.contains_key(&id));
            world.step(between, key, present).await;
            if matches!(between, Between::LogPutBack) && world.from < log.len() {
                world.told(key, &log).await;
            }
            assert_eq!(world.fixture.items().await, expected, "{:?}", world.options.policies.defaults.write);
        }
    }
    for world in &worlds {
        let sql = "SELECT count(*), count(DISTINCT \"offset\") FROM cdc_events";
        assert_eq!(world.fixture.query(sql, At::Latest).await, [format!("{0} {0}", log.len())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_put_back_from_a_copy_is_not_read_through_the_index_of_a_later_version() {
    use Between::{LogPutBack, Maintain, Nothing, Restart};
    let change = |id| Change { operation: Operation::Update, id, name: id as u8, note: 1 + id as u8 % 5 };
    let of = |ids: std::ops::Range<i64>, between| (ids.map(change).collect::<Vec<_>>(), between);
    for key in [Key::Id, Key::Composite] {
        let steps = [(0..12, LogPutBack), (0..6, Nothing), (4..9, Maintain), (2..5, LogPutBack)];
        let more = [(0..12, Restart), (0..3, LogPutBack), (3..12, LogPutBack), (0..12, Nothing)];
        let batches = steps.into_iter().chain(more).map(|(ids, between)| of(ids, between)).collect();
        Box::pin(run(batches, key)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn the_table_equals_the_map_after_every_batch_in_both_write_modes(
        batches in prop::collection::vec((prop::collection::vec(change(), 1..20), between_or_put_back()), 1..10),
        key in prop_oneof![Just(Key::Id), Just(Key::Composite)],
    ) {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_all().build().unwrap().block_on(run(batches, key));
    }
}
