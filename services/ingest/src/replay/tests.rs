//! Tests of the parent module: frames of Kraken's form, through its real decoder.

use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use ticker_proto::v1;
use ticker_proto::v1::event::Data;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::feed::{Bundle, Intake, Numbers};
use crate::progress::{Progress, SourceKind};

pub(super) struct World {
    bundles: mpsc::Receiver<Bundle>,
    retell: watch::Sender<u64>,
    drain: Drain,
    running: JoinHandle<Result<(), IngestError>>,
    pending: Vec<v1::NewEvent>,
}

impl World {
    fn new(folder: &Path, (speed, repeat, shift): (Speed, bool, bool)) -> Self {
        Self::playing(folder, How { speed, repeat, shift, ..How::default() })
    }

    fn playing(folder: &Path, how: How) -> Self {
        Self::of(files::find(&[folder.to_owned()]).expect("recordings"), Vec::new(), how)
    }

    pub(super) fn of(groups: Vec<Group>, archives: Vec<ArchiveGroup>, how: How) -> Self {
        let (queue, bundles) = mpsc::channel(4);
        let (retell, wanted) = watch::channel(0);
        let room_bytes = 1 << 20;
        let room = Arc::new(Semaphore::new(room_bytes));
        let intake = Intake { queue, room, room_bytes, numbers: Arc::new(Numbers::default()), retell: wanted };
        let progress = Progress::new();
        let feed = |venue: &String| {
            let source = progress.source(venue, SourceKind::Replay);
            (intake.feed(source.clone()), source)
        };
        let feeds = groups.iter().map(|g| feed(&g.venue)).collect();
        let archive_feeds = archives.iter().map(|g| feed(&g.venue)).collect();
        let drain = Drain::new();
        let replay = Replay::new(groups, how, feeds).expect("threads");
        let replay = replay.with_archives(archives, archive_feeds).expect("threads");
        let running = tokio::spawn(replay.run(drain.clone()));
        Self { bundles, retell, drain, running, pending: Vec::new() }
    }

    pub(super) fn retell(&self) {
        self.retell.send_replace(1);
    }

    pub(super) async fn event(&mut self) -> v1::NewEvent {
        while self.pending.is_empty() {
            let bundle = self.bundles.recv().await.expect("the replay runs");
            self.pending = v1::PublishRequest::decode(bundle.fields).expect("encoded").events;
        }
        self.pending.remove(0)
    }

    /// The next trade's id, `recv` and `ts`; or the reason of a status that closes.
    pub(super) async fn next(&mut self) -> (String, i64, i64) {
        loop {
            let event = self.event().await.event.expect("set");
            match event.data {
                Some(Data::Trade(trade)) => return (trade.trade_id, event.recv, event.ts),
                Some(Data::Status(status)) if status.state() == v1::State::Closed => {
                    return (status.reason, event.recv, event.ts);
                }
                _ => {}
            }
        }
    }

    pub(super) async fn end(self) {
        self.drain.start("test");
        // Whoever waits for room must not be waited for.
        drop(self.bundles);
        self.running.await.expect("does not panic").expect("ends well");
    }
}

/// 2026-08-01T00:00:00Z.
const START: i64 = 1_785_542_400_000_000_000;

fn recording(venue: &str, trades: &[(i64, u32)]) -> String {
    let mut text = format!("{{\"t\":\"header\",\"format\":\"mdrec/1\",\"venue\":\"{venue}\"}}\n");
    for (ms, id) in trades {
        let frame = match venue {
            "kraken-v2" => format!(
                r#"{{"channel":"trade","type":"update","data":[{{"symbol":"BTC/USD","side":"buy","price":1.5,"qty":2.0,"ord_type":"market","trade_id":{id},"timestamp":"2026-08-01T00:00:00.000000Z"}}]}}"#
            ),
            _ => format!(
                r#"{{"e":"trade","E":1785542400000,"s":"BTCUSDT","t":{id},"p":"1.5","q":"2","T":1785542400000,"m":true,"M":true}}"#
            ),
        };
        let ts = if *ms < 0 { 0 } else { START + ms * 1_000_000 };
        let data = format!("{frame:?}");
        text += &format!("{{\"t\":\"recv\",\"ts\":{ts},\"conn\":\"ws1\",\"data\":{data}}}\n");
    }
    text
}

/// Name, venue, and the trades' milliseconds and ids.
type Recorded<'a> = (&'a str, &'a str, &'a [(i64, u32)]);

