//! Long polling: one request after the other over one connection.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ticker_market::{Cursor, Kind};
use ticker_proto::{Message, Notice, json};

use crate::error::Error;
use crate::http::{Connection, expect_ok, read_whole};
use crate::options::{Options, Subscription, query};
use crate::transport::Item;

type Asking = Pin<Box<dyn Future<Output = Result<(Connection, String), Error>> + Send>>;

pub(crate) struct Poll {
    options: Options,
    subscription: Subscription,
    wait_s: u32,
    connection: Option<Connection>,
    /// The request that is under way: kept here, so that whoever stops waiting for it loses nothing.
    asking: Option<Asking>,
    /// What has arrived and was not given out yet.
    ready: VecDeque<Item>,
}

impl Poll {
    pub(crate) async fn open(options: &Options, subscription: &Subscription) -> Result<Self, Error> {
        let connection = Connection::open(options).await?;
        let mut poll = Self {
            options: options.clone(),
            subscription: subscription.clone(),
            wait_s: options.poll_wait_s,
            connection: Some(connection),
            asking: None,
            ready: VecDeque::new(),
        };
        // The first answer comes at once, and tells whether the subscription is accepted.
        poll.ask().await?;
        Ok(poll)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            self.ask().await?;
        }
    }

    async fn ask(&mut self) -> Result<(), Error> {
        if self.asking.is_none() {
            let connection = self.connection.take();
            let connection = connection.ok_or_else(|| Error::Lost("an earlier poll failed".into()))?;
            let wait = Duration::from_secs(self.wait_s.into());
            self.asking = Some(Box::pin(get(self.options.clone(), connection, self.path(), wait)));
        }
        if let Some(asking) = &mut self.asking {
            let answer = asking.await;
            self.asking = None;
            let (connection, text) = answer?;
            self.connection = Some(connection);
            let (cursor, messages) = json::read_poll(&text).map_err(|e| Error::Protocol(e.to_string()))?;
            move_on(&mut self.subscription.have, &messages);
            self.ready.extend(with_cursors(&cursor, in_order_of_session(messages)));
            self.subscription.from = Some(cursor);
            // Past events are asked for once.
            self.subscription.recent = None;
        }
        Ok(())
    }

    fn path(&self) -> String {
        let mut path = format!("/v1/poll{}", query(&self.subscription, "cursor"));
        if self.subscription.from.is_some() {
            path.push_str(&format!("&wait={}", self.wait_s));
        }
        path
    }
}

async fn get(
    options: Options,
    mut connection: Connection,
    path: String,
    wait: Duration,
) -> Result<(Connection, String), Error> {
    const ACCEPT: Option<&str> = Some("application/json");
    let mut response = connection.get(&path, ACCEPT, Some(wait)).await;
    // A server may close a connection between two requests; the same cursor asks for the same.
    if matches!(response, Err(Error::Lost(_))) {
        connection = Connection::open(&options).await?;
        response = connection.get(&path, ACCEPT, Some(wait)).await;
    }
    let body = read_whole(expect_ok(response?).await?).await?;
    let text = String::from_utf8(body.into()).map_err(|e| Error::Protocol(e.to_string()))?;
    Ok((connection, text))
}

/// What a caller's books are, once it has applied an answer: the next one goes on there.
fn move_on(have: &mut BTreeMap<String, u64>, messages: &[Message]) {
    for message in messages {
        match message {
            Message::Event(part) if part.event.kind == Kind::Invalid => {
                have.remove(&part.event.topic.to_string());
            }
            Message::Event(part) if part.part == part.parts => {
                if let Some(seq) = have.get_mut(&part.event.topic.to_string()) {
                    *seq = part.event.seq;
                }
            }
            Message::Notice(Notice::Gap { .. }) => have.clear(),
            _ => {}
        }
    }
}

/// An answer lists its notices apart. On a session `welcome` and `gap` come before the events of which they tell, all other
/// notices after those that they close.
fn in_order_of_session(messages: Vec<Message>) -> Vec<Message> {
    let before = |m: &Message| matches!(m, Message::Notice(Notice::Welcome { .. } | Notice::Gap { .. }));
    let (mut first, rest): (Vec<_>, Vec<_>) = messages.into_iter().partition(before);
    first.extend(rest);
    first
}

