//! What it costs to encode an event in each form, and to read it back.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use ticker_client::market::{
    Book, Channel, Data, Decimal, Event, Kind, Level, Levels, Quote, Side, Time, Topic, Trade,
};
use ticker_client::proto::encoded::Answer as _;
use ticker_client::proto::{EncodedMessage, Form, Frame, convert, json, v1};

const FORMS: [Form; 7] =
    [Form::Json, Form::WebSocketJson, Form::Sse, Form::SseNoId, Form::Ndjson, Form::Protobuf, Form::WebSocketProtobuf];

fn event(channel: Channel, kind: Kind, data: Data) -> Event {
    Event {
        topic: Arc::new(Topic::new(channel, "coinbase", "BTC-USD").expect("a valid topic")),
        seq: 184_467,
        prev: if kind == Kind::Snapshot { 0 } else { 184_460 },
        kind,
        ts: Some(Time(1_716_400_000_123_456_789)),
        recv: Time(1_716_400_000_125_001_000),
        published: Time(1_716_400_000_125_042_999),
        data,
    }
}

fn level(price: i64, size: i64) -> Level {
    Level { price: Decimal::new(price, 2), size: Decimal::new(size, 8) }
}

fn book(depth: i64) -> Levels {
    let side = |sign: i64| (1..=depth).map(|i| level(6_712_345 + sign * i, i * 12_345)).collect();
    let mut book = Book::new();
    book.replace(&Levels { bids: side(-1), asks: side(1), ..Levels::default() }).expect("sizes are positive");
    book.to_levels()
}

fn events() -> Vec<(&'static str, Event)> {
    let quote =
        Quote { bid: Some(level(6_712_345, 52_300_000)), ask: Some(level(6_712_346, 120_420_000)), ..Quote::default() };
    let trade = Trade {
        price: Decimal::new(6_712_345, 2),
        size: Decimal::new(52_300_000, 8),
        side: Some(Side::Buy),
        trade_id: "681238741".into(),
        reference: None,
    };
    vec![
        ("quote", event(Channel::Quote, Kind::Update, Data::Quote(quote))),
        ("trade", event(Channel::Trade, Kind::Update, Data::Trade(trade))),
        ("book-10 update", event(Channel::Book10, Kind::Update, Data::Book(book(2)))),
        ("book-50 snapshot", event(Channel::Book50, Kind::Snapshot, Data::Book(book(50)))),
    ]
}

fn encode(c: &mut Criterion) {
    let epoch: Arc<str> = "k3f9".into();
    for (name, event) in events() {
        let mut group = c.benchmark_group(format!("encode {name}"));
        for form in FORMS {
            let bytes = Frame::new(event.clone(), Arc::clone(&epoch)).encoded(form).bytes.len();
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(format!("{form:?}"), |b| {
                b.iter_batched(
                    || Frame::new(event.clone(), Arc::clone(&epoch)),
                    |frame| {
                        black_box(frame.encoded(form));
                        frame
                    },
                    criterion::BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, event) in events() {
        let frame = Frame::new(event, "k3f9".into());
        let text = String::from_utf8(frame.encoded(Form::Json).bytes.to_vec()).expect("JSON is text");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("{name} JSON"), |b| b.iter(|| json::read_message(black_box(&text))));
        let bytes = frame.encoded(Form::Protobuf).bytes.clone();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("{name} Protobuf"), |b| {
            b.iter(|| {
                let wire = v1::SessionResponse::decode(black_box(bytes.clone()));
                convert::message_from_wire(wire.expect("written by ourselves"))
            });
        });
    }
    group.finish();
}

/// What a gRPC server does for each message of each reader: the bytes as they are, and what a generated type would cost.
fn grpc(c: &mut Criterion) {
    let mut group = c.benchmark_group("gRPC message");
    for (name, event) in events() {
        let bytes = Frame::new(event, "k3f9".into()).encoded(Form::Protobuf).bytes.clone();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut out = Vec::with_capacity(2 * bytes.len());
        group.bench_function(format!("{name} as it is"), |b| {
            b.iter(|| {
                out.clear();
                EncodedMessage::new(black_box(bytes.clone())).put(&mut out)
            });
        });
        group.bench_function(format!("{name} through its type"), |b| {
            b.iter(|| {
                out.clear();
                let message = v1::SessionResponse::decode(black_box(bytes.clone())).expect("written by ourselves");
                message.encode(&mut out)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode, grpc);
criterion_main!(benches);
