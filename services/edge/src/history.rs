//! History: bars and trades by time. The fanout keeps them; this asks it, for gRPC and for HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use ticker_market::{Time, Topic};
use ticker_proto::v1::market_data_client::MarketDataClient;
use ticker_proto::{Code, Fields, convert, json, v1};
use ticker_session::catalogue::Refusal;
use tonic::transport::Channel;

use crate::routes::{self, Web};

/// How long the fanout may take for a page.
const WAIT: Duration = Duration::from_secs(5);

/// Largest page from a fanout, in bytes.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Asks the fanout.
#[derive(Clone, Debug)]
pub(crate) struct History {
    client: MarketDataClient<Channel>,
}

impl History {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { client: MarketDataClient::new(channel).max_decoding_message_size(PAGE_BYTES_MAX) }
    }

    /// A page of bars.
    pub(crate) async fn bars(&self, request: v1::GetBarsRequest) -> Result<v1::GetBarsResponse, Refusal> {
        let mut client = self.client.clone();
        answered(client.get_bars(request)).await
    }

    /// A page of trades.
    pub(crate) async fn trades(&self, request: v1::GetTradesRequest) -> Result<v1::GetTradesResponse, Refusal> {
        let mut client = self.client.clone();
        answered(client.get_trades(request)).await
    }
}

async fn answered<T>(asked: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, Refusal> {
    let status = match tokio::time::timeout(WAIT, asked).await {
        Ok(Ok(answer)) => return Ok(answer.into_inner()),
        Ok(Err(status)) => status,
        Err(_) => return Err(Refusal::new(Code::Internal, "the fanout did not answer in time")),
    };
    // The fanout's own words where it had some; else it was not reached.
    let code = status.metadata().get("ticker-code").and_then(|c| c.to_str().ok()).and_then(Code::from_name);
    Err(match code {
        Some(code) => Refusal::new(code, status.message()),
        None => Refusal::new(Code::Draining, "the fanout cannot be reached now; try again soon"),
    })
}

/// What a query asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// The interval of bars, by name.
    pub interval: String,
    /// Not before this.
    pub start: Option<Time>,
    /// Before this.
    pub end: Option<Time>,
    /// At most so many; 0 where nothing is said.
    pub limit: u32,
    /// Behind that page; empty for the first.
    pub cursor: String,
}

/// Reads a query of these parameters. A name that means nothing is refused, so that a misspelt one is noticed.
pub fn parse(query: &str, known: &[&str]) -> Result<Asked, Refusal> {
    let bad = |message: String| Refusal::new(Code::BadRequest, message);
    let mut asked = Asked::default();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| bad(format!("the value of `{name}` is not UTF-8")))?.into_owned();
        let time = || {
            let micros = value.parse().ok().map(Time::from_micros);
            micros.or_else(|| Time::parse_rfc3339(&value)).filter(|t| *t > Time(0)).ok_or_else(|| {
                let expected = "microseconds since 1970, or a time such as 2026-08-09T21:05:00Z (UTC)";
                bad(format!("`{name}` is `{value}`: expected {expected}"))
            })
        };
        match name {
            _ if !known.contains(&name) => {
                return Err(bad(format!("there is no parameter `{name}`; there are {}", known.join(", "))));
            }
            "interval" => asked.interval = value,
            "start" => asked.start = Some(time()?),
            "end" => asked.end = Some(time()?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| *limit > 0);
                asked.limit = limit.ok_or_else(|| bad(format!("`limit` is `{value}`: expected a number from 1")))?;
            }
            "cursor" => asked.cursor = value,
            // Tokens come with a later version; a reader who sends one already is not turned away.
            _ => {}
        }
    }
    Ok(asked)
}

type Named = Result<Path<(String, String)>, PathRejection>;

fn named(path: Named) -> Result<(String, String), Refusal> {
    path.map(|Path(named)| named).map_err(|why| Refusal::new(Code::BadRequest, why.body_text()))
}

/// `GET /v1/bars/{venue}/{symbol}`.
pub(crate) async fn bars(State(web): State<Web>, path: Named, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let (venue, symbol) = named(path)?;
        let known = ["interval", "start", "end", "limit", "cursor", "token"];
        let Asked { interval, start, end, limit, cursor } = parse(query.as_deref().unwrap_or_default(), &known)?;
        let (start, end) = (nanos(start), nanos(end));
        let page = web.history.bars(v1::GetBarsRequest { venue, symbol, interval, start, end, limit, cursor }).await?;
        body("bars", page.events, &page.next)
    };
    respond(answer.await)
}

