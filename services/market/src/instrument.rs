//! What a venue trades.

use compact_str::CompactString;

use crate::topic::BEST;
use crate::{Channel, Decimal, Topic};

/// One instrument of one venue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instrument {
    /// The venue's name, such as `kraken`.
    pub venue: CompactString,
    /// The normal form, such as `BTC-USD`.
    pub symbol: CompactString,
    /// The venue's own name, such as `BTC/USD`.
    pub native: CompactString,
    /// Smallest step of the price; `None` where the venue did not say.
    pub tick_size: Option<Decimal>,
    /// Smallest step of the size; `None` where the venue did not say.
    pub lot_size: Option<Decimal>,
    /// What the venue gives for it. `book-10` and `book-50` come with `book`, bars and `stats` with `trade`, `status` with
    /// everything.
    pub channels: Vec<Channel>,
}

impl Instrument {
    /// All topics that this instrument has, the derived ones included.
    pub fn topics(&self) -> impl Iterator<Item = Topic> + '_ {
        let book = self.channels.contains(&Channel::Book);
        let trade = self.channels.contains(&Channel::Trade);
        Channel::ALL
            .into_iter()
            .filter(move |c| match c {
                Channel::Book10 | Channel::Book50 => book,
                Channel::Bar(_) | Channel::Stats => trade,
                Channel::Status => true,
                other => self.channels.contains(other),
            })
            .map(|channel| Topic { channel, venue: self.venue.clone(), symbol: self.symbol.clone() })
    }

    /// The topic of the consolidated quote that it has a part in.
    pub fn best_topic(&self) -> Option<Topic> {
        let topic = || Topic { channel: Channel::Quote, venue: BEST.into(), symbol: self.symbol.clone() };
        self.channels.contains(&Channel::Quote).then(topic)
    }
}
