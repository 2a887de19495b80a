//! Tests of the parent module: files of every kind, through their real decoders.

use std::path::Path;

use ticker_proto::v1;
use ticker_proto::v1::event::Data;

use super::tests::World;
use super::*;
use crate::config::ReplayConfig;

const DBN: &[u8] = include_bytes!("../../../../feeds/fixtures/databento/mbo.dbn");

const MAPPING: &str = r#"kind = "trade"
venue = "lab"
symbol = "X-Y"
time = { column = "ts", unit = "ms" }
price = "px"
size = "qty"
id = "no"
"#;

/// A file of ITCH messages: a listed stock, and trades so many milliseconds after midnight, with their match numbers.
fn itch(trades: &[(u64, u64)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut add = |kind: u8, locate: u16, ms: u64, body: &[u8]| {
        let length = u16::try_from(11 + body.len()).expect("short");
        file.extend(length.to_be_bytes());
        file.push(kind);
        file.extend(locate.to_be_bytes());
        file.extend([0, 0]);
        file.extend(&(ms * 1_000_000).to_be_bytes()[2..]);
        file.extend(body);
    };
    add(b'S', 0, 0, b"O");
    add(b'R', 1, 0, b"AAPL    QN\0\0\0\x64NCZ PNN1N\0\0\0\0N");
    for (ms, number) in trades {
        let mut body = b"\0\0\0\0\0\0\0\0B\0\0\0\x64AAPL    \0\x0f\x42\x40".to_vec();
        body.extend(number.to_be_bytes());
        add(b'P', 1, *ms, &body);
    }
    file
}

fn table(trades: &[(i64, u32)]) -> String {
    let rows = trades.iter().map(|(ms, id)| format!("{ms},1.5,2,{id}\n"));
    "ts,px,qty,no\n".to_owned() + &rows.collect::<String>()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), bytes).expect("room");
}

fn config(folder: &Path, name: &str) -> ReplayConfig {
    ReplayConfig { paths: vec![folder.join(name)], ..ReplayConfig::default() }
}

fn world(config: &ReplayConfig, (speed, repeat, shift): (Speed, bool, bool)) -> World {
    let (groups, archives) = archives::find(config).expect("files that can be played");
    World::of(groups, archives, How { speed, repeat, shift, ..How::default() })
}

fn refused(config: &ReplayConfig) -> String {
    archives::find(config).expect_err("refused").to_string()
}

#[test]
fn a_dbz_file_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "old.dbz", b"\x50\x2a\x4d\x18\x90\0\0\0DBZ\x01GLBX.MDP3");
    assert!(refused(&config(folder.path(), "old.dbz")).contains("turn it into DBN"));
}

#[tokio::test]
async fn a_part_of_an_archive_is_played_with_the_state_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "x.csv", table(&[(1_000, 1), (2_000, 2), (3_000, 3), (4_000, 4)]));
    write(folder.path(), "x.csv.toml", MAPPING);
    let (groups, archives) = archives::find(&config(folder.path(), "x.csv")).expect("a table");
    let range = Range { from: Some(Time::from_millis(1_500)), to: Some(Time::from_millis(3_000)) };
    let mut world = World::of(groups, archives, How { speed: Speed::Max, range, ..How::default() });
    let ids = [world.next().await.0, world.next().await.0, world.next().await.0];
    assert_eq!(ids, ["2", "3", ENDED]);
}

const AS_FAST: (Speed, bool, bool) = (Speed::Max, false, false);

