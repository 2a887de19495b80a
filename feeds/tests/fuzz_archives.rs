//! Whatever bytes come, no decoder of files and packets panics, and no book is told crossed. Runs for a moment as an
//! ordinary test, and as long as one likes under `cargo bolero`.

use ticker_feeds::Out;
use ticker_feeds::archive::Archive;
use ticker_feeds::databento::DbnFile;
use ticker_feeds::itch::moldudp::{Delivery, Receiver};
use ticker_feeds::itch::{self, Itch, ItchFile};
use ticker_feeds::table::{Mapping, TableFile};
use ticker_market::{Book, Channel, Data, Integrity, Kind, Time};

const RUNS: usize = 2_000;

/// What a reader has of each book.
#[derive(Default)]
struct Readers(Vec<Option<Book>>);

impl Readers {
    fn take(&mut self, out: &mut Out) {
        for update in out.updates.drain(..) {
            let number = update.instrument as usize;
            if self.0.len() <= number {
                self.0.resize(number + 1, None);
            }
            match (&update.data, update.kind) {
                (Data::Book(levels), Kind::Snapshot) => {
                    let mut book = Book::new();
                    book.replace(levels).expect("a snapshot that can be applied");
                    self.0[number] = Some(book);
                }
                (Data::Book(levels), _) => {
                    let book = self.0[number].as_mut().expect("an update of a book that is good");
                    book.apply(levels).expect("an update that can be applied");
                }
                (Data::Invalid(_), _) if update.channel == Channel::Book => self.0[number] = None,
                _ => {}
            }
            assert!(self.0[number].as_ref().is_none_or(|book| !book.is_crossed()), "a crossed book was told");
        }
        out.reports.clear();
        out.instruments.clear();
    }

    fn same(&self, out: &Out) {
        for update in &out.updates {
            if let Data::Book(levels) = &update.data {
                let book = self.0[update.instrument as usize].as_ref().expect("the book is good, so is ours");
                assert!(book.bids().eq(&levels.bids) && book.asks().eq(&levels.asks), "our book is another");
            }
        }
    }
}

/// Plays bytes as a file, in parts.
fn play(archive: &mut dyn Archive, bytes: &[u8]) {
    let (mut out, mut readers) = (Out::default(), Readers::default());
    for part in bytes.chunks(37) {
        archive.push(part);
        loop {
            match archive.next(&mut out) {
                Ok(Some(_)) => readers.take(&mut out),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    _ = archive.finish();
    while let Ok(Some(_)) = archive.next(&mut out) {}
    readers.take(&mut out);
    archive.retell(Time(0), &mut out);
    readers.same(&out);
    out.clear();
    archive.end("fuzzed", Time(0), &mut out);
}

/// A message whose fields come from few values, so that references meet.
fn itch_message(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let types = *b"SRHYLVWKJhAFECXDUPQBINOADUEXCA";
    let kind = types[usize::from(kind) % types.len()];
    let size = itch::length(kind).expect("a type");
    let mut message = vec![kind, 0, bytes.first().map_or(0, |b| b % 3)];
    let byte = |at: usize| bytes.get(at % bytes.len().max(1)).copied().unwrap_or(0);
    message.extend((3..size).map(|at| match at {
        18 | 22 | 23 | 26 | 30 | 33 | 34 => byte(at) % 16,
        19 if matches!(kind, b'A' | b'F') => {
            if byte(3) % 2 == 0 {
                b'B'
            } else {
                b'S'
            }
        }
        24..=31 if matches!(kind, b'A' | b'F' | b'P') => b'A' + byte(0) % 3,
        _ => 0,
    }));
    message
}

#[test]
fn itch_messages() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        let mut itch = Itch::new(&[], Time(0), Integrity::Sequenced);
        let (mut out, mut readers) = (Out::default(), Readers::default());
        // As they are, and made such that they mean something.
        _ = itch.message(bytes, None, &mut out);
        for part in bytes.chunks(5) {
            itch.message(&itch_message(part[0], &part[1..]), None, &mut out).expect("a message");
            readers.take(&mut out);
        }
        itch.retell(Time(0), &mut out);
        readers.same(&out);
        itch.lost("fuzzed".to_owned(), Time(0), &mut out);
    });
}

