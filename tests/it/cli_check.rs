//! `alluvium check`, offline, as the binary that is shipped: output and exit code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder with an `alluvium.toml`, and the binary run in it.
struct Folder(TempDir);

impl Folder {
    fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("alluvium.toml"), settings).unwrap();
        Self(folder)
    }

    /// Runs with these variables alone as environment.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_alluvium"))
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }
}

#[track_caller]
fn assert_output(output: &Output, code: i32, stdout: &str) {
    let found = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), found.as_ref()), (Some(code), stdout), "stderr: {stderr}");
}

#[test]
fn the_file_of_the_working_directory_is_checked() {
    let folder = Folder::with("[kafka]\ntopics = ['^cdc']\n");
    assert_output(&folder.run(&["check"], &[]), 0, "ok    settings  alluvium.toml\n");
}

#[test]
fn all_problems_are_printed_with_their_place_and_exit_with_2() {
    let folder = Folder::with("[kafka]\ntopcs = ['^cdc']\n\n[mirrors.target]\nurl = 'localhost'\n");
    let output = folder.run(&["check", "--set", "batch.max_rows=0"], &[("ALLUVIUM__LAKE__URI", "ftp://x")]);
    assert_output(
        &output,
        2,
        "alluvium.toml:2: kafka.topcs: unknown key; did you mean `topics`?\n\
         alluvium.toml:5: mirrors.target.url: not a database URL (relative URL without a base): write \
         postgres://user:password@host:port/database\n\
         environment variable ALLUVIUM__LAKE__URI: lake.uri: the scheme `ftp` is not supported: a local path or \
         s3://bucket/path\n\
         --set batch.max_rows: batch.max_rows: `0` is too small: at least 1\n\
         default: kafka.topics: no topics: set names, or regular expressions that begin with ^\n",
    );
}

#[test]
fn printed_settings_hold_no_secret() {
    let folder = Folder::with(
        "[kafka]\ntopics = ['^cdc']\n[mirrors.target]\nurl = { env = 'TARGET_URL' }\n[kafka.properties]\n\
         'sasl.password' = 'hunter2'\n",
    );
    let environment = [("TARGET_URL", "postgres://user:hunter2@host/shop")];
    for arguments in [vec!["check", "--print"], vec!["check", "--print", "--output", "json"]] {
        let output = folder.run(&arguments, &environment);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0));
        assert!(text.contains("postgres://user:***@host/shop") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_wrong_flag_exits_with_2() {
    assert_eq!(Folder::with("").run(&["check", "--nope"], &[]).status.code(), Some(2));
}

#[test]
fn brokers_that_do_not_answer_exit_with_3() {
    let folder = Folder::with("[kafka]\ntopics = ['^cdc']\nbootstrap_servers = '127.0.0.1:1'\n");
    let output = folder.run(&["check", "--connect"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("fail  kafka") && text.contains("ok    lake"), "{text}");
    assert!(!folder.0.path().join("deltalake").exists(), "the check leaves no folder behind");
}
