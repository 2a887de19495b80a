//! The import rule: who may use whom. ARCHITECTURE.md says why.
//!
//! Dev-dependencies are free: a test may use what it likes.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate of ours and which of ours it may use.
const RULE: &[(&str, &[&str])] = &[
    ("ticker-market", &[]),
    ("ticker-runtime", &[]),
    ("ticker-rtc", &[]),
    ("ticker-proto", &["ticker-market"]),
    ("ticker-feeds", &["ticker-market"]),
    ("ticker-session", &["ticker-market", "ticker-proto"]),
    ("ticker-tape", &["ticker-market", "ticker-proto"]),
    ("ticker-ingest", &["ticker-market", "ticker-proto", "ticker-feeds", "ticker-runtime"]),
    ("ticker-fanout", &["ticker-market", "ticker-proto", "ticker-tape", "ticker-session", "ticker-runtime"]),
    ("ticker-edge", &["ticker-market", "ticker-proto", "ticker-session", "ticker-runtime", "ticker-rtc"]),
    ("ticker-client", &["ticker-market", "ticker-proto", "ticker-rtc"]),
    ("ticker", &["ticker-ingest", "ticker-fanout", "ticker-edge", "ticker-client", "ticker-runtime"]),
];

/// State machines without I/O: time and bytes are arguments, so that hours pass in milliseconds in a test.
const WITHOUT_IO: &[&str] = &["ticker-market", "ticker-feeds", "ticker-session", "ticker-tape", "ticker-rtc"];

/// What does I/O or waits. `ticker-proto` carries tonic's generated stubs, so only direct use is looked at.
const IO: &[&str] = &[
    "axum",
    "hyper",
    "hyper-util",
    "mio",
    "reqwest",
    "socket2",
    "tokio",
    "tokio-stream",
    "tokio-util",
    "tonic",
    "tower",
];

/// Every package of the workspace and what it uses outside its tests.
fn used() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata reads this workspace");
    metadata
        .packages
        .iter()
        .map(|package| {
            let uses = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
            (package.name.to_string(), uses.map(|d| d.name.clone()).collect())
        })
        .collect()
}

#[test]
fn every_crate_is_in_the_table() {
    let crates: BTreeSet<_> = used().into_keys().collect();
    let table: BTreeSet<_> = RULE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(crates, table, "the workspace's crates, and those of the import rule");
}

#[test]
fn nobody_imports_what_it_must_not() {
    let used = used();
    let mut broken = Vec::new();
    for (name, allowed) in RULE {
        let ours = used[*name].iter().filter(|d| used.contains_key(*d));
        broken.extend(ours.filter(|d| !allowed.contains(&d.as_str())).map(|d| format!("{name} must not use {d}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn state_machines_do_no_io() {
    let used = used();
    let mut broken = Vec::new();
    for name in WITHOUT_IO {
        broken.extend(IO.iter().filter(|d| used[*name].contains(**d)).map(|d| format!("{name} must not use {d}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
