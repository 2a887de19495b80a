//! What a follower is told, on the wire: cut so that no message is large.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message as _;
use ticker_market::{Event, Instrument};
use ticker_proto::convert::{event_to_wire, instrument_to_wire};
use ticker_proto::v1::{self, follow_response::Step};
use ticker_tape::TopicId;

use crate::reader::Piece;

/// Levels of one part of a book, at most.
pub const PART_LEVELS_MAX: usize = 2_000;

/// A message is closed once it has so many bytes: with the last part it stays below 1 MiB.
const STEP_BYTES: usize = 512 << 10;

/// Instruments or topics in one message.
const STEP_ITEMS: usize = 4_000;

/// The event as it goes over the wire: in one message, or (a large book) in parts of the same `seq`, to be applied
/// together when the last is there. Topics are left empty.
pub fn event_parts(event: &Event) -> Vec<v1::Event> {
    let whole = event_to_wire(event);
    let Some(v1::event::Data::Book(book)) = &whole.data else { return vec![whole] };
    if book.bids.len() + book.asks.len() <= PART_LEVELS_MAX {
        return vec![whole];
    }
    split(whole)
}

fn split(mut whole: v1::Event) -> Vec<v1::Event> {
    let Some(v1::event::Data::Book(mut book)) = whole.data.take() else { return vec![whole] };
    let parts = (book.bids.len() + book.asks.len()).div_ceil(PART_LEVELS_MAX) as u32;
    let (mut bids, mut asks) = (book.bids.drain(..), book.asks.drain(..));
    (1..=parts)
        .map(|part| {
            let mut some = v1::Book { crc: book.crc, sum: book.sum, ..v1::Book::default() };
            some.bids.extend(bids.by_ref().take(PART_LEVELS_MAX));
            some.asks.extend(asks.by_ref().take(PART_LEVELS_MAX - some.bids.len()));
            v1::Event { part, parts, data: Some(v1::event::Data::Book(some)), ..whole.clone() }
        })
        .collect()
}

/// Turns pieces into messages, appended to `out`. All up to `position` has been told with the last of them.
pub fn encode(pieces: &mut Vec<Piece>, position: u64, out: &mut VecDeque<v1::FollowResponse>) {
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut instruments = Vec::new();
    for piece in pieces.drain(..) {
        if !matches!(piece, Piece::Instrument(..)) {
            flush_instruments(&mut instruments, out);
        }
        match piece {
            Piece::Instrument(seq, instrument) => {
                flush_events(&mut events, &mut bytes, seq - 1, out);
                instruments.push(instrument);
            }
            Piece::Added { seq, topics, snapshots } => {
                flush_events(&mut events, &mut bytes, seq, out);
                added(seq, &topics, &snapshots, out);
            }
            Piece::Removed(topics) => {
                flush_events(&mut events, &mut bytes, position, out);
                let topics = topics.into_iter().map(|t| t.0).collect();
                push(out, Step::Removed(v1::Removed { topics }));
            }
            Piece::Event(topic, event) => {
                for part in event_parts(&event) {
                    if bytes >= STEP_BYTES {
                        // Another event of this place, or another part of this one, is still to come.
                        flush_events(&mut events, &mut bytes, event.seq - 1, out);
                    }
                    let numbered = v1::NumberedEvent { topic: topic.0, event: Some(part) };
                    bytes += numbered.encoded_len();
                    events.push(numbered);
                }
            }
        }
    }
    flush_instruments(&mut instruments, out);
    flush_events(&mut events, &mut bytes, position, out);
}

/// Instruments, as they are told when a stream opens.
pub fn instruments(list: &[Arc<Instrument>], out: &mut VecDeque<v1::FollowResponse>) {
    for some in list.chunks(STEP_ITEMS) {
        let instruments = some.iter().map(|i| instrument_to_wire(i)).collect();
        push(out, Step::Instruments(v1::Instruments { instruments }));
    }
}

/// One message.
pub fn push(out: &mut VecDeque<v1::FollowResponse>, step: Step) {
    out.push_back(v1::FollowResponse { step: Some(step) });
}

fn flush_instruments(list: &mut Vec<Arc<Instrument>>, out: &mut VecDeque<v1::FollowResponse>) {
    if !list.is_empty() {
        instruments(list, out);
        list.clear();
    }
}

