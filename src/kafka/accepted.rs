//! What of the settings the Kafka client can take: asked when they are checked, and again when a consumer starts.
//!
//! Both ask here, so that what `alluvium check` accepts does not fail in `alluvium run`, and the reason is the same.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

/// Why a property cannot be the user's, if so.
pub(super) fn refusal(key: &str, value: &str) -> Option<&'static str> {
    match key {
        "enable.auto.commit"
        | "auto.commit.enable"
        | "auto.commit.interval.ms"
        | "enable.auto.offset.store" => {
            Some("progress is stored in the sink, in the same commit as the data; remove it")
        }
        "auto.offset.reset" => {
            Some("a reset would skip or repeat records unseen; use kafka.on_data_loss instead")
        }
        "isolation.level" if value != "read_committed" => {
            Some("records of transactions that were rolled back would be read; remove it")
        }
        "group.id" => Some("the group is made from pipeline.name and the lane; set pipeline.name instead"),
        "bootstrap.servers" | "metadata.broker.list" => Some("use kafka.bootstrap_servers instead"),
        "enable.partition.eof" | "topic.metadata.refresh.interval.ms" => {
            Some("this consumer depends on its own value; remove it")
        }
        _ => None,
    }
}

/// Checks a property of the user; librdkafka itself is asked whether it knows it. The message never holds the value.
///
/// # Errors
/// The reason why it cannot be set.
pub fn check_property(key: &str, value: &str) -> Result<(), String> {
    if let Some(reason) = refusal(key, value) {
        return Err(format!("cannot be set: {reason}"));
    }
    match ClientConfig::new().set(key, value).create_native_config() {
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Err("librdkafka has no property of this name".to_owned())
        }
        Err(_) => Err("librdkafka does not accept this value".to_owned()),
        Ok(_) => Ok(()),
    }
}

/// What of a pattern of topics the Kafka client reads otherwise than we do. It has POSIX extended expressions, where `\d` is
/// the letter d: such a subscription would silently match nothing.
pub fn not_posix(pattern: &str) -> Option<String> {
    let (mut in_brackets, mut after_quantifier) = (false, false);
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        match (character, next) {
            ('\\', Some(escaped)) => {
                let shared = !in_brackets && "wWsSbB".contains(escaped);
                if escaped.is_ascii_alphanumeric() && !shared {
                    return Some(format!(
                        "the Kafka client does not know \\{escaped} here; write it out, as in [0-9]"
                    ));
                }
                characters.next();
            }
            ('(', Some('?')) if !in_brackets => {
                return Some("the Kafka client does not know (?…); use plain parentheses".to_owned());
            }
            ('?', _) if !in_brackets && after_quantifier => {
                return Some(
                    "the Kafka client has no lazy quantifiers; drop the ? behind *, +, ? or }".to_owned(),
                );
            }
            ('[', _) => in_brackets = true,
            (']', _) => in_brackets = false,
            _ => {}
        }
        after_quantifier = !in_brackets && matches!(character, '*' | '+' | '?' | '}');
    }
    None
}
