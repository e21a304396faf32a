//! Which topics a lane reads: names, and regular expressions that begin with `^`.

use regex::Regex;

use super::{ConsumerError, not_posix};

/// The entries of `kafka.topics`, checked.
#[derive(Debug)]
pub(super) struct Subscription {
    entries: Vec<String>,
    patterns: Vec<Regex>,
}

impl Subscription {
    /// Checks that there is an entry, that each is a legal topic name or a regular expression.
    pub(super) fn try_new(entries: &[String]) -> Result<Self, ConsumerError> {
        if entries.is_empty() {
            return Err(rejected("", "the list is empty"));
        }
        let mut patterns = Vec::new();
        for entry in entries {
            if entry.starts_with('^') {
                patterns.push(Regex::new(entry).map_err(|error| rejected(entry, &error.to_string()))?);
                if let Some(reason) = not_posix(entry) {
                    return Err(rejected(entry, &reason));
                }
            } else if !is_topic_name(entry) {
                return Err(rejected(
                    entry,
                    "a name has 1 to 249 letters, digits, dots, underscores and hyphens",
                ));
            }
        }
        Ok(Self { entries: entries.to_vec(), patterns })
    }

    /// The entries as the client takes them.
    pub(super) fn entries(&self) -> Vec<&str> {
        self.entries.iter().map(String::as_str).collect()
    }

    /// Whether a topic of that name is read.
    pub(super) fn matches(&self, topic: &str) -> bool {
        self.entries.iter().any(|entry| entry == topic)
            || self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }
}

/// Kafka's own rule (`org.apache.kafka.common.internals.Topic`).
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn rejected(pattern: &str, reason: &str) -> ConsumerError {
    ConsumerError::Topic { pattern: pattern.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(entries: &[&str]) -> Result<Subscription, ConsumerError> {
        Subscription::try_new(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_match_exactly_and_patterns_by_expression() {
        let topics = subscription(&["cdc.public.a", r"^shop\.public\..*"]).unwrap();
        for (topic, expected) in [
            ("cdc.public.a", true),
            ("cdc.public.ab", false),
            ("shop.public.orders", true),
            ("x.shop.public.orders", false),
        ] {
            assert_eq!(topics.matches(topic), expected, "{topic}");
        }
    }

    #[test]
    fn refuses_an_empty_list_a_bad_name_and_a_bad_expression() {
        for entries in [&[][..], &["a b"][..], &[""][..], &["^("][..], &[".."][..]] {
            assert!(matches!(subscription(entries), Err(ConsumerError::Topic { .. })), "{entries:?}");
        }
    }

    #[test]
    fn refuses_expressions_that_the_client_reads_otherwise() {
        for pattern in [r"^t\d+", r"^[\w.]+", "^(?i)cdc", "^(?:a|b)", "^a.+?b", r"^\x41"] {
            assert!(matches!(subscription(&[pattern]), Err(ConsumerError::Topic { .. })), "{pattern}");
        }
        for pattern in [r"^cdc\.public\.\w+$", "^t[0-9]{1,2}(_a)?", r"^[a-z\.]+\-x", "^(a|b)*c?"] {
            assert!(subscription(&[pattern]).is_ok(), "{pattern}");
        }
    }
}
