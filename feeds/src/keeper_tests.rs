use ticker_market::decimal;

use super::*;

fn level(price: &str, size: &str) -> Level {
    Level { price: decimal::parse(price).expect(price), size: decimal::parse(size).expect(size) }
}

fn levels(bids: &[(&str, &str)], asks: &[(&str, &str)]) -> Levels {
    let list = |l: &[(&str, &str)]| l.iter().map(|(p, s)| level(p, s)).collect();
    Levels { bids: list(bids), asks: list(asks), ..Levels::default() }
}

fn at(millis: i64) -> Stamp {
    Stamp { ts: None, recv: Time::from_millis(millis) }
}

const CONN: Conn = Conn(1);

fn keeper(quotes: QuoteSource, out: &mut Out) -> Keeper {
    let instrument = Instrument {
        venue: "kraken".into(),
        symbol: "BTC-USD".into(),
        native: "BTC/USD".into(),
        tick_size: None,
        lot_size: None,
        channels: vec![Channel::Quote, Channel::Trade, Channel::Book],
    };
    let mut keeper = Keeper::new(0, instrument, Ways { integrity: Integrity::Verified, quotes }, out);
    keeper.set_depth(3);
    keeper.heard(CONN, Time(0), out);
    let first = levels(&[("10", "1"), ("9", "2"), ("8", "3")], &[("11", "1"), ("12", "2"), ("13", "3")]);
    assert!(keeper.snapshot(CONN, first, |_| Ok(()), at(1), out));
    keeper
}

fn book_updates(out: &Out) -> Vec<&Levels> {
    let levels = out.updates.iter().filter(|u| u.kind == Kind::Update).filter_map(|u| match &u.data {
        Data::Book(levels) => Some(levels),
        _ => None,
    });
    levels.collect()
}

#[test]
fn an_update_carries_what_changed_and_nothing_else() {
    let mut out = Out::default();
    let mut keeper = keeper(QuoteSource::Ticker, &mut out);
    let mut update = |changes: Levels| {
        out.clear();
        keeper.update(&changes, |_| Ok(()), at(2), &mut out);
        book_updates(&out).into_iter().cloned().collect::<Vec<_>>()
    };
    // The same size with another scale, a delete of what nobody knows, there and back in one frame.
    assert!(update(levels(&[("10.0", "1.00"), ("7", "0")], &[])).is_empty());
    assert!(update(levels(&[("9.5", "1"), ("9.5", "0.00")], &[])).is_empty());
    assert!(update(levels(&[], &[("11", "5"), ("11", "1")])).is_empty());
    // Of two sizes for one price the later holds.
    assert_eq!(update(levels(&[], &[("11", "5"), ("11", "6")])), [levels(&[], &[("11", "6")])]);
    // A new best level pushes the worst one below the depth; best first.
    assert_eq!(update(levels(&[("8", "4"), ("10.5", "1")], &[])), [levels(&[("10.5", "1"), ("8", "0")], &[])]);
    // One that falls below the depth at once was never there.
    assert!(update(levels(&[], &[("14", "1")])).is_empty());
}

#[test]
fn quotes_follow_the_book_until_the_ticker_speaks() {
    for (ways, after_ticker) in [(QuoteSource::Ticker, 0), (QuoteSource::TickerAndBook, 1)] {
        let mut out = Out::default();
        let mut keeper = keeper(ways, &mut out);
        let quotes = |out: &Out| out.updates.iter().filter(|u| u.channel == Channel::Quote).count();
        assert_eq!(quotes(&out), 1, "from the snapshot");
        out.clear();
        keeper.update(&levels(&[("8", "5")], &[]), |_| Ok(()), at(2), &mut out);
        assert_eq!(quotes(&out), 0, "the top is the same");
        keeper.update(&levels(&[("10", "5")], &[]), |_| Ok(()), at(3), &mut out);
        assert_eq!(quotes(&out), 1);
        keeper.ticker(Some(level("10", "6")), Some(level("11", "1")), at(4), &mut out);
        keeper.ticker(Some(level("10", "6")), Some(level("11", "1")), at(5), &mut out);
        assert_eq!(quotes(&out), 2, "told once");
        out.clear();
        keeper.update(&levels(&[("10", "7")], &[]), |_| Ok(()), at(6), &mut out);
        assert_eq!(quotes(&out), after_ticker, "{ways:?}");
    }
}

#[test]
fn a_crossed_book_is_never_told() {
    let mut out = Out::default();
    let mut keeper = keeper(QuoteSource::Ticker, &mut out);
    out.clear();
    assert!(!keeper.update(&levels(&[("11", "1")], &[]), |_| Ok(()), at(2), &mut out));
    let told: Vec<_> = out.updates.iter().map(|u| (u.channel, u.kind)).collect();
    let invalid = |channel| (channel, Kind::Invalid);
    assert_eq!(told, [invalid(Channel::Book), invalid(Channel::Quote), (Channel::Status, Kind::Update)]);
    assert_eq!(out.reports[0].fault, Fault::Crossed);
    assert!(keeper.resync.is_due(at(2).recv));
    // Nothing is applied until a snapshot, which must not be crossed either.
    out.clear();
    assert!(!keeper.update(&levels(&[("9", "1")], &[]), |_| Ok(()), at(3), &mut out));
    assert!(!keeper.snapshot(CONN, levels(&[("5", "1")], &[("5", "1")]), |_| Ok(()), at(4), &mut out));
    assert!(out.updates.is_empty());
    assert!(keeper.snapshot(CONN, levels(&[("5", "1")], &[("6", "1")]), |_| Ok(()), at(5), &mut out));
    let told: Vec<_> = out.updates.iter().map(|u| (u.channel, u.kind)).collect();
    let whole = |channel| (channel, Kind::Snapshot);
    assert_eq!(told, [whole(Channel::Book), whole(Channel::Quote), (Channel::Status, Kind::Update)]);
    assert_eq!(keeper.resync.at(), None);
}

