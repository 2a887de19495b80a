//! Readers over TLS, QUIC and WebRTC: the market, and idle ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::feed::Feed;
use crate::flows::{MARKET, Plan};
use crate::measure::{Foreign, Measure, median, wait_for_calm};
use crate::process::{SERVER_CORE, Started, free_port, say, tail};
use crate::publish::Publisher;
use crate::report::{Goal, Section, millis, percent};
use crate::secure_crowd::{Channels, SecureCrowd, Way};
use crate::servers::{Places, Rig};

/// The market's readers are fewer here: those who decrypt share a core with all but the server.
const READERS: usize = 100;
const TOPICS_PER_READER: usize = 20;
/// [`MARKET`], but ten neighbouring topics have their events at the same time, as when a market moves: half quotes, half
/// trades, all of them topics of the same readers.
const BURSTS: Feed = Feed { burst: 5, ..MARKET };
/// Idle readers.
const IDLE: usize = 1_000;
const SERVE_WITHIN: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Copy)]
struct Subject {
    way: Way,
    /// Caddy stands before our edge.
    caddy: bool,
    feed: Feed,
}

impl Subject {
    /// Our edge and the market.
    fn of(way: Way) -> Self {
        Self { way, caddy: false, feed: MARKET }
    }

    fn name(self) -> String {
        let bursts = if self.feed.burst > 1 { ", bursts of ten" } else { "" };
        let by = if self.caddy { "by Caddy" } else { "ticker edge" };
        format!("{}{bursts}, {by}", self.way.name())
    }
}

/// CPU for an event over each way, and what an idle reader costs.
pub(crate) fn secure(plan: Plan, at: &Places) -> Result<Section, String> {
    let title =
        "TLS and QUIC: the market's 200 topics and 5,000 events/s, 100 readers of 20 topics each; 1,000 idle ones";
    let mut section = Section::new("secure", title);
    if !plan.idle_only {
        encrypted_market(plan, at, &mut section)?;
    }
    for (way, measured) in idle_readers(&[Way::Tls, Way::Http3, Way::WebTransport, Way::Session], at, &mut section)? {
        let what = format!("{}: memory an idle reader", way.name());
        section.goal(&Goal { what, measured, limit: 24.0, unit: "KiB", of: String::new() });
    }
    Ok(section)
}

/// What an event costs over TLS and over QUIC.
fn encrypted_market(plan: Plan, at: &Places, section: &mut Section) -> Result<(), String> {
    let ways = [Way::Tls, Way::Http3, Way::WebTransport, Way::Datagrams];
    let mut subjects = ways.map(Subject::of).to_vec();
    if plan.peers {
        subjects.push(Subject { caddy: true, ..Subject::of(Way::Http3) });
    }
    let flows = flows(&subjects, plan, at, section)?;
    section.line(
        "Asked for: 50,000 events/s. Datagrams carry the quotes, the newest of each; trades go on the stream. Caddy (Debian) \
         stands between HTTP/3 and an edge's plain SSE: its own CPU alone.",
    );
    let cpu = |at: usize| median(&flows[at], |f| f.cpu_per_event);
    let mut goal = |what: &str, measured, factor: f64| {
        let (limit, of) = (cpu(0) * factor, format!("{factor} × SSE over TCP with TLS"));
        section.goal(&Goal { what: what.into(), measured, limit, unit: "µs", of });
    };
    goal("SSE over HTTP/3: CPU an event", cpu(1), 1.5);
    goal("WebTransport datagrams: CPU an event", cpu(3), 1.2);
    Ok(())
}

/// The same over WebRTC, beside TLS.
pub(crate) fn rtc(plan: Plan, at: &Places) -> Result<Section, String> {
    let title = "WebRTC: the market's 200 topics and 5,000 events/s, 100 readers of 20 topics each; 1,000 idle peers";
    let mut section = Section::new("rtc", title);
    if !plan.idle_only {
        peers_market(plan, at, &mut section)?;
    }
    for (_, measured) in idle_readers(&[Way::Tls, over_rtc(false, false)], at, &mut section)? {
        let what = "idle over WebRTC: memory a peer".to_owned();
        section.goal(&Goal { what, measured, limit: 120.0, unit: "KiB", of: String::new() });
    }
    Ok(section)
}

fn over_rtc(live: bool, protobuf: bool) -> Way {
    Way::Rtc(Channels { live, protobuf })
}

