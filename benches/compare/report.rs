//! RESULTS.md: made of sections, each written by one workload and kept there until that workload runs again.

use std::path::Path;

use serde_json::{Value, json};

use crate::measure::{Measure, median};
use crate::process::say;

/// A goal, and what was measured.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) measured: f64,
    /// Not to be exceeded.
    pub(crate) limit: f64,
    pub(crate) unit: &'static str,
    /// How the limit comes about.
    pub(crate) of: String,
}

/// What one workload found.
pub(crate) struct Section {
    pub(crate) key: &'static str,
    title: String,
    lines: Vec<String>,
    goals: Vec<Value>,
}

impl Section {
    pub(crate) fn new(key: &'static str, title: &str) -> Self {
        say(title);
        Self { key, title: title.to_owned(), lines: Vec::new(), goals: Vec::new() }
    }

    pub(crate) fn line(&mut self, text: impl Into<String>) {
        self.lines.push(text.into());
    }

    pub(crate) fn table(&mut self, header: &[&str], rows: &[Vec<String>]) {
        self.line("");
        self.line(format!("| {} |", header.join(" | ")));
        self.line(format!("|---|{}", "---:|".repeat(header.len() - 1)));
        for row in rows {
            self.line(format!("| {} |", row.join(" | ")));
        }
        self.line("");
    }

    pub(crate) fn goal(&mut self, goal: &Goal) {
        let ratio = goal.measured / goal.limit;
        let met = if ratio <= 1.0 { "yes" } else { "**no**" };
        say(&format!("  goal: {}: {:.2} {} of {:.2}: {met}", goal.what, goal.measured, goal.unit, goal.limit));
        self.goals.push(json!([
            goal.what,
            format!("{} {}", figure(goal.measured), goal.unit),
            format!(
                "≤ {} {}{}",
                figure(goal.limit),
                goal.unit,
                if goal.of.is_empty() { String::new() } else { format!(" ({})", goal.of) }
            ),
            format!("{ratio:.2}"),
            met
        ]));
    }

    /// The usual table: medians, and each run's CPU for an event.
    pub(crate) fn flows(&mut self, rows: &[(String, Vec<Measure>)]) {
        let header = [
            "server",
            "CPU µs an event",
            "runs",
            "events/s delivered",
            "of those asked for",
            "p50 ms",
            "p99 ms",
            "trades missing",
            "quotes conflated or lost",
            "readers ended",
            "bytes an event",
            "server CPU",
            "readers' CPU",
            "others' CPU",
        ];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|(name, runs)| {
                let m = |of: fn(&Measure) -> f64| median(runs, of);
                let each: Vec<String> = runs.iter().map(|r| format!("{:.2}", r.cpu_per_event)).collect();
                let most = |of: fn(&Measure) -> f64| runs.iter().map(of).fold(0.0, f64::max);
                vec![
                    name.clone(),
                    format!("**{:.2}**", m(|r| r.cpu_per_event)),
                    each.join(" "),
                    format!("{:.0}", m(|r| r.events_per_second)),
                    percent(m(|r| r.part_delivered)),
                    millis(m(|r| r.p50)),
                    millis(m(|r| r.p99)),
                    format!("{:.0}", most(|r| r.trades_missing)),
                    format!("{:.0}", m(|r| r.quotes_missing)),
                    format!("{:.0}", most(|r| r.ended)),
                    format!("{:.0}", m(|r| r.bytes_per_event)),
                    percent(m(|r| r.server_cpu)),
                    percent(m(|r| r.crowd_cpu)),
                    percent(m(|r| r.foreign_cpu)),
                ]
            })
            .collect();
        self.table(&header, &rows);
    }

    fn to_json(&self, machine: &str, versions: &[String], how: &str) -> Value {
        json!({
            "title": self.title, "lines": self.lines, "goals": self.goals,
            "machine": machine, "versions": versions, "how": how,
        })
    }
}

fn figure(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

pub(crate) fn millis(micros: f64) -> String {
    format!("{:.2}", micros / 1e3)
}

pub(crate) fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// Where a section's figures are kept: a comment in RESULTS.md itself, one line for each.
const KEPT: (&str, &str) = ("<!-- kept ", " -->");

/// Writes RESULTS.md anew: this section, and the others as they are there already.
pub(crate) fn write(
    section: &Section,
    results: &Path,
    order: &[&str],
    about: (&str, &[String], &str),
) -> Result<(), String> {
    let (machine, versions, how) = about;
    let before = std::fs::read_to_string(results).unwrap_or_default();
    let kept = |key: &str| -> Option<Value> {
        let line = before.lines().find_map(|l| l.strip_prefix(KEPT.0)?.strip_prefix(key)?.strip_prefix(' '))?;
        serde_json::from_str(line.strip_suffix(KEPT.1)?).ok()
    };
    let sections: Vec<(&str, Value)> = order
        .iter()
        .filter_map(|key| {
            let value = if *key == section.key { section.to_json(machine, versions, how) } else { kept(key)? };
            Some((*key, value))
        })
        .collect();
    let mut out = String::from(HEAD);
    let each = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    out.push_str("\n## Goals\n\n| workload | measured | goal | measured ÷ goal | met |\n|---|---:|---:|---:|---|\n");
    for goal in sections.iter().flat_map(|(_, s)| s["goals"].as_array().into_iter().flatten()) {
        out.push_str(&format!("| {} |\n", each(goal).join(" | ")));
    }
    out.push('\n');
    out.push_str(FINDINGS.trim_end());
    out.push('\n');
    for (_, section) in &sections {
        let said = |key: &str| section[key].as_str().unwrap_or_default().to_owned();
        out.push_str(&format!("\n## {}\n\n", said("title")));
        out.push_str(&format!("`{}`\n\n", said("how")));
        out.push_str(&each(&section["lines"]).join("\n"));
        out.push_str(&format!("\n{}. {}.\n", said("machine"), each(&section["versions"]).join("; ")));
    }
    // What `benches/lossy/run.py` measured.
    if let Ok(lossy) = std::fs::read_to_string(results.with_file_name("lossy.md")) {
        out.push_str(&format!("\n{}\n", lossy.trim_end()));
    }
    out.push('\n');
    for (key, section) in &sections {
        out.push_str(&format!("{}{key} {section}{}\n", KEPT.0, KEPT.1));
    }
    std::fs::write(results, out).map_err(|e| format!("{}: {e}", results.display()))
}

/// What was found out about goals that are not met; written by hand.
const FINDINGS: &str = include_str!("../findings.md");

const HEAD: &str = "# Results

Written by `cargo bench --bench compare`; not by hand. A workload that is run again (`--only`) replaces its own section.
Each section names its command, machine and versions.

How it is measured: the server has core 0 for itself, everything else (fanout, publisher, readers) shares core 1. The
publisher is an open loop: latency counts from the time at which an event was due, so a publisher or server that falls
behind shows. CPU is that of the server's process and its children (ours: the edge alone; schedstat, system time and
the loopback's own work included), divided by the events that readers received. Figures are medians of the runs. \"Others' CPU\" is
what the rest of the machine used meanwhile, of one core; each run waits up to 20 s for a calm machine, and is made once
more if others used more than 10 %. Where a row shows more than that, its figures are not to be trusted: late
wake-ups gather events into fewer writes, so such a run looks cheaper and slower than it is.
The bare loop writes each event by itself; a server that gathers events is cheaper for each and later: read CPU and p50 together.
Every event is the same JSON for every server. The bench raises its own and its servers' priority where that is allowed.
Only the loopback is used.
";
