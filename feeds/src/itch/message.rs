//! The messages, byte by byte. Field names are those of the specification; integers are big-endian, prices have four
//! digits after the point (eight in [`Message::MwcbDeclineLevel`]), times are nanoseconds since midnight in New York.

use ticker_market::Side;

/// Why a message could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// No bytes at all.
    #[error("an empty message")]
    Empty,
    /// A type that the specification does not have.
    #[error("unknown message type {0:#04x}")]
    Type(u8),
    /// Shorter than its type's length.
    #[error("a message of type `{}` with {found} bytes, expected {expected}", char::from(*kind))]
    Length {
        /// The type.
        kind: u8,
        /// Bytes that there are.
        found: usize,
        /// Bytes that it has.
        expected: usize,
    },
    /// A side that is neither `B` nor `S`.
    #[error("unknown side {0:#04x}")]
    Side(u8),
}

/// A stock's symbol: ASCII, filled with spaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stock(pub [u8; 8]);

impl Stock {
    /// Without the spaces.
    pub fn trimmed(&self) -> &[u8] {
        self.0.trim_ascii_end()
    }
}

/// What every message begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The stock's number on this day; 0 where the message is of no stock.
    pub locate: u16,
    /// Nasdaq's own.
    pub tracking: u16,
    /// Since midnight in New York.
    pub nanos: u64,
}

/// A new order (`A`, `F`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddOrder {
    /// Order reference number.
    pub reference: u64,
    /// The order's side.
    pub side: Side,
    /// Shares.
    pub shares: u32,
    /// Stock.
    pub stock: Stock,
    /// Price, four digits after the point.
    pub price: u32,
    /// Market participant, where it is told (`F`).
    pub attribution: Option<[u8; 4]>,
}

/// Stock directory (`R`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StockDirectory {
    /// Stock.
    pub stock: Stock,
    /// `Q`, `G`, `S` at Nasdaq; `N`, `A`, `P`, `Z`, `V` elsewhere.
    pub market_category: u8,
    /// `N` for normal.
    pub financial_status: u8,
    /// Shares of a round lot.
    pub round_lot_size: u32,
    /// Does Nasdaq take round lots alone?
    pub round_lots_only: bool,
    /// Issue classification.
    pub classification: u8,
    /// Issue sub-type.
    pub sub_type: [u8; 2],
    /// `P` for live, `T` for test.
    pub authenticity: u8,
    /// Short sale threshold.
    pub short_sale_threshold: u8,
    /// Initial public offering today?
    pub ipo: u8,
    /// LULD reference price tier.
    pub luld_tier: u8,
    /// Exchange-traded product?
    pub etp: u8,
    /// Its leverage.
    pub etp_leverage: u32,
    /// Is it inverse?
    pub inverse: bool,
}

/// A trade against an order that was not displayed (`P`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NonCrossTrade {
    /// Zero since 2010.
    pub reference: u64,
    /// Always `B` since 2014, whatever the side.
    pub side: u8,
    /// Shares.
    pub shares: u32,
    /// Stock.
    pub stock: Stock,
    /// Price.
    pub price: u32,
    /// Match number.
    pub match_number: u64,
}

/// An auction's trade (`Q`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrossTrade {
    /// Shares; zero where nothing was matched.
    pub shares: u64,
    /// Stock.
    pub stock: Stock,
    /// Price.
    pub price: u32,
    /// Match number.
    pub match_number: u64,
    /// `O` opening, `C` closing, `H` after a halt or an offering, `A` extended trading close.
    pub kind: u8,
}

/// Net order imbalance (`I`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Imbalance {
    /// Paired shares.
    pub paired: u64,
    /// Shares that are not paired.
    pub imbalance: u64,
    /// `B`, `S`, `N` none, `O` too few orders, `P` paused.
    pub direction: u8,
    /// Stock.
    pub stock: Stock,
    /// Far price.
    pub far: u32,
    /// Near price.
    pub near: u32,
    /// Current reference price.
    pub reference: u32,
    /// As in [`CrossTrade::kind`].
    pub kind: u8,
    /// Price variation.
    pub variation: u8,
}

