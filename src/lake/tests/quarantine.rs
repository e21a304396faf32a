//! The quarantine of a lake: exactly once, before the position, read back with the very bytes, beside other writers.

use std::sync::Arc;

use super::fixture::{Fixture, batch, event, value};
use crate::change::quarantine::{
    Payload, QuarantineEvent, QuarantineRow, Quarantined, RecordPlace, RecordState, Settlement,
};
use crate::change::{Batch, Operation, RecordErrorKind, Sink, TableId, TopicIdentity, TopicPartition};
use crate::lake::read::At;
use crate::lake::{Lake, LakeQuarantine};

fn place(offset: i64) -> RecordPlace {
    let partition = TopicPartition::new("cdc.public.items", 0);
    RecordPlace { partition, identity: TopicIdentity::unknown(), offset }
}

fn bad(offset: i64) -> Quarantined {
    Quarantined {
        place: place(offset),
        table: Some(TableId::new("shop", "public", "items")),
        row_key: Some(format!("{{\"id\":{offset}}}")),
        kind: RecordErrorKind::InvalidValue,
        detail: "column id".to_owned(),
        payload: Payload {
            timestamp_ms: 1_700_000_000_123,
            key: Some(vec![0, 255, b'k']),
            value: Some(b"{\"broken\"".to_vec()),
            headers: vec![("__debezium.context.taskId".to_owned(), Some(b"0".to_vec()))],
        },
    }
}

/// A good record at each of the offsets, with bad ones among them.
fn with_bad(good: &[i64], bad_ones: &[i64]) -> Batch {
    let events: Vec<_> =
        good.iter().map(|&offset| event(offset, Operation::Create, offset, "n", value("x"))).collect();
    let mut batch = batch("items", &events);
    batch.quarantined = bad_ones.iter().map(|&offset| bad(offset)).collect();
    batch
}

async fn offsets(fixture: &Fixture) -> Vec<String> {
    let sql = "SELECT \"offset\" FROM quarantine WHERE event = 'quarantined' ORDER BY 1";
    fixture.query(sql, At::Latest).await
}

async fn states(lake: &mut Lake) -> Vec<(i64, RecordState)> {
    let ledger = lake.quarantine().await.unwrap();
    ledger.records().map(|(place, record)| (place.offset, record.state)).collect()
}

#[tokio::test]
async fn a_record_comes_back_with_the_very_bytes_after_a_restart() {
    let fixture = Fixture::new();
    fixture.open().await.commit(&with_bad(&[0, 2], &[1])).await.unwrap();
    let mut lake = fixture.open().await;
    assert_eq!(states(&mut lake).await, [(1, RecordState::Open)]);
    let records = lake.quarantined(&[place(1), place(9)]).await.unwrap();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(record.payload.as_ref(), Some(&bad(1).payload));
    assert_eq!(record.code.as_deref(), Some("invalid_value"));
    assert_eq!(fixture.query("SELECT id FROM items ORDER BY 1", At::Latest).await, ["0", "2"]);
}

#[tokio::test]
async fn records_that_are_read_again_are_kept_once_however_the_batches_are_cut() {
    let fixture = Fixture::new();
    // The record is in quarantine, and the process dies before the current table has its batch.
    let mut before = with_bad(&[], &[1, 3]);
    before.spans.clear();
    fixture.open().await.commit(&before).await.unwrap();
    let mut lake = fixture.open().await;
    // With other settings another record is bad, before one that is there already: it must not be skipped.
    lake.commit(&with_bad(&[0], &[1, 2])).await.unwrap();
    lake.commit(&with_bad(&[4], &[3])).await.unwrap();
    assert_eq!(offsets(&fixture).await, ["1", "2", "3"]);
    let sql = "SELECT count(*) FROM quarantine";
    assert_eq!(fixture.query(sql, At::Latest).await, ["3"]);
}

#[tokio::test]
async fn another_writer_in_between_is_seen() {
    let fixture = Fixture::new();
    let (mut one, mut two) = (fixture.open().await, fixture.open().await);
    one.commit(&with_bad(&[], &[1])).await.unwrap();
    two.commit(&with_bad(&[], &[1, 2])).await.unwrap();
    one.commit(&with_bad(&[], &[2, 3])).await.unwrap();
    assert_eq!(offsets(&fixture).await, ["1", "2", "3"]);
    assert_eq!(states(&mut two).await.len(), 3);
}

