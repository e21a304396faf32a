//! Where a partition starts: a pure function of the stored position and of the log as it is.

use super::ConsumerError;
use super::watermarks::Watermarks;
use crate::change::{StoredPosition, TopicIdentity, TopicPartition};

/// What an identity is where the broker does not give one.
const UNKNOWN: &str = "-";

/// Where to start a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Nothing was ever stored: at the beginning, wherever that is when reading starts.
    Beginning,
    /// At the stored position, in the log that it counts in.
    At(i64, TopicIdentity),
    /// Records are gone: the error that says so, and where reading could go on.
    Lost {
        /// What to fail with.
        error: ConsumerError,
        /// Where to go on.
        resume: i64,
        /// The log that positions count in from there.
        identity: TopicIdentity,
    },
}

/// Decides by, in this order: the log is another one; the position lies before its beginning; behind its end.
pub(super) fn start(
    partition: &TopicPartition,
    stored: Option<&StoredPosition>,
    identity: &TopicIdentity,
    Watermarks { low, high }: Watermarks,
) -> Start {
    let Some(stored) = stored else { return Start::Beginning };
    let (partition, next) = (partition.clone(), stored.next_offset);
    let was = &stored.identity;
    if differ(&was.cluster_id, &identity.cluster_id) {
        let (was, is) = (was.cluster_id.to_string(), identity.cluster_id.to_string());
        let error = ConsumerError::OtherCluster { partition, stored: next, was, is, low, high };
        return Start::Lost { error, resume: low, identity: identity.clone() };
    }
    if differ(was.whole_topic_id(), identity.whole_topic_id()) {
        let (was, is) = (was.topic_id.to_string(), identity.topic_id.to_string());
        let error = ConsumerError::Recreated { partition, stored: next, was, is, low, high };
        return Start::Lost { error, resume: low, identity: identity.clone() };
    }
    // The broker does not know that we have seen the log cut; an id that it did not give before is taken over.
    let identity = if was.begins_at().is_some() { was } else { identity };
    if next < low {
        let error = ConsumerError::Expired { partition, stored: next, low, high };
        return Start::Lost { error, resume: low, identity: identity.clone() };
    }
    if next > high {
        // In the same topic the tail was truncated, and what lies before it was read. Without an id to compare, it is
        // more likely another topic.
        let same = *was.topic_id != *UNKNOWN && was.topic_id == identity.topic_id;
        let resume = if same { high } else { low };
        let error = ConsumerError::BeyondEnd { partition, stored: next, low, high, resume };
        return Start::Lost { error, resume, identity: identity.cut_at(resume) };
    }
    Start::At(next, identity.clone())
}

/// An unknown id differs from nothing: a broker that learns to give ids is still the same.
pub(super) fn differ(was: &str, is: &str) -> bool {
    was != UNKNOWN && is != UNKNOWN && was != is
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: &str, topic: &str) -> TopicIdentity {
        TopicIdentity { cluster_id: cluster.into(), topic_id: topic.into() }
    }

    fn from(stored: Option<(TopicIdentity, i64)>, now: &TopicIdentity, low: i64, high: i64) -> Start {
        let stored = stored.map(|(identity, next_offset)| StoredPosition { identity, next_offset });
        start(&TopicPartition::new("t", 0), stored.as_ref(), now, Watermarks { low, high })
    }

    #[test]
    fn a_partition_never_seen_starts_at_the_beginning() {
        assert_eq!(from(None, &identity("c", "t"), 5, 9), Start::Beginning);
    }

    #[test]
    fn a_position_within_the_log_is_used_up_to_its_end() {
        let id = identity("c", "t");
        for position in [5, 7, 9] {
            assert_eq!(from(Some((id.clone(), position)), &id, 5, 9), Start::At(position, id.clone()));
        }
    }

    #[test]
    fn positions_outside_the_log_are_lost() {
        let id = identity("c", "t");
        let expired = from(Some((id.clone(), 4)), &id, 5, 9);
        assert!(
            matches!(
                expired,
                Start::Lost {
                    error: ConsumerError::Expired { stored: 4, low: 5, high: 9, .. },
                    resume: 5,
                    ..
                }
            ),
            "{expired:?}"
        );
        let beyond = from(Some((id.clone(), 10)), &id, 5, 9);
        assert!(
            matches!(beyond, Start::Lost { error: ConsumerError::BeyondEnd { .. }, resume: 9, .. }),
            "{beyond:?}"
        );
        let unknown = from(Some((TopicIdentity::unknown(), 10)), &id, 5, 9);
        assert!(
            matches!(unknown, Start::Lost { error: ConsumerError::BeyondEnd { .. }, resume: 5, .. }),
            "{unknown:?}"
        );
    }

    #[test]
    fn a_position_of_another_log_is_lost_even_if_its_offset_exists() {
        let recreated = from(Some((identity("c", "old"), 7)), &identity("c", "new"), 0, 9);
        assert!(
            matches!(recreated, Start::Lost { error: ConsumerError::Recreated { .. }, resume: 0, .. }),
            "{recreated:?}"
        );
        let moved = from(Some((identity("c", "t"), 7)), &identity("d", "u"), 0, 9);
        assert!(
            matches!(moved, Start::Lost { error: ConsumerError::OtherCluster { .. }, resume: 0, .. }),
            "{moved:?}"
        );
    }

    #[test]
    fn an_unknown_identity_differs_from_nothing() {
        let (known, unknown) = (identity("c", "t"), TopicIdentity::unknown());
        assert_eq!(from(Some((unknown.clone(), 7)), &known, 0, 9), Start::At(7, known.clone()));
        assert_eq!(from(Some((known, 7)), &unknown, 0, 9), Start::At(7, unknown));
    }

    #[test]
    fn a_log_that_was_cut_counts_anew_from_the_cut() {
        let id = identity("c", "t");
        let Start::Lost { identity: cut, resume: 9, .. } = from(Some((id.clone(), 10)), &id, 5, 9) else {
            panic!("not lost")
        };
        assert_eq!(cut, id.cut_at(9));
        assert_eq!(from(Some((cut.clone(), 9)), &id, 5, 9), Start::At(9, cut.clone()));
        assert_eq!(from(Some((cut.clone(), 20)), &id, 5, 30), Start::At(20, cut.clone()));
        let again = from(Some((cut.clone(), 20)), &id, 5, 9);
        assert!(matches!(&again, Start::Lost { identity, .. } if *identity == cut.cut_at(9)), "{again:?}");
        let recreated = from(Some((cut, 7)), &identity("c", "new"), 0, 9);
        assert!(
            matches!(recreated, Start::Lost { error: ConsumerError::Recreated { .. }, .. }),
            "{recreated:?}"
        );
    }
}
