use ticker_market::{Data, decimal};

use super::*;

const TRADES: &str = r#"
kind = "trade"
venue = "nyse"
symbol_column = "sym"
time = { column = "ts", unit = "us" }
price = "px"
size = "qty"
side = { column = "aggressor", buy = ["B", "buy"], sell = ["S"] }
id = "no"
tick_size = "0.01"
"#;
const BOOK: &str = r#"
kind = "book"
format = "jsonl"
venue = "lab"
symbol = "X-Y"
time = { column = "t", unit = "rfc3339" }
price = "p"
size = "q"
side = { column = "side", buy = ["bid"], sell = ["ask"] }
snapshot = "whole"
"#;

fn mapping(text: &str) -> Mapping {
    toml::from_str(text).expect("a mapping")
}

/// What a file tells, byte by byte, as text; and its reports.
fn play(mapping: Mapping, text: &str) -> (Vec<String>, Vec<String>) {
    let (mut file, mut out) = (TableFile::new(mapping).expect("whole"), Out::default());
    for byte in text.as_bytes() {
        file.push(&[*byte]);
        while file.next(&mut out).expect("rows").is_some() {}
    }
    file.finish().expect("rows");
    while file.next(&mut out).expect("rows").is_some() {}
    let told = out.updates.iter().map(|u| format!("{} {} {}", u.instrument, u.channel, said(&u.data))).collect();
    (told, out.reports.into_iter().map(|r| r.detail).collect())
}

fn said(data: &Data) -> String {
    let level = |l: &Level| format!("{}@{}", decimal::to_text(l.size), decimal::to_text(l.price));
    match data {
        Data::Trade(t) => {
            format!("{} {:?} {}@{}", t.trade_id, t.side, decimal::to_text(t.size), decimal::to_text(t.price))
        }
        Data::Quote(q) => {
            let side = |l: &Option<Level>| l.as_ref().map_or("-".to_owned(), level);
            format!("{} {}", side(&q.bid), side(&q.ask))
        }
        Data::Book(levels) => {
            let list = |l: &[Level]| l.iter().map(level).collect::<Vec<_>>().join(",");
            format!("[{}] [{}]", list(&levels.bids), list(&levels.asks))
        }
        Data::Status(s) => format!("{} {}", s.state.as_str(), s.reason.as_deref().unwrap_or("-")),
        Data::Invalid(reason) => reason.to_string(),
        Data::Bar(_) | Data::Stats(_) => unreachable!("derived from the tape, not told by a venue"),
    }
}

#[test]
fn trades_of_a_csv_file() {
    let text = "\u{feff}ts,sym,px,qty,aggressor,no,note\r\n\
        1767607200000001,IBM,101.250,1e2,B,7,\"a \"\"note\"\",\r\nof two lines\"\r\n\
        \r\n\
        1767607200000002,\"IBM\",101.26,5,S,8,\n\
        1767607200000003,BRK.A,700000,1,?,9,";
    let (told, reports) = play(mapping(TRADES), text);
    assert_eq!(
        told,
        [
            "0 status live -",
            "0 trade 7 Some(Buy) 100@101.25",
            "0 trade 8 Some(Sell) 5@101.26",
            "1 status live -",
            "1 trade 9 None 1@700000",
        ]
    );
    assert!(reports.is_empty(), "{reports:?}");
}

#[test]
fn rows_that_cannot_be_read_are_passed_over_and_told() {
    let text = "ts,sym,px,qty,aggressor,no\n1,IBM,x,1,B,1\n1,IBM,1,1\nlater,IBM,1,1,B,1\n1,IBM,,1,B,1\n1,IBM,2,1,B,1\n";
    let (told, reports) = play(mapping(TRADES), text);
    assert_eq!(told, ["0 status live -", "0 trade 1 Some(Buy) 1@2"]);
    assert_eq!(
        reports,
        [
            "at byte 27: `x` in column `px`",
            "at byte 41: not a row: 4 cells, 6 columns",
            "at byte 51: `later` in column `ts`",
            "at byte 69: `` in column `px`",
        ]
    );
}

