//! Named places where a test can have the process killed.
//!
//! `ALLUVIUM_FAILPOINT=lake.after_commit` sends SIGKILL to the own process when that place is reached for the first
//! time, `lake.after_commit:5` at the fifth. It is compiled in always, so that the tests kill the very binary that
//! is shipped; without the variable a place costs one comparison.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that names the place.
pub const VARIABLE: &str = "ALLUVIUM_FAILPOINT";

/// Every place, in the order in which a batch passes them. The crash tests walk this list.
pub const ALL: [&str; 12] = [
    "lane.before_commit",
    "lake.after_data_files",
    "lake.after_deletion_vectors",
    "lake.before_commit",
    "lake.after_commit",
    "lake.before_index",
    "lake.before_raw_commit",
    "mirror.in_transaction",
    "mirror.before_commit",
    "mirror.after_commit",
    "lane.after_commit",
    "lane.after_kafka_commit",
];

/// Places that are passed only where a table gets another type: in the lake after its files are written anew, in a mirror
/// within the transaction.
pub const SCHEMA_CHANGES: [&str; 2] = ["lake.after_rewrite", "mirror.in_schema_change"];

/// The places that only a batch with bad records passes.
pub const WITH_BAD_RECORDS: [&str; 2] = ["lake.before_quarantine_commit", "lake.after_quarantine_commit"];

/// The places that only some runs pass: those with a table that has change data, and those in which files are put together.
pub const UPKEEP: [&str; 2] = ["lake.after_change_data", "lake.before_compaction"];

/// The place that only a vacuum passes, behind each file that it has removed.
pub const VACUUM: &str = "lake.in_vacuum";

struct Armed {
    name: String,
    remaining: AtomicU64,
}

/// Kills the process when `name` is armed and due.
pub fn hit(name: &'static str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?));
    if let Some(armed) = armed
        && armed.name == name
        && armed.remaining.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // Failure to deliver a signal to ourselves leaves nothing better than to go on.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (name, count) = match text.rsplit_once(':') {
        Some((name, count)) => (name, count.parse().ok()?),
        None => (text, 1),
    };
    Some(Armed { name: name.to_owned(), remaining: AtomicU64::new(count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_count_is_due_at_its_first_hit() {
        let armed = parse("lake.after_commit").unwrap();
        assert_eq!((armed.name.as_str(), armed.remaining.load(Ordering::SeqCst)), ("lake.after_commit", 1));
    }

    #[test]
    fn a_count_says_which_hit_is_due() {
        let armed = parse("lake.after_commit:5").unwrap();
        assert_eq!((armed.name.as_str(), armed.remaining.load(Ordering::SeqCst)), ("lake.after_commit", 5));
    }
}