/// Direct listing with capital raise (`O`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectListing {
    /// Stock.
    pub stock: Stock,
    /// May it open?
    pub open_eligible: u8,
    /// Minimum allowable price.
    pub minimum: u32,
    /// Maximum allowable price.
    pub maximum: u32,
    /// Near execution price.
    pub near: u32,
    /// When it was last changed.
    pub near_nanos: u64,
    /// Lower price range collar.
    pub lower: u32,
    /// Upper price range collar.
    pub upper: u32,
}

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// `S`: `O` start of messages, `S` start of system hours, `Q` start of market hours, `M`, `E`, `C` their ends.
    SystemEvent(u8),
    /// `R`
    StockDirectory(StockDirectory),
    /// `H`
    TradingAction {
        /// Stock.
        stock: Stock,
        /// `H` halted, `P` paused, `Q` quotation only, `T` trading.
        state: u8,
        /// Reason.
        reason: [u8; 4],
    },
    /// `Y`
    RegSho {
        /// Stock.
        stock: Stock,
        /// `0` none, `1` in effect, `2` remains in effect.
        action: u8,
    },
    /// `L`
    ParticipantPosition {
        /// Market participant.
        participant: [u8; 4],
        /// Stock.
        stock: Stock,
        /// Primary market maker?
        primary: bool,
        /// Mode.
        mode: u8,
        /// State.
        state: u8,
    },
    /// `V`: three levels, eight digits after the point.
    MwcbDeclineLevel([u64; 3]),
    /// `W`: which level was breached.
    MwcbStatus(u8),
    /// `K`
    QuotingPeriod {
        /// Stock.
        stock: Stock,
        /// Seconds since midnight.
        release_seconds: u32,
        /// `A` anticipated, `C` cancelled.
        qualifier: u8,
        /// Price of the offering.
        price: u32,
    },
    /// `J`
    LuldCollar {
        /// Stock.
        stock: Stock,
        /// Reference price.
        reference: u32,
        /// Upper price.
        upper: u32,
        /// Lower price.
        lower: u32,
        /// Extensions so far.
        extension: u32,
    },
    /// `h`
    OperationalHalt {
        /// Stock.
        stock: Stock,
        /// `Q` Nasdaq, `B` BX, `X` PSX.
        market: u8,
        /// `H` halted, `T` trading.
        action: u8,
    },
    /// `A`, `F`
    Add(AddOrder),
    /// `E`: at the order's price.
    Executed {
        /// Order.
        reference: u64,
        /// Shares executed.
        shares: u32,
        /// Match number.
        match_number: u64,
    },
    /// `C`: at another price.
    ExecutedWithPrice {
        /// Order.
        reference: u64,
        /// Shares executed.
        shares: u32,
        /// Match number.
        match_number: u64,
        /// Is it to be counted? If not, it is in a later cross trade.
        printable: bool,
        /// Price.
        price: u32,
    },
    /// `X`
    Cancel {
        /// Order.
        reference: u64,
        /// Shares cancelled.
        shares: u32,
    },
    /// `D`
    Delete {
        /// Order.
        reference: u64,
    },
    /// `U`
    Replace {
        /// Order.
        reference: u64,
        /// Its new reference.
        new_reference: u64,
        /// Shares.
        shares: u32,
        /// Price.
        price: u32,
    },
    /// `P`
    NonCross(NonCrossTrade),
    /// `Q`
    Cross(CrossTrade),
    /// `B`
    BrokenTrade {
        /// The trade that is taken back.
        match_number: u64,
    },
    /// `I`
    Imbalance(Imbalance),
    /// `N`
    RetailInterest {
        /// Stock.
        stock: Stock,
        /// `B`, `S`, `A` both, `N` none.
        interest: u8,
    },
    /// `O`
    DirectListing(DirectListing),
}

/// The length of a message of that type.
pub const fn length(kind: u8) -> Option<usize> {
    Some(match kind {
        b'S' | b'W' => 12,
        b'R' => 39,
        b'H' => 25,
        b'Y' | b'N' => 20,
        b'L' => 26,
        b'V' | b'J' | b'U' => 35,
        b'K' => 28,
        b'h' => 21,
        b'A' | b'C' => 36,
        b'F' | b'Q' => 40,
        b'E' => 31,
        b'X' => 23,
        b'D' | b'B' => 19,
        b'P' => 44,
        b'I' => 50,
        b'O' => 48,
        _ => return None,
    })
}