/// Long days of messages that mean something; a failure names its seed.
#[test]
fn itch_days() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut itch = Itch::new(&[], Time(0), Integrity::Sequenced);
        let (mut out, mut readers) = (Out::default(), Readers::default());
        for _ in 0..500 {
            let bytes: [u8; 5] = std::array::from_fn(|_| rng.u8(..));
            itch.message(&itch_message(rng.u8(..), &bytes), None, &mut out).expect("a message");
            readers.take(&mut out);
        }
        itch.retell(Time(0), &mut out);
        readers.same(&out);
    }
}

#[test]
fn itch_files() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| play(&mut ItchFile::new(&[], Time(0)), bytes));
}

#[test]
fn moldudp_packets() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        let (mut receiver, mut next, mut now) = (Receiver::new(), None::<u64>, Time(0));
        let mut deliver = |delivery: Delivery<'_>| match delivery {
            Delivery::Began(_) => next = None,
            Delivery::Message(number, _) => {
                assert!(next.is_none_or(|next| next == number), "in order");
                next = Some(number + 1);
            }
            Delivery::Lost { from, to } => {
                assert!(from < to && next.is_none_or(|next| next == from));
                next = Some(to);
            }
            Delivery::Ended => {}
        };
        _ = receiver.packet(bytes, &mut deliver);
        for part in bytes.chunks(4) {
            // A packet of ours, of a few messages near the others.
            let (first, count) = (u64::from(part[0] % 64), part.get(1).map_or(0, |b| b % 6));
            let mut packet = vec![b'0'; 10];
            packet.extend(first.to_be_bytes());
            let end = part.get(2).is_some_and(|b| *b == 255);
            packet.extend(if end { [255, 255] } else { [0, count] });
            packet.extend([0, 1, b'x'].repeat(usize::from(count)));
            receiver.packet(&packet, &mut deliver).expect("a packet");
            now = now.plus_millis(part.get(3).copied().unwrap_or(0).into());
            let request = receiver.request(now, &mut deliver);
            assert!(request.is_none() || receiver.is_missing());
        }
    });
}

#[test]
fn dbn_files() {
    // A file's beginning, so that what follows it is read as records.
    let beginning = include_bytes!("../fixtures/databento/mbo.dbn");
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        play(&mut DbnFile::new(), bytes);
        play(&mut DbnFile::fragment(2).expect("a version"), bytes);
        play(&mut DbnFile::new(), &[beginning, bytes].concat());
        let mut changed = beginning.to_vec();
        for pair in bytes.chunks_exact(2) {
            let at = usize::from(pair[0]) * 7 % changed.len();
            changed[at] = pair[1];
        }
        play(&mut DbnFile::new(), &changed);
    });
}

#[test]
fn tables() {
    let mappings: Vec<Mapping> = [
        r#"kind = "trade"
venue = "v"
symbol_column = "s"
time = { column = "t", unit = "ms" }
price = "p"
size = "q"
side = { column = "a", buy = ["B"], sell = ["S"] }"#,
        r#"kind = "quote"
venue = "v"
symbol = "X"
columns = ["t", "p", "q", "a", "b"]
time = { column = "t", unit = "rfc3339" }
bid = "p"
bid_size = "q"
ask = "a"
ask_size = "b""#,
        r#"kind = "book"
format = "jsonl"
venue = "v"
symbol = "X"
time = { column = "t", unit = "ns" }
price = "p"
size = "q"
side = { column = "a", buy = ["B"], sell = ["S"] }
snapshot = "w""#,
    ]
    .into_iter()
    .map(|text| toml::from_str(text).expect("a mapping"))
    .collect();
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        for mapping in &mappings {
            play(&mut TableFile::new(mapping.clone()).expect("whole"), bytes);
        }
        let rows: String = bytes
            .chunks_exact(4)
            .map(|b| {
                let (side, whole) = (if b[1] % 2 == 0 { "B" } else { "S" }, b[0] % 8 == 0);
                format!(
                    "{{\"t\":{},\"p\":{},\"q\":{},\"a\":\"{side}\",\"w\":{whole}}}\n",
                    b[0] % 8,
                    b[2] % 32,
                    b[3] % 4
                )
            })
            .collect();
        play(&mut TableFile::new(mappings[2].clone()).expect("whole"), rows.as_bytes());
        let rows: String = std::iter::once("t,s,p,q,a\n".to_owned())
            .chain(bytes.chunks_exact(3).map(|b| format!("{},X{},{},{},B\n", b[0], b[1] % 4, b[2], char::from(b[1]))))
            .collect();
        play(&mut TableFile::new(mappings[0].clone()).expect("whole"), rows.as_bytes());
    });
}
