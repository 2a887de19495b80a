use dbn::encode::dbn::Encoder;
use dbn::encode::{DbnEncodable, EncodeRecord};
use dbn::{BidAskPair, FlagSet, MboMsg, Mbp10Msg, MetadataBuilder, SType, flags};
use ticker_market::{Data, decimal};

use super::*;

const T: u64 = 1_703_500_000_000_000_000;
const LAST: u8 = flags::LAST;
const CENT: i64 = 10_000_000;

fn file<R: DbnEncodable>(schema: Schema, records: &[R]) -> Vec<u8> {
    let metadata = MetadataBuilder::new()
        .dataset("GLBX.MDP3".to_owned())
        .schema(Some(schema))
        .start(T)
        .stype_in(Some(SType::RawSymbol))
        .stype_out(SType::InstrumentId)
        .build();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, &metadata).expect("a Vec takes it");
    for record in records {
        encoder.encode_record(record).expect("a Vec takes it");
    }
    bytes
}

fn order(action: u8, side: u8, id: u64, cents: i64, size: u32, flags: u8) -> MboMsg {
    let mut message = MboMsg::default();
    message.hd.publisher_id = 1;
    message.hd.instrument_id = 7;
    message.hd.ts_event = T;
    message.ts_recv = T + 1;
    message.order_id = id;
    message.price = cents * CENT;
    message.size = size;
    message.flags = FlagSet::from(flags);
    message.action = action as _;
    message.side = side as _;
    message.sequence = 5;
    message
}

/// What a file tells, as text, and its reports.
fn play(bytes: &[u8]) -> (Vec<String>, Vec<&'static str>, DbnFile) {
    let (mut file, mut out) = (DbnFile::new(), Out::default());
    for byte in bytes {
        file.push(&[*byte]);
        while let Some(at) = file.next(&mut out).expect("whole") {
            assert_eq!(at, Time(T as i64 + 1));
        }
    }
    file.finish().expect("whole");
    let told = out.updates.iter().map(|u| format!("{} {} {}", u.channel, u.kind.as_str(), text(&u.data))).collect();
    (told, out.reports.iter().map(|r| r.fault.as_str()).collect(), file)
}

fn text(data: &Data) -> String {
    let level = |l: &ticker_market::Level| format!("{}@{}", decimal::to_text(l.size), decimal::to_text(l.price));
    match data {
        Data::Book(levels) => {
            let list = |l: &[ticker_market::Level]| l.iter().map(level).collect::<Vec<_>>().join(",");
            format!("[{}] [{}]", list(&levels.bids), list(&levels.asks))
        }
        Data::Quote(q) => {
            let side = |l: &Option<_>| l.as_ref().map_or("-".to_owned(), level);
            format!("{} {}", side(&q.bid), side(&q.ask))
        }
        Data::Trade(t) => {
            format!("{} {:?} {}@{}", t.trade_id, t.side, decimal::to_text(t.size), decimal::to_text(t.price))
        }
        Data::Status(s) => {
            format!("{} {} {}", s.state.as_str(), s.reason.as_deref().unwrap_or("-"), s.integrity.as_str())
        }
        Data::Invalid(reason) => reason.to_string(),
        Data::Bar(_) | Data::Stats(_) => unreachable!("derived from the tape, not told by a venue"),
    }
}

#[test]
fn a_book_is_told_when_its_event_is_over() {
    let bytes = file(
        Schema::Mbo,
        &[
            order(b'R', b'N', 0, 0, 0, flags::SNAPSHOT),
            order(b'A', b'B', 1, 10_000, 5, flags::SNAPSHOT),
            order(b'A', b'A', 2, 10_100, 6, flags::SNAPSHOT | LAST),
            // The order that trades stands in the book for a moment.
            order(b'A', b'B', 3, 10_100, 2, 0),
            order(b'T', b'B', 0, 10_100, 2, 0),
            order(b'T', b'B', 0, 10_100, 1, 0),
            order(b'F', b'A', 2, 10_100, 2, 0),
            order(b'C', b'A', 2, 10_100, 2, 0),
            order(b'C', b'B', 3, 10_100, 2, LAST),
            order(b'M', b'A', 2, 10_200, 9, LAST),
        ],
    );
    let (told, faults, file) = play(&bytes);
    assert_eq!(
        told,
        [
            "book snapshot [5@100] [6@101]",
            "quote update 5@100 6@101",
            "status update live - sequenced",
            "trade update 5 Some(Buy) 2@101",
            "trade update 5.2 Some(Buy) 1@101",
            "book update [] [4@101]",
            "quote update 5@100 4@101",
            "book update [] [0@101,9@102]",
            "quote update 5@100 9@102",
        ]
    );
    assert!(faults.is_empty());
    assert_eq!((file.venue(), file.counts().records), ("glbx-mdp3", 10));
}

#[test]
fn crossing_is_a_fault_only_after_the_open() {
    let mut records = vec![
        order(b'R', b'N', 0, 0, 0, LAST),
        order(b'A', b'B', 1, 10_000, 5, LAST),
        order(b'A', b'A', 2, 10_000, 6, LAST),
        order(b'C', b'A', 2, 10_000, 6, LAST),
    ];
    let (told, faults, _) = play(&file(Schema::Mbo, &records));
    assert!(told.contains(&"status update halted auction sequenced".to_owned()), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("status update live - sequenced"));
    assert!(faults.is_empty());
    records.insert(2, order(b'T', b'N', 0, 10_000, 1, LAST));
    let (told, faults, _) = play(&file(Schema::Mbo, &records));
    assert!(told.contains(&"book invalid crossed".to_owned()), "{told:?}");
    assert_eq!(faults, ["crossed"]);
}

