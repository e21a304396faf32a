//! The order of the source, watched and never acted upon: which records were sent twice, and where the log of the source
//! began anew.
//!
//! `source.sequence` is the pair of the last commit's LSN and the event's own. Transactions are decoded in the order of
//! their commits, so LSNs alone go back wherever transactions overlap; the pair never does, within one history of the
//! source. A pair that goes back is a repetition, if its commit time does not lie behind all that was seen; else the
//! source goes on from an earlier point of its log (a failover, a restored slot), and from there on counts anew. Several
//! events may have one pair (a key change, a COPY): of those only one with the same key and operation is a repetition.
//!
//! What is remembered is one pair a partition, the newest commit time, and the keys of the records with that pair. It is
//! forgotten when the partition is assigned anew, so that records which *we* read again are not counted.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::change::Operation;

/// Keys that are remembered of one pair. A COPY writes no more rows than fit into a page with one LSN.
const MOST_KEYS: usize = 10_000;

/// `source.sequence`: last commit's LSN, which the first event after a start of the connector lacks, and the event's own;
/// `None` where that is missing or either is no number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence(pub(super) Option<(Option<u64>, u64)>);

impl Sequence {
    /// From `["<last commit>","<event>"]`, as it stands in the event: a JSON text, whose quotes are escaped. Looked at for each
    /// event, and of digits only where it is well-formed, so it is not unescaped first.
    pub(super) fn of_json(text: &str) -> Self {
        let pair = || {
            let list = text.strip_prefix("\"[")?.strip_suffix("]\"")?;
            let (commit, event) = list.split_once(',')?;
            let commit = if commit == "null" { None } else { Some(number(commit)?) };
            Some((commit, number(event.trim_start_matches(' '))?))
        };
        Self(pair())
    }
}

/// A number in escaped quotes.
fn number(text: &str) -> Option<u64> {
    text.strip_prefix("\\\"")?.strip_suffix("\\\"")?.parse().ok()
}

/// What the order says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    New,
    /// The source has sent it before.
    Again,
    /// The source went back: the commit LSN it was at, and the one it is at now.
    WentBack { from: u64, to: u64 },
}

/// One partition's newest place in the source's order.
#[derive(Debug, Default)]
pub(super) struct Order {
    newest: Option<(u64, u64)>,
    newest_micros: i64,
    /// Operation and key of the first record with the newest pair, and hashes of those that came after it. Nearly always
    /// there is one, and hashing would cost more than all the rest.
    first: Option<Operation>,
    first_key: Vec<u8>,
    others: HashSet<u64>,
}

impl Order {
    /// Looks at the next record of the partition: a streamed change.
    pub(super) fn look(
        &mut self,
        sequence: Sequence,
        micros: Option<i64>,
        operation: Operation,
        key: Option<&[u8]>,
    ) -> Seen {
        let (Some((commit, event)), Some(micros)) = (sequence.0, micros) else { return Seen::New };
        let Some(commit) = commit else {
            // Half a pair has no place among the others, but what is older in both of its other measures was seen.
            let seen = self.newest.is_some_and(|newest| event <= newest.1) && micros <= self.newest_micros;
            return if seen { Seen::Again } else { Seen::New };
        };
        let pair = (commit, event);
        let newest = self.newest.unwrap_or_default();
        let seen = if pair == newest {
            let Some(key) = key else { return Seen::New };
            let is_first = self.first == Some(operation) && self.first_key == key;
            let identity = identity(operation, key);
            if is_first || self.others.contains(&identity) {
                return Seen::Again;
            }
            if self.others.len() < MOST_KEYS {
                self.others.insert(identity);
            }
            self.newest_micros = self.newest_micros.max(micros);
            return Seen::New;
        } else if pair > newest {
            Seen::New
        } else if micros <= self.newest_micros {
            return Seen::Again;
        } else {
            Seen::WentBack { from: newest.0, to: pair.0 }
        };
        self.newest = Some(pair);
        self.newest_micros = self.newest_micros.max(micros);
        self.first = key.map(|_| operation);
        self.first_key.clear();
        self.first_key.extend_from_slice(key.unwrap_or_default());
        self.others.clear();
        seen
    }
}

fn identity(operation: Operation, key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (operation, key).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(order: &mut Order, pair: (u64, u64), micros: i64, key: &str) -> Seen {
        order.look(
            Sequence(Some((Some(pair.0), pair.1))),
            Some(micros),
            Operation::Update,
            Some(key.as_bytes()),
        )
    }

    #[test]
    fn the_pair_is_read_from_debeziums_text() {
        let pair = |text: &str| Sequence::of_json(text).0;
        assert_eq!(pair(r#""[\"24023119\",\"24023128\"]""#), Some((Some(24_023_119), 24_023_128)));
        assert_eq!(pair(r#""[null,\"24023128\"]""#), Some((None, 24_023_128)));
        for other in
            [r#""[\"x\",\"24023128\"]""#, r#""[\"1\",null]""#, r#""[\"1\",\"2\",\"3\"]""#, "7", "null"]
        {
            assert_eq!(pair(other), None, "{other}");
        }
    }

    #[test]
    fn the_first_event_after_a_start_of_the_connector_is_seen_again_where_it_is_older() {
        let mut order = Order::default();
        let mut first = |event, micros| {
            let seen = order.look(Sequence(Some((None, event))), Some(micros), Operation::Update, Some(b"k"));
            assert_eq!(look(&mut order, (100 + event, 101 + event), 10, "k"), Seen::New);
            seen
        };
        assert_eq!(first(20, 5), Seen::New, "nothing was seen before");
        assert_eq!(first(21, 6), Seen::Again, "older than what was seen");
        assert_eq!(first(22, 11), Seen::New, "a transaction that began early and was committed late");
    }

    #[test]
    fn transactions_that_overlap_go_back_in_lsn_and_are_new() {
        let mut order = Order::default();
        for (at, pair) in (0..).zip([(10, 30), (10, 31), (32, 20), (32, 33)]) {
            assert_eq!(look(&mut order, pair, at, "k"), Seen::New, "{pair:?}");
        }
    }

    #[test]
    fn each_record_of_a_repetition_is_seen_again_and_what_follows_is_new() {
        let mut order = Order::default();
        let sent: Vec<_> = (1..=100).map(|at| ((at / 3, at), at as i64)).collect();
        for &(pair, micros) in &sent {
            assert_eq!(look(&mut order, pair, micros, "k"), Seen::New);
        }
        for &(pair, micros) in sent.iter().skip(40) {
            assert_eq!(look(&mut order, pair, micros, "k"), Seen::Again, "{pair:?}");
        }
        assert_eq!(look(&mut order, (50, 101), 101, "k"), Seen::New);
    }

    #[test]
    fn rows_of_one_copy_are_all_new_and_seen_again_when_they_come_twice() {
        let mut order = Order::default();
        for expected in [Seen::New, Seen::Again] {
            for row in 0..1000 {
                assert_eq!(look(&mut order, (5, 7), 1, &row.to_string()), expected, "row {row}");
            }
        }
    }

    #[test]
    fn a_log_that_begins_anew_is_said_once() {
        let mut order = Order::default();
        assert_eq!(look(&mut order, (1000, 1001), 50, "k"), Seen::New);
        assert_eq!(look(&mut order, (400, 401), 60, "k"), Seen::WentBack { from: 1000, to: 400 });
        assert_eq!(look(&mut order, (402, 403), 61, "k"), Seen::New);
    }
}
