//! Recordings as files: written through kills, played as a venue, into a fanout, and merged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{PATIENCE, Running, free_port, get, recording, recording_of, run, tail, ticker, wait_ready};

/// A stand-in that plays a recording as its venue, and where it listens.
fn stands_in(path: &str, arguments: &[&str]) -> (Running, u16) {
    let venue = ["venue", path, "--listen", "127.0.0.1:0"];
    let mut running = Running::start(&[&venue[..], arguments].concat());
    let mut said = String::new();
    let out = running.child.stdout.as_mut().expect("piped");
    BufReader::new(out).read_line(&mut said).expect("text");
    let port = said.trim().rsplit(':').next().and_then(|port| port.parse().ok());
    (running, port.unwrap_or_else(|| panic!("no port in `{said}`")))
}

/// Waits until the stand-ins have played all, and their readers have read it.
fn wait_read(ports: &[u16]) {
    let is_read = |port: &u16| get(*port, "/stand-in").is_some_and(|shown| shown.contains("\"read\":true"));
    wait_for("reader at the end of the recording", || ports.iter().all(is_read).then_some(()));
}

/// Waits until `what` gives something.
fn wait_for<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {name} after {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// The whole lines that the one file in a folder holds, as far as it can be read.
fn recorded(folder: &Path) -> (PathBuf, String) {
    let files = || std::fs::read_dir(folder).ok()?.next()?.ok().map(|entry| entry.path());
    let Some(path) = files() else { return Default::default() };
    let mut text = Vec::new();
    if let Ok(mut decoder) = std::fs::File::open(&path).and_then(zstd::Decoder::new) {
        // The end may be missing: it is being written.
        let _ = decoder.read_to_end(&mut text);
    }
    (path, String::from_utf8_lossy(&text).into_owned())
}

/// The states of the book in the events of [`tail`], each once: when and what, without the times of our own clock.
fn book_states(events: &[String]) -> Vec<String> {
    let mut states: Vec<String> = Vec::new();
    for event in events.iter().filter(|e| e.starts_with("\"book/")) {
        let parts: Vec<&str> = event.split(' ').collect();
        if parts[1] != "\"invalid\"" {
            states.push([&parts[..3], &parts[4..]].concat().join(" "));
        }
    }
    states
}

fn replayed(path: &str) -> Vec<String> {
    let [http, grpc, admin] = std::array::from_fn(|_| free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let up = ["up", "--listen", &at(http), "--grpc", &at(grpc), "--admin", &at(admin)];
    let _running = Running::start(&[&up[..], &["--replay", path, "--speed", "max"]].concat());
    wait_ready(admin);
    tail(&["--over", "ws", "--url", &format!("http://{}", at(http))])
}

#[test]
fn what_is_recorded_through_a_kill_replays_as_the_original() {
    let Some(path) = recording() else {
        eprintln!("missing recording: kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst; tests/flow counts it as ignored");
        return;
    };
    let path = path.to_str().expect("a path in UTF-8");
    let original = book_states(&replayed(path));
    let (_venue, port) = stands_in(path, &["--speed", "10"]);
    let folder = std::env::temp_dir().join(format!("ticker-record-{}", std::process::id()));
    let out = folder.to_str().expect("UTF-8");
    let (server, admin) = (format!("kraken={}:{port}", "127.0.0.1"), format!("127.0.0.1:{}", free_port()));
    let record = ["record", "--venues", "kraken", "--symbols", "BTC-USD", "--venue-at", &server, "--out", out];
    let record = [&record[..], &["--flush-ms", "10", "--admin", &admin]].concat();

    let mut recorder = Running::start(&record);
    let updates = |text: &str| text.matches("\\\"type\\\":\\\"update\\\",\\\"data\\\":[{\\\"symbol").count();
    wait_for("fifty frames", || (updates(&recorded(&folder).1) > 50).then_some(()));
    recorder.child.kill().expect("it runs");
    recorder.child.wait().expect("it ends");
    let (file, flushed) = recorded(&folder);
    let flushed = updates(&flushed);
    // The kill came within a write.
    let mut cut = std::fs::OpenOptions::new().append(true).open(file).expect("there");
    std::io::Write::write_all(&mut cut, &[0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x90]).expect("written");
    drop(cut);

    let recorder = Running::start(&record);
    wait_read(&[port]);
    assert_eq!(recorder.interrupt().0, Some(0));

    let states = book_states(&replayed(out));
    let begun = states.iter().zip(&original).take_while(|(a, b)| a == b).count();
    assert!(begun >= flushed, "{begun} states are the original's, {flushed} were flushed");
    // Then comes the snapshot of the second connection, and the rest as it was. What is missing in between was not
    // flushed: how much that is depends on the disk.
    let rest = &states[begun + 1..];
    assert!(!rest.is_empty() && original.ends_with(rest), "{} of {} states", rest.len(), original.len());
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_hole_in_a_live_feed_is_counted_and_mended() {
    let Some(path) = recording() else {
        eprintln!("missing recording: kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst; tests/flow counts it as ignored");
        return;
    };
    let (_venue, port) = stands_in(path.to_str().expect("UTF-8"), &["--speed", "max", "--fault", "drop:150"]);
    let [http, grpc, admin] = std::array::from_fn(|_| free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let server = format!("kraken={}", at(port));
    let up = ["up", "--listen", &at(http), "--grpc", &at(grpc), "--admin", &at(admin)];
    let live = ["--venues", "kraken", "--symbols", "BTC-USD", "--venue-at", &server];
    let _up = Running::start(&[&up[..], &live].concat());
    wait_for("fault in the metrics", || {
        let metrics = get(admin, "/metrics")?;
        let count = metrics.lines().find(|l| l.starts_with("ticker_ingest_faults_total") && l.contains("checksum"))?;
        count.ends_with(" 1").then_some(())
    });
    wait_for("live status after it", || {
        let snapshot = get(http, "/v1/snapshot?topics=status/kraken/BTC-USD,book/kraken/BTC-USD")?;
        (snapshot.contains("\"state\":\"live\"") && snapshot.contains("\"bids\":[[")).then_some(())
    });
    let shown = get(port, "/stand-in").expect("it runs");
    assert!(shown.contains("\"drop\":1"), "{shown}");
}

#[test]
fn a_replay_into_a_fanout_ends_when_all_is_on_its_tape() {
    let Some(path) = recording() else {
        eprintln!("missing recording: kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst; tests/flow counts it as ignored");
        return;
    };
    let path = path.to_str().expect("a path in UTF-8");
    let [grpc, admin, replay_admin] = std::array::from_fn(|_| free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let fanout_url = format!("http://{}", at(grpc));
    let _fanout = Running::start(&["fanout", "--listen", &at(grpc), "--admin", &at(admin)]);
    wait_ready(admin);
    let replay = ["replay", path, "--speed", "max", "--fanout", &fanout_url, "--admin", &at(replay_admin)];
    // From a moment in the middle: the state then, and the rest.
    let whole = run(&replay);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let all = tail(&["--over", "grpc", "--grpc", &fanout_url]);
    let [grpc, admin] = std::array::from_fn(|_| free_port());
    let fanout_url = format!("http://{}", at(grpc));
    let _fanout = Running::start(&["fanout", "--listen", &at(grpc), "--admin", &at(admin)]);
    wait_ready(admin);
    let replay = ["replay", path, "--speed", "max", "--fanout", &fanout_url, "--admin", &at(replay_admin)];
    let part = run(&[&replay[..], &["--from", "2026-08-01T02:54:10Z"]].concat());
    assert!(part.status.success(), "{}", String::from_utf8_lossy(&part.stderr));
    let part = tail(&["--over", "grpc", "--grpc", &fanout_url]);
    let (all, part) = (book_states(&all), book_states(&part));
    assert!(part[0].contains("snapshot") && part.len() > 20 && part.len() < all.len(), "{}", part.len());
    assert!(all.ends_with(&part[1..]), "{} of {}", part.len(), all.len());
}

/// What a recording is compared by, topic by topic: the ids of its trades, the sums of its books without repeats.
#[derive(Default)]
struct Told {
    ids: BTreeMap<String, Vec<String>>,
    sums: BTreeMap<String, Vec<u64>>,
    /// Venue, time of receipt and kind of each, in the order of the tape.
    order: Vec<(String, i64, String)>,
}

/// Every trade and book of an edge that replays, until so many instruments have ended.
fn told(url: &str, instruments: usize) -> Told {
    let topics = ["trade/*/*", "book/*/*", "status/*/*"];
    let mut child = ticker()
        .args(["tail", "--json", "--from", "earliest", "--no-conflate", "--url", url])
        .args(topics)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (mut told, mut ended) = (Told::default(), BTreeSet::new());
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("a line is JSON");
        let Some(topic) = event["topic"].as_str() else { continue };
        let mut parts = topic.splitn(3, '/');
        let (channel, venue) = (parts.next().expect("a channel"), parts.next().expect("a venue"));
        if event["reason"] == "replay_ended" && channel == "status" {
            ended.insert(topic.to_owned());
            if ended.len() == instruments {
                break;
            }
        }
        if let Some(id) = event["trade_id"].as_str() {
            told.ids.entry(topic.to_owned()).or_default().push(id.to_owned());
        }
        if let Some(sum) = event["sum"].as_u64() {
            let sums = told.sums.entry(topic.to_owned()).or_default();
            if sums.last() != Some(&sum) {
                sums.push(sum);
            }
        }
        if channel != "status" {
            let kind = event["kind"].as_str().unwrap_or_default().to_owned();
            told.order.push((venue.to_owned(), event["recv"].as_i64().expect("a time"), kind));
        }
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    told
}

/// What a replay of these paths tells.
fn replay_of(paths: &[&str], instruments: usize) -> Told {
    let [http, grpc, admin] = std::array::from_fn(|_| free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let up = ["up", "--listen", &at(http), "--grpc", &at(grpc), "--admin", &at(admin), "--speed", "max", "--replay"];
    let _running = Running::start(&[&up[..], paths].concat());
    wait_ready(admin);
    told(&format!("http://{}", at(http)), instruments)
}

/// The whole lines of every file in a folder, by its name.
fn lines_of(folder: &Path) -> BTreeMap<PathBuf, Vec<String>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let mut text = Vec::new();
        if let Ok(mut decoder) = std::fs::File::open(&path).and_then(zstd::Decoder::new) {
            // The end may be missing: it is being written.
            let _ = decoder.read_to_end(&mut text);
        }
        let whole = text.iter().rposition(|c| *c == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&text[..whole]).into_owned();
        all.insert(path, text.lines().map(str::to_owned).collect());
    }
    all
}

/// How many frames each connection of each venue has received in these files, by `venue connection`.
fn received(files: &BTreeMap<PathBuf, Vec<String>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (path, lines) in files {
        let name = path.file_name().expect("a file").to_string_lossy();
        let venue = name.rsplit_once('-').expect("a venue and a time").0.to_owned();
        for line in lines.iter().filter(|line| line.starts_with("{\"t\":\"recv\"")) {
            let line: Value = serde_json::from_str(line).expect("a line is JSON");
            *counts.entry(format!("{venue} {}", line["conn"].as_str().expect("a name"))).or_default() += 1;
        }
    }
    counts
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ticker-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is the system's to clear away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const COINBASE: &str = "coinbase-advanced/2026-08-09_BTC-ETH_l2_ticker_trades_candles_heartbeats.jsonl.zst";
const BINANCE: &str = "binance-spot/2021-04-05_10sym_depth_bookTicker_aggTrade.jsonl.zst";

#[test]
fn a_replay_names_the_books_that_never_had_a_snapshot() {
    let header = r#"{"t":"header","format":"mdrec/1","venue":"binance-spot"}"#.to_owned();
    let url = "wss://stream.binance.com:9443/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms/ltcusdt@trade";
    let mut lines = vec![header, format!(r#"{{"t":"connect","ts":1767607200000000000,"conn":"ws","url":"{url}"}}"#)];
    let mut data = |kind: &str, text: &str| {
        let ts = 1_767_607_200_000_000_000 + lines.len() as i64 * 1_000_000;
        let data = serde_json::to_string(text).expect("text");
        lines.push(format!(r#"{{"t":{kind},"ts":{ts},"data":{data}}}"#));
    };
    let frame = r#""recv","conn":"ws""#;
    for native in ["BTCUSDT", "ETHUSDT"] {
        let update =
            r#"{"e":"depthUpdate","E":1767607200103,"s":"BTCUSDT","U":8,"u":9,"b":[["50000.00","1.5"]],"a":[]}"#;
        let stream = format!(r#"{{"stream":"btcusdt@depth@100ms","data":{update}}}"#);
        data(frame, &stream.replace("BTCUSDT", native).replace("btcusdt", &native.to_ascii_lowercase()));
    }
    let answer = r#""http","conn":"rest","url":"https://api.binance.com/api/v3/depth?symbol=ETHUSDT&limit=5000""#;
    data(answer, r#"{"lastUpdateId":8,"bids":[["49999.00","2.0"]],"asks":[["50001.00","1.0"]]}"#);
    let trade =
        r#"{"e":"trade","E":1767607200211,"T":1767607200210,"s":"LTCUSDT","t":71,"p":"90.1","q":"0.2","m":false}"#;
    data(frame, &format!(r#"{{"stream":"ltcusdt@trade","data":{trade}}}"#));
    let path = std::env::temp_dir().join(format!("ticker-never-whole-{}.jsonl", std::process::id()));
    std::fs::write(&path, lines.join("\n")).expect("room");

    let [grpc, admin] = std::array::from_fn(|_| free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let _fanout = Running::start(&["fanout", "--listen", &at(grpc), "--admin", &at(admin)]);
    wait_ready(admin);
    let (file, fanout_url) = (path.to_str().expect("UTF-8"), format!("http://{}", at(grpc)));
    let replay = ["replay", file, "--fanout", &fanout_url, "--speed", "max", "--log-format", "json"];
    let done = run(&[&replay[..], &["--admin", &at(free_port())]].concat());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    let logged = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let warned: Vec<Value> = logged.filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warned.len(), 1, "{said}");
    let is_said = |what: &str| warned[0].to_string().contains(what);
    assert!(is_said("never had a snapshot") && is_said("\"BTC-USDT\""), "{said}");
    std::fs::remove_file(&path).expect("removed");
}

/// Two venues over two connections each, killed in the midst: what was flushed is there once, and all files together replay
/// as what was played.
#[test]
fn several_connections_recorded_through_a_kill_replay_merged() {
    let (Some(coinbase), Some(binance)) = (recording_of(COINBASE), recording_of(BINANCE)) else {
        eprintln!("missing recording: {COINBASE} or {BINANCE}; tests/flow counts it as ignored");
        return;
    };
    let paths = [coinbase, binance].map(|path| path.to_str().expect("a path in UTF-8").to_owned());
    let original = replay_of(&[&paths[0], &paths[1]], 12);
    let (_coinbase, coinbase) = stands_in(&paths[0], &["--speed", "1"]);
    let (_binance, binance) = stands_in(&paths[1], &["--speed", "8"]);
    let folder = Folder::new("shards");
    let (out, config) = (folder.0.join("recorded"), folder.0.join("record.toml"));
    let symbols: Vec<String> = original
        .sums
        .keys()
        .filter_map(|topic| topic.strip_prefix("book/binance/"))
        .map(|s| format!("{s:?}"))
        .collect();
    assert_eq!(symbols.len(), 10);
    let text = format!(
        "[ingest.venue.coinbase]\nsymbols = [\"BTC-USD\", \"ETH-USD\"]\nconnection.symbols_max = 1\n\
         [ingest.venue.binance]\nsymbols = [{}]\nconnection.symbols_max = 5\n",
        symbols.join(",")
    );
    std::fs::write(&config, text).expect("written");
    let servers = [format!("coinbase=127.0.0.1:{coinbase}"), format!("binance=127.0.0.1:{binance}")];
    let admin = format!("127.0.0.1:{}", free_port());
    let (out, config) = (out.to_str().expect("UTF-8"), config.to_str().expect("UTF-8"));
    let record = ["record", "--config", config, "--venues", "coinbase,binance", "--out", out, "--admin", &admin];
    let more = ["--venue-at", &servers[0], "--venue-at", &servers[1], "--flush-ms", "10", "--rotate-mib", "1"];
    let record = [&record[..], &more].concat();

    let mut recorder = Running::start(&record);
    let connections = ["binance ws0", "binance ws2.0", "coinbase ws0", "coinbase ws2.0"];
    wait_for("frames on every connection", || {
        let counts = received(&lines_of(Path::new(out)));
        connections.iter().all(|name| counts.get(*name).is_some_and(|count| *count > 40)).then_some(())
    });
    recorder.child.kill().expect("it runs");
    recorder.child.wait().expect("it ends");
    let flushed = lines_of(Path::new(out));
    let recorder = Running::start(&record);
    wait_read(&[coinbase, binance]);
    assert_eq!(recorder.interrupt().0, Some(0));

    let files = lines_of(Path::new(out));
    for (path, lines) in &flushed {
        assert!(files[path].starts_with(lines), "{}: what was flushed is not there any more", path.display());
    }
    let killed = files.values().flatten().filter(|line| line.contains("recorder_ended"));
    assert_eq!(killed.count(), connections.len(), "each connection's end is told");
    let counts = received(&files);
    assert!(files.len() > 2 && connections.iter().all(|name| counts.contains_key(*name)), "{counts:?}");

    let told = replay_of(&[out], 12);
    assert_eq!(told.sums.len(), 12);
    for (topic, sums) in &told.sums {
        let mut rest = original.sums[topic].iter();
        let at = sums.iter().position(|sum| !rest.any(|original| original == sum));
        assert_eq!(at, None, "{topic}: a state that is not one of the recording, in its order");
        assert_eq!(sums.last(), original.sums[topic].last(), "{topic}");
    }
    for topic in ["trade/coinbase/BTC-USD", "trade/coinbase/ETH-USD"] {
        let (ids, original) = (&told.ids[topic], &original.ids[topic]);
        let places: Vec<usize> = ids.iter().filter_map(|id| original.iter().position(|o| o == id)).collect();
        assert_eq!(places.len(), ids.len(), "{topic}");
        let holes = places.windows(2).filter(|two| two[1] != two[0] + 1).count();
        assert!(
            places.is_sorted_by(|a, b| a < b) && holes <= 1,
            "{topic}: each once, and what was not flushed alone is missing"
        );
        assert_eq!(places.last(), Some(&(original.len() - 1)), "{topic}");
    }
    a_part_is_merged_by_time(out, &told);
}

/// A part of several files, from a moment to another one, at twice the speed: both venues, by time.
fn a_part_is_merged_by_time(folder: &str, whole: &Told) {
    let times: Vec<i64> = whole.order.iter().map(|(_, recv, _)| *recv).collect();
    let (first, last) = (times[0], times[times.len() - 1]);
    // Connections of one venue share a file: a line may have to wait for that of another, which is a little younger.
    assert!(times.windows(2).all(|two| two[1] + 100_000 >= two[0]), "both venues are one stream by time");
    let (from, to) = (first + (last - first) / 2, first + (last - first) / 2 + 3_000_000);
    let [grpc, admin, replay_admin, http, edge_admin] = std::array::from_fn(|_| free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let fanout_url = format!("http://{}", at(grpc));
    let _fanout = Running::start(&["fanout", "--listen", &at(grpc), "--admin", &at(admin)]);
    let _edge = Running::start(&["edge", "--listen", &at(http), "--fanout", &fanout_url, "--admin", &at(edge_admin)]);
    wait_ready(admin);
    wait_ready(edge_admin);
    let range = [format!("{from}000"), format!("{to}999")];
    let replay = ["replay", folder, "--fanout", &fanout_url, "--admin", &at(replay_admin), "--speed", "2"];
    let begun = Instant::now();
    let done = run(&[&replay[..], &["--from", &range[0], "--to", &range[1]]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(begun.elapsed() >= Duration::from_millis(1_300), "twice as fast, and not faster: {:?}", begun.elapsed());
    let part = told(&format!("http://{}", at(http)), 12);
    let within = |recv: i64| (from..=to).contains(&recv);
    let updates = |told: &Told| {
        let of = told.order.iter().filter(|(_, recv, kind)| kind == "update" && within(*recv));
        of.map(|(venue, recv, _)| (venue.clone(), *recv)).collect::<Vec<_>>()
    };
    let (got, wanted) = (updates(&part), updates(whole));
    let venues: BTreeSet<&String> = got.iter().map(|(venue, _)| venue).collect();
    assert!(venues.len() == 2 && got.len() > 50, "{} of {venues:?}", got.len());
    assert_eq!(got, wanted, "the part's updates are the whole's");
    assert!(part.order.iter().all(|(_, recv, kind)| kind != "update" || within(*recv)));
    for (topic, sums) in &part.sums {
        let mut rest = whole.sums[topic].iter();
        assert!(sums.iter().all(|sum| rest.any(|w| w == sum)), "{topic}");
    }
}
