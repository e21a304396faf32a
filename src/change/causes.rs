//! What an error says, with what caused it.
//!
//! Libraries put the reason into the chain of causes, and leave it out of their own text: "error connecting to server" alone
//! helps nobody. Every message of a sink and of the command line is made here, so that none of them loses it.

use std::error::Error;

/// The error and its causes on one line, each said once.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{says}")]
    struct Layer {
        says: &'static str,
        source: Option<Box<Layer>>,
    }

    fn chain(says: &[&'static str]) -> Option<Box<Layer>> {
        let (first, rest) = says.split_first()?;
        Some(Box::new(Layer { says: first, source: chain(rest) }))
    }

    #[test]
    fn every_cause_is_said_once() {
        let texts = |says: &[&'static str]| chain(says).map(|error| with_causes(&*error)).unwrap_or_default();
        assert_eq!(texts(&["no answer"]), "no answer");
        assert_eq!(texts(&["no answer", "connection", "refused"]), "no answer: connection: refused");
        assert_eq!(texts(&["write: disk full", "disk full", "error 28"]), "write: disk full: error 28");
    }
}
