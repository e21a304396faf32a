//! Records, order, bounds, and the events around them.

use super::super::{ConsumerError, Lag, probe};
use super::*;

#[test]
fn every_record_comes_once_and_in_order_over_many_chunks() {
    let cluster = Cluster::with_topic("cdc.public.a", 3);
    for partition in 0..3 {
        cluster.produce("cdc.public.a", partition, 0..2000, 100);
    }
    let mut options = cluster.options(&[r"^cdc\.public\..*"]);
    options.chunk_bytes = 4096;
    let (consumer, events) = start(options, &Stored::none());
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.len() >= 6000);
    for partition in 0..3 {
        seen.assert_exactly("cdc.public.a", partition, 0..2000);
    }
    drop(consumer);
}

#[test]
fn records_carry_key_value_and_time() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, 0..1, 3);
    let record = BaseRecord::<str, str>::to("t").partition(0).key("k").timestamp(1_700_000_000_000).headers(
        rdkafka::message::OwnedHeaders::new()
            .insert(rdkafka::message::Header { key: "other", value: Some("no") })
            .insert(rdkafka::message::Header { key: "__debezium.newkey", value: Some("new") }),
    );
    cluster.producer.send(record).unwrap();
    cluster.producer.flush(DEADLINE).unwrap();
    let (_consumer, events) = start(cluster.options(&["t"]), &Stored::none());
    let mut chunks = Vec::new();
    while chunks.iter().map(Chunk::len).sum::<usize>() < 2 {
        chunks.push(wait_for(&events, |event| match event {
            Event::Records(chunk) => Some(chunk),
            _ => None,
        }));
    }
    let records: Vec<_> = chunks.iter().flat_map(Chunk::iter).collect();
    assert_eq!((records[0].key, records[0].value), (Some(&b"0"[..]), Some(&b"0:xxx"[..])));
    assert_eq!((records[0].new_key, records[0].old_key), (None, None));
    assert_eq!((records[1].key, records[1].value), (Some(&b"k"[..]), None), "a tombstone");
    assert_eq!((records[1].new_key, records[1].old_key), (Some(&b"new"[..]), None));
    assert_eq!(records[1].timestamp_ms, 1_700_000_000_000);
    let headers: Vec<_> = records[1].headers.iter().collect();
    let expected = [("other", "no"), ("__debezium.newkey", "new")]
        .map(|(name, value)| (name.to_owned(), Some(value.as_bytes())));
    assert_eq!(headers, expected);
}

