//! How `alluvium check --connect` reaches the outside: by the very parts that a lane uses.

use std::time::Duration;

use tokio_postgres::Client;

use super::check::{FoundConnector, FoundTopic, FoundTopics, Reach};
use crate::change::with_causes;
use crate::config::{DatabaseUrl, Settings};
use crate::kafka;
use crate::mirror;
use crate::service::{Mode, consumer_options};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The real brokers and databases.
pub(super) struct Outside;

impl Reach for Outside {
    async fn topics(&self, settings: &Settings) -> Result<FoundTopics, String> {
        let options = consumer_options(settings, "check", &Mode::default());
        let report = tokio::task::spawn_blocking(move || kafka::probe(&options, TIMEOUT))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let topic = |topic: kafka::ProbedTopic| FoundTopic {
            name: topic.name,
            partitions: topic.partitions,
            cleanup_policy: topic.cleanup_policy,
        };
        Ok(FoundTopics {
            cluster_id: report.cluster_id,
            topics: report.topics.into_iter().map(topic).collect(),
        })
    }

    async fn connectors(&self, url: &str) -> Result<Vec<FoundConnector>, String> {
        let client =
            reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|error| with_causes(&error))?;
        let all = format!("{}/connectors?expand=info&expand=status", url.trim_end_matches('/'));
        let response = client.get(all).send().await.and_then(reqwest::Response::error_for_status);
        let body = response
            .map_err(|error| with_causes(&error))?
            .bytes()
            .await
            .map_err(|error| with_causes(&error))?;
        FoundConnector::all(&body)
    }

    async fn database(&self, url: &DatabaseUrl) -> Result<Client, String> {
        mirror::connect(url.reveal()).await
    }
}