/// Decodes a message. What comes after its fields is passed over: the specification allows that messages grow.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<(Head, Message), MessageError> {
    let &kind = bytes.first().ok_or(MessageError::Empty)?;
    let expected = length(kind).ok_or(MessageError::Type(kind))?;
    if bytes.len() < expected {
        return Err(MessageError::Length { kind, found: bytes.len(), expected });
    }
    // Of exactly that length, so that the checks of the places below fold away.
    let b = &bytes[..expected];
    let head = Head { locate: be16(b, 1), tracking: be16(b, 3), nanos: be48(b, 5) };
    let message = match kind {
        b'A' | b'F' => Message::Add(AddOrder {
            reference: be64(b, 11),
            side: side(b[19])?,
            shares: be32(b, 20),
            stock: stock(b, 24),
            price: be32(b, 32),
            attribution: if kind == b'F' { Some(be32(b, 36).to_be_bytes()) } else { None },
        }),
        b'D' => Message::Delete { reference: be64(b, 11) },
        b'U' => Message::Replace {
            reference: be64(b, 11),
            new_reference: be64(b, 19),
            shares: be32(b, 27),
            price: be32(b, 31),
        },
        b'E' => Message::Executed { reference: be64(b, 11), shares: be32(b, 19), match_number: be64(b, 23) },
        b'X' => Message::Cancel { reference: be64(b, 11), shares: be32(b, 19) },
        b'C' => Message::ExecutedWithPrice {
            reference: be64(b, 11),
            shares: be32(b, 19),
            match_number: be64(b, 23),
            printable: b[31] == b'Y',
            price: be32(b, 32),
        },
        b'P' => Message::NonCross(NonCrossTrade {
            reference: be64(b, 11),
            side: b[19],
            shares: be32(b, 20),
            stock: stock(b, 24),
            price: be32(b, 32),
            match_number: be64(b, 36),
        }),
        b'Q' => Message::Cross(CrossTrade {
            shares: be64(b, 11),
            stock: stock(b, 19),
            price: be32(b, 27),
            match_number: be64(b, 31),
            kind: b[39],
        }),
        b'B' => Message::BrokenTrade { match_number: be64(b, 11) },
        _ => rare(kind, b),
    };
    Ok((head, message))
}

/// What comes once a day or a few times a second. `b` has the length of its type.
fn rare(kind: u8, b: &[u8]) -> Message {
    match kind {
        b'S' => Message::SystemEvent(b[11]),
        b'R' => Message::StockDirectory(StockDirectory {
            stock: stock(b, 11),
            market_category: b[19],
            financial_status: b[20],
            round_lot_size: be32(b, 21),
            round_lots_only: b[25] == b'Y',
            classification: b[26],
            sub_type: [b[27], b[28]],
            authenticity: b[29],
            short_sale_threshold: b[30],
            ipo: b[31],
            luld_tier: b[32],
            etp: b[33],
            etp_leverage: be32(b, 34),
            inverse: b[38] == b'Y',
        }),
        b'H' => Message::TradingAction { stock: stock(b, 11), state: b[19], reason: [b[21], b[22], b[23], b[24]] },
        b'Y' => Message::RegSho { stock: stock(b, 11), action: b[19] },
        b'L' => Message::ParticipantPosition {
            participant: [b[11], b[12], b[13], b[14]],
            stock: stock(b, 15),
            primary: b[23] == b'Y',
            mode: b[24],
            state: b[25],
        },
        b'V' => Message::MwcbDeclineLevel([be64(b, 11), be64(b, 19), be64(b, 27)]),
        b'W' => Message::MwcbStatus(b[11]),
        b'K' => Message::QuotingPeriod {
            stock: stock(b, 11),
            release_seconds: be32(b, 19),
            qualifier: b[23],
            price: be32(b, 24),
        },
        b'J' => Message::LuldCollar {
            stock: stock(b, 11),
            reference: be32(b, 19),
            upper: be32(b, 23),
            lower: be32(b, 27),
            extension: be32(b, 31),
        },
        b'h' => Message::OperationalHalt { stock: stock(b, 11), market: b[19], action: b[20] },
        b'I' => Message::Imbalance(Imbalance {
            paired: be64(b, 11),
            imbalance: be64(b, 19),
            direction: b[27],
            stock: stock(b, 28),
            far: be32(b, 36),
            near: be32(b, 40),
            reference: be32(b, 44),
            kind: b[48],
            variation: b[49],
        }),
        b'N' => Message::RetailInterest { stock: stock(b, 11), interest: b[19] },
        _ => Message::DirectListing(DirectListing {
            stock: stock(b, 11),
            open_eligible: b[19],
            minimum: be32(b, 20),
            maximum: be32(b, 24),
            near: be32(b, 28),
            near_nanos: be64(b, 32),
            lower: be32(b, 40),
            upper: be32(b, 44),
        }),
    }
}

fn side(byte: u8) -> Result<Side, MessageError> {
    match byte {
        b'B' => Ok(Side::Buy),
        b'S' => Ok(Side::Sell),
        other => Err(MessageError::Side(other)),
    }
}

fn stock(b: &[u8], at: usize) -> Stock {
    Stock(be64(b, at).to_be_bytes())
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn be48(b: &[u8], at: usize) -> u64 {
    u64::from(be16(b, at)) << 32 | u64::from(be32(b, at + 2))
}

fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}
