//! One attempt of a lane: from the sink's progress to the first error that starting over answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

use super::decode::Staged;
use super::positions::PositionRequest;
use crate::change::SinkError;
use crate::kafka::Consumer;

/// Why an attempt ended.
pub(super) enum AttemptEnd {
    Finished,
    StartOver { class: &'static str, message: String },
    Stopped { class: &'static str, message: String },
}

/// What the committing task needs besides the sink, for one attempt.
pub(super) struct Attempt {
    pub(super) consumer: Arc<Consumer>,
    pub(super) requests: mpsc::Receiver<PositionRequest>,
    pub(super) staged: mpsc::Receiver<Staged>,
    /// The client's errors that the metric has.
    pub(super) kafka_errors: BTreeMap<&'static str, u64>,
    pub(super) decoding: Option<JoinHandle<()>>,
}

impl Attempt {
    /// Why nothing more is staged.
    pub(super) fn decoding_ended(&mut self) -> AttemptEnd {
        // The thread has dropped its end of the channel, so that waiting for it takes no time.
        if self.decoding.take().is_some_and(|thread| thread.join().is_err()) {
            let message =
                "the decoder panicked, which is a bug: the log shows where; restart to go on".to_owned();
            return AttemptEnd::Stopped { class: "panic", message };
        }
        AttemptEnd::StartOver { class: "decoder", message: "the consumer ended".to_owned() }
    }
}

/// Ends when the lane is asked to stop; the service being gone counts as that.
pub(super) async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

pub(super) fn end_of(error: &SinkError) -> AttemptEnd {
    let message = error.to_string();
    match error {
        SinkError::Retry { class, .. } => AttemptEnd::StartOver { class, message },
        SinkError::Fenced { .. } => AttemptEnd::StartOver { class: "fenced", message },
        SinkError::Stop { .. } => AttemptEnd::Stopped { class: "sink", message },
    }
}
