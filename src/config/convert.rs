//! From text to the types of settings: durations, sizes, addresses, secrets.

use std::net::SocketAddr;
use std::time::Duration;

use config::ValueKind;

use super::reader::{FromSetting, Raw, kind};
use super::{ByteSize, DatabaseUrl, OnDataLoss, Options, Secret, Shown, TypeName};
use crate::lake::WriteMode;

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

impl FromSetting for OnDataLoss {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        match raw.text("\"halt\" or \"continue\"")?.as_str() {
            "halt" => Ok(Self::Halt),
            "continue" => Ok(Self::Continue),
            other => Err(format!("`{other}` is not accepted: halt or continue")),
        }
    }
}

impl FromSetting for WriteMode {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        match raw.text("\"merge-on-read\" or \"copy-on-write\"")?.as_str() {
            "merge-on-read" => Ok(Self::MergeOnRead),
            "copy-on-write" => Ok(Self::CopyOnWrite),
            other => Err(format!("`{other}` is not accepted: merge-on-read or copy-on-write")),
        }
    }
}

impl FromSetting for Option<WriteMode> {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        WriteMode::from_setting(raw).map(Some)
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
        Self::parse(&raw.text("a column type such as \"bigint\" or \"numeric(10,2)\"")?)
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
