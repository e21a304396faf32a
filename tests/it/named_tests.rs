//! The documents name the test that holds each promise: these tests exist, and they run.

use std::path::{Path, PathBuf};

use crate::stack::project;

/// Items of the acceptance list.
const ITEMS: usize = 25;

/// A name that a document gives.
struct Named<'t> {
    name: &'t str,
    /// Whether the words before it say that it is run by hand.
    by_hand: bool,
}

/// What there is under a name.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A function that is a test and runs with the others.
    Test,
    /// One that is `#[ignore]`d.
    Ignored,
    /// A module, and whether a test of it runs.
    Module(bool),
}

impl Named<'_> {
    /// Whether a test holds the promise.
    fn holds(&self) -> bool {
        match found(self.name) {
            Found::Nothing => false,
            Found::Test | Found::Module(true) => true,
            Found::Ignored | Found::Module(false) => self.by_hand,
        }
    }

    /// Whether it is a test by itself, and not somewhere in a module.
    fn is_exact(&self) -> bool {
        match found(self.name) {
            Found::Nothing | Found::Module(_) => false,
            Found::Test => true,
            Found::Ignored => self.by_hand,
        }
    }
}

/// What stands between backticks and has the form of a test's path.
fn names(text: &str) -> Vec<Named<'_>> {
    let is_path = |name: &str| {
        name.contains("::") && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    let parts: Vec<&str> = text.split('`').collect();
    let quoted = parts.chunks_exact(2).filter(|pair| is_path(pair[1]));
    quoted.map(|pair| Named { name: pair[1], by_hand: pair[0].contains("by hand") }).collect()
}

/// The file of a module.
fn file(root: &Path, modules: &[&str]) -> Option<PathBuf> {
    let path = modules.iter().fold(root.to_owned(), |path, module| path.join(module));
    [path.with_extension("rs"), path.join("mod.rs")].into_iter().find(|file| file.exists())
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The tests of a text, and whether each is ignored.
fn tests(text: &str) -> Vec<(&str, bool)> {
    let mut tests = Vec::new();
    let mut attributes: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if !line.starts_with("//") {
            let is_test = |of: &&str| of.starts_with("#[test]") || of.starts_with("#[tokio::test");
            if let Some((_, rest)) = line.split_once("fn ").filter(|_| attributes.iter().any(is_test)) {
                let name = rest.split('(').next().unwrap_or_default();
                tests.push((name, attributes.iter().any(|of| of.starts_with("#[ignore"))));
            }
            attributes.clear();
        }
    }
    tests
}

fn has_tests_that_run(text: &str) -> bool {
    tests(text).iter().any(|(_, ignored)| !ignored)
}

/// Whether a test runs in the file of a module, or in one beside it that belongs to it.
fn runs(file: &Path) -> bool {
    if has_tests_that_run(&read(file)) {
        return true;
    }
    let parts = file.file_name().filter(|name| *name == "mod.rs").and_then(|_| file.parent());
    let Some(folder) = parts else { return false };
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|extension| extension == "rs") && has_tests_that_run(&read(&path))
    })
}

fn found(name: &str) -> Found {
    let mut parts: Vec<&str> = name.split("::").collect();
    let root = if parts.first() == Some(&"it") {
        parts.remove(0);
        project().join("tests/it")
    } else {
        project().join("src")
    };
    if let Some(file) = file(&root, &parts) {
        return Found::Module(runs(&file));
    }
    let Some(last) = parts.pop() else { return Found::Nothing };
    // A module `tests` may stand in the file of what it tests.
    let inside = parts.strip_suffix(&["tests"]).unwrap_or(&parts);
    for file in [&parts[..], inside].into_iter().filter_map(|modules| file(&root, modules)) {
        let text = read(&file);
        if let Some((_, ignored)) = tests(&text).into_iter().find(|(test, _)| *test == last) {
            return if ignored { Found::Ignored } else { Found::Test };
        }
        if text.contains(&format!("mod {last} {{")) {
            return Found::Module(has_tests_that_run(&text));
        }
    }
    Found::Nothing
}

/// The last cells of a document's tables.
fn last_cells(text: &str) -> impl Iterator<Item = &str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.filter_map(|row| row.rsplit(" | ").next())
}

