//! The documents name the test that holds each promise, and the tests that give their figures: these tests exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::stack::project;

/// The documents, with what is in them.
fn documents() -> Vec<(PathBuf, String)> {
    let docs = project().join("docs");
    let files = [docs.clone(), docs.join("adr")].map(|folder| std::fs::read_dir(folder).unwrap());
    let files = files.into_iter().flatten().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain([project().join("README.md")]).map(|page| (page.clone(), text_of(&page))).collect()
}

fn text_of(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What stands between backticks and has the form of a test's path.
fn names(text: &str) -> BTreeSet<&str> {
    let is_path = |name: &&str| {
        name.contains("::") && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    text.split('`').skip(1).step_by(2).filter(is_path).collect()
}

/// The tests that commands run: the word behind `cargo test … --lib` or `--test it`, as a path.
fn commanded(text: &str) -> BTreeSet<String> {
    let words = |(target, root): (&str, &'static str)| -> Vec<String> {
        let behind = text.split(target).skip(1).filter_map(|rest| rest.split_whitespace().next());
        // `NAME` stands for any.
        let filters =
            behind.map(|word| word.trim_matches('`')).filter(|word| word.contains(char::is_lowercase));
        filters.map(|word| format!("{root}{word}")).collect()
    };
    [("--lib ", ""), ("--test it ", "it::")].into_iter().flat_map(words).collect()
}

/// Whether the filter of a command finds a test: by the name of one, or by its module.
fn is_found(filter: &str) -> bool {
    let (root, word) = match filter.strip_prefix("it::") {
        Some(word) => ("tests/it", word),
        None => ("src", filter),
    };
    let mut folders = vec![project().join(root)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            let is_module = path.file_stem().is_some_and(|name| name == word);
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            if is_module || (is_source && text_of(&path).contains(&format!("fn {word}"))) {
                return true;
            }
        }
    }
    false
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
        let text = text_of(&file);
        text.contains(&format!("fn {test}(")) || text.contains(&format!("mod {test} {{"))
    })
}

#[test]
fn each_test_that_a_document_names_exists() {
    let (mut named, mut run) = (0, 0);
    for (document, text) in documents() {
        let (names, commanded, document) = (names(&text), commanded(&text), document.display());
        let missing: Vec<&&str> = names.iter().filter(|name| !exists(name)).collect();
        assert!(missing.is_empty(), "{document} names tests that do not exist: {missing:#?}");
        let missing: Vec<&String> = commanded.iter().filter(|filter| !is_found(filter)).collect();
        assert!(missing.is_empty(), "{document} runs tests that do not exist: {missing:#?}");
        named += names.len();
        run += commanded.len();
    }
    assert!(named > 100 && run > 2, "the documents name {named} tests and run {run}");
}

#[test]
fn each_item_of_the_acceptance_list_has_a_test() {
    let text = text_of(&project().join("docs/acceptance.md"));
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
    let commands =
        commanded("`cargo test --release --lib NAME`, `cargo test --release --test it spark -- --ignored`");
    assert_eq!(commands, BTreeSet::from(["it::spark".to_owned()]));
    assert!(is_found("it::spark") && is_found("upserts_by_size_of_the_table"));
    assert!(!is_found("it::no_such_test") && !is_found("no_such_test_either"));
}
