//! What the decoding stage does with a record that could not be decoded: set it aside, or stop its topic.
//!
//! `on_error` of its table decides. Set aside, the record goes into the running batch and is committed with it; the lane
//! stops where that happens too often.

use std::sync::Arc;

use super::decode::{CommitterGone, DecodeStage, Staged};
use crate::change::quarantine::Limiter;
use crate::change::{OnError, Policies, RecordError, TopicIdentity};
use crate::debezium::RecordRef;
use crate::kafka::Record;

/// How bad records are treated.
pub(super) struct Refusals {
    pub(super) policies: Policies,
    pub(super) limiter: Limiter,
    /// Whether batches keep the records that they are made of.
    pub(super) keep_originals: bool,
}

impl DecodeStage {
    pub(super) fn refuse(
        &mut self,
        error: RecordError,
        reference: &RecordRef<'_>,
        record: &Record<'_>,
        identity: &TopicIdentity,
    ) -> Result<(), CommitterGone> {
        // Nothing is wrong with the record where it is the table that cannot go on.
        if error.kind.stops_table() {
            return self.stop_topic(error);
        }
        let named = self.decoder.table_named_by(reference);
        let table = named.or_else(|| self.decoder.table_of_topic(reference));
        if self.refusals.policies.on_error(table.as_ref(), record.topic) == OnError::Stop {
            return self.stop_topic(error);
        }
        if let Err(exceeded) = self.refusals.limiter.bad() {
            self.close()?;
            let message = format!(
                "{exceeded}, and the next bad one is {error}: many bad records are a wrong setting rather than bad data; see \
                 `alluvium quarantine list`, cure the cause and restart, replay or discard what waits, or raise the limit"
            );
            self.send(Staged::TooManyBad(message))?;
            return Err(CommitterGone);
        }
        tracing::warn!(%error, "record quarantined");
        let headers = record.headers.iter().map(|(name, value)| (name, value.map(<[u8]>::to_vec))).collect();
        self.decoder.set_aside(reference, identity, error, headers);
        Ok(())
    }

    pub(super) fn stop_topic(&mut self, error: RecordError) -> Result<(), CommitterGone> {
        let topic = Arc::clone(&error.partition.topic);
        self.reading.pause_topic(&topic);
        self.forget_truncates(&topic);
        self.stopped_topics.insert(topic);
        self.close()?;
        self.send(Staged::RecordStopped(error))
    }
}