fn folder(files: &[Recorded<'_>]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, venue, trades) in files {
        let text = recording(venue, trades);
        let bytes =
            if name.ends_with(".zst") { zstd::encode_all(text.as_bytes(), 1).expect("packs") } else { text.into() };
        std::fs::write(folder.path().join(name), bytes).expect("room");
    }
    folder
}

#[tokio::test]
async fn venues_are_merged_by_time_and_then_closed() {
    let folder = folder(&[
        ("a.jsonl", "kraken-v2", &[(0, 1), (20, 3)]),
        ("b.jsonl.zst", "binance-spot", &[(10, 2), (30, 4)]),
        ("c.jsonl", "kraken-v2", &[(40, 5)]),
    ]);
    let mut world = World::new(folder.path(), (Speed::Max, false, false));
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let (id, recv, ts) = world.next().await;
        assert!((START..=START + 40_000_000).contains(&recv), "as recorded: {recv}");
        if id.parse::<u32>().is_ok() {
            assert_eq!(ts, START);
        }
        seen.push(id);
    }
    assert_eq!(seen.iter().filter(|id| *id == ENDED).count(), 2);
    seen.retain(|id| id != ENDED);
    assert_eq!(seen, ["1", "2", "3", "4", "5"]);
    world.retell();
    assert_eq!(world.next().await.0, ENDED, "it goes on telling that it is closed");
    world.end().await;
}

#[tokio::test]
async fn the_recorded_pace_is_kept() {
    let folder = folder(&[("a.jsonl", "kraken-v2", &[(0, 1), (80, 2), (-1, 3)])]);
    let started = std::time::Instant::now();
    let mut world = World::new(folder.path(), (Speed::Times(2.0), false, true));
    let (_, first, ts) = world.next().await;
    assert_eq!(first, ts, "the venue's clock is shifted as ours is");
    assert!((now().0 - first).abs() < 10_000_000_000, "it happens now");
    let (id, second, _) = world.next().await;
    assert_eq!((id.as_str(), second - first), ("2", 40_000_000), "twice as fast");
    assert!(started.elapsed() >= Duration::from_millis(40));
    let (id, third, _) = world.next().await;
    assert_eq!(id, "3");
    assert!(third >= second - 1_000_000_000, "a line without a time is played now");
    world.end().await;
}

#[tokio::test]
async fn a_loop_begins_anew() {
    let folder = folder(&[("a.jsonl", "kraken-v2", &[(0, 1), (1, 2)])]);
    let mut world = World::new(folder.path(), (Speed::Max, true, false));
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(world.next().await.0);
    }
    assert_eq!(seen, ["1", "2", REPEATED, "1", "2", REPEATED]);
    world.end().await;
}

#[tokio::test]
async fn a_damaged_line_or_file_does_not_stop_the_rest() {
    let folder = folder(&[("a.jsonl.zst", "kraken-v2", &[(0, 1), (1, 2)]), ("b.jsonl", "kraken-v2", &[(2, 3)])]);
    let path = folder.path().join("a.jsonl.zst");
    let text = recording("kraken-v2", &[(0, 1)]) + "{\"t\":\n" + &recording("kraken-v2", &[(1, 2)]);
    let mut packed = zstd::encode_all(text.as_bytes(), 1).expect("packs");
    packed.extend_from_slice(b"no zstd");
    std::fs::write(path, packed).expect("room");
    let mut world = World::new(folder.path(), (Speed::Max, false, false));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(world.next().await.0);
    }
    assert_eq!(seen, ["1", "2", "3", ENDED]);
    world.end().await;
}

#[tokio::test]
async fn a_range_is_told_and_then_it_ends() {
    let folder = folder(&[("a.jsonl", "kraken-v2", &[(0, 1), (10, 2), (20, 3), (30, 4)])]);
    let at = |ms: i64| Some(Time(START + ms * 1_000_000));
    let play = |from, to| {
        let range = Range { from, to };
        World::playing(folder.path(), How { speed: Speed::Max, range, exit: true, ..How::default() })
    };
    let mut world = play(at(10), at(20));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|id| id != ENDED) {
        seen.push(world.next().await.0);
    }
    assert_eq!(seen, ["2", "3", ENDED]);
    world.running.await.expect("does not panic").expect("it ends by itself");
    let late = play(at(40), None);
    late.running.await.expect("does not panic").expect("there is nothing to tell");
}