#[test]
fn a_lane_that_stands_still_stops_the_reading_and_loses_nothing() {
    const RECORDS: i64 = 4000;
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, 0..RECORDS, 1000);
    let mut options = cluster.options(&["t"]);
    (options.chunk_bytes, options.queue_chunks) = (16 * 1024, 2);
    let (consumer, events) = start(options, &Stored::none());
    // Not taking anything until the position has not moved for longer than the lane is waited for.
    let partition = TopicPartition::new("t", 0);
    let position = || consumer.lag().get(&partition).map_or(0, |lag| lag.position);
    let deadline = Instant::now() + DEADLINE;
    let mut still = (0, Instant::now());
    while still.0 == 0 || still.1.elapsed() < Duration::from_millis(1500) {
        assert!(Instant::now() < deadline, "reading does not stop: position {}", position());
        if position() != still.0 {
            still = (position(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(still.0 < RECORDS / 4, "read {} of {RECORDS} records into two chunks of 16", still.0);
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.len() as i64 >= RECORDS);
    seen.assert_exactly("t", 0, 0..RECORDS);
}

#[test]
fn a_quiet_stream_is_handed_over_at_once_and_idleness_is_told_once() {
    let cluster = Cluster::with_topic("t", 1);
    let (_consumer, events) = start(cluster.options(&["t"]), &Stored::none());
    for round in 0..2 {
        wait_for(&events, |event| matches!(event, Event::Idle { .. }).then_some(()));
        assert!(events.try_recv().is_err(), "an event in the silence");
        cluster.produce("t", 0, round..round + 1, 0);
        let mut seen = Seen::default();
        read_until(&events, &mut seen, |seen| seen.len() == 1);
        assert_eq!(seen.of("t", 0), [round]);
    }
}

#[test]
fn partitions_start_at_their_stored_positions_and_others_at_the_beginning() {
    let cluster = Cluster::with_topic("t", 2);
    cluster.produce("t", 0, 0..100, 0);
    cluster.produce("t", 1, 0..100, 0);
    let (_consumer, events) = start(cluster.options(&["t"]), &Stored::at("t", 0, 70));
    let mut starts = wait_for(&events, |event| match event {
        Event::Assigned(assignments) => Some(assignments),
        _ => None,
    });
    starts.sort_by_key(|each| each.partition.partition);
    assert_eq!(starts.iter().map(|each| each.start).collect::<Vec<_>>(), [70, 0]);
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.len() >= 130);
    seen.assert_exactly("t", 0, 70..100);
    seen.assert_exactly("t", 1, 0..100);
}

#[test]
fn caught_up_comes_behind_the_records_that_were_there_at_the_start() {
    let cluster = Cluster::with_topic("t", 2);
    cluster.mock.create_topic("u", 1, 1).unwrap();
    cluster.produce("t", 0, 0..500, 100);
    cluster.produce("u", 0, 0..300, 100);
    // The partition t/0 is stored up to its end: nothing of it has to be read.
    let (_consumer, events) = start(cluster.options(&["t", "u"]), &Stored::at("t", 0, 500));
    let mut seen = Seen::default();
    loop {
        match next(&events) {
            Event::Records(chunk) => seen.add(&chunk),
            Event::CaughtUp => break,
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    seen.assert_exactly("u", 0, 0..300);
    seen.assert_exactly("t", 0, 0..0);
    cluster.produce("t", 0, 500..501, 0);
    let others = read_until(&events, &mut seen, |seen| seen.len() == 301);
    assert!(others.iter().all(|event| !matches!(event, Event::CaughtUp)), "told twice");
}

#[test]
fn caught_up_comes_when_there_is_nothing_to_read() {
    let cluster = Cluster::with_topic("empty", 2);
    for topics in ["empty", r"^no\.such\..*"] {
        let (_consumer, events) = start(cluster.options(&[topics]), &Stored::none());
        wait_for(&events, |event| matches!(event, Event::CaughtUp).then_some(()));
    }
}

#[test]
fn a_topic_created_later_is_picked_up_from_its_beginning() {
    let cluster = Cluster::with_topic("cdc.a", 1);
    cluster.produce("cdc.a", 0, 0..10, 0);
    let (_consumer, events) = start(cluster.options(&["^cdc\\..*"]), &Stored::none());
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.len() == 10);
    cluster.mock.create_topic("cdc.b", 2, 1).unwrap();
    cluster.produce("cdc.b", 1, 0..10, 0);
    read_until(&events, &mut seen, |seen| seen.len() == 20);
    seen.assert_exactly("cdc.a", 0, 0..10);
    seen.assert_exactly("cdc.b", 1, 0..10);
}

#[test]
fn a_stopped_topic_is_not_read_and_others_go_on() {
    let cluster = Cluster::with_topic("a", 1);
    cluster.mock.create_topic("b", 1, 1).unwrap();
    let (consumer, events) = start(cluster.options(&["a", "b"]), &Stored::none());
    cluster.produce("a", 0, 0..1, 0);
    cluster.produce("b", 0, 0..1, 0);
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.len() == 2);
    consumer.pause_topic("a");
    // The pause takes effect between two polls; from then on no round brings a record of the stopped topic.
    let (mut quiet_rounds, mut round) = (0, 0);
    while quiet_rounds < 5 {
        round += 1;
        assert!(round < 100, "records of the stopped topic keep coming: {seen:?}");
        let before = seen.of("a", 0).len();
        cluster.produce("a", 0, round..round + 1, 0);
        cluster.produce("b", 0, round..round + 1, 0);
        read_until(&events, &mut seen, |seen| seen.of("b", 0).len() as i64 == round + 1);
        quiet_rounds = if seen.of("a", 0).len() == before { quiet_rounds + 1 } else { 0 };
    }
    seen.assert_exactly("b", 0, 0..round + 1);
}

#[test]
fn a_broker_outage_is_counted_and_passes() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, 0..10, 0);
    let (consumer, events) = start(cluster.options(&["t"]), &Stored::none());
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.len() == 10);
    cluster.mock.broker_down(1).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while !consumer.errors().contains_key("connection") {
        assert!(Instant::now() < deadline, "no error was counted: {:?}", consumer.errors());
        std::thread::sleep(Duration::from_millis(5));
    }
    cluster.mock.broker_up(1).unwrap();
    cluster.produce("t", 0, 10..20, 0);
    read_until(&events, &mut seen, |seen| seen.len() == 20);
    seen.assert_exactly("t", 0, 0..20);
}

