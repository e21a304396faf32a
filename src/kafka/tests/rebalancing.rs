//! Several members of a group: partitions move, records do not repeat and are not lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::*;

const PARTITIONS: i32 = 4;
/// Rounds after the second member has left.
const ROUNDS: i64 = 10;
const PER_ROUND: i64 = 50;

/// What all members write to: rows and positions under one lock, as a sink's transaction would.
#[derive(Default)]
struct Sink {
    stored: Arc<Stored>,
    rows: Mutex<Seen>,
    fenced: AtomicUsize,
}

impl Sink {
    fn apply(&self, chunk: &Chunk) {
        let mut rows = self.rows.lock().unwrap();
        for record in chunk.iter() {
            let seen = rows.0.entry((record.topic.to_string(), record.partition)).or_default();
            if record.offset != seen.len() as i64 {
                self.fenced.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            seen.push(record.offset);
            let partition = TopicPartition::new(Arc::clone(record.topic), record.partition);
            self.stored.set(partition, record.offset + 1);
        }
    }
}

/// A member that applies what it gets until told to stop.
struct Member {
    stop: Arc<AtomicBool>,
    applied: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Member {
    fn join(options: ConsumerOptions, sink: &Arc<Sink>) -> Self {
        let (consumer, events) = start(options, &sink.stored);
        let (stop, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (sink, stopped, count) = (Arc::clone(sink), Arc::clone(&stop), Arc::clone(&applied));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match events.recv_timeout(Duration::from_millis(20)) {
                    Ok(Event::Records(chunk)) => {
                        sink.apply(&chunk);
                        count.fetch_add(chunk.len(), Ordering::Relaxed);
                    }
                    Ok(Event::Revoked { done, .. }) => done.send(()).unwrap(),
                    Ok(Event::Failed(error)) => panic!("{error}"),
                    _ => {}
                }
            }
            drop(consumer);
        });
        Self { stop, applied, thread }
    }

    fn leave(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Waits for `condition`; fails at the deadline with what it says.
fn until(deadline: Instant, condition: impl Fn() -> Result<(), String>) {
    while let Err(missing) = condition() {
        assert!(Instant::now() < deadline, "{missing}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Produces in rounds; a second member joins in the middle, applies a share, and leaves again.
fn moves_partitions_without_loss(cluster: &Cluster, options: &ConsumerOptions) {
    let sink = Arc::new(Sink::default());
    let deadline = Instant::now() + DEADLINE;
    let (mut round, mut left) = (0, None);
    let produce_and_await = |round: &mut i64| {
        for partition in 0..PARTITIONS {
            cluster.produce("t", partition, *round * PER_ROUND..(*round + 1) * PER_ROUND, 10);
        }
        *round += 1;
        let expected = *round * PER_ROUND * i64::from(PARTITIONS);
        until(deadline, || match sink.rows.lock().unwrap().len() as i64 {
            found if found < expected => Err(format!("{found} of {expected} records came")),
            _ => Ok(()),
        });
    };
    let first = Member::join(options.clone(), &sink);
    produce_and_await(&mut round);
    let second = Member::join(options.clone(), &sink);
    let mut second = Some(second);
    while left.is_none_or(|left| round < left + ROUNDS) {
        produce_and_await(&mut round);
        if second.as_ref().is_some_and(|second| second.applied.load(Ordering::Relaxed) > 0) {
            second.take().unwrap().leave();
            left = Some(round);
        }
    }
    first.leave();
    let rows = sink.rows.lock().unwrap();
    for partition in 0..PARTITIONS {
        rows.assert_exactly("t", partition, 0..round * PER_ROUND);
    }
    assert_eq!(sink.fenced.load(Ordering::Relaxed), 0, "records that came twice or out of order");
}

/// The mock ends each round of joining only when the session's time is almost over.
fn short_session(cluster: &Cluster) -> ConsumerOptions {
    let mut options = cluster.classic_options(&["t"]);
    options.properties.insert("session.timeout.ms".into(), "3000".into());
    options.properties.insert("heartbeat.interval.ms".into(), "200".into());
    options
}

#[test]
fn partitions_move_between_two_members_without_loss_or_repetition() {
    let cluster = Cluster::with_topic("t", PARTITIONS);
    moves_partitions_without_loss(&cluster, &short_session(&cluster));
}

#[test]
fn the_broker_side_protocol_moves_partitions_without_loss_or_repetition() {
    let cluster = Cluster::with_topic("t", PARTITIONS);
    moves_partitions_without_loss(&cluster, &cluster.options(&["t"]));
}

#[test]
fn the_eager_protocol_moves_partitions_without_loss_or_repetition() {
    let cluster = Cluster::with_topic("t", PARTITIONS);
    let mut options = short_session(&cluster);
    options.properties.insert("partition.assignment.strategy".into(), "range".into());
    moves_partitions_without_loss(&cluster, &options);
}
