//! Random batches, restarts and replays against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fixture::{Cell, Event, Fixture, batch, value};
use crate::change::{Operation, Sink};
use crate::lake::read::At;

/// What happens between two batches.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    /// The process starts again and reads from a stored position.
    Restart,
    /// The same records come again, together with the next ones.
    Replay,
    Maintain,
}

#[derive(Debug, Clone)]
struct Change {
    operation: Operation,
    id: i64,
    name: u8,
    note: u8,
}

fn change() -> impl Strategy<Value = Change> {
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

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        Just(Between::Nothing),
        Just(Between::Restart),
        Just(Between::Replay),
        Just(Between::Maintain)
    ]
}

fn to_event(offset: i64, change: &Change) -> Event {
    // Only an update of a stored row can have absent cells.
    let note = match (change.operation, change.note) {
        (Operation::Delete, _) | (_, 0) => Cell::Null,
        (Operation::Update, 1 | 2) => Cell::Absent,
        (_, note) => value(&format!("n{note}")),
    };
    let name = change.operation.is_upsert().then(|| format!("n{}", change.name));
    Event { partition: 0, offset, operation: change.operation, id: change.id, name, note }
}

type Model = BTreeMap<i64, (String, Option<String>)>;

fn apply(model: &mut Model, event: &Event) {
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

async fn run(batches: Vec<(Vec<Change>, Between)>) {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.checkpoint_interval = 2;
    let mut lake = crate::lake::Lake::open(options.clone()).await.unwrap();
    lake.load().await.unwrap();
    let (mut model, mut log, mut from) = (Model::new(), Vec::<Event>::new(), 0);
    for (changes, between) in batches {
        for change in &changes {
            let event = to_event(log.len() as i64, change);
            apply(&mut model, &event);
            log.push(event);
        }
        lake.commit(&batch("items", &log[from..])).await.unwrap();
        from = log.len();
        match between {
            Between::Nothing => {}
            Between::Replay => from = from.saturating_sub(3),
            Between::Maintain => lake.maintain().await.unwrap(),
            Between::Restart => {
                lake = crate::lake::Lake::open(options.clone()).await.unwrap();
                let progress = lake.load().await.unwrap();
                from = progress.values().next().unwrap().next_offset as usize;
            }
        }
        let expected: Vec<String> = model
            .iter()
            .map(|(id, (name, note))| format!("{id} {name} {}", note.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(fixture.items().await, expected);
    }
    let raw = fixture.query("SELECT count(*), count(DISTINCT \"offset\") FROM cdc_events", At::Latest).await;
    assert_eq!(raw, [format!("{0} {0}", log.len())]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn the_table_equals_the_map_after_every_batch(
        batches in prop::collection::vec((prop::collection::vec(change(), 1..20), between()), 1..7)
    ) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run(batches));
    }
}
