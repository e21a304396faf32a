//! A lane: one consumer that feeds one sink.
//!
//! Three stages overlap, joined by bounded channels: polling (a thread in [`crate::kafka`]), decoding
//! ([`decode`]) and committing (this task). The sink owns the progress: a partition starts where the sink says, and
//! the batch's positions become durable in the same commit as its data. Nothing else is remembered, so every error
//! that is not final is answered in one way: forget what is in flight, read the sink's progress, start over.
//!
//! Kafka's committed offsets are written after the sink's commit, for lag tools, and never read back.

mod attempt;
mod backoff;
mod barrier;
mod commit;
mod decode;
mod headers;
mod key_changes;
mod limits;
mod observe;
mod originals;
mod positions;
mod quarantine;
mod refuse;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};

use self::attempt::{Attempt, AttemptEnd, asked_to_stop, end_of};
use self::backoff::Backoff;
use self::decode::{DecodeStage, Staged};
use self::positions::{PositionBridge, PositionRequest};
use self::refuse::Refusals;
use crate::admin::status::LaneState;
use crate::change::quarantine::{Ledger, Limiter, Limits, Marks, Waiting};
use crate::change::{Policies, Sink, SinkError, TopicPartition};
use crate::debezium::{Decoder, DecoderOptions};
use crate::kafka::{Consumer, ConsumerOptions, Events};

pub use self::limits::BatchLimits;
pub use self::observe::Observer;

/// How often an idle lane looks after its tables and refreshes its lag.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(2);

/// How often a lane asks its sink about stopped tables.
const LOOKS: Duration = Duration::from_secs(2);

/// What a lane is made of, besides its sink.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// `lake`, or the mirror's name; in logs, metrics and the consumer group.
    pub name: String,
    /// How to read Kafka.
    pub consumer: ConsumerOptions,
    /// How to read the events.
    pub decoder: DecoderOptions,
    /// When a batch closes.
    pub batch: BatchLimits,
    /// Finish at the end that the partitions had at the start.
    pub until_caught_up: bool,
    /// What is declared for each table.
    pub policies: Policies,
    /// How many records may go into quarantine.
    pub quarantine: Limits,
    /// Whether batches keep the records that they are made of, for a sink that refuses single ones.
    pub keep_originals: bool,
}

/// How a lane ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneEnd {
    /// Asked to stop, or caught up as asked; every table is running.
    Finished,
    /// Caught up or asked to stop, but these tables had stopped on the way.
    TablesStopped(BTreeSet<String>),
    /// An error that waiting would not cure.
    Stopped(String),
}

/// One consumer feeding one sink.
pub struct Lane<S> {
    options: LaneOptions,
    sink: S,
    observer: Observer,
    stop: watch::Receiver<bool>,
    backoff: Backoff,
    stopped_tables: BTreeSet<String>,
    /// When the sink was last asked about them.
    looked: Instant,
    /// Keys with a record in quarantine.
    marks: Marks,
    /// The quarantine as it was last looked at.
    ledger: Arc<Ledger>,
    /// Records that went into quarantine since the start.
    quarantined: u64,
    /// What earlier runs have left in quarantine.
    waiting: Waiting,
    /// Partitions that are read.
    assigned: BTreeSet<TopicPartition>,
    /// When a commit last told what the sink's tables are like.
    told: Instant,
    /// Called after each commit with the positions that became durable.
    on_commit: Option<OnCommit>,
}

/// Told of positions that became durable, in the order of commits.
pub type OnCommit = Arc<dyn Fn(&[(TopicPartition, i64)]) + Send + Sync>;

impl<S: Sink> Lane<S> {
    /// A lane that stops when `stop` becomes true.
    pub fn new(options: LaneOptions, sink: S, observer: Observer, stop: watch::Receiver<bool>) -> Self {
        Self {
            options,
            sink,
            observer,
            stop,
            backoff: Backoff::default(),
            stopped_tables: BTreeSet::new(),
            marks: Marks::default(),
            ledger: Arc::default(),
            quarantined: 0,
            waiting: Waiting::default(),
            assigned: BTreeSet::new(),
            looked: Instant::now(),
            told: Instant::now(),
            on_commit: None,
        }
    }

    /// Has `on_commit` called after each commit.
    pub fn on_commit(mut self, on_commit: OnCommit) -> Self {
        self.on_commit = Some(on_commit);
        self
    }

