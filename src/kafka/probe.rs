//! A look at the cluster without joining it, for `alluvium check --connect`.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::context::Context;
use super::options::creation_error;
use super::subscription::Subscription;
use super::{ConsumerError, ConsumerOptions};

/// What a look at the cluster has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Id of the cluster, where it has one.
    pub cluster_id: Option<String>,
    /// Topics that the settings match, by name.
    pub topics: Vec<ProbedTopic>,
}

/// A topic that the settings match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedTopic {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: usize,
    /// The setting `cleanup.policy`, if the broker tells it to this client: `delete`, `compact` or both.
    pub cleanup_policy: Option<String>,
}

/// Connects, lists the matching topics, and goes. Blocks, for up to about `timeout`.
pub fn probe(options: &ConsumerOptions, timeout: Duration) -> Result<ProbeReport, ConsumerError> {
    // The settings of the group are checked as well, although they are not used here.
    let subscription = Subscription::try_new(&options.topics)?;
    options.consumer_config()?.create_native_config().map_err(creation_error)?;
    let client: BaseConsumer<Context> =
        options.connection_config()?.create_with_context(Context::default()).map_err(creation_error)?;
    let deadline = Instant::now() + timeout;
    let metadata = client.fetch_metadata(None, timeout).map_err(|error| {
        // Serves the error that says why.
        while client.poll(Duration::ZERO).is_some() {}
        let reason = client.context().last_reason();
        let reason = if reason.is_empty() { error.to_string() } else { reason };
        ConsumerError::Unreachable { servers: options.bootstrap_servers.clone(), reason }
    })?;
    let left = deadline.saturating_duration_since(Instant::now());
    let cluster_id = client.client().fetch_cluster_id(left);
    let mut topics: Vec<ProbedTopic> = metadata
        .topics()
        .iter()
        .filter(|topic| subscription.matches(topic.name()))
        .map(|topic| ProbedTopic {
            name: topic.name().to_owned(),
            partitions: topic.partitions().len(),
            cleanup_policy: None,
        })
        .collect();
    topics.sort_by(|left, right| left.name.cmp(&right.name));
    let left = deadline.saturating_duration_since(Instant::now());
    if options.identity && !topics.is_empty() && !left.is_zero() {
        add_policies(options, &mut topics, left)?;
    }
    Ok(ProbeReport { cluster_id, topics })
}

/// Asks for the topics' settings. A client that may not see them is told nothing, which is no error here.
fn add_policies(
    options: &ConsumerOptions,
    topics: &mut [ProbedTopic],
    timeout: Duration,
) -> Result<(), ConsumerError> {
    let admin: AdminClient<DefaultClientContext> =
        options.connection_config()?.create().map_err(creation_error)?;
    let settings = AdminOptions::new().request_timeout(Some(timeout));
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let request = admin.describe_configs(&resources, &settings);
    // On a thread of its own: the caller may be inside a runtime, which must not be blocked on again.
    let answer = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
                runtime.block_on(request).ok()
            })
            .join()
            .ok()
            .flatten()
    });
    // Answers come in the order of the questions.
    for (topic, found) in topics.iter_mut().zip(answer.into_iter().flatten()) {
        topic.cleanup_policy =
            found.ok().and_then(|config| config.get("cleanup.policy").and_then(|entry| entry.value.clone()));
    }
    Ok(())
}
