//! The house rules that a machine can hold: names, sizes, reasons.

use std::fs;
use std::path::{Path, PathBuf};

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"];

/// A file that is longer holds more than one thing. The aim is 500.
const LINES_MAX: usize = 600;

/// What is written by hand and read by people.
const SOURCES: &[&str] = &["css", "html", "js", "mjs", "proto", "py", "rs", "sh", "ts"];

/// What is built or installed, or others wrote.
const NOT_OURS: &[&str] = &["target", "node_modules", "dist", "__pycache__", "third_party"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files and folders of the repository, as paths from its root.
fn tree() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository is readable") {
            let path = entry.expect("an entry of the repository is readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            found.push(path.strip_prefix(root()).expect("it is inside the root").to_path_buf());
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources(extensions: &'static [&'static str]) -> impl Iterator<Item = (PathBuf, String)> {
    tree().into_iter().filter_map(move |path| {
        let extension = path.extension()?.to_str()?;
        if !extensions.contains(&extension) {
            return None;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a source file is UTF-8");
        Some((path, text))
    })
}

fn assert_none(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn names_say_what_is_inside() {
    let empty = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.split(['.', '-', '_']).any(|word| EMPTY_NAMES.contains(&word))
    };
    let broken = tree().into_iter().filter(empty).map(|p| p.display().to_string()).collect();
    assert_none(broken, "nothing is called common, util, helper or manager");
}

#[test]
fn files_are_short() {
    let broken = sources(SOURCES)
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            (lines > LINES_MAX).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert_none(broken, &format!("a source file has at most {LINES_MAX} lines"));
}

#[test]
fn libraries_open_with_their_purpose() {
    let broken = sources(&["rs"])
        .filter(|(path, text)| path.ends_with("lib.rs") && !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_none(broken, "a lib.rs opens with what it is for");
}

#[test]
fn every_allow_says_its_reason() {
    let mut broken = Vec::new();
    for (path, text) in sources(&["rs"]) {
        let lines: Vec<_> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            if !["#[allow(", "#![allow(", "#[expect(", "#![expect("].iter().any(|start| line.starts_with(start)) {
                continue;
            }
            // The attribute may go over several lines; or a comment stands beside or above it.
            let attribute = lines[i..lines.len().min(i + 6)].join(" ");
            let attribute = attribute.split(")]").next().unwrap_or_default();
            let comment_above = i > 0 && lines[i - 1].trim_start().starts_with("//");
            if !attribute.contains("reason") && !line.contains("//") && !comment_above {
                broken.push(format!("{}:{}: {line}", path.display(), i + 1));
            }
        }
    }
    assert_none(broken, "each allow says its reason");
}

#[test]
fn every_proto_file_is_compiled() {
    let build = fs::read_to_string(root().join("proto/build.rs")).expect("proto has a build script");
    let broken = sources(&["proto"])
        .filter_map(|(path, _)| {
            let stem = path.file_stem()?.to_str()?;
            (!build.contains(&format!("\"{stem}\""))).then(|| path.display().to_string())
        })
        .collect();
    assert_none(broken, "proto/build.rs compiles each .proto file");
}
