//! `docs/configuration.md`, generated from `defaults.toml`, so that the reference is written once.
//!
//! What is read from that file: a table header opens a section, the comment above a header or key tells about it, and
//! `#[header]`, `#key = …` (without blank) are a section and keys that are not there unless they are set.

use std::fmt::Write;

use super::DEFAULTS;

const HEAD: &str = "# Configuration\n\n\
    <!-- Generated from src/config/defaults.toml: alluvium check --print-reference > docs/configuration.md -->\n\n";

/// The page, in Markdown.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    let mut section = String::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in DEFAULTS.lines() {
        let optional = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| !c.is_whitespace()));
        let setting = optional.unwrap_or(line);
        if setting.starts_with('[') {
            setting.trim_matches(['[', ']']).clone_into(&mut section);
            heading(&mut page, 2, setting, &comment);
            comment.clear();
        } else if optional.is_none() && line.starts_with('#') {
            comment.push(line.trim_start_matches('#').trim_start_matches(' '));
        } else if let Some((key, value)) = setting.split_once(" = ") {
            let key = format!("{section}.{key}");
            heading(&mut page, 3, &key, &comment);
            let word = if optional.is_some() { "Example" } else { "Default" };
            // Writing to a String does not fail.
            let _ = writeln!(page, "{word}: `{value}`\n");
            comment.clear();
        } else if !comment.is_empty() {
            // A comment that is followed by a blank line stands for itself.
            page.push_str(&comment.join("\n"));
            page.push_str("\n\n");
            comment.clear();
        }
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn heading(page: &mut String, level: usize, title: &str, text: &[&str]) {
    let _ = writeln!(page, "{} `{title}`\n\n{}\n", "#".repeat(level), text.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debezium::ConfiguredType;

    /// What the page says of a key.
    fn said_of(key: &str) -> String {
        let page = markdown();
        let (_, text) = page.split_once(&format!("### `{key}`\n")).unwrap();
        text.split("\n##").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn each_name_of_a_type_is_listed() {
        let said = said_of("tables.types");
        for name in ConfiguredType::NAMES {
            assert!(said.contains(&format!("`{name}`")), "tables.types does not tell of {name}");
        }
    }

    #[test]
    fn each_key_of_the_defaults_is_listed_for_single_tables() {
        let (said, page) = (said_of("tables.write"), markdown());
        let keys: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("### `defaults.")?.strip_suffix('`')).collect();
        assert!(keys.contains(&"write"), "{keys:?}");
        for key in keys {
            assert!(said.contains(&format!("`{key}`")), "tables.write does not tell of {key}");
        }
    }

    #[test]
    fn the_committed_page_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/configuration.md is out of date: alluvium check --print-reference > docs/configuration.md"
        );
    }

    #[test]
    fn every_setting_is_explained() {
        let page = markdown();
        for part in page.split("\n##").skip(1) {
            let mut lines = part.lines().filter(|line| !line.is_empty());
            let title = lines.next().unwrap();
            let text = lines.next().unwrap_or_default();
            assert!(!text.is_empty() && !text.starts_with("Default:"), "no comment above {title}");
        }
    }
}
