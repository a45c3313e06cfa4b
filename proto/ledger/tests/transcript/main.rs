//! The stories of the replicated log, written down.
//!
//! `tests/scripts/*.txt` hold blocks in the style of etcd's interaction tests: commands,
//! `----`, and what came out. `UPDATE=1 cargo test -p selvage-ledger` writes what comes
//! out into the files; commit such a change only if you understand what caused it.
//! The commands are those of [`stage::Stage::run`].

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a broken script or an unexpected message is to end the test at once"
)]

mod stage;

use std::fmt::Write as _;
use std::path::Path;

#[test]
fn every_script_reads_as_it_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 7, "the scripts are missing");
    let mut differing = String::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = play(&script);
        if played == script {
            continue;
        }
        #[allow(clippy::disallowed_methods, reason = "the test's own switch")]
        if std::env::var("UPDATE").is_ok() {
            std::fs::write(&path, &played).unwrap();
            continue;
        }
        let line = played.lines().zip(script.lines()).position(|(a, b)| a != b);
        let line = line.unwrap_or_else(|| played.lines().count().min(script.lines().count()));
        let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
        writeln!(
            differing,
            "{}:{}\n  written: {}\n  played:  {}",
            path.display(),
            line + 1,
            at(&script),
            at(&played)
        )
        .unwrap();
    }
    assert!(
        differing.is_empty(),
        "\n{differing}(UPDATE=1 rewrites them)"
    );
}

/// Plays a script and writes it down again. Comments and blank lines stay; what stands
/// between `----` and the next blank line is replaced by what came out.
fn play(script: &str) -> String {
    let mut stage = stage::Stage::new();
    let mut written = String::new();
    let mut output = String::new();
    let mut inside = false;
    for line in script.lines() {
        if inside {
            inside = !line.is_empty();
            if inside {
                continue;
            }
        }
        written.push_str(line);
        written.push('\n');
        if let Some(command) = line.strip_prefix("> ") {
            output.push_str(&stage.run(command));
        } else if line == "----" {
            written.push_str(if output.is_empty() {
                "(nothing)\n"
            } else {
                &output
            });
            output.clear();
            inside = true;
        }
    }
    assert!(
        output.is_empty(),
        "a script's last commands lack their ----"
    );
    written
}
