//! The service `MarketData`: what consumers call. Its streams are in [`crate::subscribe`].

use std::collections::BTreeSet;

use ticker_market::topic::is_venue;
use ticker_market::{Channel, Class, Cursor, CursorError, Event, Interval, Pattern, Topic, TopicError};
use ticker_proto::convert::{event_to_wire, instrument_to_wire, status_to_wire};
use ticker_proto::v1::market_data_server::MarketData;
use ticker_proto::{Code, v1};
use ticker_session::catalogue::not_served;
use ticker_tape::TopicId;
use tonic::{Request, Response, Status, Streaming};

use crate::Fanout;
use crate::core::Core;
use crate::history::{HistoryPage, Range};
use crate::relay::counted;
use crate::subscribe::Messages;

#[tonic::async_trait]
impl MarketData for Fanout {
    type SubscribeStream = Messages;
    type SessionStream = Messages;

    async fn subscribe(&self, request: Request<v1::SubscribeRequest>) -> Result<Response<Messages>, Status> {
        self.open_subscription(request.into_inner()).map(Response::new).map_err(counted)
    }

    async fn session(&self, request: Request<Streaming<v1::SessionRequest>>) -> Result<Response<Messages>, Status> {
        self.open_session(request.into_inner()).map(Response::new).map_err(counted)
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::GetSnapshotResponse>, Status> {
        let (cursor, events) = self.snapshots(&request.into_inner().topics).map_err(counted)?;
        let events = events.iter().map(|e| v1::Event { topic: e.topic.to_string(), ..event_to_wire(e) }).collect();
        Ok(Response::new(v1::GetSnapshotResponse { cursor, events }))
    }

    async fn list_instruments(
        &self,
        request: Request<v1::ListInstrumentsRequest>,
    ) -> Result<Response<v1::ListInstrumentsResponse>, Status> {
        let venue = request.into_inner().venue;
        if !venue.is_empty() && !is_venue(&venue) {
            return Err(counted(Code::BadRequest.status("a venue's name is 1 to 32 of a-z, 0-9 and -")));
        }
        let listed: Vec<_> = {
            let core = self.core();
            let wanted = core.listed().filter(|(i, _)| venue.is_empty() || i.venue == venue);
            wanted.map(|(i, s)| (i.clone(), s)).collect()
        };
        let instruments = listed
            .iter()
            .map(|(instrument, status)| v1::ListedInstrument {
                instrument: Some(instrument_to_wire(instrument)),
                status: Some(status_to_wire(status)),
            })
            .collect();
        Ok(Response::new(v1::ListInstrumentsResponse { instruments }))
    }

    async fn get_bars(&self, request: Request<v1::GetBarsRequest>) -> Result<Response<v1::GetBarsResponse>, Status> {
        let asked = request.into_inner();
        let interval = Interval::from_name(&asked.interval).ok_or_else(|| {
            let names = Interval::ALL.map(Interval::as_str).join(", ");
            counted(Code::BadRequest.status(format!("`interval` is `{}`: expected one of {names}", asked.interval)))
        })?;
        let range = Range::new(asked.start, asked.end, asked.limit);
        let topic = Topic::new(Channel::Bar(interval), &asked.venue, &asked.symbol);
        let (events, next) = self.history(topic, range, &asked.cursor, Core::bars).map_err(counted)?;
        Ok(Response::new(v1::GetBarsResponse { events, next }))
    }

    async fn get_trades(
        &self,
        request: Request<v1::GetTradesRequest>,
    ) -> Result<Response<v1::GetTradesResponse>, Status> {
        let asked = request.into_inner();
        let range = Range::new(asked.start, asked.end, asked.limit);
        let topic = Topic::new(Channel::Trade, &asked.venue, &asked.symbol);
        let (events, next) = self.history(topic, range, &asked.cursor, Core::trades).map_err(counted)?;
        Ok(Response::new(v1::GetTradesResponse { events, next }))
    }
}

impl Fanout {
    /// A page of history, on the wire, and the cursor of the next.
    fn history(
        &self,
        topic: Result<Topic, TopicError>,
        range: Range,
        cursor: &str,
        page: fn(&Core, TopicId, &Range) -> HistoryPage,
    ) -> Result<(Vec<v1::Event>, String), Status> {
        let bad = |message: String| Code::BadRequest.status(message);
        let topic =
            topic.map_err(|_| bad("a venue is 1 to 32 of a-z 0-9 -, a symbol 1 to 64 of A-Z 0-9 . - _".into()))?;
        let mut range = range;
        if range.start.zip(range.end).is_some_and(|(start, end)| end <= start) {
            return Err(bad("`end` is not after `start`".into()));
        }
        let core = self.core();
        let id = core.known_topic(&topic).map_err(|why| why.code.status(why.message))?;
        if !cursor.is_empty() {
            let cursor: Cursor = cursor.parse().map_err(|why: CursorError| bad(why.to_string()))?;
            if cursor.epoch != *core.tape().epoch() {
                return Err(bad(format!("the cursor {cursor} is of another epoch: ask again without it")));
            }
            range.after = Some(cursor.seq);
        }
        let HistoryPage { events, next } = page(&core, id, &range);
        let next = next.map(|seq| core.tape().cursor_at(seq).to_string()).unwrap_or_default();
        drop(core);
        let topic = topic.to_string();
        Ok((events.iter().map(|e| v1::Event { topic: topic.clone(), ..event_to_wire(e) }).collect(), next))
    }

    /// The newest values of state and book topics, and the cursor at which they hold.
    fn snapshots(&self, texts: &[String]) -> Result<(String, Vec<Event>), Status> {
        if texts.is_empty() {
            return Err(Code::BadRequest.status("no topics: name at least one, such as `quote/kraken/BTC-USD`"));
        }
        let max = self.config().request_topics_max;
        let too_many = || Code::TooManyTopics.status(format!("more than {max} topics in one request"));
        if texts.len() > max {
            return Err(too_many());
        }
        let patterns = texts
            .iter()
            .map(|t| t.parse::<Pattern>().map_err(|why| Code::BadRequest.status(why.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let core = self.core();
        let mut ids = BTreeSet::new();
        for pattern in &patterns {
            match pattern.exact() {
                Some(topic) => {
                    ids.insert(with_snapshot(&core, &topic)?);
                }
                None => {
                    if let Some(channel) = pattern.channel().filter(|c| !c.is_served()) {
                        let why = not_served(channel);
                        return Err(why.code.status(why.message));
                    }
                    ids.extend(core.matching(pattern));
                }
            }
            if ids.len() > max {
                return Err(too_many());
            }
        }
        Ok((core.tape().cursor().to_string(), ids.into_iter().filter_map(|id| core.snapshot(id)).collect()))
    }
}

fn with_snapshot(core: &Core, topic: &Topic) -> Result<TopicId, Status> {
    let id = core.known_topic(topic).map_err(|why| why.code.status(why.message))?;
    if topic.channel.class() == Class::Event {
        return Err(Code::BadRequest.status(format!("`{}` is an event channel: it has no snapshot", topic.channel)));
    }
    Ok(id)
}
