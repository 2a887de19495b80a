use ticker_market::{Book, Data, Kind, decimal};

use super::*;
use crate::archive::{Archive, ArchiveError};

/// 2019-12-30, 05:00 UTC.
const MIDNIGHT: Time = Time(1_577_682_000_000_000_000);

fn head(kind: u8, locate: u16, nanos: u64) -> Vec<u8> {
    let mut m = vec![kind];
    m.extend(locate.to_be_bytes());
    m.extend([0, 0]);
    m.extend(&nanos.to_be_bytes()[2..]);
    m
}

fn message(kind: u8, locate: u16, fields: &[&[u8]]) -> Vec<u8> {
    let mut m = head(kind, locate, 34_200_000_000_000);
    for field in fields {
        m.extend(*field);
    }
    assert_eq!(Some(m.len()), length(kind), "a message of its length");
    m
}

fn add(reference: u64, side: u8, shares: u32, price: u32) -> Vec<u8> {
    let fields: [&[u8]; 5] =
        [&reference.to_be_bytes(), &[side], &shares.to_be_bytes(), b"ABC     ", &price.to_be_bytes()];
    message(b'A', 7, &fields)
}

fn executed(reference: u64, shares: u32, number: u64) -> Vec<u8> {
    message(b'E', 7, &[&reference.to_be_bytes(), &shares.to_be_bytes(), &number.to_be_bytes()])
}

fn start() -> Vec<u8> {
    message(b'S', 0, &[b"O"])
}

fn action(state: u8) -> Vec<u8> {
    message(b'H', 7, &[b"ABC     ", &[state], b" ", b"T1  "])
}

/// A feed with a reader behind it, who checks each update.
struct Rig {
    itch: Itch,
    book: Option<Book>,
    out: Out,
}

impl Rig {
    fn new() -> Self {
        Self { itch: Itch::new(&[], MIDNIGHT, Integrity::Sequenced), book: None, out: Out::default() }
    }

    /// What a message brought about, as text.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.out.clear();
        let ts = self.itch.message(bytes, None, &mut self.out).expect("a message");
        assert_eq!(ts, MIDNIGHT.plus_nanos(34_200_000_000_000));
        self.told()
    }

    fn told(&mut self) -> Vec<String> {
        for update in &self.out.updates {
            match (&update.data, update.kind) {
                (Data::Book(levels), Kind::Snapshot) => {
                    let mut book = Book::new();
                    book.replace(levels).expect("a good snapshot");
                    self.book = Some(book);
                }
                (Data::Book(levels), _) => {
                    self.book.as_mut().expect("a snapshot comes first").apply(levels).expect("good changes");
                }
                (Data::Invalid(_), _) if update.channel == Channel::Book => self.book = None,
                _ => {}
            }
        }
        assert!(self.book.as_ref().is_none_or(|b| !b.is_crossed()));
        let mut retold = Out::default();
        self.itch.retell(Time(0), &mut retold);
        for update in retold.updates {
            if let Data::Book(levels) = update.data {
                let ours = self.book.as_ref().expect("shown");
                assert!(ours.bids().eq(&levels.bids) && ours.asks().eq(&levels.asks));
            }
        }
        self.out.updates.iter().map(|u| format!("{} {} {}", u.channel, u.kind.as_str(), text(&u.data))).collect()
    }

    fn faults(&self) -> Vec<&'static str> {
        self.out.reports.iter().map(|r| r.fault.as_str()).collect()
    }
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
            let side = t.side.map_or("-", |s| if s == Side::Buy { "buy" } else { "sell" });
            let of = t.reference.as_ref().map_or(String::new(), |r| format!(" of {r}"));
            format!("{} {side} {}@{}{of}", t.trade_id, decimal::to_text(t.size), decimal::to_text(t.price))
        }
        Data::Status(s) => {
            format!("{} {} {}", s.state.as_str(), s.reason.as_deref().unwrap_or("-"), s.integrity.as_str())
        }
        Data::Invalid(reason) => reason.to_string(),
        Data::Bar(_) | Data::Stats(_) => unreachable!("derived from the tape, not told by a venue"),
    }
}

