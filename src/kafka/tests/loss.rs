//! Positions that the log no longer has.

use super::super::{ConsumerError, OnDataLoss};
use super::*;

/// More than the mock keeps of a partition (5 MiB), so that its log begins behind offset 0.
const OVERFLOW: i64 = 7000;

fn failure(events: &Events) -> ConsumerError {
    wait_for(events, |event| match event {
        Event::Failed(error) => Some(error),
        Event::Records(chunk) => panic!("{chunk:?} before the failure"),
        _ => None,
    })
}

fn first_start(events: &Events) -> i64 {
    wait_for(events, |event| match event {
        Event::Assigned(assignments) => Some(assignments[0].start),
        Event::Failed(error) => panic!("{error}"),
        _ => None,
    })
}

#[test]
fn an_expired_position_halts_and_names_the_offsets() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, 0..OVERFLOW, 1000);
    let (_consumer, events) = start(cluster.options(&["t"]), &Stored::at("t", 0, 3));
    let error = failure(&events);
    let ConsumerError::Expired { partition, stored: 3, low, high: OVERFLOW } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*partition, TopicPartition::new("t", 0));
    let message = error.to_string();
    for part in ["t/0", " 3,", &low.to_string(), "7000", "kafka.on_data_loss"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn an_expired_position_goes_on_at_the_beginning_where_that_is_set() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, 0..OVERFLOW, 1000);
    let mut options = cluster.options(&["t"]);
    options.on_data_loss = OnDataLoss::Continue;
    let (_consumer, events) = start(options, &Stored::at("t", 0, 3));
    let low = first_start(&events);
    assert!(low > 3, "starts at {low}");
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.of("t", 0).last() == Some(&(OVERFLOW - 1)));
    seen.assert_exactly("t", 0, low..OVERFLOW);
}

#[test]
fn a_position_beyond_the_end_halts_or_goes_on_as_set() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, 0..10, 0);
    let (_consumer, events) = start(cluster.options(&["t"]), &Stored::at("t", 0, 50));
    let error = failure(&events);
    assert!(matches!(error, ConsumerError::BeyondEnd { stored: 50, low: 0, high: 10, .. }), "{error:?}");
    let mut options = cluster.options(&["t"]);
    (options.on_data_loss, options.group_id) = (OnDataLoss::Continue, "other".into());
    let (_consumer, events) = start(options, &Stored::at("t", 0, 50));
    assert_eq!(first_start(&events), 0);
    let mut seen = Seen::default();
    read_until(&events, &mut seen, |seen| seen.len() == 10);
}

/// A consumer that was overtaken by retention while it waited for its lane; the events, nothing taken yet.
fn overtaken(cluster: &Cluster, on_data_loss: OnDataLoss) -> (Consumer, Events) {
    cluster.produce("t", 0, 0..1000, 1000);
    let mut options = cluster.options(&["t"]);
    (options.chunk_bytes, options.queue_chunks, options.on_data_loss) = (16 * 1024, 1, on_data_loss);
    // As little as possible in the client's own buffers, which survive the removal.
    options.properties.insert("queued.min.messages".into(), "1".into());
    options.properties.insert("queued.max.messages.kbytes".into(), "1".into());
    let (consumer, events) = start(options, &Stored::none());
    let partition = TopicPartition::new("t", 0);
    let deadline = Instant::now() + DEADLINE;
    let mut still = (0, Instant::now());
    while still.0 == 0 || still.1.elapsed() < Duration::from_millis(1500) {
        assert!(Instant::now() < deadline, "reading does not stop");
        let position = consumer.lag().get(&partition).map_or(0, |lag| lag.position);
        if position != still.0 {
            still = (position, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    cluster.produce("t", 0, 1000..OVERFLOW + 1000, 1000);
    (consumer, events)
}

#[test]
fn retention_that_overtakes_a_running_consumer_halts_it() {
    let cluster = Cluster::with_topic("t", 1);
    let (_consumer, events) = overtaken(&cluster, OnDataLoss::Halt);
    let error = wait_for(&events, |event| match event {
        Event::Failed(error) => Some(error),
        _ => None,
    });
    assert!(matches!(error, ConsumerError::Expired { .. }), "{error:?}");
}

#[test]
fn retention_that_overtakes_a_running_consumer_moves_it_where_that_is_set() {
    let cluster = Cluster::with_topic("t", 1);
    let (_consumer, events) = overtaken(&cluster, OnDataLoss::Continue);
    let mut seen = Seen::default();
    let last = OVERFLOW + 999;
    let others = read_until(&events, &mut seen, |seen| seen.of("t", 0).last() == Some(&last));
    let starts: Vec<i64> = others
        .iter()
        .filter_map(|event| match event {
            Event::Assigned(assignments) => Some(assignments[0].start),
            _ => None,
        })
        .collect();
    assert_eq!(starts.len(), 2, "first and second start: {starts:?}");
    let offsets = seen.of("t", 0);
    let jump = offsets.iter().position(|&offset| offset >= starts[1]).unwrap();
    assert!(offsets[..jump].iter().copied().eq(0..jump as i64), "before the jump");
    assert!(offsets[jump..].iter().copied().eq(starts[1]..=last), "after the jump");
}

#[test]
fn a_sink_that_cannot_tell_its_positions_fails_the_consumer() {
    struct Broken;
    impl Positions for Broken {
        fn start(&self, _: &[TopicPartition]) -> Result<HashMap<TopicPartition, StoredPosition>, String> {
            Err("the lake is away".to_owned())
        }
    }
    let cluster = Cluster::with_topic("t", 1);
    let (_consumer, events) = Consumer::start(cluster.options(&["t"]), Arc::new(Broken)).unwrap();
    let error = failure(&events);
    assert_eq!(error, ConsumerError::Positions { reason: "the lake is away".into() });
}