#[test]
fn lag_is_known_and_positions_are_committed_for_lag_tools() {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, 0..10, 0);
    let (consumer, events) = start(cluster.classic_options(&["t"]), &Stored::none());
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.len() == 10);
    let partition = TopicPartition::new("t", 0);
    let deadline = Instant::now() + DEADLINE;
    while consumer.lag().get(&partition) != Some(&Lag { end: 10, position: 10 }) {
        assert!(Instant::now() < deadline, "{:?}", consumer.lag());
        std::thread::sleep(Duration::from_millis(5));
    }
    consumer.commit_positions(&[(partition, 7)]);
    drop(consumer);
    let tool: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.mock.bootstrap_servers())
        .set("group.id", "lane")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition("t", 0);
    let committed = tool.committed_offsets(list, DEADLINE).unwrap();
    assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Offset(7));
}

#[test]
fn stopping_takes_seconds_at_most_also_without_a_broker() {
    let cluster = Cluster::with_topic("t", 1);
    let (consumer, events) = start(cluster.options(&["t"]), &Stored::none());
    wait_for(&events, |event| matches!(event, Event::Assigned(_)).then_some(()));
    cluster.mock.broker_down(1).unwrap();
    let stopping = Instant::now();
    drop(consumer);
    assert!(stopping.elapsed() < Duration::from_secs(12), "took {:?}", stopping.elapsed());
}

#[test]
fn dropping_the_events_ends_the_consumer() {
    let cluster = Cluster::with_topic("t", 1);
    let (consumer, events) = start(cluster.options(&["t"]), &Stored::none());
    wait_for(&events, |event| matches!(event, Event::Assigned(_)).then_some(()));
    drop(events);
    cluster.produce("t", 0, 0..1, 0);
    let deadline = Instant::now() + DEADLINE;
    while consumer.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
        assert!(Instant::now() < deadline, "the polling thread goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_probe_names_matching_topics_and_an_unreachable_host() {
    let cluster = Cluster::with_topic("cdc.a", 3);
    cluster.mock.create_topic("other", 1, 1).unwrap();
    let report = probe(&cluster.options(&["^cdc\\..*"]), DEADLINE).unwrap();
    let found: Vec<_> = report.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions)).collect();
    assert_eq!(found, [("cdc.a", 3)]);
    let mut options = cluster.options(&["^cdc\\..*"]);
    options.bootstrap_servers = "localhost:1".into();
    match probe(&options, Duration::from_secs(3)) {
        Err(error @ ConsumerError::Unreachable { .. }) => {
            let message = error.to_string();
            assert!(
                message.contains("localhost:1") && message.contains("kafka.bootstrap_servers"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
}
