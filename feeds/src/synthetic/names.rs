//! The instruments of the simulated market.

use compact_str::{CompactString, format_compact};

/// How an instrument is simulated.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) symbol: CompactString,
    /// First fair price, in ticks.
    pub(super) fair_ticks: i64,
    /// A tick is 10 to the power of minus this.
    pub(super) tick_scale: u32,
    /// A lot is 10 to the power of minus this.
    pub(super) lot_scale: u32,
    /// The usual size of an order, in lots.
    pub(super) order_lots: u32,
}

/// Symbol, first fair price in ticks, decimals of the price, decimals of the size, usual size in lots.
const LISTED: [(&str, i64, u32, u32, u32); 40] = [
    ("BTC-USD", 6_712_345, 2, 8, 4_000_000),
    ("ETH-USD", 341_207, 2, 8, 60_000_000),
    ("SOL-USD", 16_843, 2, 6, 9_000_000),
    ("XRP-USD", 52_180, 5, 6, 900_000_000),
    ("ADA-USD", 4_512, 4, 4, 11_000_000),
    ("DOGE-USD", 12_345, 5, 1, 18_000),
    ("AVAX-USD", 3_521, 2, 6, 30_000_000),
    ("DOT-USD", 7_143, 3, 6, 120_000_000),
    ("LINK-USD", 14_876, 3, 4, 800_000),
    ("LTC-USD", 8_423, 2, 8, 900_000_000),
    ("BCH-USD", 47_215, 2, 8, 90_000_000),
    ("UNI-USD", 9_817, 3, 6, 130_000_000),
    ("ATOM-USD", 8_276, 3, 4, 1_500_000),
    ("XLM-USD", 108_700, 6, 4, 90_000_000),
    ("NEAR-USD", 6_342, 3, 4, 2_000_000),
    ("APT-USD", 8_912, 3, 4, 1_400_000),
    ("ARB-USD", 9_731, 4, 4, 9_000_000),
    ("OP-USD", 2_418, 3, 4, 5_000_000),
    ("FIL-USD", 5_932, 3, 4, 2_200_000),
    ("AAVE-USD", 9_871, 2, 6, 12_000_000),
    ("ALGO-USD", 18_760, 5, 2, 600_000),
    ("ETC-USD", 2_634, 2, 6, 40_000_000),
    ("HBAR-USD", 91_200, 6, 2, 1_100_000),
    ("ICP-USD", 11_870, 3, 4, 900_000),
    ("INJ-USD", 24_360, 3, 4, 500_000),
    ("SUI-USD", 10_430, 4, 2, 100_000),
    ("TIA-USD", 9_240, 3, 4, 1_300_000),
    ("TON-USD", 6_430, 3, 4, 1_900_000),
    ("TRX-USD", 117_400, 6, 2, 900_000),
    ("SHIB-USD", 2_431, 8, 0, 400_000_000),
    ("PEPE-USD", 1_187, 8, 0, 900_000_000),
    ("MKR-USD", 281_340, 2, 6, 400_000),
    ("CRV-USD", 43_120, 5, 2, 280_000),
    ("LDO-USD", 2_187, 3, 2, 60_000),
    ("GRT-USD", 29_870, 5, 2, 400_000),
    ("SAND-USD", 44_310, 5, 2, 270_000),
    ("BTC-EUR", 6_187_650, 2, 8, 3_000_000),
    ("ETH-EUR", 314_512, 2, 8, 50_000_000),
    ("ETH-BTC", 5_083, 5, 8, 80_000_000),
    ("SOL-BTC", 250_940, 8, 6, 10_000_000),
];

/// The instrument of that number.
pub(super) fn spec(number: usize) -> Spec {
    match LISTED.get(number) {
        Some(&(symbol, fair_ticks, tick_scale, lot_scale, order_lots)) => {
            Spec { symbol: symbol.into(), fair_ticks, tick_scale, lot_scale, order_lots }
        }
        None => Spec {
            symbol: format_compact!("SYN{:04}-USD", number + 1),
            fair_ticks: 10_000 + i64::try_from(number % 997).unwrap_or(0) * 13,
            tick_scale: 2,
            lot_scale: 4,
            order_lots: 1_000_000,
        },
    }
}
