//! Books built order by order, as Nasdaq's ITCH and CME's market-by-order data give them.
//!
//! [`OrderBooks`] keeps every order and, from the orders, what each price holds; [`Listing`] keeps what was told of an
//! instrument, and tells what changed. Prices are integers inside, in the venue's own steps, and become decimals only
//! when they are told.
//!
//! An order's place in the queue at its price is not kept: nothing that is told depends on it.

mod listing;
mod orders;

pub use listing::{AUCTION, Crossing, Listing};
pub use orders::{Change, ORDERS_EXPECTED, ORDERS_MAX, Order, OrderBooks, Refused, Rung};