/// What an event costs over WebRTC.
fn peers_market(plan: Plan, at: &Places, section: &mut Section) -> Result<(), String> {
    let [json, protobuf] = [false, true].map(|protobuf| [false, true].map(|live| over_rtc(live, protobuf)));
    let mut subjects = [Way::Tls, json[0], json[1], protobuf[0], protobuf[1]].map(Subject::of).to_vec();
    subjects.extend([Way::Tls, protobuf[0], protobuf[1]].map(|way| Subject { feed: BURSTS, ..Subject::of(way) }));
    let flows = flows(&subjects, plan, at, section)?;
    section.line(
        "Asked for: 50,000 events/s. Readers are the edge's own state machines (str0m) at the other end, an answer to each \
         packet where SCTP asks for one. `ticker-live` carries the quotes, the newest of each; trades go on the session's channel. \
         The goal is for events of 100 bytes, which is what they have as Protobuf (`?format=proto`), several of them in a packet. \
         In a burst ten of a reader's topics have an event at the same time.",
    );
    for (subject, flows) in subjects.iter().zip(&flows).skip(3).filter(|(subject, _)| subject.way != Way::Tls) {
        let (what, measured) = (format!("{}: CPU an event", subject.name()), median(flows, |f| f.cpu_per_event));
        section.goal(&Goal { what, measured, limit: 5.0, unit: "µs", of: String::new() });
    }
    Ok(())
}

/// Measures readers of each way, by our edge or by Caddy, and tells of it.
fn flows(subjects: &[Subject], plan: Plan, at: &Places, section: &mut Section) -> Result<Vec<Vec<Measure>>, String> {
    let mut flows: Vec<Vec<Measure>> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.runs {
        for (subject, flows) in subjects.iter().zip(&mut flows) {
            let flow = flow(*subject, plan, at).map_err(|e| format!("{}: {e}", subject.name()))?;
            say(&format!(
                "  {:<60} {:6.2} µs an event, {:7.0}/s, p50 {:.2} ms, p99 {:.2} ms, server {:.0} %, others {:.0} %",
                subject.name(),
                flow.cpu_per_event,
                flow.events_per_second,
                flow.pub_p50 / 1e3,
                flow.pub_p99 / 1e3,
                flow.server_cpu * 100.0,
                flow.foreign_cpu * 100.0
            ));
            flows.push(flow);
        }
    }
    let rows: Vec<Vec<String>> = subjects
        .iter()
        .zip(&flows)
        .map(|(subject, flows)| {
            vec![
                subject.name(),
                format!("**{:.2}**", median(flows, |f| f.cpu_per_event)),
                format!("{:.0}", median(flows, |f| f.events_per_second)),
                millis(median(flows, |f| f.pub_p50)),
                millis(median(flows, |f| f.pub_p99)),
                format!("{:.0}", median(flows, |f| f.bytes_per_event)),
                percent(median(flows, |f| f.server_cpu)),
                percent(median(flows, |f| f.foreign_cpu)),
            ]
        })
        .collect();
    let header = [
        "way",
        "CPU µs an event",
        "events/s delivered",
        "p50 ms from pub",
        "p99 ms",
        "bytes an event",
        "server CPU",
        "others' CPU",
    ];
    section.table(&header, &rows);
    Ok(flows)
}

/// An edge for readers of that way, and where they go.
fn rig(way: Way, feed: Feed, at: &Places) -> Result<(Rig, SocketAddr), String> {
    match way {
        Way::Rtc(_) => Rig::with_rtc(feed, at).map(|rig| {
            let addr = rig.readers_at;
            (rig, addr)
        }),
        _ => Rig::with_tls(feed, at),
    }
}

