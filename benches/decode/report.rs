//! All figures in one table.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What was measured.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) events: u64,
    pub(crate) allocations: f64,
}

pub(crate) struct Report {
    /// Criterion writes here what it found.
    pub(crate) folder: PathBuf,
    pub(crate) rows: Vec<Row>,
    /// What could not be measured.
    pub(crate) missing: Vec<String>,
}

/// How to measure again.
const COMMAND: &str = "TICKER_DECODE_MD=benches/DECODE.md cargo bench -p ticker-feeds --bench decode";

impl Report {
    pub(crate) fn new() -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        Self { folder: target.join("decode"), rows: Vec::new(), missing: Vec::new() }
    }

    /// Nanoseconds for all frames of a row: criterion's median.
    fn nanos(&self, row: &Row, way: &str) -> Option<f64> {
        let file = self.folder.join(&row.name).join(way).join("new/estimates.json");
        let found: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        found["median"]["point_estimate"].as_f64()
    }

    pub(crate) fn write(&self) {
        let Some(path) = std::env::var_os("TICKER_DECODE_MD") else { return };
        let mut text = String::new();
        self.head(&mut text);
        let line = "| frames | count | bytes each | events | ours: frames/s | MB/s | ns a frame | allocations a frame \
                    | `Value`: frames/s | MB/s | typed: frames/s | MB/s | ours against typed |\n";
        text.push_str(line);
        text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
        for row in &self.rows {
            let ours = self.nanos(row, "ours");
            let (name, frames, each) = (&row.name, row.frames, row.bytes / row.frames.max(1));
            let _ = write!(text, "| {name} | {} | {each} | {} |", spaced(frames as f64), spaced(row.events as f64));
            self.rates(&mut text, row, ours);
            let nanos = ours.map_or("–".to_owned(), |nanos| spaced(nanos / frames as f64));
            let _ = write!(text, " {nanos} | {:.2} |", row.allocations);
            for way in ["value", "typed"] {
                self.rates(&mut text, row, self.nanos(row, way));
            }
            let against =
                self.nanos(row, "typed").zip(ours).map_or("–".to_owned(), |(t, o)| format!("{:.1} ×", t / o));
            let _ = writeln!(text, " {against} |");
        }
        for missing in &self.missing {
            let _ = writeln!(text, "\nNot measured, because its recording is not there: {missing}.");
        }
        std::fs::write(root().join(path), text).expect("the table can be written");
    }

    fn rates(&self, text: &mut String, row: &Row, nanos: Option<f64>) {
        let _ = match nanos {
            Some(nanos) => {
                let (frames, bytes) = (row.frames as f64 / nanos * 1e9, row.bytes as f64 / nanos * 1e3);
                write!(text, " {} | {} |", spaced(frames), spaced(bytes))
            }
            None => write!(text, " – | – |"),
        };
    }

    fn head(&self, text: &mut String) {
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.map_or("unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        };
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':')).map_or("unknown", |m| m.1);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let _ = writeln!(
            text,
            "# What decoding costs\n\n\
             Written by `benches/decode`, which says what is measured and how; the figures are medians of ten samples on \
             one core.\n\n\
             - Command: `{COMMAND}`\n\
             - Machine: {cores} × {}, Linux {}\n\
             - {}\n\
             - Goals for one core: 1,000,000 small frames/s; 400 MB/s of depth JSON; 10,000,000 ITCH messages/s decoded, \
             3,000,000/s built into books.\n\n\
             *ours*: from a frame's bytes to events, decimals, sequence and checksum rules and the book included. *`Value`* \
             and *typed*: `serde_json` alone, without any of that: numbers stay text. *Allocations* are those of the \
             second half, when buffers have grown. Frames come from the recordings, of one kind each; where a kind cannot \
             be played without the others (a sequence over the connection) those are played in between, unmeasured. The \
             ITCH day is made by the bench.\n",
            model.trim(),
            said("uname", &["-r"]).split('-').next().unwrap_or_default(),
            said("rustc", &["--version"]),
        );
    }
}

/// Of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// With separators between thousands.
fn spaced(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
