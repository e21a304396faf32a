//! The demo, as a newcomer runs it: nothing but the binary.

use std::process::Command;

use crate::daemon::PROGRAM;

#[test]
fn the_demo_ends_with_tables_that_equal_its_shop() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        Command::new(PROGRAM).args(["demo", "--seconds", "5"]).current_dir(folder.path()).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().filter_map(|entry| Some(entry.ok()?.path())).collect();
    assert!(left.is_empty(), "without --keep the demo leaves nothing behind: {left:?}");
}
