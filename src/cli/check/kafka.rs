//! What the topics promise: that they are there, keep every record, and keep the order of changes.

use super::Finding;

/// What the brokers say about the topics that the settings match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundTopics {
    /// Id of the cluster, where it has one.
    pub cluster_id: Option<String>,
    /// The topics, by name.
    pub topics: Vec<FoundTopic>,
}

/// A topic that the settings match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTopic {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: usize,
    /// `delete`, `compact` or both, where the broker tells.
    pub cleanup_policy: Option<String>,
}

pub(super) fn judge(found: &FoundTopics) -> Vec<Finding> {
    let partitions: usize = found.topics.iter().map(|topic| topic.partitions).sum();
    if found.topics.is_empty() {
        return vec![Finding::warn(
            "kafka",
            "the brokers answer, and no topic matches kafka.topics",
            "set kafka.topics, or start the connector: topics are picked up when they appear",
        )];
    }
    let cluster = found.cluster_id.as_deref().unwrap_or("without id");
    let count = found.topics.len();
    let mut findings = vec![Finding::ok(
        "kafka",
        format!("{count} topics with {partitions} partitions on cluster {cluster}"),
    )];
    let names = |is: &dyn Fn(&FoundTopic) -> bool| {
        let names: Vec<&str> =
            found.topics.iter().filter(|topic| is(topic)).map(|topic| topic.name.as_str()).collect();
        names.join(", ")
    };
    let compacted =
        names(&|topic| topic.cleanup_policy.as_ref().is_some_and(|policy| policy.contains("compact")));
    if !compacted.is_empty() {
        findings.push(Finding::warn(
            "kafka",
            format!("compacted, so that the raw history loses changes that were overwritten: {compacted}"),
            "set cleanup.policy=delete on the topics, and a retention that covers the longest outage",
        ));
    }
    let split = names(&|topic| topic.partitions > 1);
    if !split.is_empty() {
        findings.push(Finding::warn(
            "kafka",
            format!("several partitions, so that a change of a primary key has no order between its two rows: {split}"),
            "if primary keys change, create these topics with one partition (topic.creation.default.partitions=1)",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Level;

    fn topic(name: &str, partitions: usize, policy: Option<&str>) -> FoundTopic {
        FoundTopic { name: name.into(), partitions, cleanup_policy: policy.map(Into::into) }
    }

    #[test]
    fn compacted_and_split_topics_are_named_with_what_cures_them() {
        let topics =
            vec![topic("a", 1, Some("delete")), topic("b", 3, Some("compact,delete")), topic("c", 2, None)];
        let findings = judge(&FoundTopics { cluster_id: None, topics });
        let shown: Vec<_> = findings.iter().map(|f| (f.level, f.message.as_str())).collect();
        assert_eq!(
            shown,
            [
                (Level::Ok, "3 topics with 6 partitions on cluster without id"),
                (Level::Warn, "compacted, so that the raw history loses changes that were overwritten: b"),
                (
                    Level::Warn,
                    "several partitions, so that a change of a primary key has no order between its two rows: b, c"
                ),
            ]
        );
        assert!(findings.iter().skip(1).all(|finding| finding.cure.is_some()));
    }

    #[test]
    fn no_topic_is_a_warning() {
        let levels: Vec<_> = judge(&FoundTopics::default()).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Warn]);
    }
}
