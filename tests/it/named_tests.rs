//! The documents name the test that holds each promise: these tests exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::stack::project;

/// Documents whose names of tests are looked up.
const DOCUMENTS: [&str; 2] = ["docs/guarantees.md", "docs/acceptance.md"];

/// What stands between backticks and has the form of a test's path.
fn names(text: &str) -> BTreeSet<&str> {
    let is_path = |name: &&str| {
        name.contains("::") && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    text.split('`').skip(1).step_by(2).filter(is_path).collect()
}

/// The file of a module.
fn file(root: &Path, modules: &[&str]) -> Option<PathBuf> {
    let path = modules.iter().fold(root.to_owned(), |path, module| path.join(module));
    [path.with_extension("rs"), path.join("mod.rs")].into_iter().find(|file| file.exists())
}

/// Whether there is such a test, or such a module of tests.
fn exists(name: &str) -> bool {
    let mut parts: Vec<&str> = name.split("::").collect();
    let root = if parts.first() == Some(&"it") {
        parts.remove(0);
        project().join("tests/it")
    } else {
        project().join("src")
    };
    if file(&root, &parts).is_some() {
        return true;
    }
    let Some(test) = parts.pop() else { return false };
    // A module `tests` may stand in the file of what it tests.
    let inside = parts.strip_suffix(&["tests"]).unwrap_or(&parts);
    [&parts[..], inside].into_iter().filter_map(|modules| file(&root, modules)).any(|file| {
        let text = std::fs::read_to_string(&file).unwrap();
        text.contains(&format!("fn {test}(")) || text.contains(&format!("mod {test} {{"))
    })
}

#[test]
fn each_test_that_a_document_names_exists() {
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(project().join(document)).unwrap();
        let names = names(&text);
        assert!(names.len() > 10, "{document} names {} tests", names.len());
        let missing: Vec<&&str> = names.iter().filter(|name| !exists(name)).collect();
        assert!(missing.is_empty(), "{document} names tests that do not exist: {missing:#?}");
    }
}

#[test]
fn each_item_of_the_acceptance_list_has_a_test() {
    let text = std::fs::read_to_string(project().join("docs/acceptance.md")).unwrap();
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |")).collect();
    assert!(!rows.is_empty(), "docs/acceptance.md has no rows");
    for row in rows {
        assert!(!names(row).is_empty(), "no test is named: {row}");
    }
}

#[test]
fn a_name_without_test_is_noticed() {
    assert!(exists("it::named_tests::a_name_without_test_is_noticed"));
    assert!(!exists("it::named_tests::this_one_is_not_there"));
    assert!(!exists("lake::nothing"));
}
