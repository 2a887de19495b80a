//! What a reader asks for in a query: `/v1/stream`, `/v1/poll`, `/v1/ws`, `/v1/snapshot`.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use ticker_market::{Class, Pattern};
use ticker_proto::Code;
use ticker_proto::message::Subscribe;
use ticker_session::catalogue::Refusal;

/// Longest wait of a long poll, in seconds.
pub const WAIT_SECONDS_MAX: u64 = 60;

/// How long a poll waits where the reader does not say, in seconds.
pub const WAIT_SECONDS: u64 = 25;

/// How long a snapshot may wait for its topics to come from the fanout.
pub const SNAPSHOT_WAIT: Duration = Duration::from_secs(5);

/// A query, read.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Params {
    /// What is subscribed to.
    pub subscribe: Subscribe,
    /// How long a poll waits, in seconds.
    pub wait_seconds: u64,
}

/// Reads a query. A name that means nothing is refused, so that a misspelt one is noticed.
pub fn parse(query: &str) -> Result<Params, Refusal> {
    let bad = |message: String| Refusal::new(Code::BadRequest, message);
    let mut params = Params { wait_seconds: WAIT_SECONDS, ..Params::default() };
    let subscribe = &mut params.subscribe;
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(&value.replace('+', " "))
            .decode_utf8()
            .map_err(|_| bad(format!("the value of `{name}` is not UTF-8")))?
            .into_owned();
        let number = |what: &str| value.parse().map_err(|_| bad(format!("`{name}` is `{value}`: expected {what}")));
        let list = || value.split(',').filter(|t| !t.is_empty()).map(str::to_owned);
        match name {
            "topics" => subscribe.topics.extend(list()),
            "from" | "cursor" => subscribe.from = Some(value).filter(|v| !v.is_empty()),
            "recent" => subscribe.recent = Some(number("a number of events")? as u32),
            "max_rate" => subscribe.max_rate = Some(number("updates a second")?),
            "max_kbps" => subscribe.max_kbps = Some(number("kilobits a second")?),
            "fields" => subscribe.fields.get_or_insert_default().extend(list()),
            "conflate" => match value.as_str() {
                "true" => subscribe.conflate = Some(true),
                "false" => subscribe.conflate = Some(false),
                _ => return Err(bad(format!("`conflate` is `{value}`: expected true or false"))),
            },
            "have" => subscribe.have.append(&mut have(&value)?),
            "wait" => {
                let seconds = number("seconds")?;
                if !(0.0..=WAIT_SECONDS_MAX as f64).contains(&seconds) {
                    return Err(bad(format!("`wait` is {value}: expected seconds, from 0 to {WAIT_SECONDS_MAX}")));
                }
                params.wait_seconds = seconds as u64;
            }
            // Tokens come with a later version; a reader who sends one already is not turned away.
            "token" => {}
            _ => {
                let known = "topics, from, cursor, recent, max_rate, max_kbps, fields, conflate, have, wait, token";
                return Err(bad(format!("there is no parameter `{name}`; there are {known}")));
            }
        }
    }
    if subscribe.topics.is_empty() {
        return Err(bad("no topics: add ?topics=quote/kraken/BTC-USD (several with commas, `*` for any)".into()));
    }
    Ok(params)
}

/// Refuses a snapshot of an event channel: it has none.
pub fn check_snapshot(topics: &[String]) -> Result<(), Refusal> {
    let channels = topics.iter().filter_map(|t| t.parse::<Pattern>().ok()?.channel());
    match channels.into_iter().find(|c| c.class() == Class::Event) {
        None => Ok(()),
        Some(channel) => {
            let message = format!("`{channel}` has no snapshot: subscribe with `recent` to get past events");
            Err(Refusal::new(Code::BadRequest, message))
        }
    }
}

/// `topic:seq,topic:seq`.
fn have(value: &str) -> Result<BTreeMap<String, u64>, Refusal> {
    let mut have = BTreeMap::new();
    for item in value.split(',').filter(|i| !i.is_empty()) {
        let pair = item.rsplit_once(':').and_then(|(t, s)| Some((t.to_owned(), s.parse().ok()?)));
        let Some((topic, seq)) = pair else {
            return Err(Refusal::new(Code::BadRequest, format!("`have` has `{item}`: expected <topic>:<seq>")));
        };
        have.insert(topic, seq);
    }
    Ok(have)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read() {
        let params = parse("topics=quote/kraken/BTC-USD,trade%2Fkraken%2FBTC-USD&from=k3f9-1&recent=5&max_rate=2.5&fields=bid,ask&conflate=false&wait=3&have=book/kraken/BTC-USD:7").expect("valid");
        let s = &params.subscribe;
        assert_eq!(s.topics, ["quote/kraken/BTC-USD", "trade/kraken/BTC-USD"]);
        assert_eq!(
            (s.from.as_deref(), s.recent, s.max_rate, s.conflate),
            (Some("k3f9-1"), Some(5), Some(2.5), Some(false))
        );
        assert_eq!((params.wait_seconds, s.have["book/kraken/BTC-USD"]), (3, 7));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, says) in [
            ("", "no topics"),
            ("topics=", "no topics"),
            ("topic=quote/kraken/BTC-USD", "no parameter `topic`"),
            ("topics=a&recent=many", "`recent` is `many`"),
            ("topics=a&wait=3600", "from 0 to 60"),
            ("topics=a&wait=NaN", "from 0 to 60"),
            ("topics=a&conflate=no", "expected true or false"),
            ("topics=a&have=b", "expected <topic>:<seq>"),
            ("topics=%ff", "not UTF-8"),
        ] {
            let refusal = parse(query).expect_err(query);
            assert!(refusal.message.contains(says), "{query}: {}", refusal.message);
        }
    }
}
