//! Positions as `txn` actions, and where a lane has to start.
//!
//! One `txn` a topic-partition: the application id says which log, the version is the next offset. The id is stored in
//! every table of every lake, so its form is fixed: **do not change [`app_id`]**; a reader of another form would start
//! from the beginning.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::action::Txn;
use crate::change::{Progress, StoredPosition, TopicIdentity, TopicPartition};

/// `<pipeline>/<cluster id>/<topic>/<topic id>/<partition>`
pub fn app_id(pipeline: &str, identity: &TopicIdentity, partition: &TopicPartition) -> String {
    let TopicIdentity { cluster_id, topic_id } = identity;
    format!("{pipeline}/{cluster_id}/{}/{topic_id}/{}", partition.topic, partition.partition)
}

/// The reverse of [`app_id`]; `None` for ids of other applications and pipelines.
///
/// Read from the right: a pipeline's name may hold a slash, the other parts never do.
pub fn parse_app_id(pipeline: &str, id: &str) -> Option<(TopicPartition, TopicIdentity)> {
    let mut parts = id.rsplitn(5, '/');
    let partition = parts.next()?.parse().ok()?;
    let topic_id = parts.next()?;
    let topic = parts.next()?;
    let cluster_id = parts.next()?;
    (parts.next()? == pipeline).then(|| {
        let identity = TopicIdentity { cluster_id: cluster_id.into(), topic_id: topic_id.into() };
        (TopicPartition::new(topic, partition), identity)
    })
}

/// One table's positions, every identity that it ever saw of a partition.
#[derive(Debug, Default)]
pub(super) struct Positions {
    by_partition: BTreeMap<TopicPartition, Vec<Position>>,
}

#[derive(Debug, Clone)]
struct Position {
    identity: TopicIdentity,
    next_offset: i64,
    last_updated: i64,
}

impl Positions {
    /// The positions of `pipeline` among a table's `txn`s.
    pub(super) fn of(pipeline: &str, txns: &HashMap<String, Txn>) -> Self {
        let mut positions = Self::default();
        for txn in txns.values() {
            if let Some((partition, identity)) = parse_app_id(pipeline, &txn.app_id) {
                positions.by_partition.entry(partition).or_default().push(Position {
                    identity,
                    next_offset: txn.version,
                    last_updated: txn.last_updated.unwrap_or(0),
                });
            }
        }
        positions
    }

    /// The topics that ever moved the table.
    pub(super) fn topics(&self) -> BTreeSet<std::sync::Arc<str>> {
        self.by_partition.keys().map(|partition| partition.topic.clone()).collect()
    }
}

/// From where a lane has to read, given what each current table and the raw table (`None`: there is none) hold.
///
/// For each partition the smallest position of the tables that hold one. The raw table commits last, so a partition
/// that it lacks is left out: its records were never all written. Where a topic was deleted and created again, tables
/// may hold positions in both logs; the identity that was written last is the one reported, and a partition of which
/// some table knows only the older identity is left out as well. Whether the reported identity is the broker's is for
/// the lane to check.
pub(super) fn starting_points(current: &[Positions], raw: Option<&Positions>) -> Progress {
    let all: Vec<&Positions> = current.iter().chain(raw).collect();
    let partitions: BTreeSet<&TopicPartition> =
        all.iter().flat_map(|positions| positions.by_partition.keys()).collect();
    let mut progress = Progress::new();
    for partition in partitions {
        if raw.is_some_and(|raw| !raw.by_partition.contains_key(partition)) {
            continue;
        }
        let holders: Vec<&Vec<Position>> =
            all.iter().filter_map(|positions| positions.by_partition.get(partition)).collect();
        let Some(newest) = holders
            .iter()
            .copied()
            .flatten()
            .max_by_key(|position| (position.last_updated, &position.identity.topic_id))
        else {
            continue;
        };
        let known: Option<Vec<i64>> = holders
            .iter()
            .map(|held| {
                held.iter()
                    .find(|position| position.identity == newest.identity)
                    .map(|position| position.next_offset)
                    // A log that was cut says itself where it begins for a table that has nothing of it yet.
                    .or_else(|| newest.identity.begins_at())
            })
            .collect();
        if let Some(next_offset) = known.and_then(|offsets| offsets.into_iter().min()) {
            let stored = StoredPosition { identity: newest.identity.clone(), next_offset };
            progress.insert(partition.clone(), stored);
        }
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(topic: &str) -> TopicIdentity {
        TopicIdentity { cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".into(), topic_id: topic.into() }
    }

    fn table(positions: &[(i32, &str, i64, i64)]) -> Positions {
        let txns = positions
            .iter()
            .map(|&(partition, topic_id, version, last_updated)| {
                let app_id = app_id("shop", &identity(topic_id), &TopicPartition::new("t", partition));
                (app_id.clone(), Txn { app_id, version, last_updated: Some(last_updated) })
            })
            .collect();
        Positions::of("shop", &txns)
    }

    fn offsets(progress: &Progress) -> Vec<(i32, i64)> {
        progress.iter().map(|(partition, stored)| (partition.partition, stored.next_offset)).collect()
    }

    #[test]
    fn the_persisted_form_of_an_application_id_never_changes() {
        let id =
            app_id("shop", &identity("q8yD2yiaRPa5bDmMoVAdUQ"), &TopicPartition::new("cdc.public.orders", 3));
        assert_eq!(id, "shop/MkU3OEVBNTcwNTJENDM2Qg/cdc.public.orders/q8yD2yiaRPa5bDmMoVAdUQ/3");
    }

    #[test]
    fn an_application_id_reads_back_even_when_the_pipeline_has_a_slash() {
        let partition = TopicPartition::new("cdc.public.orders", 12);
        let id = app_id("team/shop", &TopicIdentity::unknown(), &partition);
        assert_eq!(parse_app_id("team/shop", &id), Some((partition, TopicIdentity::unknown())));
        assert_eq!(parse_app_id("shop", &id), None, "another pipeline");
        assert_eq!(parse_app_id("shop", "spark-streaming-42"), None, "another application");
    }

    #[test]
    fn a_lane_starts_at_the_smallest_position_of_the_tables() {
        let current = [table(&[(0, "a", 10, 1), (1, "a", 7, 1)]), table(&[(0, "a", 4, 1)])];
        assert_eq!(offsets(&starting_points(&current, None)), [(0, 4), (1, 7)]);
    }

    #[test]
    fn a_partition_that_the_raw_table_lacks_starts_at_the_beginning() {
        let current = [table(&[(0, "a", 10, 1), (1, "a", 7, 1)])];
        let raw = table(&[(1, "a", 5, 1)]);
        assert_eq!(offsets(&starting_points(&current, Some(&raw))), [(1, 5)]);
    }

    #[test]
    fn a_table_that_knows_only_the_older_topic_holds_its_partition_at_the_beginning() {
        let current = [table(&[(0, "old", 90, 1), (0, "new", 3, 2)]), table(&[(0, "old", 80, 1)])];
        assert_eq!(offsets(&starting_points(&current, None)), []);
        let current = [table(&[(0, "old", 90, 1), (0, "new", 3, 2)])];
        let progress = starting_points(&current, None);
        assert_eq!(progress.values().next().unwrap().identity, identity("new"));
        assert_eq!(offsets(&progress), [(0, 3)]);
    }
}
