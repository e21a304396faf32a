//! From text to the types of settings: durations, sizes, addresses, secrets.

use std::net::SocketAddr;
use std::time::Duration;

use config::ValueKind;

use super::reader::{FromSetting, Raw, kind};
use super::{ByteSize, DatabaseUrl, Options, Secret, Shown, TypeName};
use crate::change::policy::Choice;

impl FromSetting for Duration {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        const FORM: &str = "a duration such as \"1s\", \"500ms\" or \"7days\"";
        let text = raw.text(FORM)?;
        humantime::parse_duration(text.trim()).map_err(|_| format!("`{text}` is not {FORM}"))
    }
}

impl FromSetting for ByteSize {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        if let ValueKind::I64(bytes) = raw.value.kind {
            return u64::try_from(bytes).map(Self).map_err(|_| format!("`{bytes}` is not a size"));
        }
        raw.text("a size such as \"64MiB\" or \"64MB\"")?.parse().map_err(|error| format!("{error}"))
    }
}

/// A setting that is one of a few words.
impl<T: Choice> FromSetting for T {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        let words: Vec<&str> = T::ALL.iter().map(|(word, _)| *word).collect();
        let text = raw.text(&words.join(" or "))?;
        T::ALL.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let (last, first) = words.split_last().unwrap_or((&"", &[]));
            format!("`{text}` is not accepted: {} or {last}", first.join(", "))
        })
    }
}

/// The empty text is `None`.
impl FromSetting for Option<SocketAddr> {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        let text = raw.text("an address such as \"127.0.0.1:8090\"")?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| format!("`{text}` is not an address: write IP:port, for example \"0.0.0.0:8090\""))
    }
}

impl FromSetting for TypeName {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        Self::parse(&raw.text("a column type such as \"int64\" or \"decimal(10,2)\"")?)
    }
}

impl FromSetting for DatabaseUrl {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        Self::parse(resolve(raw)?.0.reveal())
    }
}

/// The empty text is `None`.
impl FromSetting for Option<DatabaseUrl> {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        let (secret, _) = resolve(raw)?;
        if secret.reveal().is_empty() { Ok(None) } else { DatabaseUrl::parse(secret.reveal()).map(Some) }
    }
}

/// Options from their values; where it fails, the problems were noted.
pub(super) fn options(values: impl IntoIterator<Item = (String, (Secret, Shown))>) -> Options {
    let mut options = Options::default();
    for (name, (value, shown)) in values {
        options.insert(name, value, shown);
    }
    options
}

/// The text of a secret: as written, from an environment variable, or from a file.
pub(super) fn resolve(raw: Raw<'_>) -> Result<(Secret, Shown), String> {
    const FORM: &str = "a text, { env = \"NAME\" } or { file = \"path\" }";
    let raw = raw.structured()?;
    let table = match raw.value.kind {
        ValueKind::String(text) => return Ok((Secret::new(text), Shown::Plain)),
        ValueKind::Boolean(_) | ValueKind::I64(_) | ValueKind::U64(_) | ValueKind::Float(_) => {
            return Ok((Secret::new(raw.value.kind.to_string()), Shown::Plain));
        }
        ValueKind::Table(table) => table,
        other => return Err(format!("expected {FORM}, found {}", kind(&other))),
    };
    let mut entries = table.into_iter();
    let (Some((source, value)), None) = (entries.next(), entries.next()) else {
        return Err(format!("expected {FORM}, found a table with other than one key"));
    };
    let ValueKind::String(name) = value.kind else {
        return Err(format!("expected {FORM}, found {} in `{source}`", kind(&value.kind)));
    };
    let text = match source.as_str() {
        "env" => raw
            .environment
            .get(&name)
            .cloned()
            .ok_or_else(|| format!("the environment variable {name} is not set"))?,
        "file" => read(&name)?,
        other => return Err(format!("unknown key `{other}`; expected {FORM}")),
    };
    Ok((Secret::new(text), Shown::Redacted))
}

/// A file's content without the last line break, which editors add.
fn read(path: &str) -> Result<String, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read the file {path}: {error}"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