#[test]
fn each_test_that_a_document_names_exists_and_runs() {
    for document in ["docs/guarantees.md", "docs/acceptance.md"] {
        let text = read(&project().join(document));
        let all = names(&text);
        assert!(all.len() > 10, "{document} names {} tests", all.len());
        // What is no test may be what a promise is kept by.
        let missing = all.iter().filter(|named| found(named.name) == Found::Nothing);
        let held_by: Vec<Named<'_>> = last_cells(&text).flat_map(names).collect();
        let idle = held_by.iter().filter(|named| !named.holds());
        let faults: Vec<&str> = missing.chain(idle).map(|named| named.name).collect();
        assert!(faults.is_empty(), "{document} names tests that do not exist or do not run: {faults:#?}");
    }
}

/// A row of the acceptance list: number and text.
fn row(line: &str) -> Option<(usize, &str)> {
    let (number, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
    Some((number.parse().ok()?, rest))
}

/// What is wrong with the acceptance list.
fn faults(text: &str) -> Vec<String> {
    let rows: Vec<(usize, &str)> = text.lines().filter_map(row).collect();
    let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
    let mut faults = Vec::new();
    if numbers != (1..=ITEMS).collect::<Vec<_>>() {
        faults.push(format!("its items are not those from 1 to {ITEMS}: {numbers:?}"));
    }
    for (number, row) in rows {
        let names = names(row);
        if names.is_empty() {
            faults.push(format!("item {number} names no test"));
        }
        let inexact = names.iter().filter(|named| !named.is_exact());
        faults.extend(inexact.map(|named| format!("item {number}: {} is no test that runs", named.name)));
    }
    faults
}

#[test]
fn each_item_of_the_acceptance_list_has_a_test() {
    let faults = faults(&read(&project().join("docs/acceptance.md")));
    assert!(faults.is_empty(), "docs/acceptance.md: {faults:#?}");
}

#[test]
fn what_is_missing_in_the_acceptance_list_is_noticed() {
    const THIS: &str = "what_is_missing_in_the_acceptance_list_is_noticed";
    let row = |number: usize| format!("| {number} | it | `it::named_tests::{THIS}` |\n");
    let whole: String = (1..=ITEMS).map(row).collect();
    assert_eq!(faults(&whole), [""; 0]);
    for (from, to, fault) in [
        (row(7), String::new(), "its items are not those from 1 to 25"),
        (row(25), String::new(), "its items are not those from 1 to 25"),
        (row(7), "| 7 | it | |\n".to_owned(), "item 7 names no test"),
        (row(7), row(7).replace(&format!("::{THIS}"), ""), "item 7: it::named_tests is no test"),
        (row(7), row(7).replace(THIS, "row"), "item 7: it::named_tests::row is no test"),
        (row(7), row(7).replace("named_tests", "nowhere"), "is no test that runs"),
    ] {
        let found = faults(&whole.replace(&from, &to));
        assert!(matches!(&found[..], [text] if text.contains(fault)), "{fault:?} for {to:?}: {found:?}");
    }
}

#[test]
fn a_name_without_test_is_noticed() {
    assert_eq!(found("it::named_tests::a_name_without_test_is_noticed"), Found::Test);
    assert_eq!(found("it::named_tests::this_one_is_not_there"), Found::Nothing);
    assert_eq!(found("it::named_tests::found"), Found::Nothing, "a function, and no test");
    assert_eq!(found("lake::nothing"), Found::Nothing);
    assert_eq!(found("it::named_tests"), Found::Module(true));
    assert_eq!(found("it::eventually"), Found::Module(false), "a module without tests");
    let of = |text: &str| tests(text).into_iter().map(|(_, ignored)| ignored).collect::<Vec<_>>();
    assert_eq!(
        of("#[test]\n#[ignore = \"slow\"]\nfn slow() {}\n#[test]\nfn fast() {}\nfn none() {}"),
        [true, false]
    );
    let said = |text| names(text).iter().map(|named| named.by_hand).collect::<Vec<_>>();
    assert_eq!(said("`a::b`; by hand, `c::d`, and `e::f`"), [false, true, false]);
}

#[test]
fn each_test_that_any_other_document_names_exists() {
    let docs = project().join("docs");
    let folders = [docs.clone(), docs.join("adr")].map(|folder| std::fs::read_dir(folder).unwrap());
    let files = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for page in pages.chain([project().join("README.md")]) {
        let text = read(&page);
        let all = names(&text);
        let missing = all.iter().filter(|named| found(named.name) == Found::Nothing);
        let missing: Vec<&str> = missing.map(|named| named.name).collect();
        assert!(missing.is_empty(), "{} names tests that do not exist: {missing:#?}", page.display());
    }
}
