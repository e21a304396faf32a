//! Which log a topic's offsets count in, asked when partitions are assigned and compared while they are read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::ConsumerError;
use super::context::Context;
use super::native::TopicIds;
use crate::change::TopicIdentity;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long an assignment waits for the ids of its topics.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the broker for ids; or for none, on a broker that has none.
pub(super) struct Identities {
    enabled: bool,
    cluster_id: Option<Arc<str>>,
    interval: Duration,
    next_check: Instant,
    check: Option<TopicIds>,
}

impl Identities {
    pub(super) fn new(enabled: bool, interval: Duration) -> Self {
        Self { enabled, cluster_id: None, interval, next_check: Instant::now() + interval, check: None }
    }

    /// The identities of `topics`; waits for them.
    pub(super) fn of(
        &mut self,
        consumer: &Arc<BaseConsumer<Context>>,
        topics: &BTreeSet<Arc<str>>,
    ) -> Result<HashMap<Arc<str>, TopicIdentity>, ConsumerError> {
        if !self.enabled {
            return Ok(topics.iter().map(|topic| (Arc::clone(topic), TopicIdentity::unknown())).collect());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.attempt(consumer, topics) {
                Ok(identities) => return Ok(identities),
                Err(reason) if Instant::now() >= deadline => {
                    return Err(ConsumerError::Lookup { what: "topic ids", reason });
                }
                Err(reason) => {
                    tracing::debug!(reason, "asking for topic ids again");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }

    fn attempt(
        &mut self,
        consumer: &Arc<BaseConsumer<Context>>,
        topics: &BTreeSet<Arc<str>>,
    ) -> Result<HashMap<Arc<str>, TopicIdentity>, String> {
        let cluster_id = if let Some(id) = &self.cluster_id {
            Arc::clone(id)
        } else {
            let id =
                consumer.client().fetch_cluster_id(REQUEST).ok_or("the cluster's id is not known yet")?;
            Arc::clone(self.cluster_id.insert(id.into()))
        };
        let request = TopicIds::request(consumer, topics.iter().map(AsRef::as_ref), REQUEST)
            .ok_or("the client is out of memory")?;
        let ids = request.answer(REQUEST + Duration::from_secs(1)).ok_or("no answer in time")??;
        topics
            .iter()
            .map(|topic| {
                let id = ids.get(&**topic).ok_or_else(|| format!("topic {topic} does not exist"))?;
                let identity =
                    TopicIdentity { cluster_id: Arc::clone(&cluster_id), topic_id: id.as_str().into() };
                Ok((Arc::clone(topic), identity))
            })
            .collect()
    }

    /// Starts a comparison when it is time, and gives the ids by topic when they have come. Never waits.
    pub(super) fn poll<'t>(
        &mut self,
        consumer: &Arc<BaseConsumer<Context>>,
        topics: impl Iterator<Item = &'t str>,
        now: Instant,
    ) -> Option<HashMap<String, String>> {
        if !self.enabled {
            return None;
        }
        if let Some(check) = &self.check {
            let answer = check.answer(Duration::ZERO)?;
            self.check = None;
            return answer.inspect_err(|reason| tracing::debug!(reason, "topic ids were not compared")).ok();
        }
        if now >= self.next_check {
            self.next_check = now + self.interval;
            self.check = TopicIds::request(consumer, topics, REQUEST);
        }
        None
    }

    /// Drops the request under way, and with it its hold on the client.
    pub(super) fn close(&mut self) {
        self.check = None;
    }
}