#[test]
fn a_frame_applied_whole_may_cross_within() {
    let mut out = Out::default();
    let mut keeper = keeper(QuoteSource::Ticker, &mut out);
    let changes = levels(&[("11", "1")], &[("11", "0")]);
    assert!(keeper.update(&changes, |_| Ok(()), at(2), &mut out));
}

#[test]
fn a_status_is_told_when_it_changes() {
    let mut out = Out::default();
    let mut keeper = keeper(QuoteSource::Ticker, &mut out);
    let states = |out: &mut Out| -> Vec<(State, Option<CompactString>)> {
        let list = out.updates.iter().filter_map(|u| match &u.data {
            Data::Status(s) => Some((s.state, s.reason.clone())),
            _ => None,
        });
        let list = list.collect();
        out.clear();
        list
    };
    assert_eq!(states(&mut out), [(State::Resyncing, Some(AWAITING_SNAPSHOT.into())), (State::Live, None)]);
    keeper.update(&levels(&[("9", "7")], &[]), |_| Ok(()), at(2), &mut out);
    keeper.heard(CONN, Time::from_millis(3), &mut out);
    assert_eq!(states(&mut out), []);
    keeper.halt(Some("maintenance"), Time::from_millis(4), &mut out);
    keeper.halt(Some("maintenance"), Time::from_millis(5), &mut out);
    assert_eq!(states(&mut out), [(State::Halted, Some("maintenance".into()))]);
    keeper.lost("eof", Time::from_millis(6), &mut out);
    keeper.halt(None, Time::from_millis(7), &mut out);
    assert_eq!(states(&mut out), [(State::Stale, Some("eof".into()))]);
    keeper.opened(Conn(2), Time::from_millis(8), &mut out);
    assert_eq!(states(&mut out), [(State::Resyncing, Some(AWAITING_SNAPSHOT.into()))]);
    keeper.end("replay_ended", Time::from_millis(9), &mut out);
    assert_eq!(states(&mut out), [(State::Closed, Some("replay_ended".into()))]);
}

#[test]
fn a_book_with_too_many_or_negative_levels_is_a_fault() {
    let mut out = Out::default();
    let mut keeper = keeper(QuoteSource::Ticker, &mut out);
    out.clear();
    assert!(!keeper.update(&levels(&[("9", "-1")], &[]), |_| Ok(()), at(2), &mut out));
    assert!(!keeper.is_live());
    assert_eq!(out.reports.len(), 1);
}

#[test]
fn windows_make_the_book_until_it_comes() {
    let mut out = Out::default();
    let mut keeper = Keeper::new(
        0,
        keeper(QuoteSource::Ticker, &mut Out::default()).instrument().clone(),
        Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::Ticker },
        &mut Out::default(),
    );
    let books = |out: &mut Out| -> Vec<(Kind, Option<Levels>)> {
        let books = out.updates.iter().filter(|u| u.channel == Channel::Book).map(|u| {
            let levels = if let Data::Book(levels) = &u.data { Some(levels.clone()) } else { None };
            (u.kind, levels)
        });
        let books = books.collect();
        out.clear();
        books
    };
    let first = levels(&[("9", "2"), ("10", "1")], &[("11", "1")]);
    keeper.window(CONN, 5, &first, at(1), &mut out);
    assert!(matches!(&out.updates[0].data, Data::Status(s) if s.state == State::Resyncing));
    assert!(matches!(&out.updates.last().expect("told").data, Data::Status(s) if s.state == State::Live));
    let sorted = levels(&[("10", "1"), ("9", "2")], &[("11", "1")]);
    assert_eq!(books(&mut out), [(Kind::Snapshot, Some(sorted))]);
    assert!(!keeper.is_live(), "changes of the book itself have nothing to continue");
    assert!(!keeper.update(&levels(&[("9", "7")], &[]), |_| Ok(()), at(2), &mut out));
    keeper.window(CONN, 1, &levels(&[("10", "9")], &[]), at(2), &mut out);
    assert_eq!(books(&mut out), [], "the deeper one is told");
    keeper.window(CONN, 5, &levels(&[("10", "1"), ("8", "3")], &[("11", "1")]), at(3), &mut out);
    assert_eq!(books(&mut out), [(Kind::Update, Some(levels(&[("9", "0"), ("8", "3")], &[])))]);
    keeper.window(CONN, 5, &levels(&[("11", "1")], &[("11", "1")]), at(4), &mut out);
    assert_eq!(out.reports.iter().map(|r| r.fault).collect::<Vec<_>>(), [Fault::Crossed]);
    assert_eq!(books(&mut out), [(Kind::Invalid, None)]);
    keeper.window(CONN, 5, &levels(&[], &[("11", "1")]), at(5), &mut out);
    assert_eq!(books(&mut out), [(Kind::Snapshot, Some(levels(&[], &[("11", "1")])))]);
    keeper.lost("eof", Time::from_millis(6), &mut out);
    assert_eq!(books(&mut out), [(Kind::Invalid, None)]);
    keeper.window(CONN, 5, &levels(&[("10", "1")], &[]), at(7), &mut out);
    assert!(keeper.snapshot(CONN, levels(&[("10", "4")], &[]), |_| Ok(()), at(8), &mut out));
    assert_eq!(books(&mut out).len(), 2);
    keeper.window(CONN, 50, &levels(&[("10", "1")], &[]), at(9), &mut out);
    assert_eq!(books(&mut out), [], "the book itself came");
}