fn flow(Subject { way, caddy, feed }: Subject, plan: Plan, at: &Places) -> Result<Measure, String> {
    wait_for_calm();
    let (mut rig, mut secure) = self::rig(way, feed, at)?;
    let proxy = if caddy { Some(self::caddy(rig.readers_at, at)?) } else { None };
    if let Some((_, addr)) = &proxy {
        secure = *addr;
    }
    let topics = |reader: usize| -> Vec<String> {
        let first = reader * TOPICS_PER_READER % feed.topics();
        (first..first + TOPICS_PER_READER).map(|n| feed.topic(n % feed.topics())).collect()
    };
    let crowd = SecureCrowd::start(secure, way, (0..READERS).map(topics).collect())?;
    crowd.wait_served(READERS, SERVE_WITHIN)?;
    let publisher = rig.target().map(|t| Publisher::start(feed, t)).transpose()?;
    std::thread::sleep(plan.times.warm_up);
    let measured = proxy.as_ref().map_or(&rig.measured, |(proxy, _)| proxy);
    let (foreign, before) = (Foreign::begin(&rig), measured.usage());
    crowd.reset();
    std::thread::sleep(plan.times.measure);
    let micros = (measured.usage().cpu_micros - before.cpu_micros) as f64;
    let flow = crowd.with(|seen| {
        let (events, elapsed) = (seen.events.max(1) as f64, seen.since.elapsed());
        Measure {
            cpu_per_event: micros / events,
            events_per_second: events / elapsed.as_secs_f64(),
            pub_p50: seen.latency.quantile(0.5) as f64,
            pub_p99: seen.latency.quantile(0.99) as f64,
            bytes_per_event: seen.bytes as f64 / events,
            server_cpu: micros / elapsed.as_micros() as f64,
            // Caddy's own work is no other's.
            foreign_cpu: foreign.end(&rig) - if caddy { micros / elapsed.as_micros() as f64 } else { 0.0 },
            ..Measure::default()
        }
    });
    if let Some(why) = crowd.with(|seen| seen.why.clone().filter(|_| seen.ended > 0)) {
        return Err(format!("a reader ended: {why}"));
    }
    publisher.map(Publisher::stop).transpose()?;
    Ok(flow)
}

/// What one costs, in KiB, over each way but TLS.
fn idle_readers(ways: &[Way], at: &Places, section: &mut Section) -> Result<Vec<(Way, f64)>, String> {
    let feed = Feed::quotes(1, 0.0);
    let (mut rows, mut costs) = (Vec::new(), Vec::new());
    for way in ways {
        wait_for_calm();
        let (mut rig, secure) = self::rig(*way, feed, at)?;
        let _target = rig.target();
        let before = rig.measured.usage();
        let crowd = SecureCrowd::start(secure, *way, vec![vec![feed.topic(0)]; IDLE])?;
        crowd.wait_served(IDLE, SERVE_WITHIN).map_err(|e| format!("idle {}: {e}", way.name()))?;
        // What connecting has left behind may settle.
        std::thread::sleep(Duration::from_secs(5));
        let (joined, since) = (rig.measured.usage(), Instant::now());
        std::thread::sleep(Duration::from_secs(20));
        let after = rig.measured.usage();
        let kib = after.resident_kib.saturating_sub(before.resident_kib) as f64 / IDLE as f64;
        let cpu = (after.cpu_micros - joined.cpu_micros) as f64 / IDLE as f64 / since.elapsed().as_secs_f64();
        say(&format!("  idle, {}: {kib:.1} KiB and {cpu:.1} µs/s a reader", way.name()));
        rows.push(vec![way.name().to_owned(), format!("**{kib:.1}**"), format!("{cpu:.1}")]);
        if *way != Way::Tls {
            costs.push((*way, kib));
        }
    }
    section.table(&["idle reader, a connection each", "resident KiB", "CPU µs/s"], &rows);
    Ok(costs)
}

/// Debian's Caddy, which answers HTTP/3 and asks that address.
fn caddy(behind: SocketAddr, at: &Places) -> Result<(Started, SocketAddr), String> {
    let addr = free_port()?;
    let storage = at.scratch.join("caddy");
    let config = format!(
        "{{\n admin off\n skip_install_trust\n auto_https disable_redirects\n storage file_system {}\n}}\n\
         https://localhost:{} {{\n bind 127.0.0.1\n tls internal\n reverse_proxy http://{behind} {{\n  flush_interval -1\n }}\n}}\n",
        storage.display(),
        addr.port()
    );
    let path = at.scratch.join("Caddyfile");
    std::fs::write(&path, config).map_err(|e| e.to_string())?;
    let log = at.scratch.join("caddy.log");
    let args = ["run", "--adapter", "caddyfile", "--config", &path.to_string_lossy()].map(str::to_owned);
    let mut caddy = Started::new("caddy", &args, SERVER_CORE, &log)?;
    caddy.wait_listening(addr).map_err(|e| format!("{e}: {}", tail(&log)))?;
    Ok((caddy, addr))
}
