//! What the scenarios share.

use ticker_market::Kind;
use ticker_proto::Notice;
use ticker_proto::message::Subscribe;

use crate::world::World;

pub(crate) const QUOTE: &str = "quote/va/AAA";
pub(crate) const TRADE: &str = "trade/va/AAA";
pub(crate) const BOOK: &str = "book/va/AAA";
pub(crate) const TEN: &str = "book-10/va/AAA";

pub(crate) fn to(topics: &[&str]) -> Subscribe {
    Subscribe { topics: topics.iter().map(|t| (*t).to_owned()).collect(), ..Subscribe::default() }
}

/// A usual world in which something has happened already.
pub(crate) fn world() -> World {
    let mut world = World::usual();
    happen(&mut world, 10);
    world.deliver(usize::MAX);
    world
}

/// `rounds` times a trade, a quote and a change of the book.
pub(crate) fn happen(world: &mut World, rounds: usize) {
    for _ in 0..rounds {
        [TRADE, QUOTE, BOOK].iter().for_each(|t| world.happen(t));
    }
}

/// The same, until the book's last event can be trusted.
pub(crate) fn happen_well(world: &mut World, rounds: usize) {
    happen(world, rounds);
    while world.tape_ref().events_of(&BOOK.parse().expect("a topic")).last().expect("some").event.kind == Kind::Invalid
    {
        happen(world, 1);
    }
}

pub(crate) fn seqs(world: &World, at: usize, topic: &str) -> Vec<u64> {
    world.readers[at].log.iter().filter(|(t, ..)| t == topic).map(|(_, seq, _)| *seq).collect()
}

pub(crate) fn on_tape(world: &World, topic: &str) -> Vec<u64> {
    world.tape_ref().events_of(&topic.parse().expect("a topic")).iter().map(|f| f.event.seq).collect()
}

pub(crate) fn head(world: &World) -> u64 {
    world.tape_ref().head
}

pub(crate) fn cursor(world: &World, seq: u64) -> Option<String> {
    Some(format!("{}-{seq}", world.epoch))
}

pub(crate) fn ops(world: &World, at: usize) -> Vec<String> {
    let name = |n: &Notice| format!("{n:?}").split([' ', '{']).next().expect("a name").to_owned();
    world.readers[at].notices.iter().map(name).filter(|n| n != "Heartbeat").collect()
}
