//! Every real file of market data, decoded to its last byte and laid against what is known of it (the recordings'
//! MANIFEST.md), and ITCH packets from captures.
//!
//! The files are in `$TICKER_RECORDINGS`, or in `../shared/recordings` beside the repository. Where one is missing its
//! trial is ignored, and its name says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use ticker_feeds::archive::Archive;
use ticker_feeds::databento::DbnFile;
use ticker_feeds::itch::moldudp::{Delivery, Packet, PacketError, Receiver};
use ticker_feeds::itch::{self, Itch, ItchFile};
use ticker_feeds::{Fault, Out, Report, Update};
use ticker_market::{Book, Channel, Data, Integrity, Kind, Quote, State, Time};

/// 2019-12-30, 05:00 UTC.
const MIDNIGHT: Time = Time(1_577_682_000_000_000_000);

/// A file is pushed in parts of so many bytes: a prime, so that every place of a record is once the end of a part.
const PART_BYTES: usize = 4_093;

type Check = fn(&Path) -> Result<(), Failed>;

const TRIALS: [(&str, Check); 11] = [
    ("nasdaq-itch/itch50_2019-12-30_snippet_1000msgs.bin", itch_snippet),
    ("nasdaq-itch/itch50_SYNTHETIC_ex20101224.TEST_ITCH_50.zst", itch_synthetic),
    ("nasdaq-itch/AAPL_events_with_top10_book_10k.csv.zst", itch_top_of_book),
    ("nasdaq-itch/moldudp_sample.dat", moldudp_sample),
    ("nasdaq-itch/omi-pcap", itch_captures),
    ("databento-dbn/nautilus/esh4-glbx-mdp3-20231225.mbo.dbn.zst", dbn_orders),
    ("databento-dbn/nautilus/esh4-glbx-mdp3-20231224.mbo.dbn.zst", dbn_snapshot),
    ("databento-dbn/nautilus/futures_mbp-1_2024-07-01T23-58_2024-07-02T00-02.dbn.zst", dbn_best_prices),
    ("databento-dbn/nautilus/futures_trades_2024-07-01T23-58_2024-07-02T00-02.dbn.zst", dbn_trades),
    ("databento-dbn/nautilus", dbn_all),
    ("databento-dbn/dbn-tests", dbn_all),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = std::env::var_os("TICKER_RECORDINGS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/recordings"), PathBuf::from);
    let trials = TRIALS
        .into_iter()
        .map(|(name, check)| {
            let path = root.join(name);
            if path.exists() {
                Trial::test(name, move || check(&path))
            } else {
                Trial::test(format!("missing: {}", path.display()), || Ok(())).with_ignored_flag(true)
            }
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What a reader makes of one instrument's updates.
#[derive(Default)]
struct Seen {
    symbol: String,
    book: Option<Book>,
    /// How often it became invalid.
    invalid: usize,
    quote: Option<Quote>,
    quotes: usize,
    trades: usize,
    state: Option<State>,
}

/// Readers of all instruments.
#[derive(Default)]
struct Readers(Vec<Seen>);

impl Readers {
    fn take(&mut self, out: &mut Out) -> Result<(), String> {
        for (number, instrument) in out.instruments.drain(..) {
            if number as usize == self.0.len() {
                self.0.push(Seen { symbol: instrument.symbol.to_string(), ..Seen::default() });
            }
        }
        for update in out.updates.drain(..) {
            let seen = &mut self.0[update.instrument as usize];
            take(seen, &update).map_err(|error| format!("{}: {error}: {update:?}", seen.symbol))?;
        }
        Ok(())
    }

    /// The readers' books are the ones that are told anew.
    fn same(&self, retold: Out) -> Result<(), String> {
        for update in retold.updates.iter().filter(|u| u.channel == Channel::Book) {
            let seen = &self.0[update.instrument as usize];
            let same = match (&update.data, &seen.book) {
                (Data::Book(levels), Some(book)) => book.bids().eq(&levels.bids) && book.asks().eq(&levels.asks),
                (Data::Invalid(_), None) => true,
                _ => false,
            };
            if !same {
                return Err(format!("the book of {} is another when told anew", seen.symbol));
            }
        }
        Ok(())
    }

    fn of(&self, symbol: &str) -> Result<&Seen, String> {
        self.0.iter().find(|s| s.symbol == symbol).ok_or_else(|| format!("{symbol} never came"))
    }
}

fn take(seen: &mut Seen, update: &Update) -> Result<(), &'static str> {
    if !update.data.fits(update.channel) {
        return Err("not on that channel");
    }
    match (&update.data, update.kind) {
        (Data::Book(levels), Kind::Snapshot) => {
            let mut book = Book::new();
            book.replace(levels).map_err(|_| "a bad snapshot")?;
            seen.book = Some(book);
        }
        (Data::Book(levels), _) => {
            let book = seen.book.as_mut().ok_or("an update before the snapshot")?;
            let (before, count) = (book.sum(), levels.bids.len() + levels.asks.len());
            book.apply(levels).map_err(|_| "a bad update")?;
            if count == 0 || before == book.sum() {
                return Err("an update that changes nothing");
            }
        }
        (Data::Invalid(_), _) if update.channel == Channel::Book => {
            seen.book = None;
            seen.invalid += 1;
        }
        (Data::Invalid(_), _) => seen.quote = None,
        (Data::Quote(quote), _) => {
            if matches!((quote.bid, quote.ask), (Some(b), Some(a)) if b.price >= a.price) {
                return Err("a crossed quote");
            }
            if seen.quote.as_ref() == Some(quote) {
                return Err("a quote came twice");
            }
            seen.quote = Some(quote.clone());
            seen.quotes += 1;
        }
        (Data::Trade(_), _) => seen.trades += usize::from(update.kind == Kind::Update),
        (Data::Status(status), _) => seen.state = Some(status.state),
        (Data::Bar(_) | Data::Stats(_), _) => return Err("what is derived from the tape"),
    }
    if seen.book.as_ref().is_some_and(Book::is_crossed) {
        return Err("a crossed book");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let bytes = std::fs::read(path)?;
    let packed = bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    Ok(if packed { zstd::decode_all(&*bytes)? } else { bytes })
}

/// Plays a file of which nothing is to be reported. Returns how many records it had, and what readers made of them.
fn play(archive: &mut dyn Archive, bytes: &[u8]) -> Result<(usize, Readers), Failed> {
    let (records, readers, reports) = play_with(archive, bytes)?;
    reports.first().map_or(Ok((records, readers)), |report| Err(format!("{report:?}").into()))
}

fn play_with(archive: &mut dyn Archive, bytes: &[u8]) -> Result<(usize, Readers, Vec<Report>), Failed> {
    let (mut records, mut readers, mut out) = (0, Readers::default(), Out::default());
    let mut reports = Vec::new();
    let mut last = Time(i64::MIN);
    for part in bytes.chunks(PART_BYTES) {
        archive.push(part);
        while let Some(at) = archive.next(&mut out)? {
            records += 1;
            last = last.max(at);
            reports.append(&mut out.reports);
            readers.take(&mut out)?;
        }
    }
    archive.finish()?;
    equal("records after the end", archive.next(&mut out)?, None)?;
    let mut retold = Out::default();
    archive.retell(last, &mut retold);
    readers.same(retold)?;
    archive.end("replay_ended", last, &mut out);
    readers.take(&mut out)?;
    match readers.0.iter().find(|s| s.state != Some(State::Closed)) {
        Some(open) => Err(format!("{} is not closed", open.symbol).into()),
        None => Ok((records, readers, reports)),
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, expected {expected:?}")) }
}

/// How many messages there are of each type, by a walk of its own over the lengths.
fn itch_types(bytes: &[u8]) -> BTreeMap<char, usize> {
    let (mut types, mut at) = (BTreeMap::new(), 0);
    while at < bytes.len() {
        let told = usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let size = if told == 0 { itch::length(bytes[at + 2]).expect("a type") } else { told };
        *types.entry(char::from(bytes[at + 2])).or_default() += 1;
        at += 2 + size;
    }
    types
}

fn itch_snippet(path: &Path) -> Result<(), Failed> {
    let bytes = read(path)?;
    let types = itch_types(&bytes);
    let told: String = types.iter().map(|(kind, count)| format!("{kind}{count} ")).collect();
    equal("types", told.trim_end(), "A367 C1 D167 E28 F193 I4 P4 Q4 S1 U225 X6")?;
    let mut file = ItchFile::new(&[], MIDNIGHT);
    let (records, readers) = play(&mut file, &bytes)?;
    equal("messages", (records, file.counts().messages), (1_000, 1_000))?;
    // 394 name an order that was never there, and five one that replaced such an order: its side is not known either.
    equal("orders from before", file.counts().unknown_orders, 394 + 5)?;
    // Of the executions only those of known orders are trades.
    let trades: usize = readers.0.iter().map(|s| s.trades).sum();
    equal("trades without executions", trades >= types[&'P'], true)?;
    equal("books that were crossed", readers.0.iter().map(|s| s.invalid).sum::<usize>(), 0)?;
    Ok(())
}

fn itch_synthetic(path: &Path) -> Result<(), Failed> {
    let bytes = read(path)?;
    equal("bytes", bytes.len(), 465_048)?;
    let mut file = ItchFile::new(&[], MIDNIGHT);
    let (records, readers, reports) = play_with(&mut file, &bytes)?;
    equal("messages", records, 12_012)?;
    // It is made up: prices drawn at random cross, and 117 messages name orders that were never there or are gone. The
    // adapter must find both, and show no such book.
    equal("orders that are not there", file.counts().unknown_orders, 94 + 18 + 3 + 2)?;
    let gaps = reports.iter().filter(|r| r.fault == Fault::Gap).count();
    equal("books with such orders", gaps, 3)?;
    equal("nothing else", reports.iter().all(|r| matches!(r.fault, Fault::Crossed | Fault::Gap)), true)?;
    let symbols: Vec<&str> = readers.0.iter().map(|s| s.symbol.as_str()).collect();
    equal("symbols", symbols, vec!["ALC", "BOB", "CHAR"])?;
    Ok(())
}

/// Lays the book after each event against the ten best levels that the file gives.
///
/// The file begins at 09:30, so that many orders are from before it. Those that an event names later are put in before
/// the first event, with all that is ever taken from them; what a level has beyond is learnt when the level is first
/// seen among the ten, and from then on every change of it must be explained by an event.
fn itch_top_of_book(path: &Path) -> Result<(), Failed> {
    let text = String::from_utf8(read(path)?)?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().ok_or("an empty file")?.split(',').collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let column = |name: &str| names.iter().position(|n| *n == name).ok_or_else(|| format!("no column {name}"));
    let whole = |text: &str| text.strip_suffix(".0").unwrap_or(text).parse::<u64>().unwrap_or(0);
    let cents = |text: &str| ticker_market::decimal::parse(text).map_or(0, |d| price4(d) as u32);
    let (kind, id, old_id) = (column("message_type")?, column("order_id")?, column("old_order_id")?);
    let (size, price, old_price) = (column("size")?, column("price")?, column("old_price")?);
    let (old_size, at_price) = (column("old_size")?, column("execution_price")?);
    let (direction, nanos) = (column("direction")?, column("timestamp_ns")?);
    let first_level = column("ask_price_1")?;

    let mut itch = Itch::new(&[], MIDNIGHT, Integrity::None);
    let (mut out, mut readers) = (Out::default(), Readers::default());
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    let mut before: BTreeMap<u64, (u8, u32, u64)> = BTreeMap::new();
    for row in &rows {
        let side = if row[direction] == "1" { b'B' } else { b'S' };
        let mut taken = |order: u64, price: &str, size: u64| {
            if !known.contains_key(&order) {
                before.entry(order).or_insert((side, cents(price), 0)).2 += size;
            }
        };
        match row[kind] {
            "A" | "F" => _ = known.insert(whole(row[id]), 0),
            "U" => {
                taken(whole(row[old_id]), row[old_price], whole(row[old_size]));
                known.insert(whole(row[id]), 0);
            }
            "D" => taken(whole(row[id]), row[old_price].max(row[price]), whole(row[size]).max(whole(row[old_size]))),
            _ => taken(whole(row[id]), row[price], whole(row[size])),
        }
    }
    for (order, (side, price, size)) in before {
        itch.message(&add_order(0, order, side, size as u32, price), None, &mut out)?;
    }
    let mut learnt: BTreeMap<(u8, u32), u64> = BTreeMap::new();
    let mut seen_levels = std::collections::BTreeSet::new();
    for (number, row) in rows.iter().enumerate() {
        let time = whole(row[nanos]);
        let order = whole(row[id]);
        let side = if row[direction] == "1" { b'B' } else { b'S' };
        let message = match row[kind] {
            "A" | "F" => add_order(time, order, side, whole(row[size]) as u32, cents(row[price])),
            "D" => event(b'D', time, &[&order.to_be_bytes()]),
            "X" => event(b'X', time, &[&order.to_be_bytes(), &(whole(row[size]) as u32).to_be_bytes()]),
            "E" => event(b'E', time, &[&order.to_be_bytes(), &(whole(row[size]) as u32).to_be_bytes(), &[0; 8]]),
            "C" => {
                let (shares, price) = ((whole(row[size]) as u32).to_be_bytes(), cents(row[at_price]).to_be_bytes());
                event(b'C', time, &[&order.to_be_bytes(), &shares, &[0; 8], b"Y", &price])
            }
            "U" => {
                let (shares, price) = ((whole(row[size]) as u32).to_be_bytes(), cents(row[price]).to_be_bytes());
                event(b'U', time, &[&whole(row[old_id]).to_be_bytes(), &order.to_be_bytes(), &shares, &price])
            }
            other => return Err(format!("row {number}: a message of type {other}").into()),
        };
        itch.message(&message, None, &mut out)?;
        for (at, cell) in (0..40).step_by(2).map(|i| (i, first_level + i)) {
            let side = if at % 4 == 0 { b'S' } else { b'B' };
            let (price, expected) = (cents(row[cell]), whole(row[cell + 1]));
            let book_side =
                if side == b'B' { ticker_market::book::BookSide::Bid } else { ticker_market::book::BookSide::Ask };
            let found = itch.books().size_at(0, book_side, price.into());
            if found != expected && seen_levels.insert((side, price)) && found < expected {
                let rest = (expected - found) as u32;
                learnt.insert((side, price), u64::from(rest));
                let reference = u64::MAX - learnt.len() as u64;
                itch.message(&add_order(time, reference, side, rest, price), None, &mut out)?;
            } else if found != expected {
                return Err(format!("row {number}, price {price}: {found} shares, expected {expected}").into());
            }
            seen_levels.insert((side, price));
        }
        if let Some(report) = out.reports.first() {
            return Err(format!("row {number}: {report:?}").into());
        }
        readers.take(&mut out)?;
        let book = readers.of("AAPL")?.book.as_ref().ok_or_else(|| format!("row {number}: no book is shown"))?;
        let told: Vec<u32> = book
            .asks()
            .take(10)
            .zip(book.bids().take(10))
            .flat_map(|(a, b)| [a.price, b.price])
            .map(|p| price4(p) as u32)
            .collect();
        let expected: Vec<u32> = (0..40).step_by(2).map(|i| cents(row[first_level + i])).collect();
        equal(&format!("row {number}: the ten best prices"), told, expected)?;
    }
    equal("rows", rows.len(), 10_000)?;
    equal("unknown orders", itch.counts().unknown_orders, 0)?;
    Ok(())
}

/// A price in ITCH's steps.
fn price4(price: ticker_market::Decimal) -> i64 {
    let mut price = price;
    price.rescale(4);
    i64::try_from(price.mantissa()).expect("a price")
}

fn event(kind: u8, nanos: u64, fields: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![kind, 0, 14, 0, 0];
    message.extend(&nanos.to_be_bytes()[2..]);
    for field in fields {
        message.extend(*field);
    }
    assert_eq!(Some(message.len()), itch::length(kind));
    message
}

fn add_order(nanos: u64, reference: u64, side: u8, shares: u32, price: u32) -> Vec<u8> {
    event(b'A', nanos, &[&reference.to_be_bytes(), &[side], &shares.to_be_bytes(), b"AAPL    ", &price.to_be_bytes()])
}

/// An older ITCH in MoldUDP64: only its framing can be read.
fn moldudp_sample(path: &Path) -> Result<(), Failed> {
    let bytes = read(path)?;
    let mut rest = &bytes[..];
    let (mut receiver, mut numbers) = (Receiver::new(), Vec::new());
    let cut = loop {
        let packet = match Packet::parse(rest) {
            Ok(packet) => packet,
            Err(error) => break error,
        };
        let size = itch::moldudp::HEADER_BYTES + packet.messages().map(|m| 2 + m.len()).sum::<usize>();
        receiver.packet(&rest[..size], &mut |delivery| {
            if let Delivery::Message(number, _) = delivery {
                numbers.push(number);
            }
        })?;
        rest = &rest[size..];
    };
    equal("numbers", numbers, (1..29).collect())?;
    // The file's last five bytes are missing.
    equal("the last packet", cut, PacketError::Cut { at: 12, count: 13 })?;
    Ok(())
}

/// Every capture of a TotalView 5.0 message: each packet is read, and each message decoded.
fn itch_captures(path: &Path) -> Result<(), Failed> {
    let mut types: BTreeMap<char, usize> = BTreeMap::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let (mut packets, mut messages) = (0, 0);
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = read(&file)?;
        let mut itch = Itch::new(&[], MIDNIGHT, Integrity::Sequenced);
        for packet in datagrams(&bytes)? {
            packets += 1;
            let mut failed = None;
            // The captures' numbers were made zero, or jump: each packet stands alone.
            Receiver::new().packet(packet, &mut |delivery| {
                let Delivery::Message(_, message) = delivery else { return };
                messages += 1;
                if !name.contains("TotalView") {
                    return;
                }
                *types.entry(char::from(message[0])).or_default() += 1;
                let mut out = Out::default();
                if let Err(error) = itch.message(message, None, &mut out) {
                    failed = Some(error.to_string());
                } else if itch::length(message[0]) != Some(message.len()) {
                    failed = Some(format!("a message of type {} with {} bytes", message[0], message.len()));
                } else if let Some(report) = out.reports.first() {
                    failed = Some(format!("{report:?}"));
                }
            })?;
            if let Some(failed) = failed {
                return Err(format!("{name}: {failed}").into());
            }
        }
    }
    equal("packets and messages", (packets, messages), (120, 157))?;
    for kind in "ACDEFHIJLPQSUXY".chars() {
        equal(&format!("some of type {kind}"), types.contains_key(&kind), true)?;
    }
    Ok(())
}

/// A day before Christmas and the day after: 8,725 orders of a snapshot, then 60,067 records.
fn dbn_orders(path: &Path) -> Result<(), Failed> {
    let bytes = read(path)?;
    let mut file = DbnFile::new();
    let (records, readers, reports) = play_with(&mut file, &bytes)?;
    equal("records", records, 68_792)?;
    equal("orders from before", file.counts().unknown_orders, 0)?;
    equal("reports", reports.first(), None)?;
    let seen = readers.of("ESH4")?;
    equal("trades", seen.trades, 2_973)?;
    // It crosses once, and stays so until the open.
    equal("times that it was crossed", seen.invalid, 1)?;
    Ok(())
}

fn dbn_snapshot(path: &Path) -> Result<(), Failed> {
    let mut file = DbnFile::new();
    let (records, readers) = play(&mut file, &read(path)?)?;
    equal("records", records, 8_725)?;
    equal("instruments", readers.0.len(), 1)?;
    Ok(())
}

fn dbn_best_prices(path: &Path) -> Result<(), Failed> {
    let mut file = DbnFile::new();
    let (records, readers) = play(&mut file, &read(path)?)?;
    equal("records", records, 2_288)?;
    let of = |what: fn(&Seen) -> usize| readers.0.iter().map(what).sum::<usize>();
    equal("records that are no trade are quotes", of(|s| s.quotes), 2_288 - 120)?;
    equal("trades are those of the other file", of(|s| s.trades), 120)?;
    Ok(())
}

fn dbn_trades(path: &Path) -> Result<(), Failed> {
    let mut file = DbnFile::new();
    let (records, readers) = play(&mut file, &read(path)?)?;
    equal("records", records, 120)?;
    equal("trades", readers.0.iter().map(|s| s.trades).sum(), 120_usize)?;
    Ok(())
}

/// Every file of a folder, of whatever kind of record. What is not DBN (the older DBZ) must say so.
fn dbn_all(folder: &Path) -> Result<(), Failed> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path)?;
        if name.ends_with(".dbz") {
            let mut file = DbnFile::new();
            file.push(&bytes);
            equal(&format!("{name} is refused"), file.next(&mut Out::default()).is_err(), true)?;
            continue;
        }
        let bytes = read(&path)?;
        let mut file = match name.contains(".frag") {
            true if name.contains(".v3.") => DbnFile::fragment(3)?,
            true if name.contains(".v1.") => DbnFile::fragment(1)?,
            true => DbnFile::fragment(2)?,
            false => DbnFile::new(),
        };
        let (records, _, reports) = play_with(&mut file, &bytes).map_err(|e| format!("{name}: {e:?}"))?;
        equal(&format!("{name}: reports"), reports.first(), None)?;
        // The files of daily bars have none.
        equal(&format!("{name}: some records"), records > 0 || name.contains("ohlcv-1d"), true)?;
    }
    Ok(())
}

/// The UDP payloads of a capture (libpcap's classic form, little-endian; Ethernet, with or without VLAN tag; IPv4).
fn datagrams(bytes: &[u8]) -> Result<Vec<&[u8]>, Failed> {
    equal("the capture's magic", bytes.get(..4), Some(&[0x4d, 0x3c, 0xb2, 0xa1][..]))
        .or_else(|_| equal("the capture's magic", bytes.get(..4), Some(&[0xd4, 0xc3, 0xb2, 0xa1][..])))?;
    let (mut found, mut rest) = (Vec::new(), &bytes[24..]);
    while rest.len() >= 16 {
        let size = u32::from_le_bytes(rest[8..12].try_into()?) as usize;
        let frame = &rest[16..16 + size];
        rest = &rest[16 + size..];
        let ip = if frame[12..14] == [0x81, 0] { &frame[18..] } else { &frame[14..] };
        let header = usize::from(ip[0] & 15) * 4;
        let udp = &ip[header..usize::from(u16::from_be_bytes([ip[2], ip[3]]))];
        found.push(&udp[8..]);
    }
    Ok(found)
}
