//! Properties of a table that the settings decide, on tables that exist as well as on new ones.
//!
//! Two of them are promises to readers: how long the log reaches back, and for how long a file that left the table stays
//! named in the log's checkpoints. The second is what the vacuum judges by, here and in other engines. A checkpoint that
//! was written while it was shorter has forgotten what left before; since when nothing is forgotten is therefore
//! remembered ([`KNOWN_SINCE`]) where it is raised.

use std::collections::HashMap;
use std::time::Duration;

use super::action::Metadata;
use super::create::TableProperties;
use super::mor::changes::CHANGE_DATA_FEED;

/// How long entries of the log are kept.
pub(super) const LOG_RETENTION: &str = "delta.logRetentionDuration";
/// How long checkpoints name files that left the table.
pub(super) const FILE_RETENTION: &str = "delta.deletedFileRetentionDuration";
/// Milliseconds since 1970: files that left the table before may be missing from its checkpoints. **Do not change.**
pub(super) const KNOWN_SINCE: &str = "alluvium.tombstonesSince";
/// What Delta says where [`FILE_RETENTION`] is not set.
const DEFAULT_FILE_RETENTION: Duration = Duration::from_hours(7 * 24);

/// A duration in Delta's words.
pub(super) fn interval(duration: Duration) -> String {
    format!("interval {} seconds", duration.as_secs())
}

/// The reverse, as far as other writers' words are known.
fn parse_interval(text: &str) -> Option<Duration> {
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    let number = if first.eq_ignore_ascii_case("interval") { words.next()? } else { first };
    let number: u64 = number.parse().ok()?;
    let seconds = match words.next()?.to_ascii_lowercase().trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 24 * 3600,
        "week" => 7 * 24 * 3600,
        _ => return None,
    };
    words.next().is_none().then(|| Duration::from_secs(number.saturating_mul(seconds)))
}

/// For how long checkpoints of a table name files that left it; nothing where its words are not understood.
pub(super) fn file_retention(configuration: &HashMap<String, String>) -> Duration {
    match configuration.get(FILE_RETENTION) {
        Some(text) => parse_interval(text).unwrap_or_default(),
        None => DEFAULT_FILE_RETENTION,
    }
}

/// The moment from which on everything that left the table is named by a checkpoint written at `written`.
pub(super) fn known_since(configuration: &HashMap<String, String>, written: i64) -> i64 {
    let by_age = written.saturating_sub(file_retention(configuration).as_millis() as i64);
    let raised = configuration.get(KNOWN_SINCE).and_then(|millis| millis.parse().ok());
    raised.map_or(by_age, |raised: i64| raised.max(by_age))
}

/// The table's metadata as the settings want it, or `None` where it is so already; `now` in milliseconds since 1970.
///
/// A change data feed is turned on where it is wanted, and never off: somebody may follow it.
pub(super) fn wanted(
    metadata: &Metadata,
    properties: &TableProperties,
    feed: bool,
    now: i64,
) -> Option<Metadata> {
    let mut configuration = metadata.configuration.clone();
    let before = file_retention(&configuration);
    if properties.file_retention > before {
        let since = known_since(&configuration, now).to_string();
        configuration.insert(KNOWN_SINCE.to_owned(), since);
    }
    for (name, value) in properties.retentions() {
        configuration.insert(name.to_owned(), value);
    }
    if feed {
        configuration.insert(CHANGE_DATA_FEED.to_owned(), "true".to_owned());
    }
    (configuration != metadata.configuration).then(|| Metadata { configuration, ..metadata.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn properties(days: u32) -> TableProperties {
        TableProperties { pipeline: "shop".into(), log_retention: 30 * DAY, file_retention: days * DAY }
    }

    #[test]
    fn intervals_read_back_and_other_writers_words_are_understood() {
        assert_eq!(parse_interval(&interval(7 * DAY)), Some(7 * DAY));
        for text in ["interval 1 week", "INTERVAL 7 days", "168 hours"] {
            assert_eq!(parse_interval(text), Some(7 * DAY), "{text}");
        }
        assert_eq!(parse_interval("interval 1 month"), None);
    }

    #[test]
    fn what_checkpoints_forgot_before_the_retention_was_raised_stays_unknown() {
        let now = 100 * DAY.as_millis() as i64;
        let days = |days: i64| days * DAY.as_millis() as i64;
        let new = wanted(&Metadata::default(), &properties(7), false, now).unwrap();
        assert_eq!(
            (known_since(&new.configuration, now), new.configuration.get(KNOWN_SINCE)),
            (days(93), None)
        );
        assert!(wanted(&new, &properties(7), false, now).is_none(), "nothing to do");
        let raised = wanted(&new, &properties(30), false, now).unwrap();
        assert_eq!(known_since(&raised.configuration, now), days(93), "the seven days that were kept");
        assert_eq!(known_since(&raised.configuration, days(120)), days(93));
        assert_eq!(known_since(&raised.configuration, days(125)), days(95));
        let lowered = wanted(&raised, &properties(1), false, days(200)).unwrap();
        assert_eq!(known_since(&lowered.configuration, days(200)), days(199));
    }
}
