//! Truncates and tables without key: random batches, restarts, a lost index and other writers against a list of rows, in
//! both write modes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use deltalake::DeltaTable;
use proptest::prelude::*;

use super::fixture::{Cell, Event, Fixture, batch_of, column, table};
use crate::change::{Batch, ColumnType, Operation, Sink, TableSchema, TruncateReach, WriteMode};
use crate::lake::read::At;
use crate::lake::{Lake, LakeOptions};

type Row = (i64, Option<String>);

/// What happens between two batches.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    Restart,
    IndexDeleted,
    Replay,
    Maintain,
    ForeignOptimize,
    ForeignDelete(i64),
}

#[derive(Debug, Clone)]
struct Change {
    operation: Operation,
    row: Row,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let operation = prop_oneof![
        10 => Just(Operation::Create), 6 => Just(Operation::Delete), 1 => Just(Operation::Truncate)
    ];
    let row = (0..3_i64, prop::option::of("[xy]"));
    let change = (operation, row).prop_map(|(operation, row)| Change { operation, row });
    prop::collection::vec(change, 1..20)
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        3 => Just(Between::Nothing), 2 => Just(Between::Restart), 2 => Just(Between::IndexDeleted),
        2 => Just(Between::Replay), 3 => Just(Between::Maintain), 1 => Just(Between::ForeignOptimize),
        1 => (0..3_i64).prop_map(Between::ForeignDelete),
    ]
}

/// The batch of `changes` from `first` on; with `wide` the table has a column more.
fn batch(changes: &[Change], first: usize, keyed: bool, wide: bool) -> Batch {
    let events: Vec<Event> = (first as i64..)
        .zip(changes)
        .map(|(offset, change)| Event {
            partition: 0,
            offset,
            operation: change.operation,
            id: change.row.0,
            name: None,
            note: Cell::Null,
        })
        .collect();
    let mut columns = vec![column("id", ColumnType::Int64), column("name", ColumnType::Text)];
    let ids: Int64Array = changes.iter().map(|change| Some(change.row.0)).collect();
    let names: StringArray = changes.iter().map(|change| change.row.1.clone()).collect();
    let mut cells: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(names)];
    if wide {
        columns.push(column("added", ColumnType::Int64));
        cells.push(Arc::new(Int64Array::from(vec![None; changes.len()])));
    }
    let absent = vec![None; columns.len()];
    let schema = Arc::new(TableSchema::new(columns, if keyed { vec![0] } else { Vec::new() }));
    batch_of("items", &schema, cells, absent, &events)
}

fn apply(rows: &mut Vec<Row>, change: &Change, keyed: bool) {
    let find = |rows: &Vec<Row>| {
        rows.iter().position(|row| if keyed { row.0 == change.row.0 } else { *row == change.row })
    };
    match change.operation {
        Operation::Truncate => rows.clear(),
        Operation::Delete => {
            if let Some(at) = find(rows) {
                rows.remove(at);
            }
        }
        _ => {
            if let Some(at) = find(rows).filter(|_| keyed) {
                rows.remove(at);
            }
            rows.push(change.row.clone());
        }
    }
}

struct World {
    fixture: Fixture,
    options: LakeOptions,
    lake: Option<Lake>,
    from: usize,
}

impl World {
    async fn new(write: WriteMode) -> Self {
        let fixture = Fixture::new();
        let mut options = fixture.options();
        options.checkpoint_interval = 3;
        options.policies.defaults.write = write;
        let mut world = Self { fixture, options, lake: None, from: 0 };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        self.lake = None;
        let mut lake = Lake::open(self.options.clone()).await.unwrap();
        let progress = lake.load().await.unwrap();
        self.from = progress.values().next().map_or(0, |stored| stored.next_offset as usize);
        self.lake = Some(lake);
    }

    async fn foreign(&self) -> Option<DeltaTable> {
        let items = self.lake.as_ref().unwrap().tables.get(&table("items"))?;
        let mut foreign = DeltaTable::new(items.table.log.guarded());
        foreign.load().await.unwrap();
        Some(foreign)
    }

    async fn step(&mut self, between: Between) {
        match between {
            Between::Nothing => {}
            Between::Restart => self.start().await,
            Between::IndexDeleted => {
                self.lake = None;
                let index = self.fixture.dir.path().join("_index/items");
                if index.exists() {
                    std::fs::remove_dir_all(index).unwrap();
                }
                self.start().await;
            }
            Between::Replay => self.from = self.from.saturating_sub(3),
            Between::Maintain => self.lake.as_mut().unwrap().maintain().await.unwrap(),
            Between::ForeignOptimize => {
                if let Some(foreign) = self.foreign().await {
                    foreign.optimize().await.unwrap();
                }
            }
            Between::ForeignDelete(id) => {
                if let Some(foreign) = self.foreign().await {
                    foreign.delete().with_predicate(format!("id = {id}")).await.unwrap();
                }
            }
        }
    }
}

async fn run(batches: Vec<(Vec<Change>, Between)>, keyed: bool, widens_at: usize) {
    let mut worlds = [World::new(WriteMode::CopyOnWrite).await, World::new(WriteMode::MergeOnRead).await];
    let (mut rows, mut log) = (Vec::<Row>::new(), Vec::<Change>::new());
    for (at, (changes, between)) in batches.into_iter().enumerate() {
        for change in &changes {
            apply(&mut rows, change, keyed);
        }
        log.extend(changes);
        for world in &mut worlds {
            let changes = batch(&log[world.from..], world.from, keyed, at >= widens_at);
            let report = world.lake.as_mut().unwrap().commit(&changes).await.unwrap();
            assert!(report.stopped.is_empty(), "{:?}", report.stopped);
            world.from = log.len();
        }
        if let Between::ForeignDelete(id) = between {
            rows.retain(|row| row.0 != id);
        }
        let mut expected: Vec<String> =
            rows.iter().map(|(id, name)| format!("{id} {}", name.as_deref().unwrap_or("-"))).collect();
        expected.sort();
        for world in &mut worlds {
            world.step(between).await;
            let mut found = world.fixture.query("SELECT id, name FROM items", At::Latest).await;
            found.sort();
            assert_eq!(found, expected, "{:?} after batch {at}", world.options.policies.defaults.write);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn truncates_and_equal_rows_are_right_after_every_batch_in_both_write_modes(
        batches in prop::collection::vec((changes(), between()), 1..10),
        keyed in any::<bool>(),
        widens_at in 0..12_usize,
    ) {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_all().build().unwrap().block_on(run(batches, keyed, widens_at));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_truncate_takes_only_what_was_committed_before_it_in_both_write_modes() {
    for write in [WriteMode::CopyOnWrite, WriteMode::MergeOnRead] {
        let mut world = World::new(write).await;
        let create = |id| Change { operation: Operation::Create, row: (id, None) };
        let lake = world.lake.as_mut().unwrap();
        let mut old = batch(&[create(1), create(2)], 0, true, false);
        old.changes[0].source_micros = vec![10, 30];
        lake.commit(&old).await.unwrap();
        let late = [Change { operation: Operation::Truncate, row: (0, None) }, create(3)];
        let mut late = batch(&late, 2, true, false);
        late.changes[0].source_micros = vec![20, 40];
        late.changes[0].lsns = vec![2, 4];
        late.changes[0].truncates[0].reach = TruncateReach::Older { stored: true };
        lake.commit(&late).await.unwrap();
        let found = world.fixture.query("SELECT id FROM items ORDER BY id", At::Latest).await;
        assert_eq!(found, ["2", "3"], "{write:?}");
    }
}
