//! What every source file keeps to, and no lint knows.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// A file that outgrows this is telling of a missing concept.
const MOST_LINES: usize = 500;

/// Ways to make a queue without a bound.
const UNBOUNDED: &[&str] = &["unbounded_channel", "unbounded(", "mpsc::channel()"];

/// Files that may have one, and why they cannot overflow.
const UNBOUNDED_ALLOWED: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every Rust file of ours: path from the top, and text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut waiting = vec![root.join("host"), root.join("plugins")];
    let mut found = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != "node_modules" && !name.starts_with('.') {
                    waiting.push(path);
                }
            } else if name.ends_with(".rs") {
                let short = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((short, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "the sources are not where this test looks");
    found
}

fn assert_none(offenders: &[String]) {
    assert!(offenders.is_empty(), "\n{}\n", offenders.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let offenders: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| format!("{path} does not begin with `//!`"))
        .collect();
    assert_none(&offenders);
}

#[test]
fn no_file_outgrows_its_subject() {
    let offenders: Vec<String> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(path, lines)| format!("{path} has {lines} lines; {MOST_LINES} are the most"))
        .collect();
    assert_none(&offenders);
}

#[test]
fn every_queue_is_bounded() {
    let mut offenders = Vec::new();
    for (path, text) in sources() {
        let allowed = UNBOUNDED_ALLOWED.iter().any(|(file, _)| *file == path);
        if allowed || path.ends_with("xtask/tests/tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && UNBOUNDED.iter().any(|word| code.contains(word)) {
                offenders.push(format!("{path}:{}: {code}", number + 1));
            }
        }
    }
    assert_none(&offenders);
}