fn flush_events(
    events: &mut Vec<v1::NumberedEvent>,
    bytes: &mut usize,
    seq: u64,
    out: &mut VecDeque<v1::FollowResponse>,
) {
    *bytes = 0;
    if !events.is_empty() {
        push(out, Step::Events(v1::Events { events: std::mem::take(events), seq }));
    }
}

/// The topics, and after them (in the same message where there is room) their snapshots. A topic always comes before or
/// with its snapshot.
fn added(
    seq: u64,
    topics: &[crate::reader::Joined],
    snapshots: &[(TopicId, Event)],
    out: &mut VecDeque<v1::FollowResponse>,
) {
    let mut message = v1::Added { seq, ..v1::Added::default() };
    let mut bytes = 0;
    let mut snapshots = snapshots.iter().peekable();
    for joined in topics {
        if bytes >= STEP_BYTES || message.topics.len() >= STEP_ITEMS {
            push(out, Step::Added(std::mem::replace(&mut message, v1::Added { seq, ..v1::Added::default() })));
            bytes = 0;
        }
        let topic = v1::NumberedTopic { number: joined.id.0, topic: joined.topic.to_string(), last: joined.last };
        bytes += topic.encoded_len();
        message.topics.push(topic);
        if let Some((id, event)) = snapshots.next_if(|(id, _)| *id == joined.id) {
            for part in event_parts(event) {
                if bytes >= STEP_BYTES {
                    push(out, Step::Added(std::mem::replace(&mut message, v1::Added { seq, ..v1::Added::default() })));
                    bytes = 0;
                }
                let numbered = v1::NumberedEvent { topic: id.0, event: Some(part) };
                bytes += numbered.encoded_len();
                message.snapshots.push(numbered);
            }
        }
    }
    push(out, Step::Added(message));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_market::{Channel, Data, Decimal, Kind, Level, Levels, Time, Topic};

    fn book(seq: u64, levels: i64) -> Arc<Event> {
        let side = |sign: i64| {
            (1..=levels)
                .map(|i| Level { price: Decimal::new(5_000_000 + sign * i, 2), size: Decimal::new(i, 3) })
                .collect()
        };
        Arc::new(Event {
            topic: Arc::new(Topic::new(Channel::Book, "kraken", "BTC-USD").expect("valid")),
            seq,
            prev: 0,
            kind: Kind::Snapshot,
            ts: None,
            recv: Time(1),
            published: Time(1),
            data: Data::Book(Levels { bids: side(-1), asks: side(1), crc: 7, sum: 8 }),
        })
    }

    #[test]
    fn large_books_come_in_parts_that_add_up() {
        let event = book(9, 3_700);
        let parts = event_parts(&event);
        assert_eq!(parts.len(), 4);
        let whole = event_to_wire(&event);
        let mut sum = v1::Book { crc: 7, sum: 8, ..v1::Book::default() };
        for (i, part) in parts.into_iter().enumerate() {
            assert_eq!((part.part, part.parts, part.seq), (i as u32 + 1, 4, 9));
            let Some(v1::event::Data::Book(some)) = part.data else { panic!("a book") };
            assert!(some.bids.len() + some.asks.len() <= PART_LEVELS_MAX);
            sum.bids.extend(some.bids);
            sum.asks.extend(some.asks);
        }
        assert_eq!(whole.data, Some(v1::event::Data::Book(sum)));
        assert_eq!(event_parts(&book(9, 1_000)).len(), 1);
    }

    #[test]
    fn messages_stay_small_and_never_claim_a_place_that_is_not_complete() {
        let mut pieces: Vec<Piece> = (1..=40).map(|seq| Piece::Event(TopicId(0), book(seq, 1_500))).collect();
        let mut out = VecDeque::new();
        encode(&mut pieces, 41, &mut out);
        assert!(out.len() > 3);
        let (mut told, mut parts) = (0, 0);
        for message in &out {
            assert!(message.encoded_len() < 1 << 20);
            let Some(Step::Events(events)) = &message.step else { continue };
            for event in events.events.iter().filter_map(|e| e.event.as_ref()) {
                assert!(event.seq > told, "nothing comes at or below a place that was called complete");
                parts += 1;
            }
            let last = events.events.last().and_then(|e| e.event.as_ref()).expect("not empty");
            told = events.seq;
            assert!(told >= last.seq || told == last.seq - 1);
        }
        assert_eq!((told, parts), (41, 80));
    }
}
