//! A day of ITCH messages, made here: 4,000 stocks, half a million orders open at the same time, the shares of message
//! types that a real day has, and orders of which four in five are named again among the 2,000 that came last.

use ticker_feeds::by_order::OrderBooks;
use ticker_feeds::itch::{Message, decode};
use ticker_market::Side;
use ticker_market::book::BookSide;

const STOCKS: u16 = 4_000;
const MESSAGES: usize = 2_000_000;
const OPEN: usize = 500_000;
const RECENT: usize = 2_000;

/// Messages one behind the other, each behind its length, as in a file.
pub(crate) struct Day {
    bytes: Vec<u8>,
}

impl Day {
    pub(crate) fn new() -> Self {
        let mut day = Self { bytes: Vec::with_capacity(MESSAGES * 36) };
        let mut rng = fastrand::Rng::with_seed(1);
        day.push(b'S', 0, &[b"O"]);
        // Reference, locate, shares left.
        let mut open: Vec<(u64, u16, u32)> = Vec::with_capacity(OPEN * 2);
        let mut reference = 10_000u64;
        for n in 0..MESSAGES {
            reference += rng.u64(1..8);
            // Most orders are cancelled or changed soon after they came, the others at any time.
            let recent = if rng.u8(0..10) < 8 { RECENT.min(open.len()) } else { open.len() };
            let of_open = open.len() - recent + rng.usize(..recent.max(1));
            match rng.u8(0..100) {
                _ if open.len() < OPEN && n < OPEN * 2 => day.add(&mut rng, reference, &mut open),
                0..42 => day.add(&mut rng, reference, &mut open),
                42..82 => {
                    let (gone, locate, _) = take(&mut open, of_open);
                    day.push(b'D', locate, &[&gone.to_be_bytes()]);
                }
                82..92 => {
                    let (old, locate, shares) = open[of_open];
                    open[of_open].0 = reference;
                    let price = price(&mut rng, locate, old.is_multiple_of(2));
                    // The side is that of the reference's parity, which a replacement keeps.
                    reference += (reference ^ old) & 1;
                    open[of_open].0 = reference;
                    day.push(
                        b'U',
                        locate,
                        &[&old.to_be_bytes(), &reference.to_be_bytes(), &shares.to_be_bytes(), &price.to_be_bytes()],
                    );
                }
                92..98 => {
                    let (order, locate, shares) = open[of_open];
                    let by = 1 + rng.u32(..shares);
                    day.push(b'E', locate, &[&order.to_be_bytes(), &by.to_be_bytes(), &(n as u64).to_be_bytes()]);
                    if by == shares {
                        take(&mut open, of_open);
                    } else {
                        open[of_open].2 -= by;
                    }
                }
                _ => {
                    let (order, locate, shares) = open[of_open];
                    let by = 1 + rng.u32(..shares);
                    day.push(b'X', locate, &[&order.to_be_bytes(), &by.to_be_bytes()]);
                    if by == shares {
                        take(&mut open, of_open);
                    } else {
                        open[of_open].2 -= by;
                    }
                }
            }
        }
        day
    }

    fn add(&mut self, rng: &mut fastrand::Rng, reference: u64, open: &mut Vec<(u64, u16, u32)>) {
        // A few stocks have most of the orders.
        let locate = 1 + (f32::powi(rng.f32(), 3) * f32::from(STOCKS - 1)) as u16;
        let bid = reference.is_multiple_of(2);
        let (shares, price) = (rng.u32(1..10) * 100, price(rng, locate, bid));
        let stock = format!("S{locate:<7}");
        let side = [if bid { b'B' } else { b'S' }];
        self.push(
            b'A',
            locate,
            &[&reference.to_be_bytes(), &side, &shares.to_be_bytes(), stock.as_bytes(), &price.to_be_bytes()],
        );
        open.push((reference, locate, shares));
    }

    fn push(&mut self, kind: u8, locate: u16, fields: &[&[u8]]) {
        let size = 11 + fields.iter().map(|f| f.len()).sum::<usize>();
        self.bytes.extend((size as u16).to_be_bytes());
        self.bytes.push(kind);
        self.bytes.extend(locate.to_be_bytes());
        self.bytes.extend([0; 8]);
        for field in fields {
            self.bytes.extend(*field);
        }
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (message, after) = after.split_at(u16::from_be_bytes(*length).into());
            rest = after;
            Some(message)
        })
    }
}

/// Keeps the order in which the recent ones came.
fn take(open: &mut Vec<(u64, u16, u32)>, at: usize) -> (u64, u16, u32) {
    if open.len() - at <= RECENT { open.remove(at) } else { open.swap_remove(at) }
}

/// Near the middle most of the time.
fn price(rng: &mut fastrand::Rng, locate: u16, bid: bool) -> u32 {
    let middle = 100_000 + u32::from(locate) * 100;
    let away = 100 + (f32::powi(rng.f32(), 4) * 100.0) as u32 * 100;
    if bid { middle - away } else { middle + away }
}

/// Builds the day's books.
pub(crate) fn build(books: &mut OrderBooks, day: &Day) -> u64 {
    let mut touched = 0;
    for message in day.messages() {
        let (head, message) = decode(message).expect("a message");
        let book = u32::from(head.locate);
        let change = match message {
            Message::Add(o) => {
                let side = if o.side == Side::Buy { BookSide::Bid } else { BookSide::Ask };
                books.add(o.reference, book, side, o.price.into(), o.shares).expect("room")
            }
            Message::Executed { reference, shares, .. } | Message::Cancel { reference, shares } => {
                books.reduce(reference, shares).expect("known").1
            }
            Message::Delete { reference } => books.delete(reference).expect("known").1,
            Message::Replace { reference, new_reference, shares, price } => {
                books.replace(reference, new_reference, price.into(), shares).expect("known").1.expect("room")
            }
            _ => continue,
        };
        touched += change.after;
    }
    touched
}