#[tokio::test]
async fn itch_is_played_by_the_day_of_its_name_or_the_configured_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let packed = zstd::encode_all(&itch(&[(34_200_000, 7), (34_200_001, 8)])[..], 1).expect("packs");
    write(folder.path(), "01302020.NASDAQ_ITCH50.zst", &packed);
    write(folder.path(), "unnamed.itch", itch(&[(1, 1)]));
    let mut world = world(&config(folder.path(), "01302020.NASDAQ_ITCH50.zst"), AS_FAST);
    let open = Time::parse_rfc3339("2020-01-30T14:30:00Z").expect("a time").0;
    assert_eq!(world.next().await, ("7".to_owned(), open, open));
    assert_eq!(world.next().await, ("8".to_owned(), open + 1_000_000, open + 1_000_000));
    assert_eq!(world.next().await.0, ENDED);
    world.retell();
    assert_eq!(world.next().await.0, ENDED, "it goes on telling that it is closed");
    world.end().await;

    let mut unnamed = config(folder.path(), "unnamed.itch");
    assert!(refused(&unnamed).contains("replay.day"), "{}", refused(&unnamed));
    unnamed.day = Some("2019-13-30".to_owned());
    assert!(refused(&unnamed).contains("2019-13-30"));
    unnamed.day = Some("2019-12-30".to_owned());
    let (_, found) = archives::find(&unnamed).expect("its day is known");
    assert_eq!(found[0].venue, "nasdaq");
}

#[tokio::test]
async fn dbn_is_played_with_its_books() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.dbn", DBN);
    let mut world = world(&config(folder.path(), ""), (Speed::Max, true, true));
    let (mut books, mut closed) = (0, 0);
    while closed < 2 {
        let event = world.event().await.event.expect("set");
        assert!((now().0 - event.recv).abs() < 10_000_000_000, "it happens now");
        match event.data {
            Some(Data::Book(_)) => books += 1,
            Some(Data::Status(status)) if status.state() == v1::State::Closed => {
                assert_eq!(status.reason, REPEATED);
                closed += 1;
            }
            _ => {}
        }
    }
    assert!(books >= 4, "{books} books");
    world.end().await;
}

#[tokio::test]
async fn tables_are_merged_with_recordings_and_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.csv", table(&[(0, 1), (20, 3), (50, 6)]));
    write(folder.path(), "a.csv.toml", MAPPING);
    write(folder.path(), "b.txt", table(&[(10, 2), (30, 4)]));
    write(folder.path(), "b.toml", MAPPING.replace("\"X-Y\"", "\"V-W\""));
    let frame = r#"{\"channel\":\"trade\",\"type\":\"update\",\"data\":[{\"symbol\":\"BTC/USD\",\"side\":\"buy\",\"price\":1.5,\"qty\":2.0,\"ord_type\":\"market\",\"trade_id\":5,\"timestamp\":\"2026-08-01T00:00:00.000000Z\"}]}"#;
    let recording = format!(
        "{{\"t\":\"header\",\"format\":\"mdrec/1\",\"venue\":\"kraken-v2\"}}\n{{\"t\":\"recv\",\"ts\":40000000,\"conn\":\"a\",\"data\":\"{frame}\"}}\n"
    );
    write(folder.path(), "c.jsonl", recording);
    let mut config = config(folder.path(), "b.txt");
    assert!(refused(&config).contains("mdrec/1"), "without a mapping: {}", refused(&config));
    config.mapping = Some(folder.path().join("b.toml"));
    config.paths.extend([folder.path().join("a.csv"), folder.path().join("c.jsonl")]);
    let mut world = world(&config, AS_FAST);
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let (id, ..) = world.next().await;
        if id != ENDED {
            seen.push(id);
        }
    }
    assert_eq!(seen, ["1", "2", "3", "4", "5", "6"]);
    world.end().await;
    std::fs::write(config.mapping.as_ref().expect("set"), "kind = \"bond\"").expect("room");
    assert!(refused(&config).contains("b.toml"), "{}", refused(&config));
}

#[tokio::test]
async fn a_damaged_archive_ends_where_the_damage_is_and_the_next_is_played() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cut = itch(&[(1, 1), (2, 2)]);
    cut.truncate(cut.len() - 5);
    write(folder.path(), "01292020.NASDAQ_ITCH50", &cut);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &itch(&[(1, 3)])).expect("packs");
    write(folder.path(), "01302020.NASDAQ_ITCH50.gz", gzip.finish().expect("packs"));
    let mut world = world(&config(folder.path(), ""), AS_FAST);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(world.next().await.0);
    }
    assert_eq!(seen, ["1", "recording_ended", "3", ENDED]);
    world.end().await;
}