/// `GET /v1/trades/{venue}/{symbol}`.
pub(crate) async fn trades(State(web): State<Web>, path: Named, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let (venue, symbol) = named(path)?;
        let known = ["start", "end", "limit", "cursor", "token"];
        let Asked { start, end, limit, cursor, .. } = parse(query.as_deref().unwrap_or_default(), &known)?;
        let (start, end) = (nanos(start), nanos(end));
        let page = web.history.trades(v1::GetTradesRequest { venue, symbol, start, end, limit, cursor }).await?;
        body("trades", page.events, &page.next)
    };
    respond(answer.await)
}

fn nanos(time: Option<Time>) -> i64 {
    time.map_or(0, |t| t.0)
}

fn respond(answer: Result<Vec<u8>, Refusal>) -> Response {
    match answer {
        Ok(body) => routes::json(body),
        Err(refusal) => routes::problem(&refusal),
    }
}

/// `{"bars":[…],"next":…}`: events as everywhere.
fn body(name: &str, events: Vec<v1::Event>, next: &str) -> Result<Vec<u8>, Refusal> {
    let wrong = |why: String| Refusal::new(Code::Internal, format!("what the fanout answered cannot be read: {why}"));
    let mut out = format!("{{\"{name}\":[").into_bytes();
    let mut topic: Option<Arc<Topic>> = None;
    for (i, wire) in events.into_iter().enumerate() {
        // All are of one topic.
        let topic = match &topic {
            Some(topic) => Arc::clone(topic),
            None => {
                let parsed = wire.topic.parse::<Topic>().map_err(|why| wrong(why.to_string()))?;
                Arc::clone(topic.insert(Arc::new(parsed)))
            }
        };
        let event = convert::event_from_wire(topic, wire).map_err(|why| wrong(why.to_string()))?;
        if i > 0 {
            out.push(b',');
        }
        json::write_event(&mut out, &event, Fields::ALL, None, None);
    }
    out.extend_from_slice(b"],\"next\":");
    let next = (!next.is_empty()).then_some(next);
    serde_json::to_writer(&mut out, &next).expect("writing a string to memory cannot fail");
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = ["interval", "start", "end", "limit", "cursor", "token"];

    #[test]
    fn times_are_microseconds_or_rfc_3339() {
        let asked = parse("interval=1m&start=1786309549000000&end=2026-08-09T22:00:00Z&limit=5&cursor=k-1", &KNOWN);
        let asked = asked.expect("valid");
        assert_eq!((asked.start, asked.limit), (Some(Time(1_786_309_549_000_000_000)), 5));
        assert_eq!((asked.end, asked.cursor.as_str()), (Time::parse_rfc3339("2026-08-09T22:00:00Z"), "k-1"));
        let asked = parse("end=2026-08-09T22%3A00%3A00Z", &KNOWN).expect("valid");
        assert_eq!(asked.end, Time::parse_rfc3339("2026-08-09T22:00:00Z"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, says) in [
            ("intervall=1m", "no parameter `intervall`"),
            ("start=yesterday", "expected microseconds"),
            ("start=", "expected microseconds"),
            ("end=-5", "expected microseconds"),
            ("limit=0", "expected a number from 1"),
            ("limit=x", "expected a number from 1"),
            ("cursor=%ff", "not UTF-8"),
        ] {
            let refusal = parse(query, &KNOWN).expect_err(query);
            assert!(refusal.message.contains(says) && refusal.code == Code::BadRequest, "{query}: {}", refusal.message);
        }
    }

    #[test]
    fn a_page_is_one_object() {
        let trade = v1::Trade { price: "1.50".into(), size: "2".into(), ..v1::Trade::default() };
        let event = |seq| v1::Event {
            topic: "trade/kraken/BTC-USD".into(),
            seq,
            kind: v1::Kind::Update as i32,
            data: Some(v1::event::Data::Trade(trade.clone())),
            ..v1::Event::default()
        };
        let text = String::from_utf8(body("trades", vec![event(1), event(2)], "k-2").expect("valid")).expect("text");
        let value: serde_json::Value = serde_json::from_str(&text).expect("an object");
        assert_eq!((value["trades"][1]["seq"].as_u64(), value["trades"][0]["price"].as_str()), (Some(2), Some("1.5")));
        assert_eq!(value["next"], "k-2");
        assert_eq!(body("bars", Vec::new(), "").expect("valid"), br#"{"bars":[],"next":null}"#);
    }
}
