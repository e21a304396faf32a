//! Kafka Connect's REST interface, as far as tests need it.

use serde_json::Value;

use crate::eventually::{PATIENCE, eventually};

/// The worker's REST interface.
pub struct Connect {
    url: String,
    client: reqwest::Client,
}

impl Connect {
    /// The worker on that port of the loopback address.
    pub fn new(port: u16) -> Self {
        Self { url: format!("http://127.0.0.1:{port}/connectors"), client: reqwest::Client::new() }
    }

    /// Its address, as the settings name it.
    pub fn address(&self) -> String {
        self.url.trim_end_matches("/connectors").to_owned()
    }

    /// Registers a connector and returns when its task runs.
    pub async fn register(&self, name: &str, settings: &Value) {
        // A worker that has just started answers 409 until its group has settled.
        eventually(&format!("Connect takes the connector {name}"), PATIENCE, || async {
            let answer = self
                .client
                .put(format!("{}/{name}/config", self.url))
                .header("Content-Type", "application/json")
                .body(settings.to_string())
                .send()
                .await
                .map_err(|error| error.to_string())?;
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            assert!(status.as_u16() != 400, "Connect refuses the connector {name}: {text}");
            if status.is_success() { Ok(()) } else { Err(format!("{status}: {text}")) }
        })
        .await;
        self.running(name).await;
    }

    /// Returns when the connector's task runs.
    pub async fn running(&self, name: &str) {
        eventually(&format!("the task of connector {name} runs"), PATIENCE, || async {
            let text = self.status(name).await?;
            let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            match status["tasks"][0]["state"].as_str() {
                Some("RUNNING") => Ok(()),
                Some("FAILED") => panic!("the task of connector {name} failed: {text}"),
                _ => Err(text),
            }
        })
        .await;
    }

    async fn status(&self, name: &str) -> Result<String, String> {
        let answer = self.client.get(format!("{}/{name}/status", self.url)).send().await;
        answer.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())
    }

    /// Ends a connector. A worker that is away is no error: it is at the end of its test.
    pub async fn delete(&self, name: &str) {
        let _ = self.client.delete(format!("{}/{name}", self.url)).send().await;
    }
}