/// Says which cursor holds after each message. An answer holds everything between the cursors of two answers, so where
/// its updates are in the order of the tape each is a place to go on from; otherwise only the end is.
fn with_cursors(cursor: &str, messages: Vec<Message>) -> Vec<Item> {
    let seq = |message: &Message| match message {
        Message::Event(part) if part.event.kind != Kind::Snapshot && part.part == part.parts => Some(part.event.seq),
        _ => None,
    };
    let place: Option<Cursor> = cursor.parse().ok();
    let seqs: Vec<u64> = messages.iter().filter_map(seq).collect();
    let in_order = seqs.is_sorted() && place.as_ref().is_some_and(|p| seqs.last().is_none_or(|s| *s <= p.seq));
    let mut items: Vec<Item> = Vec::with_capacity(messages.len() + 1);
    for message in messages {
        let here = seq(&message).filter(|_| in_order);
        let here = here.zip(place.as_ref()).map(|(s, p)| Cursor { epoch: p.epoch.clone(), seq: s }.to_string());
        items.push(Item { message: Some(message), cursor: here });
    }
    match items.last_mut() {
        Some(last) => last.cursor = Some(cursor.to_owned()),
        None => items.push(Item { message: None, cursor: Some(cursor.to_owned()) }),
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(json: &str) -> Vec<Option<String>> {
        let (cursor, messages) = json::read_poll(json).expect("an answer");
        with_cursors(&cursor, messages).into_iter().map(|i| i.cursor).collect()
    }

    fn event(seq: u64, kind: &str) -> String {
        format!(r#"{{"topic":"trade/x/A","seq":{seq},"prev":0,"kind":"{kind}","price":"1","size":"1"}}"#)
    }

    #[test]
    fn each_update_in_order_is_a_place_to_go_on_from() {
        let some = |c: &str| Some(c.to_owned());
        let json = |a, b, c| format!(r#"{{"cursor":"e-{c}","events":[{},{}],"notices":[]}}"#, a, b);
        assert_eq!(cursors(&json(event(1, "update"), event(2, "update"), 5)), [some("e-1"), some("e-5")]);
        assert_eq!(cursors(&json(event(2, "update"), event(1, "update"), 5)), [None, some("e-5")]);
        assert_eq!(cursors(&json(event(2, "snapshot"), event(1, "update"), 5)), [None, some("e-5")]);
        assert_eq!(cursors(&json(event(4, "update"), event(9, "update"), 5)), [None, some("e-5")]);
        assert_eq!(cursors(r#"{"cursor":"e-5","events":[],"notices":[]}"#), [some("e-5")]);
    }

    #[test]
    fn a_new_epoch_is_told_before_its_snapshots() {
        let welcome = r#"{"op":"welcome","version":"1","epoch":"f","cursor":"f-1","heartbeat_ms":1}"#;
        let subscribed = r#"{"op":"subscribed","id":0,"topics":[],"cursor":"f-1"}"#;
        let json =
            format!(r#"{{"cursor":"f-1","events":[{}],"notices":[{welcome},{subscribed}]}}"#, event(1, "update"));
        let (_, messages) = json::read_poll(&json).expect("an answer");
        let messages = in_order_of_session(messages);
        assert!(matches!(
            messages.as_slice(),
            [Message::Notice(Notice::Welcome { .. }), Message::Event(_), Message::Notice(Notice::Subscribed { .. })]
        ));
    }

    #[test]
    fn the_first_poll_does_not_wait() {
        let poll = |from: Option<&str>| Poll {
            options: Options::default(),
            subscription: Subscription {
                topics: vec!["trade/x/A".into()],
                from: from.map(Into::into),
                ..Default::default()
            },
            wait_s: 25,
            connection: None,
            asking: None,
            ready: VecDeque::new(),
        };
        assert_eq!(poll(None).path(), "/v1/poll?topics=trade/x/A");
        assert_eq!(poll(Some("e-5")).path(), "/v1/poll?topics=trade/x/A&cursor=e-5&wait=25");
    }
}