    /// Runs until it is caught up (if asked to), asked to stop, or stopped by an error.
    pub async fn run(mut self) -> LaneEnd {
        loop {
            self.observer.state(LaneState::Starting);
            match self.attempt().await {
                AttemptEnd::Finished => {
                    let mut stop = self.stop.clone();
                    tokio::select! {
                        biased;
                        () = asked_to_stop(&mut stop) => {}
                        () = self.sink.finish() => {}
                    }
                    self.observer.state(LaneState::Finished);
                    return self.finished();
                }
                AttemptEnd::Stopped { class, message } => {
                    tracing::error!(lane = self.options.name, message, "lane stopped");
                    self.observer.stopped(class, &message);
                    return LaneEnd::Stopped(message);
                }
                AttemptEnd::StartOver { class, message } => {
                    tracing::warn!(
                        lane = self.options.name,
                        message,
                        "lane starts over from the sink's progress"
                    );
                    self.observer.retry(class, &message);
                    let wait = self.backoff.next();
                    if self.sleep(wait).await {
                        return self.finished();
                    }
                    self.stopped_tables.clear();
                }
            }
        }
    }

    fn finished(self) -> LaneEnd {
        if self.stopped_tables.is_empty() {
            LaneEnd::Finished
        } else {
            LaneEnd::TablesStopped(self.stopped_tables)
        }
    }

    async fn attempt(&mut self) -> AttemptEnd {
        self.observer.restarted();
        let progress = match self.sink.load().await {
            Ok(progress) => progress,
            Err(error) => return end_of(&error),
        };
        match self.sink.quarantine().await {
            Ok(ledger) => {
                self.marks = Marks::of(&ledger);
                self.waiting = Waiting::of(&ledger, &progress, chrono::Utc::now().timestamp_micros());
                self.observer.quarantine(&ledger);
            }
            Err(error) => return end_of(&error),
        }
        self.ledger = Arc::default();
        self.assigned.clear();
        if *self.stop.borrow() {
            return AttemptEnd::Finished;
        }
        let (bridge, requests) = PositionBridge::new();
        let (consumer, events) = match Consumer::start(self.options.consumer.clone(), Arc::new(bridge)) {
            Ok(started) => started,
            Err(error) => return AttemptEnd::Stopped { class: error.class(), message: error.to_string() },
        };
        let consumer = Arc::new(consumer);
        let (staged, decoding) = self.start_decoding(&consumer, events);
        let mut attempt = Attempt {
            consumer: Arc::clone(&consumer),
            requests,
            staged,
            kafka_errors: BTreeMap::new(),
            decoding: Some(decoding),
        };
        let end = self.commit_all(&mut attempt).await;
        // Closing the channels ends the decoding thread and every waiting callback; only then can the consumer close.
        drop(attempt);
        // The last owner closes the consumer, which takes a moment: not on a thread that others share.
        let _ = tokio::task::spawn_blocking(move || drop(consumer)).await;
        end
    }

    fn start_decoding(
        &self,
        consumer: &Arc<Consumer>,
        events: Events,
    ) -> (mpsc::Receiver<Staged>, JoinHandle<()>) {
        // Markers and at most one batch, which needs the permit: the bound on memory is the permit.
        let (sender, staged) = mpsc::channel(16);
        let decoder = Decoder::new(self.options.decoder.clone(), self.sink.known_schemas())
            .with_tables(self.sink.known_tables())
            .with_marks(self.marks.clone());
        let refusals = Refusals {
            policies: self.options.policies.clone(),
            limiter: Limiter::after(self.options.quarantine, self.quarantined, self.waiting),
            keep_originals: self.options.keep_originals,
        };
        let stage = DecodeStage::new(
            decoder,
            refusals,
            self.options.batch,
            sender,
            Arc::new(Semaphore::new(1)),
            tokio::runtime::Handle::current(),
            Box::new(Arc::downgrade(consumer)),
        );
        let thread = std::thread::spawn(move || stage.run(&events));
        (staged, thread)
    }

    async fn commit_all(&mut self, attempt: &mut Attempt) -> AttemptEnd {
        let mut maintenance = tokio::time::interval(MAINTENANCE_INTERVAL);
        maintenance.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = self.stop.clone();
        loop {
            let step = tokio::select! {
                biased;
                () = asked_to_stop(&mut stop) => return AttemptEnd::Finished,
                Some(request) = attempt.requests.recv() => self.answer(request).await,
                staged = attempt.staged.recv() => match staged {
                    Some(staged) => self.accept(attempt, staged).await,
                    None => Err(attempt.decoding_ended()),
                },
                _ = maintenance.tick() => {
                    self.observer.figures(&self.sink.figures());
                    self.observer.positions(&[], &attempt.consumer.lag());
                    self.observer.kafka_errors(&attempt.consumer.errors(), &mut attempt.kafka_errors);
                    match self.maintain().await {
                        Ok(()) => self.look_after_quarantine(attempt).await,
                        Err(end) => Err(end),
                    }
                }
            };
            if let Err(end) = step {
                return end;
            }
            if let Err(end) = self.look_again().await {
                return end;
            }
        }
    }