#[test]
fn a_bad_book_is_not_shown_before_the_next_clear() {
    let (told, faults, _) = play(&file(
        Schema::Mbo,
        &[
            order(b'R', b'N', 0, 0, 0, LAST),
            order(b'A', b'B', 1, 10_000, 5, LAST),
            order(b'A', b'B', 2, 10_000, 5, LAST | flags::MAYBE_BAD_BOOK),
            order(b'A', b'B', 3, 10_000, 5, LAST),
            order(b'R', b'N', 0, 0, 0, 0),
            order(b'A', b'B', 4, 9_900, 5, LAST),
        ],
    ));
    assert_eq!(faults, ["gap"]);
    let after: Vec<&str> = told.iter().skip_while(|t| !t.contains("invalid")).map(String::as_str).collect();
    assert_eq!(
        after,
        [
            "book invalid gap",
            "quote invalid gap",
            "status update resyncing gap sequenced",
            "book snapshot [5@99] []",
            "quote snapshot 5@99 -",
            "status update live - sequenced",
        ]
    );
}

#[test]
fn a_file_from_the_middle_counts_orders_from_before() {
    let (told, faults, file) =
        play(&file(Schema::Mbo, &[order(b'C', b'A', 9, 10_000, 5, LAST), order(b'M', b'B', 8, 10_000, 5, LAST)]));
    assert_eq!((faults.len(), file.counts().unknown_orders), (0, 2));
    assert_eq!(told.last().map(String::as_str), Some("quote update 5@100 -"));
    assert!(told.contains(&"status update live - none".to_owned()));
}

#[test]
fn what_is_no_file_is_told() {
    let mut file = DbnFile::new();
    file.push(b"no DBN file at all");
    let mut out = Out::default();
    assert!(matches!(file.next(&mut out), Err(ArchiveError::Format { .. })));
    assert!(matches!(file.next(&mut out), Err(ArchiveError::Format { .. })), "nor later");
    let whole = self::file(Schema::Mbo, &[order(b'A', b'B', 1, 1, 1, LAST)]);
    let mut file = DbnFile::new();
    file.push(&whole[..whole.len() - 1]);
    assert!(file.next(&mut out).expect("more is needed").is_none());
    assert!(matches!(file.finish(), Err(ArchiveError::Cut(_))));
    assert!(DbnFile::fragment(77).is_err() && DbnFile::fragment(1).is_ok());
}

/// The fuzzer's file is of our own making, by Databento's encoder.
#[test]
fn the_fixture_is_what_it_was_made_as() {
    let bytes = file(
        Schema::Mbo,
        &[
            order(b'R', b'N', 0, 0, 0, LAST),
            order(b'A', b'B', 1, 10_000, 5, LAST),
            order(b'A', b'A', 2, 10_100, 6, LAST),
            order(b'M', b'A', 2, 10_200, 7, LAST),
            order(b'C', b'B', 1, 10_000, 2, LAST),
        ],
    );
    assert!(include_bytes!("../../fixtures/databento/mbo.dbn")[..] == bytes);
}

/// A record of ten levels: bids from that price downwards, asks from a cent above it upwards.
fn ten(action: u8, cents: i64, sizes: &[u32], flags: u8) -> Mbp10Msg {
    let mut message = Mbp10Msg::default();
    message.hd.publisher_id = 1;
    message.hd.instrument_id = 7;
    message.hd.ts_event = T;
    message.ts_recv = T + 1;
    (message.action, message.side) = (action as _, b'B' as _);
    (message.price, message.size, message.sequence) = (cents * CENT, 4, 5);
    message.flags = FlagSet::from(flags);
    for (pair, (size, i)) in message.levels.iter_mut().zip(sizes.iter().zip(0..)) {
        *pair = BidAskPair { bid_px: (cents - i) * CENT, bid_sz: *size, ..BidAskPair::default() };
        (pair.ask_px, pair.ask_sz) = ((cents + 1 + i) * CENT, 9);
    }
    message
}

#[test]
fn ten_levels_make_a_book_of_ten_levels() {
    let records = [
        ten(b'A', 100, &[1, 2], LAST),
        ten(b'A', 100, &[1, 2], LAST),
        ten(b'M', 100, &[1, 5], LAST),
        ten(b'T', 101, &[3, 1], 0),
        ten(b'M', 101, &[3, 1], LAST),
        ten(b'M', 101, &[3, 1], LAST | flags::MAYBE_BAD_BOOK),
        ten(b'A', 99, &[6], LAST),
    ];
    let (told, faults, _) = play(&file(Schema::Mbp10, &records));
    assert_eq!(
        told,
        [
            "book snapshot [1@1,2@0.99] [9@1.01,9@1.02]",
            "quote update 1@1 9@1.01",
            "status update live - sequenced",
            "book update [5@0.99] []",
            "trade update 5 Some(Buy) 4@1.01",
            "book update [3@1.01,0@0.99] [0@1.01,9@1.03]",
            "quote update 3@1.01 9@1.02",
            "book invalid gap",
            "quote invalid gap",
            "status update resyncing gap sequenced",
            "book snapshot [6@0.99] [9@1]",
            "quote snapshot 6@0.99 9@1",
            "status update live - sequenced",
        ]
    );
    assert_eq!(faults, ["gap"]);
}