#[test]
fn a_day_from_its_start() {
    let mut rig = Rig::new();
    assert!(rig.take(&start()).is_empty());
    let directory = message(
        b'R',
        7,
        &[
            b"ABC     ",
            b"Q",
            b"N",
            &100u32.to_be_bytes(),
            b"N",
            b"C",
            b"Z ",
            b"P",
            b"N",
            b"N",
            b"1",
            b"N",
            &[0; 4],
            b"N",
        ],
    );
    assert_eq!(rig.take(&directory), ["book snapshot [] []", "quote update - -", "status update live - sequenced"]);
    assert_eq!(rig.out.instruments.last().expect("described").1.lot_size, Some(Decimal::ONE));
    assert_eq!(rig.take(&add(1, b'B', 100, 100_000)), ["book update [100@10] []", "quote update 100@10 -"]);
    assert_eq!(rig.take(&add(2, b'S', 200, 100_100)), ["book update [] [200@10.01]", "quote update 100@10 200@10.01"]);
    assert_eq!(rig.take(&add(3, b'B', 50, 99_999)), ["book update [50@9.9999] []"]);
    assert_eq!(
        rig.take(&executed(1, 30, 77)),
        ["trade update 77 sell 30@10", "book update [70@10] []", "quote update 70@10 200@10.01"]
    );
    let priced: [&[u8]; 5] =
        [&2u64.to_be_bytes(), &50u32.to_be_bytes(), &78u64.to_be_bytes(), b"Y", &100_050u32.to_be_bytes()];
    assert_eq!(
        rig.take(&message(b'C', 7, &priced)),
        ["trade update 78 buy 50@10.005", "book update [] [150@10.01]", "quote update 70@10 150@10.01"]
    );
    let quiet: [&[u8]; 5] =
        [&2u64.to_be_bytes(), &50u32.to_be_bytes(), &79u64.to_be_bytes(), b"N", &100_050u32.to_be_bytes()];
    assert_eq!(rig.take(&message(b'C', 7, &quiet)).len(), 2, "not printable: no trade");
    let replace: [&[u8]; 4] =
        [&3u64.to_be_bytes(), &9u64.to_be_bytes(), &60u32.to_be_bytes(), &100_000u32.to_be_bytes()];
    assert_eq!(
        rig.take(&message(b'U', 7, &replace)),
        ["book update [130@10,0@9.9999] []", "quote update 130@10 100@10.01"]
    );
    assert_eq!(
        rig.take(&message(b'X', 7, &[&9u64.to_be_bytes(), &10u32.to_be_bytes()])),
        ["book update [120@10] []", "quote update 120@10 100@10.01"]
    );
    assert_eq!(
        rig.take(&message(b'D', 7, &[&9u64.to_be_bytes()])),
        ["book update [70@10] []", "quote update 70@10 100@10.01"]
    );
    let hidden: [&[u8]; 6] =
        [&[0; 8], b"B", &5u32.to_be_bytes(), b"ABC     ", &100_001u32.to_be_bytes(), &80u64.to_be_bytes()];
    assert_eq!(rig.take(&message(b'P', 7, &hidden)), ["trade update 80 - 5@10.0001"]);
    let cross = |shares: u64, number: u64| {
        message(b'Q', 7, &[&shares.to_be_bytes(), b"ABC     ", &100_000u32.to_be_bytes(), &number.to_be_bytes(), b"O"])
    };
    assert_eq!(rig.take(&cross(500, 81)), ["trade update 81 - 500@10"]);
    assert!(rig.take(&cross(0, 82)).is_empty(), "nothing was matched");
    assert_eq!(rig.take(&message(b'B', 7, &[&77u64.to_be_bytes()])), ["trade cancel 77 sell 30@10 of 77"]);
    assert_eq!(rig.take(&message(b'B', 7, &[&5u64.to_be_bytes()])), ["trade cancel 5 - 0@0 of 5"], "not remembered");
    assert!(rig.faults().is_empty());
    let counts = rig.itch.counts();
    assert_eq!((counts.messages, counts.unknown_orders, counts.not_printable, counts.broken_trades), (16, 0, 1, 2));
}

#[test]
fn halts_and_crossing_before_an_auction() {
    let mut rig = Rig::new();
    rig.take(&start());
    rig.take(&add(1, b'B', 100, 100_000));
    assert_eq!(rig.take(&action(b'H')), ["status update halted halt sequenced"]);
    assert_eq!(rig.take(&action(b'Q')), ["status update halted quotation_only sequenced"]);
    assert_eq!(rig.take(&add(2, b'S', 10, 99_900)), ["book invalid crossed", "quote invalid crossed"]);
    assert!(rig.take(&add(3, b'S', 10, 100_100)).is_empty(), "not shown while it crosses");
    assert!(rig.faults().is_empty(), "that is no fault before an auction");
    let told = rig.take(&executed(2, 10, 5));
    assert_eq!(told[0], "trade update 5 buy 10@9.99");
    assert_eq!(told[1..], ["book snapshot [100@10] [10@10.01]", "quote snapshot 100@10 10@10.01"]);
    assert_eq!(rig.take(&action(b'T')), ["status update live - sequenced"]);
    rig.take(&add(4, b'S', 10, 100_000));
    assert_eq!(rig.faults(), ["crossed"], "in continuous trading it is one");
    assert!(rig.book.is_none());
    let told = rig.take(&message(b'D', 7, &[&4u64.to_be_bytes()]));
    assert_eq!(told.last().map(String::as_str), Some("status update live - sequenced"));
    let market = |market: &[u8; 1], action: &[u8; 1]| message(b'h', 7, &[b"ABC     ", market, action]);
    assert!(rig.take(&market(b"B", b"H")).is_empty(), "another market's");
    assert_eq!(rig.take(&market(b"Q", b"H")), ["status update halted operational_halt sequenced"]);
}