#[tokio::test]
async fn commands_append_beside_the_daemon_and_each_sees_the_other() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&with_bad(&[0], &[1, 2])).await.unwrap();
    let mut command = LakeQuarantine::open(&fixture.options()).await.unwrap();
    assert_eq!(command.look().await.unwrap().open().values().sum::<u64>(), 2);
    let discarded = QuarantineRow {
        event: QuarantineEvent::Discarded,
        payload: None,
        ..bad(1).into_row(&Arc::from("lake"), 5)
    };
    command.append(std::slice::from_ref(&discarded)).await.unwrap();
    command.append(&[discarded]).await.unwrap();
    assert_eq!(states(&mut lake).await, [(1, RecordState::Discarded), (2, RecordState::Open)]);
    let settled = Settlement {
        place: place(2),
        event: QuarantineEvent::Superseded,
        row_key: None,
        detail: "by cdc.public.items/0@3".to_owned(),
        replay: None,
    };
    let mut later = with_bad(&[3], &[]);
    later.settled = vec![settled];
    lake.commit(&later).await.unwrap();
    lake.commit(&later).await.unwrap();
    let found = command.look().await.unwrap();
    assert_eq!(found.get(&place(2)).unwrap().state, RecordState::Superseded);
    let sql = "SELECT event, count(*) FROM quarantine GROUP BY 1 ORDER BY 1";
    assert_eq!(fixture.query(sql, At::Latest).await, ["discarded 1", "quarantined 2", "superseded 1"]);
}

#[tokio::test]
async fn requests_that_come_between_each_other_have_numbers_of_their_own() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&with_bad(&[0], &[1, 2])).await.unwrap();
    // Both have read the same version.
    let mut one = LakeQuarantine::open(&fixture.options()).await.unwrap();
    let mut other = LakeQuarantine::open(&fixture.options()).await.unwrap();
    let request = |offset| QuarantineRow {
        event: QuarantineEvent::ReplayRequested,
        payload: None,
        ..bad(offset).into_row(&Arc::from("lake"), 5)
    };
    assert_eq!(one.request(&[request(1)]).await.unwrap(), 1);
    assert_eq!(other.request(&[request(2)]).await.unwrap(), 1);
    assert_eq!(other.request(&[request(1), request(2)]).await.unwrap(), 0, "both are asked for already");
    let ledger = lake.quarantine().await.unwrap();
    let numbers: Vec<_> =
        ledger.pending().iter().map(|pending| (pending.place.offset, pending.number)).collect();
    assert_eq!(numbers, [(1, 1), (2, 2)]);
}

#[tokio::test]
async fn the_quarantine_holds_no_lane_back_and_is_no_current_table() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&with_bad(&[0, 1, 2, 4], &[3])).await.unwrap();
    lake.commit(&with_bad(&[5, 6], &[])).await.unwrap();
    let progress = fixture.open().await.load().await.unwrap();
    assert_eq!(progress.values().map(|stored| stored.next_offset).collect::<Vec<_>>(), [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_small_files_become_one_between_batches_and_every_record_is_what_it_was() {
    let fixture = Fixture::new();
    let (mut lake, mut other) = (fixture.open().await, fixture.open().await);
    for offset in 0..9 {
        lake.commit(&with_bad(&[], &[offset])).await.unwrap();
    }
    let before = states(&mut lake).await;
    assert_eq!((states(&mut other).await.len(), before.len()), (9, 9));
    lake.maintain().await.unwrap();
    assert_eq!(lake.quarantine.as_ref().unwrap().table.state.files().len(), 1);
    for lake in [&mut lake, &mut other, &mut fixture.open().await] {
        assert_eq!(states(lake).await, before);
        let mut records = lake.quarantined(&(0..9).map(place).collect::<Vec<_>>()).await.unwrap();
        records.sort_by_key(|record| record.place.offset);
        let payloads: Vec<_> = records.into_iter().filter_map(|record| record.payload).collect();
        assert_eq!(payloads, (0..9).map(|offset| bad(offset).payload).collect::<Vec<_>>());
    }
    // Records that are read again are there, for whoever put the files together and for others.
    other.commit(&with_bad(&[], &[7, 9])).await.unwrap();
    lake.commit(&with_bad(&[], &[8, 9, 10])).await.unwrap();
    let counts =
        fixture.query("SELECT count(*), count(DISTINCT \"offset\") FROM quarantine", At::Latest).await;
    assert_eq!(counts, ["11 11"]);
}
