//! What names, addresses and templates have to look like. Each check says what is accepted.

use regex::Regex;

use crate::kafka::not_posix;

/// Longest name of a Kafka topic.
const MAX_TOPIC: usize = 249;

fn is_word(text: &str, also: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

pub(super) fn pipeline(name: &str) -> Result<(), String> {
    if (1..=100).contains(&name.len()) && is_word(name, "._-") {
        return Ok(());
    }
    Err(format!("`{name}` is not accepted: 1 to 100 letters, digits and `.`, `_`, `-`"))
}

pub(super) fn brokers(list: &str) -> Result<(), String> {
    for broker in list.split(',').map(str::trim) {
        let address = broker.split_once("://").map_or(broker, |(_, address)| address);
        let valid = match address.rsplit_once(':') {
            Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
            None => false,
        };
        if !valid || address.contains(char::is_whitespace) {
            return Err(format!("`{broker}` is not a broker: write host:port, comma-separated"));
        }
    }
    Ok(())
}

pub(super) fn topic(topic: &str) -> Result<(), String> {
    if topic.starts_with('^') {
        // The message of the library draws a picture of several lines; the last says what is wrong.
        Regex::new(topic).map_err(|error| {
            let text = error.to_string();
            let reason = text.lines().next_back().unwrap_or_default().trim().trim_start_matches("error: ");
            format!("`{topic}` is not a regular expression: {reason}")
        })?;
        return not_posix(topic).map_or(Ok(()), |reason| Err(format!("`{topic}` cannot be used: {reason}")));
    }
    if !topic.is_empty() && topic.len() <= MAX_TOPIC && is_word(topic, "._-") {
        return Ok(());
    }
    Err(format!(
        "`{topic}` is not a topic name (letters, digits, `.`, `_`, `-`); regular expressions begin with ^"
    ))
}

pub(super) fn lake_uri(uri: &str) -> Result<(), String> {
    const FORM: &str = "a local path or s3://bucket/path";
    let Some((scheme, rest)) = uri.split_once("://") else { return Ok(()) };
    match scheme {
        "s3" | "s3a" if rest.starts_with('/') || rest.is_empty() => {
            Err(format!("`{uri}` names no bucket: {FORM}"))
        }
        "s3" | "s3a" | "file" => match url::Url::parse(uri) {
            // The address is printed and logged.
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Err("holds credentials: set them in lake.storage_options".to_owned())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("not a URL ({error}): {FORM}")),
        },
        _ => Err(format!("the scheme `{scheme}` is not supported: {FORM}")),
    }
}

/// Name of one folder, or empty.
pub(super) fn folder(name: &str) -> Result<(), String> {
    if is_word(name, "._-") && !name.starts_with('.') {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not a folder name: letters, digits and `.`, `_`, `-`, not beginning with a point"
    ))
}

/// Name of one folder.
pub(super) fn named_folder(name: &str) -> Result<(), String> {
    if name.is_empty() { Err("is empty: a folder name".to_owned()) } else { folder(name) }
}

/// Debezium's text for a value that it does not have, or `hex:` and its bytes.
pub(super) fn placeholder(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty: every empty text would count as unchanged".to_owned());
    }
    match text.strip_prefix("hex:") {
        Some(digits) if digits.len() % 2 != 0 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) => {
            Err(format!("`{text}` is not accepted: `hex:` and an even number of hexadecimal digits"))
        }
        _ => Ok(()),
    }
}

/// What names of metadata fields begin with.
pub(super) fn prefix(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty: fields of events could not be told from columns".to_owned());
    }
    Ok(())
}

/// A table of the source as `schema.table`, or a regular expression of such names.
pub(super) fn source_or_pattern(text: &str) -> Result<(), String> {
    if text.starts_with('^') {
        return Regex::new(text).map(|_| ()).map_err(|_| format!("`{text}` is not a regular expression"));
    }
    source_table(text)
}

/// Address of Kafka Connect, or empty.
pub(super) fn connect_url(url: &str) -> Result<(), String> {
    if url.is_empty() {
        return Ok(());
    }
    match url::Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "https" => {
            Err("https is not supported: use an http address of Kafka Connect".to_owned())
        }
        Ok(parsed) if parsed.scheme() != "http" || !parsed.has_host() => {
            Err("is not an address of Kafka Connect: write http://host:8083".to_owned())
        }
        Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            Err("holds credentials, which are not supported here".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is not a URL ({error}): write http://host:8083")),
    }
}

/// Template of the folder of a table.
pub(super) fn layout(template: &str) -> Result<(), String> {
    variables(template, &["database", "schema", "table"])?;
    if !template.contains("{table}") {
        return Err(format!("`{template}` gives all tables one folder: it has to hold {{table}}"));
    }
    let odd = |part: &str| part.is_empty() || part.starts_with('.') || part.starts_with('_');
    if template.split('/').any(odd) {
        return Err(format!(
            "`{template}` is not a relative folder: no empty parts, and none that begins with `.` or `_`"
        ));
    }
    Ok(())
}

pub(super) fn mirror(name: &str) -> Result<(), String> {
    if name == "lake" {
        return Err("a mirror cannot be called `lake`: that is the name of the lake's lane".to_owned());
    }
    if (1..=100).contains(&name.len()) && is_word(name, "_-") {
        return Ok(());
    }
    Err(format!("`{name}` is not a name for a mirror: 1 to 100 letters, digits and `_`, `-`"))
}

/// Template of a mirror's schema.
pub(super) fn mirror_schema(template: &str) -> Result<(), String> {
    if template.is_empty() {
        return Err("is empty: a schema name, or a template such as {schema}".to_owned());
    }
    variables(template, &["database", "schema"])
}

pub(super) fn mirror_raw(name: &str) -> Result<(), String> {
    if name.is_empty() { Ok(()) } else { source_table(name) }
}

pub(super) fn source_table(name: &str) -> Result<(), String> {
    match name.split_once('.') {
        Some((schema, table)) if !schema.is_empty() && !table.is_empty() && !table.contains('.') => Ok(()),
        _ => Err(format!("`{name}` is not a table: write schema.table")),
    }
}

/// That a template has no variables but `known`.
fn variables(template: &str, known: &[&str]) -> Result<(), String> {
    let shown = || known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (_, variable) = rest.split_at(at);
        let Some((name, after)) = variable.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
            return Err(format!("`{template}` has a brace without its other: variables are {}", shown()));
        };
        if !known.contains(&name) {
            return Err(format!("unknown variable {{{name}}} in `{template}`: variables are {}", shown()));
        }
        rest = after;
    }
    Ok(())
}
