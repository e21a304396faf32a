//! Which errors of the client pass by themselves, and which end the lane.
//!
//! librdkafka reconnects and retries on its own, so most errors are news, not failures. It also *skips* what it cannot
//! decode after reporting it: those must end the lane, or a record would be lost.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// What an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Passes by itself; counted under this class.
    Transient(&'static str),
    /// Ends the lane if it lasts.
    Refusal(&'static str),
    /// A position is outside its log: find out which.
    Position,
    /// A record cannot be decoded.
    Unreadable,
    /// The client cannot go on.
    Fatal,
}

impl Fault {
    /// The fault behind an error from `poll`.
    pub(super) fn of(error: &KafkaError) -> Self {
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Self::Fatal;
        }
        match error.rdkafka_error_code() {
            None => Self::Transient("other"),
            Some(Code::Fatal) => Self::Fatal,
            Some(Code::AutoOffsetReset | Code::LogTruncation | Code::OffsetOutOfRange | Code::NoOffset) => {
                Self::Position
            }
            Some(
                Code::BadMessage
                | Code::BadCompression
                | Code::NotImplemented
                | Code::InvalidMessage
                | Code::MessageSizeTooLarge
                | Code::UnsupportedCompressionType,
            ) => Self::Unreadable,
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism) => {
                Self::Refusal("authentication")
            }
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed,
            ) => Self::Refusal("authorization"),
            Some(
                Code::InconsistentGroupProtocol
                | Code::InvalidGroupId
                | Code::InvalidSessionTimeout
                | Code::UnsupportedAssignor
                | Code::GroupMaxSizeReached,
            ) => Self::Refusal("group"),
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve) => {
                Self::Transient("connection")
            }
            Some(Code::SSL) => Self::Transient("tls"),
            Some(Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition) => {
                Self::Transient("topic")
            }
            Some(Code::PollExceeded) => Self::Transient("poll_interval"),
            Some(_) => Self::Transient("broker"),
        }
    }
}

/// Tells a refusal that lasts from one that passes.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// First and last time of the current run of refusals.
    run: Option<(Instant, Instant)>,
}

impl Refusals {
    /// How long a refusal may last, and also the silence that ends a run of them.
    const PATIENCE: Duration = Duration::from_mins(1);

    /// Notes a refusal at `now`; whether they have lasted too long.
    pub(super) fn lasted(&mut self, now: Instant) -> bool {
        let first = match self.run {
            Some((first, last)) if now.duration_since(last) <= Self::PATIENCE => first,
            _ => now,
        };
        self.run = Some((first, now));
        now.duration_since(first) >= Self::PATIENCE
    }
}

/// Lets one warning pass every few seconds, and counts those between.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    last: Option<Instant>,
    suppressed: u64,
}

impl Quiet {
    const INTERVAL: Duration = Duration::from_secs(5);

    /// `Some(number suppressed since the last one)` if a warning may be written at `now`.
    pub(super) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < Self::INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_outages_pass_and_undecodable_records_do_not() {
        for (code, expected) in [
            (Code::AllBrokersDown, Fault::Transient("connection")),
            (Code::BrokerTransportFailure, Fault::Transient("connection")),
            (Code::KafkaStorageError, Fault::Transient("broker")),
            (Code::TopicAuthorizationFailed, Fault::Refusal("authorization")),
            (Code::AutoOffsetReset, Fault::Position),
            (Code::BadCompression, Fault::Unreadable),
        ] {
            assert_eq!(Fault::of(&KafkaError::MessageConsumption(code)), expected, "{code:?}");
        }
        assert_eq!(Fault::of(&KafkaError::MessageConsumptionFatal(Code::FencedInstanceId)), Fault::Fatal);
    }

    #[test]
    fn a_refusal_ends_the_lane_only_when_it_lasts() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!refusals.lasted(at(0)));
        assert!(!refusals.lasted(at(50)));
        assert!(!refusals.lasted(at(150)), "a new run after silence");
        assert!(!refusals.lasted(at(200)));
        assert!(refusals.lasted(at(211)));
    }

    #[test]
    fn warnings_are_thinned_out_and_counted() {
        let mut quiet = Quiet::default();
        let start = Instant::now();
        assert_eq!(quiet.pass(start), Some(0));
        assert_eq!(quiet.pass(start + Duration::from_secs(1)), None);
        assert_eq!(quiet.pass(start + Duration::from_secs(2)), None);
        assert_eq!(quiet.pass(start + Duration::from_secs(6)), Some(2));
    }
}