    /// Ends the attempt where a table that has stopped may go on: the next one reads it from where it stands.
    async fn look_again(&mut self) -> Result<(), AttemptEnd> {
        if self.stopped_tables.is_empty() || self.looked.elapsed() < LOOKS {
            return Ok(());
        }
        self.looked = Instant::now();
        match self.sink.look_again().await {
            Ok(true) => {
                let message = "what a stopped table waited for has been done".to_owned();
                Err(AttemptEnd::StartOver { class: "resumed", message })
            }
            Ok(false) => Ok(()),
            Err(error) => {
                tracing::debug!(lane = self.options.name, %error, "stopped tables could not be looked at");
                Ok(())
            }
        }
    }

    /// Answers where partitions start, from the sink as it is now.
    async fn answer(&mut self, request: PositionRequest) -> Result<(), AttemptEnd> {
        match self.sink.reload().await {
            Ok(progress) => {
                let known: HashMap<_, _> = request
                    .partitions
                    .iter()
                    .filter_map(|partition| Some((partition.clone(), progress.get(partition)?.clone())))
                    .collect();
                // The polling thread may have given up waiting; it asks again at the next assignment.
                let _ = request.reply.send(Ok(known));
                Ok(())
            }
            Err(error) => {
                let _ = request.reply.send(Err(error.to_string()));
                Err(end_of(&error))
            }
        }
    }

    async fn accept(&mut self, attempt: &mut Attempt, staged: Staged) -> Result<(), AttemptEnd> {
        match staged {
            Staged::Batch { batch, filtered, decoding, permit } => {
                self.observer.received(&batch, decoding);
                let result = self.commit(attempt, &batch, &filtered).await;
                drop(batch);
                drop(permit);
                result
            }
            Staged::Assigned(partitions) => {
                tracing::info!(
                    lane = self.options.name,
                    partitions = partitions.len(),
                    "partitions assigned"
                );
                self.assigned.extend(partitions.iter().map(|(partition, _)| partition.clone()));
                // Replays of these partitions are this lane's business from now on.
                self.ledger = Arc::default();
                self.observer.assigned();
                self.observer.positions(&partitions, &attempt.consumer.lag());
                self.observer.state(LaneState::Running);
                Ok(())
            }
            Staged::Revoked { partitions, done } => {
                tracing::info!(lane = self.options.name, partitions = partitions.len(), "partitions revoked");
                self.observer.revoked(&partitions);
                self.assigned.retain(|partition| !partitions.contains(partition));
                self.sink.release(&partitions);
                let _ = done.send(());
                Ok(())
            }
            Staged::RecordStopped(error) => {
                self.stopped_tables.insert(error.partition.topic.to_string());
                self.observer.record_stopped(&error);
                Ok(())
            }
            Staged::CaughtUp => {
                self.look_after_quarantine(attempt).await?;
                self.observer.assigned();
                self.observer.caught_up();
                self.observer.state(LaneState::Running);
                if self.options.until_caught_up { Err(AttemptEnd::Finished) } else { Ok(()) }
            }
            Staged::TooManyBad(message) => Err(AttemptEnd::Stopped { class: "quarantine", message }),
            Staged::Broken(message) => Err(AttemptEnd::Stopped { class: "decoder", message }),
            Staged::Failed(error) if error.is_final() => {
                Err(AttemptEnd::Stopped { class: error.class(), message: error.to_string() })
            }
            Staged::Failed(error) => {
                Err(AttemptEnd::StartOver { class: error.class(), message: error.to_string() })
            }
        }
    }

    async fn maintain(&mut self) -> Result<(), AttemptEnd> {
        match self.sink.maintain().await {
            Ok(()) => Ok(()),
            Err(error) => self.forgive("maintenance", error),
        }
    }

    /// What can wait is tried again at the next occasion.
    fn forgive(&self, what: &str, error: SinkError) -> Result<(), AttemptEnd> {
        let SinkError::Retry { class, message } = error else { return Err(end_of(&error)) };
        tracing::warn!(lane = self.options.name, class, message, "{what} failed, trying again later");
        Ok(())
    }

    /// Whether the lane was asked to stop meanwhile.
    async fn sleep(&mut self, wait: Duration) -> bool {
        tokio::select! {
            () = asked_to_stop(&mut self.stop) => true,
            () = tokio::time::sleep(wait) => false,
        }
    }
}