#[test]
fn joined_in_the_middle_orders_from_before_are_counted() {
    let mut rig = Rig::new();
    assert!(rig.take(&executed(5, 1, 1)).is_empty(), "of whom it is, nobody knows");
    assert_eq!(
        rig.take(&add(6, b'B', 1, 10_000)),
        [
            "book snapshot [] []",
            "quote update - -",
            "status update live - none",
            "book update [1@1] []",
            "quote update 1@1 -"
        ]
    );
    rig.take(&message(b'D', 7, &[&4u64.to_be_bytes()]));
    assert!(rig.faults().is_empty());
    assert_eq!(rig.itch.counts().unknown_orders, 2);
}

#[test]
fn what_is_missing_hides_the_books_until_the_next_day() {
    let mut rig = Rig::new();
    rig.take(&start());
    rig.take(&add(1, b'B', 100, 100_000));
    assert_eq!(
        rig.take(&message(b'D', 7, &[&4u64.to_be_bytes()])),
        ["book invalid gap", "quote invalid gap", "status update resyncing gap sequenced"],
        "an order that never came"
    );
    assert_eq!(rig.faults(), ["gap"]);
    assert!(rig.take(&add(2, b'B', 100, 100_000)).is_empty());
    rig.take(&start());
    let told = rig.take(&add(1, b'B', 5, 100_000));
    assert_eq!(told[0], "book snapshot [] []");
    assert_eq!(told.last().map(String::as_str), Some("quote update 5@10 -"));
    rig.out.clear();
    rig.itch.lost("messages 3 to 9".to_owned(), MIDNIGHT, &mut rig.out);
    assert_eq!(rig.told(), ["book invalid gap", "quote invalid gap", "status update resyncing gap sequenced"]);
    rig.out.clear();
    rig.itch.end("replay_ended", MIDNIGHT, &mut rig.out);
    assert_eq!(rig.told(), ["status update closed replay_ended sequenced"]);
}

#[test]
fn only_what_was_asked_for_is_kept() {
    let mut itch = Itch::new(&["XYZ".to_owned()], MIDNIGHT, Integrity::Sequenced);
    let mut out = Out::default();
    for bytes in [start(), add(1, b'B', 100, 100_000), executed(1, 5, 5)] {
        itch.message(&bytes, None, &mut out).expect("a message");
    }
    assert!(out.updates.is_empty() && out.instruments.is_empty() && out.reports.is_empty());
    assert!(itch.books().is_empty());
}

#[test]
fn what_is_no_message_is_told() {
    assert_eq!(decode(b""), Err(MessageError::Empty));
    assert_eq!(decode(b"z"), Err(MessageError::Type(b'z')));
    assert_eq!(decode(&start()[..11]), Err(MessageError::Length { kind: b'S', found: 11, expected: 12 }));
    assert_eq!(decode(&add(1, b'b', 1, 1)), Err(MessageError::Side(b'b')));
    let mut longer = start();
    longer.push(1);
    assert_eq!(decode(&longer).map(|m| m.1), Ok(Message::SystemEvent(b'O')), "messages may grow");
    for kind in *b"SRHYLVWKJhAFECXDUPQBINO" {
        let mut bytes = vec![b'B'; length(kind).expect("a type")];
        bytes[0] = kind;
        assert!(decode(&bytes).is_ok(), "{}", char::from(kind));
    }
}

#[test]
fn files_with_and_without_lengths() {
    for framed in [true, false] {
        let mut bytes = Vec::new();
        for m in [start(), add(1, b'B', 100, 100_000), executed(1, 5, 5)] {
            bytes.extend(if framed { (m.len() as u16).to_be_bytes() } else { [0, 0] });
            bytes.extend(m);
        }
        bytes.extend([0, 0]);
        let mut file = ItchFile::new(&[], MIDNIGHT);
        let (mut out, mut records) = (Out::default(), 0);
        // Byte by byte, so that each place is once the end of what is there.
        for byte in &bytes {
            file.push(&[*byte]);
            while file.next(&mut out).expect("whole").is_some() {
                records += 1;
            }
        }
        file.finish().expect("it ends with its mark");
        assert_eq!((records, file.counts().messages, out.reports.len()), (3, 3, 0));
        assert_eq!(file.venue(), "nasdaq");
    }
}

#[test]
fn a_file_that_breaks_off_or_is_none() {
    let mut file = ItchFile::new(&[], MIDNIGHT);
    let mut out = Out::default();
    // A type that is not known is passed over, by its length.
    file.push(&[0, 2, b'z', b'z', 0, 12]);
    file.push(&start());
    assert!(file.next(&mut out).expect("whole").is_some());
    assert_eq!(out.reports.len(), 1);
    file.push(&[0, 12, b'S']);
    assert!(file.next(&mut out).expect("more is needed").is_none());
    assert!(matches!(file.finish(), Err(ArchiveError::Cut(3))));
    let mut file = ItchFile::new(&[], MIDNIGHT);
    file.push(&[0, 0, b'z']);
    assert!(matches!(file.next(&mut out), Err(ArchiveError::Format { at: 0, .. })));
}
