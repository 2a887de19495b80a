//! How `ticker up` shows what it does: a banner, then one line that is always up to date, or now and then a log line where
//! nobody is watching.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use ticker_ingest::{Progress, SourceKind, Summary};
use ticker_runtime::Drain;

use crate::output::{Paint, count};

/// How often the line is written anew.
const LINE_EVERY: Duration = Duration::from_millis(500);

/// How often a log line tells the same.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// What the banner tells.
pub(crate) struct Banner<'a> {
    pub(crate) http: SocketAddr,
    pub(crate) tls: Option<SocketAddr>,
    /// TLS was left out, because this address is taken.
    pub(crate) tls_is_taken: Option<SocketAddr>,
    pub(crate) rtc: Option<SocketAddr>,
    /// WebRTC was left out, because this address is taken.
    pub(crate) rtc_is_taken: Option<SocketAddr>,
    pub(crate) grpc: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Is every price invented?
    pub(crate) synthetic_only: bool,
    /// A topic that there is something on.
    pub(crate) topic: &'a str,
}

impl Banner<'_> {
    /// Writes it to stdout.
    pub(crate) fn show(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let paint = Paint::of(&io::stdout());
        writeln!(out, "{} {}", paint.bold("ticker"), env!("CARGO_PKG_VERSION"))?;
        if self.synthetic_only {
            let text = "This is a synthetic market: no real prices. For live ones: ticker up --venues kraken,coinbase";
            writeln!(out, "{}", paint.yellow(text))?;
        }
        writeln!(out)?;
        let mut row = |name: &str, value: String, more: &str| {
            writeln!(out, "  {}  {value}{}", paint.dim(&format!("{name:<8}")), paint.dim(more))
        };
        row("page", paint.cyan(&format!("http://{}/", self.http)), "")?;
        row("readers", paint.cyan(&format!("http://{}/v1/", self.http)), "  ws, stream (SSE, NDJSON), poll, snapshot")?;
        match (self.tls, self.tls_is_taken) {
            (Some(tls), _) => {
                row("TLS", paint.cyan(&format!("https://{tls}/")), "  the same over TLS: HTTP/1.1, 2, 3; WebTransport")?
            }
            (None, Some(taken)) => {
                row("TLS", format!("off: {taken} is in use"), "  --tls-listen ADDR chooses another")?;
            }
            (None, None) => row("TLS", "off".to_owned(), "")?,
        }
        match (self.rtc, self.rtc_is_taken) {
            (Some(rtc), _) => row("WebRTC", format!("UDP {rtc}"), "  offers to POST /v1/rtc")?,
            (None, Some(taken)) => {
                row("WebRTC", format!("off: {taken} is in use"), "  --rtc-listen ADDR chooses another")?;
            }
            (None, None) => row("WebRTC", "off".to_owned(), "")?,
        }
        row("gRPC", paint.cyan(&format!("http://{}", self.grpc)), "  ticker.v1.MarketData, reflection")?;
        row("admin", paint.cyan(&format!("http://{}/metrics", self.admin)), "  /livez, /readyz")?;
        row("try", format!("ticker tail '{}'", self.topic), "")?;
        writeln!(out)?;
        out.flush()
    }
}

/// Shows the progress until the drain begins.
pub(crate) async fn show(progress: Progress, readers: impl Fn() -> Option<u64>, drain: Drain) {
    let watched = io::stderr().is_terminal();
    let mut every = tokio::time::interval(if watched { LINE_EVERY } else { LOG_EVERY });
    // The first tick is at once, when there is nothing to tell yet.
    every.tick().await;
    loop {
        tokio::select! {
            () = drain.started() => break,
            _ = every.tick() => {}
        }
        let summary = progress.summary();
        if watched {
            let text = line(&summary, readers(), Paint::of(&io::stderr()));
            // If nobody can see it, nobody misses it.
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        } else {
            let rate: f64 = summary.sources.iter().map(|s| s.events_per_second).sum();
            tracing::info!(
                sources = summary.sources.len(),
                connected = summary.sources.iter().filter(|s| s.connected).count(),
                instruments = summary.sources.iter().map(|s| s.instruments).sum::<u64>(),
                events_per_second = rate.round(),
                readers = readers(),
                "running"
            );
        }
    }
    if watched {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

fn line(summary: &Summary, readers: Option<u64>, paint: Paint) -> String {
    let connected = summary.sources.iter().filter(|s| s.connected).count();
    let total = summary.sources.len();
    let sources = match summary.sources.as_slice() {
        [one] if one.connected => format!("{}: {}", one.name, one.state),
        _ => format!("{connected} of {total} sources connected"),
    };
    let sources = if connected == total { paint.green(&sources) } else { paint.yellow(&sources) };
    let instruments: u64 = summary.sources.iter().map(|s| s.instruments).sum();
    let rate: f64 = summary.sources.iter().map(|s| s.events_per_second).sum();
    let mut text = format!("{sources} · {instruments} instruments · {} events/s", count(rate));
    if let Some(readers) = readers {
        text.push_str(&format!(" · {readers} reader{}", if readers == 1 { "" } else { "s" }));
    }
    // A source that is not connected says why: that is what the person wants to know then. A live venue first.
    let waiting = summary.sources.iter().filter(|s| !s.connected);
    if let Some(source) = waiting.min_by_key(|s| s.kind != SourceKind::Venue) {
        text.push_str(&paint.yellow(&format!(" · {}: {}", source.name, source.state)));
    }
    if !summary.publisher.connected {
        text.push_str(&paint.red(" · waiting for the fanout"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_ingest::{PublisherSummary, SourceSummary};

    #[test]
    fn one_line_says_what_matters() {
        let source = |name: &str, connected| SourceSummary {
            name: name.into(),
            kind: SourceKind::Venue,
            state: if connected { "connected" } else { "reconnecting in 2.1 s" }.into(),
            connected,
            instruments: 5,
            events: 100,
            events_per_second: 6_000.0,
        };
        let publisher = PublisherSummary { connected: true, accepted: 0, refused: 0, unacked_bytes: 0 };
        let one = Summary { sources: vec![source("kraken", true)], publisher };
        assert_eq!(line(&one, Some(1), Paint::none()), "kraken: connected · 5 instruments · 6000 events/s · 1 reader");
        let two = Summary { sources: vec![source("kraken", true), source("coinbase", false)], publisher };
        assert_eq!(
            line(&two, Some(0), Paint::none()),
            "1 of 2 sources connected · 10 instruments · 12.0k events/s · 0 readers · coinbase: reconnecting in 2.1 s"
        );
    }
}
