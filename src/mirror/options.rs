//! What a mirror is told: where its database is and what goes where.

use std::fmt;
use std::time::Duration;

use crate::change::Policies;
use crate::change::quarantine::Limits;

/// Settings of one mirror.
#[derive(Debug, Clone)]
pub struct MirrorOptions {
    /// Name of the mirror: `target` for `[mirrors.target]`. Part of the identity of its progress.
    pub name: String,
    /// Name of the pipeline. Part of the identity of its progress.
    pub pipeline: String,
    /// How to reach the database.
    pub url: ConnectionUrl,
    /// Template of the schema its tables go to; `{schema}` and `{database}` are the source's.
    pub schema: String,
    /// `schema.table` of the raw events, or `None` to keep none.
    pub raw: Option<String>,
    /// Schema of the progress table.
    pub progress_schema: String,
    /// What is declared for each table.
    pub policies: Policies,
    /// How many records may go into quarantine.
    pub quarantine: Limits,
    /// Longest run of one statement; zero for no limit.
    pub statement_timeout: Duration,
    /// Longest wait for a lock, after which the batch is rolled back and tried again; zero for no limit.
    pub lock_timeout: Duration,
}

impl MirrorOptions {
    /// The defaults for everything but the names and the database.
    pub fn new(name: &str, pipeline: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            pipeline: pipeline.to_owned(),
            url: ConnectionUrl::new(url),
            schema: "{schema}".to_owned(),
            raw: None,
            progress_schema: "alluvium".to_owned(),
            policies: Policies::default(),
            quarantine: Limits::default(),
            statement_timeout: Duration::from_mins(10),
            lock_timeout: Duration::from_secs(30),
        }
    }
}

/// A Postgres URL. It holds a password, so neither `Debug` nor `Display` shows it.
#[derive(Clone)]
pub struct ConnectionUrl(String);

impl ConnectionUrl {
    /// Wraps a URL; it is not looked at until [`super::Mirror::new`].
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionUrl(…)")
    }
}

impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Settings that no mirror can work with. The texts name no place in a file: whoever read the setting knows it.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The URL cannot be understood. Its text is not shown, for it may hold the password.
    #[error(
        "the URL is not a Postgres one: expected postgres://user:password@host:port/database, with special \
         characters of the password percent-encoded ({reason})"
    )]
    Url {
        /// Which part, never its value.
        reason: &'static str,
    },
    /// `sslmode` is none of libpq's that are supported.
    #[error("sslmode is {found}: expected disable, prefer, require, verify-ca or verify-full")]
    SslMode {
        /// The value.
        found: String,
    },
    /// The trust anchors cannot be read.
    #[error("the certificates in {path} cannot be used: {reason}")]
    RootCertificate {
        /// `sslrootcert`, or `the system's store`.
        path: String,
        /// What is wrong with them.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The raw table's name has not two parts, or they are too long.
    #[error(
        "the raw table is {found}: expected schema.table, each part of 1 to 63 bytes and without a point"
    )]
    RawTable {
        /// The value.
        found: String,
    },
    /// The schema template or the progress schema cannot be a name.
    #[error("the schema is {found}: {reason}")]
    Schema {
        /// The value.
        found: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_show_no_credentials() {
        let shown =
            format!("{:?}", MirrorOptions::new("target", "shop", "postgres://u:hunter2@localhost/db"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
