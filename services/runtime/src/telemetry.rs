//! Logs and metrics.

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::process::Process;

/// The environment variable that filters logs, in the form of `tracing_subscriber::EnvFilter` (`info,ticker_ingest=debug`).
pub const LOG_VARIABLE: &str = "TICKER_LOG";

/// Histograms keep raw samples until this often.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Upper bounds of the buckets of every metric that ends in `_seconds`: from a decode to a lost minute.
pub const SECONDS_BUCKETS: [f64; 18] =
    [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0];

/// Upper bounds of the buckets of every metric that ends in `_events` or `_size_bytes`.
pub const SIZE_BUCKETS: [f64; 14] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 16777216.0];

/// How a log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, TelemetryError> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(TelemetryError::Format(text.to_owned())),
        }
    }
}

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a log format.
    #[error("`{0}` is not a log format: expected text or json")]
    Format(String),
    /// The filter is not one.
    #[error("{LOG_VARIABLE}=`{filter}` is not a log filter, such as info or info,ticker_ingest=debug: {why}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something else in this process has set up logs already.
    #[error("logs are set up already")]
    LogsTwice,
    /// Something else in this process has installed a metrics recorder already.
    #[error("the metrics recorder could not be installed: {0}")]
    Recorder(String),
}

/// Sends the process's logs to stderr, filtered by [`LOG_VARIABLE`] or else by `default_filter`. Once a process.
pub fn init(format: LogFormat, default_filter: &str) -> Result<(), TelemetryError> {
    let filter = std::env::var(LOG_VARIABLE).ok().filter(|f| !f.is_empty());
    let filter = filter.as_deref().unwrap_or(default_filter);
    let filter = EnvFilter::try_new(filter)
        .map_err(|why| TelemetryError::Filter { filter: filter.to_owned(), why: why.to_string() })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
    .map_err(|_| TelemetryError::LogsTwice)
}

/// The process's metrics. Clones are the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// All metrics in Prometheus' text form, those of the process as they are now.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        if let Some(process) = Process::read() {
            process.write(&mut text);
        }
        text
    }
}

/// Installs the recorder of the `metrics` crate; every later call returns the same, so that services which share a
/// process share it.
pub fn metrics() -> Result<Metrics, TelemetryError> {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    // Without the lock two first calls would both try to install.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(metrics) = METRICS.get() {
        return Ok(metrics.clone());
    }
    let failed = |why: &dyn std::fmt::Display| TelemetryError::Recorder(why.to_string());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &SIZE_BUCKETS))
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_size_bytes".to_owned()), &SIZE_BUCKETS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|why| failed(&why))?;
    let upkeep = handle.clone();
    // A thread and not a task: a task would end with whichever runtime came first.
    std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_EVERY);
                upkeep.run_upkeep();
            }
        })
        .map_err(|why| failed(&why))?;
    Ok(METRICS.get_or_init(|| Metrics { handle }).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_caller_gets_the_same_metrics() {
        let one = metrics().expect("the first");
        let other = metrics().expect("the second");
        metrics::counter!("ticker_runtime_test_total").increment(3);
        metrics::histogram!("ticker_runtime_test_seconds").record(0.5);
        let text = other.render();
        assert!(text.contains("ticker_runtime_test_total 3"), "{text}");
        assert!(text.contains("ticker_runtime_test_seconds_bucket{le=\"1\"} 1"), "{text}");
        assert!(one.render().contains("process_open_fds"));
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = init(LogFormat::Text, "info,ticker=loud").expect_err("not a level").to_string();
        assert!(error.contains("ticker=loud"), "{error}");
        assert!("xml".parse::<LogFormat>().expect_err("no such").to_string().contains("text or json"));
    }
}
