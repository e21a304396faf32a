//! Values that must not be seen: passwords, keys, and the addresses and option maps that carry them.
//!
//! The invariant: the text of a [`Secret`] leaves it by [`Secret::reveal`] alone. `Debug`, `Display` and `Serialize` show
//! [`REDACTED`], so that settings can be printed and logged as a whole.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use url::Url;

/// What a secret shows.
pub const REDACTED: &str = "***";

/// A text that is never printed or logged.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// A secret of that text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the library that needs it. Not for messages.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Address of a Postgres database, `postgres://user:password@host:port/database`. It shows without its password and
/// parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    secret: Secret,
    shown: String,
}

impl DatabaseUrl {
    /// Checks the form; reaches nothing. The error says what is wrong without repeating the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write postgres://user:password@host:port/database";
        let mut url = Url::parse(text).map_err(|error| format!("not a database URL ({error}): {FORM}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("the scheme `{}` is not that of a Postgres database: {FORM}", url.scheme()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("the database URL has no host: {FORM}"));
        }
        if url.path().trim_start_matches('/').is_empty() {
            return Err(format!("the database URL names no database: {FORM}"));
        }
        // A parameter may be a password too.
        url.set_query(None);
        let hidden = url.password().is_some() && url.set_password(Some(REDACTED)).is_err();
        let shown = if hidden { REDACTED.to_owned() } else { url.to_string() };
        Ok(Self { secret: Secret::new(text), shown })
    }

    /// The whole address, password included. Not for messages.
    pub fn reveal(&self) -> &str {
        self.secret.reveal()
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown)
    }
}

/// Options for a library, by its own names. Those that [look like secrets](Self::is_sensitive) show redacted.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Options(BTreeMap<String, (Secret, Shown)>);

/// Whether an option may be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// It was written in the settings, and its name is harmless.
    Plain,
    /// It came from a secret source, or its name says that it is a secret.
    Redacted,
}

impl Options {
    /// Sets an option. `shown` is [`Shown::Redacted`] for values that came from `{ env = … }` or `{ file = … }`.
    pub fn insert(&mut self, name: impl Into<String>, value: Secret, shown: Shown) {
        let name = name.into();
        let shown = if Self::is_sensitive(&name) { Shown::Redacted } else { shown };
        self.0.insert(name, (value, shown));
    }

    /// Names and values, values in the clear, by name. Not for messages.
    pub fn reveal(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, (value, _))| (name.as_str(), value.reveal()))
    }

    /// Value of an option, in the clear.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| value.reveal())
    }

    /// Whether an option of that name is taken for a secret: the names of librdkafka and of the object stores that
    /// hold one contain one of these words.
    fn is_sensitive(name: &str) -> bool {
        const WORDS: [&str; 9] =
            ["password", "secret", "token", "key", "credential", "sas", "pem", "jaas", "oauthbearer.config"];
        let name = name.to_ascii_lowercase();
        // The SASL options that are no secrets would be caught by Azure's `sas`.
        let name = name.replace("sasl", "");
        WORDS.iter().any(|word| name.contains(word))
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, (value, shown))| match shown {
            Shown::Plain => (name.as_str(), value.reveal()),
            Shown::Redacted => (name.as_str(), REDACTED),
        })
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_of_itself() {
        let secret = Secret::new("hunter2");
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert_eq!(shown, "*** *** \"***\"");
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn a_database_url_shows_without_password_and_parameters() {
        let url =
            DatabaseUrl::parse("postgres://user:hunter2@host:5432/shop?sslmode=require&password=x").unwrap();
        assert_eq!(format!("{url}"), "postgres://user:***@host:5432/shop");
        assert_eq!(format!("{url:?}"), "postgres://user:***@host:5432/shop");
        assert!(url.reveal().contains("hunter2"));
    }

    #[test]
    fn what_is_not_a_database_url_is_refused_without_repeating_it() {
        for (text, message) in [
            ("hunter2", "not a database URL (relative URL without a base)"),
            ("mysql://u:hunter2@h/d", "the scheme `mysql` is not that of a Postgres database"),
            ("postgres:///hunter2", "the database URL has no host"),
            ("postgres://u:hunter2@h", "the database URL names no database"),
        ] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert_eq!(error, format!("{message}: write postgres://user:password@host:port/database"));
        }
    }

    #[test]
    fn options_show_only_what_is_harmless() {
        let mut options = Options::default();
        options.insert("security.protocol", Secret::new("SASL_SSL"), Shown::Plain);
        options.insert("sasl.mechanism", Secret::new("PLAIN"), Shown::Plain);
        options.insert("sasl.password", Secret::new("hunter2"), Shown::Plain);
        options.insert("AWS_SECRET_ACCESS_KEY", Secret::new("hunter2"), Shown::Plain);
        options.insert("sasl.username", Secret::new("hunter2"), Shown::Redacted);
        assert_eq!(
            serde_json::to_string(&options).unwrap(),
            r#"{"AWS_SECRET_ACCESS_KEY":"***","sasl.mechanism":"PLAIN","sasl.password":"***","sasl.username":"***","security.protocol":"SASL_SSL"}"#
        );
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(options.get("sasl.password"), Some("hunter2"));
    }
}