#[test]
fn quotes_with_an_empty_side_and_other_delimiters() {
    let quotes = r#"
kind = "quote"
venue = "lab"
symbol = "EUR/USD"
columns = ["t", "b", "bs", "a", "as"]
delimiter = ";"
time = { column = "t", unit = "s" }
bid = "b"
bid_size = "bs"
ask = "a"
ask_size = "as"
"#;
    let text = "1767607200.123456789;1.1;5;1.2;6\n1767607201;;;1.2;6\n1767607202;1.3;1;1.2;6\n1767607203;;;;\n";
    let (told, reports) = play(mapping(quotes), text);
    assert_eq!(told, ["0 status live -", "0 quote 5@1.1 6@1.2", "0 quote - 6@1.2", "0 quote crossed"]);
    assert_eq!(reports.len(), 2, "crossed, and a quote of nothing: {reports:?}");
    let mut file = TableFile::new(mapping(quotes)).expect("whole");
    let mut out = Out::default();
    file.push(text.as_bytes());
    assert_eq!(file.next(&mut out).expect("a row"), Some(Time(1_767_607_200_123_456_789)));
    assert_eq!(out.instruments[0].1.symbol, "EUR_2FUSD");
}

#[test]
fn books_by_level() {
    let row = |second: u8, side: &str, p: &str, q: &str, whole: bool| {
        format!(
            "{{\"t\":\"2026-01-05T10:00:{second:02}Z\",\"side\":\"{side}\",\"p\":{p},\"q\":\"{q}\",\"whole\":{whole},\"x\":null}}\n"
        )
    };
    let text = [
        row(0, "bid", "99", "1", false),
        row(0, "ask", "103", "1", false),
        row(1, "bid", "1e2", "5", true),
        row(1, "bid", "99.5", "5", true),
        row(1, "ask", "101", "6", true),
        row(2, "bid", "99.5", "0", false),
        row(2, "ask", "100.5", "1", false),
        row(3, "ask", "100", "1", false),
        row(4, "ask", "102", "1", false),
        row(5, "bid", "100", "1", true),
    ];
    let (told, reports) = play(mapping(BOOK), &text.concat());
    assert_eq!(
        told,
        [
            "0 status resyncing awaiting_snapshot",
            "0 status resyncing gap",
            "0 book [5@100,5@99.5] [6@101]",
            "0 quote 5@100 6@101",
            "0 status live -",
            "0 book [0@99.5] [1@100.5]",
            "0 quote 5@100 1@100.5",
            "0 book crossed",
            "0 quote crossed",
            "0 status resyncing crossed",
            "0 status resyncing gap",
            "0 book [1@100] []",
            "0 quote 1@100 -",
            "0 status live -",
        ]
    );
    assert_eq!(reports.len(), 3, "{reports:?}");
}

#[test]
fn what_cannot_be_is_refused() {
    let error = |text: &str| TableFile::new(mapping(text)).expect_err(text).to_string();
    assert!(error(&TRADES.replace("price = \"px\"\n", "")).contains("`price` is missing"));
    assert!(error(&TRADES.replace("nyse", "NYSE")).contains("not a venue"));
    assert!(error(&TRADES.replace("symbol_column", "symbol = \"X\"\nsymbol_column")).contains("either"));
    assert!(error(&TRADES.replace("id = ", "delimiter = \".\"\nid = ")).contains("delimiter"));
    assert!(error(&TRADES.replace("0.01", "cheap")).contains("not a number"));
    assert!(toml::from_str::<Mapping>(&TRADES.replace("id = ", "number = ")).is_err(), "a column that means nothing");
    let mut file = TableFile::new(mapping(TRADES)).expect("whole");
    file.push(&vec![b'x'; RECORD_BYTES_MAX + 1]);
    assert!(matches!(file.next(&mut Out::default()), Err(ArchiveError::Format { at: 0, .. })), "no end of a row");
    let mut file = TableFile::new(mapping(TRADES)).expect("whole");
    file.push(b"\xff\xfe\n");
    assert!(matches!(file.next(&mut Out::default()), Err(ArchiveError::Format { .. })), "no names");
}
