//! Reaching the database: the URL, the TLS side, and a session with the settings that the mirror relies on.
//!
//! A session is one connection and everything that lives as long as it: staging tables and prepared statements. It is
//! never repaired: whatever goes wrong with it, it is dropped, and the next batch opens another.

use std::time::Duration;

use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::options::{MirrorError, MirrorOptions};
use super::sqlstate::Trouble;
use super::tls::{self, SslMode};

/// How long a connection attempt may take per host, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which the kernel asks whether the server is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time without acknowledgement after which the kernel gives a connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_mins(1);

/// A checked description of the database.
pub(super) struct Endpoint {
    config: Config,
    tls: MakeRustlsConnect,
    settings: String,
}

impl Endpoint {
    /// Checks the URL; connects to nothing.
    pub(super) fn new(options: &MirrorOptions) -> Result<Self, MirrorError> {
        let (url, tls_parameters) = split_url(options.url.reveal())?;
        let mut config: Config = url.parse().map_err(|_| MirrorError::Url {
            reason: "a part of it, or a parameter behind the question mark, is malformed or unknown",
        })?;
        let nameless = |host: &Host| matches!(host, Host::Tcp(name) if name.is_empty());
        if config.get_hosts().iter().all(nameless) && config.get_hostaddrs().is_empty() {
            return Err(MirrorError::Url { reason: "it has no host" });
        }
        config.ssl_mode(tls_parameters.mode.negotiation());
        if config.get_application_name().is_none() {
            config.application_name("alluvium");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        config.keepalives_idle(config.get_keepalives_idle().min(KEEPALIVE_IDLE));
        let tls = tls::connector(tls_parameters.mode, tls_parameters.root_certificate.as_deref())?;
        Ok(Self { config, tls, settings: settings(options) })
    }

    /// Opens a connection and sets it up.
    pub(super) async fn connect(&self) -> Result<Client, Trouble> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            // Whoever uses the client sees the same error.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to Postgres ended");
            }
        });
        client.batch_execute(&self.settings).await?;
        // Keeps foreign keys and triggers of the target out of the way, as logical replication does; needs a superuser
        // or `GRANT SET ON PARAMETER`.
        if let Err(error) = client.batch_execute("SET session_replication_role = replica").await {
            if error.as_db_error().is_none() {
                return Err(error.into());
            }
            tracing::debug!(
                "foreign keys and triggers of the target stay on: the user may not turn them off"
            );
        }
        Ok(client)
    }
}

/// JIT is off because staging tables have no statistics, and a guessed size must not cost a compilation a batch.
fn settings(options: &MirrorOptions) -> String {
    format!(
        "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET client_min_messages = warning; SET jit = off; \
         SET temp_buffers = '64MB'; SET lock_timeout = {}; SET statement_timeout = {}",
        options.lock_timeout.as_millis(),
        options.statement_timeout.as_millis(),
    )
}

#[derive(Debug, PartialEq)]
struct TlsParameters {
    mode: SslMode,
    root_certificate: Option<String>,
}

/// Takes the parameters out of the URL that the client library does not know.
fn split_url(url: &str) -> Result<(String, TlsParameters), MirrorError> {
    let url = url.trim();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(MirrorError::Url { reason: "it does not begin with postgres://" });
    }
    let mut parameters = TlsParameters { mode: SslMode::Prefer, root_certificate: None };
    // As the client library reads it, credentials end at the first @, and may have a question mark.
    let credentials = url.find('@').unwrap_or(0);
    let Some(mark) = url.get(credentials..).and_then(|rest| rest.find('?')) else {
        return Ok((url.to_owned(), parameters));
    };
    let (base, query) = url.split_at(credentials + mark);
    let query = query.trim_start_matches('?');
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match url::form_urlencoded::parse(pair.as_bytes()).next() {
            Some((key, value)) if key == "sslmode" => parameters.mode = SslMode::parse(&value)?,
            Some((key, value)) if key == "sslrootcert" => {
                parameters.root_certificate = Some(value.into_owned());
            }
            _ => kept.push(pair),
        }
    }
    let base = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    Ok((base, parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        match Endpoint::new(&MirrorOptions::new("target", "shop", url)) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn tls_parameters_are_taken_out_and_the_others_kept() {
        let (url, tls) =
            split_url("postgres://u@h/db?sslmode=verify-ca&connect_timeout=3&sslrootcert=%2Fca.pem").unwrap();
        assert_eq!(url, "postgres://u@h/db?connect_timeout=3");
        let expected =
            TlsParameters { mode: SslMode::VerifyCa, root_certificate: Some("/ca.pem".to_owned()) };
        assert_eq!(tls, expected);
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_it() {
        for url in [
            "mysql://u:hunter2@h/db",
            "postgres://u:x@h/db?sslcert=hunter2",
            "postgres:///db?user=hunter2",
            "",
        ] {
            let message = refusal(url);
            assert!(
                message.contains("expected postgres://") && !message.contains("ter2"),
                "{url}: {message}"
            );
        }
    }

    #[test]
    fn a_question_mark_in_the_password_does_not_hide_the_tls_parameters() {
        let (url, tls) = split_url("postgres://u:a?b@h/db?sslmode=verify-full").unwrap();
        assert_eq!((url.as_str(), tls.mode), ("postgres://u:a?b@h/db", SslMode::VerifyFull));
    }

    #[test]
    fn an_unknown_sslmode_is_refused_with_those_that_are_known() {
        let message = refusal("postgres://h/db?sslmode=allow");
        assert_eq!(message, "sslmode is allow: expected disable, prefer, require, verify-ca or verify-full");
    }

    #[test]
    fn missing_trust_anchors_are_named() {
        let message = refusal("postgres://h/db?sslmode=verify-full&sslrootcert=/no/such.pem");
        assert!(message.starts_with("the certificates in /no/such.pem cannot be used"), "{message}");
    }
}
