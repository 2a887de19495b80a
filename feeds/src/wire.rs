//! What the venues' JSON has in common: decimals that never pass through a float, borrowed text, the report on a frame
//! that could not be decoded.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use ticker_market::{Decimal, Level, Levels, decimal};

use crate::{Fault, Out, REPORT_BYTES, Report};

/// A JSON number, or a string that holds one, with the wire's own digits: its scale is that of the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(pub(crate) Decimal);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Raw, because serde_json would turn a number into a float.
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
        decimal::parse(text).map(Number).ok_or_else(|| de::Error::custom("not a decimal"))
    }
}

/// A string that holds a decimal: the usual form, and quicker to read than [`Number`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted(pub(crate) Decimal);

impl<'de> Deserialize<'de> for Quoted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quoted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quoted, E> {
                decimal::parse(text).map(Quoted).ok_or_else(|| E::custom("not a decimal"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A string that holds a decimal, or nothing (`""`, `null`).
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MaybeQuoted(pub(crate) Option<Decimal>);

impl<'de> Deserialize<'de> for MaybeQuoted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = MaybeQuoted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal in quotes, empty quotes, or null")
            }

            fn visit_unit<E: de::Error>(self) -> Result<MaybeQuoted, E> {
                Ok(MaybeQuoted(None))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MaybeQuoted, E> {
                match text {
                    "" => Ok(MaybeQuoted(None)),
                    _ => decimal::parse(text).map(|d| MaybeQuoted(Some(d))).ok_or_else(|| E::custom("not a decimal")),
                }
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// Levels as `[["price","size", …], …]`; what follows the size is passed over (Binance's v1 had an empty list there). A
/// side without levels may be `null`.
#[derive(Clone, Default, Debug)]
pub(crate) struct LevelPairs(pub(crate) Vec<Level>);

impl<'de> Deserialize<'de> for LevelPairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair(Level);
        impl<'de> Deserialize<'de> for Pair {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> Visitor<'de> for Fields {
                    type Value = Pair;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a list of price and size")
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pair, A::Error> {
                        let price: Quoted = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                        let size: Quoted = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                        while seq.next_element::<IgnoredAny>()?.is_some() {}
                        Ok(Pair(Level { price: price.0, size: size.0 }))
                    }
                }
                deserializer.deserialize_seq(Fields)
            }
        }
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = LevelPairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of levels, or null")
            }

            fn visit_unit<E: de::Error>(self) -> Result<LevelPairs, E> {
                Ok(LevelPairs::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<LevelPairs, A::Error> {
                let mut levels = Vec::new();
                while let Some(pair) = seq.next_element::<Pair>()? {
                    levels.push(pair.0);
                }
                Ok(LevelPairs(levels))
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// Changes of both sides as `[["buy","price","size"],…]`: what is not `buy` is of the asks.
#[derive(Clone, Default, Debug)]
pub(crate) struct Sided(pub(crate) Levels);

impl<'de> Deserialize<'de> for Sided {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Change<'a>(#[serde(borrow)] Cow<'a, str>, Quoted, Quoted);
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Sided;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of changes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sided, A::Error> {
                let mut levels = Levels::default();
                while let Some(Change(side, price, size)) = seq.next_element::<Change<'de>>()? {
                    let list = if side == "buy" { &mut levels.bids } else { &mut levels.asks };
                    list.push(Level { price: price.0, size: size.0 });
                }
                Ok(Sided(levels))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Gives each element of a list to `each`, not before all were read once: so nothing is told of a list that cannot be
/// read to its end, and none is kept meanwhile.
pub(crate) fn for_each<'a, T: Deserialize<'a>>(
    text: &'a str,
    mut each: impl FnMut(T),
) -> Result<(), serde_json::Error> {
    struct Elements<F, T>(F, PhantomData<T>);
    impl<'de, F: FnMut(T), T: Deserialize<'de>> Visitor<'de> for Elements<F, T> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
            while let Some(element) = seq.next_element()? {
                self.0(element);
            }
            Ok(())
        }
    }
    let mut first = serde_json::Deserializer::from_str(text);
    first.deserialize_seq(Elements(|_: T| {}, PhantomData))?;
    first.end()?;
    serde_json::Deserializer::from_str(text).deserialize_seq(Elements(&mut each, PhantomData))
}

/// One side of a quote: venues write an empty side as zeros.
pub(crate) fn side_of_quote(price: Decimal, size: Decimal) -> Option<Level> {
    let there = !price.is_zero() && !size.is_zero();
    there.then_some(Level { price, size })
}

/// Does this begin as a JSON object? serde takes a list for a struct as well, and an empty one for a struct of optional
/// fields.
pub(crate) fn is_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

/// Is this a JSON list of objects, to its end?
pub(crate) fn is_list_of_objects(bytes: &[u8]) -> bool {
    bytes.starts_with(b"[{") && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Reports a frame that could not be decoded.
pub(crate) fn undecodable(bytes: &[u8], out: &mut Out) {
    let head = &bytes[..bytes.len().min(REPORT_BYTES)];
    let detail = String::from_utf8_lossy(head).into_owned();
    out.reports.push(Report { fault: Fault::Undecodable, native: None, detail });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_of_the_wire() {
        let number: Number = serde_json::from_str("0.00005100").expect("a number");
        assert_eq!((number.0.mantissa(), number.0.scale()), (5_100, 8));
        let number: Number = serde_json::from_str(r#""63004.90""#).expect("a string");
        assert_eq!((number.0.mantissa(), number.0.scale()), (6_300_490, 2));
        let tiny: Number = serde_json::from_str("1e-08").expect("an exponent");
        assert_eq!(tiny.0, Decimal::new(1, 8));
        assert!(serde_json::from_str::<Number>("null").is_err());
        assert!(serde_json::from_str::<Number>("[1]").is_err());
        assert!(serde_json::from_str::<Quoted>("1").is_err());
        assert!(serde_json::from_str::<MaybeQuoted>(r#""""#).expect("empty").0.is_none());
        assert!(serde_json::from_str::<MaybeQuoted>("null").expect("nothing").0.is_none());
        assert!(serde_json::from_str::<MaybeQuoted>("1").is_err());
    }

    #[test]
    fn elements_are_given_when_all_can_be_read() {
        let mut told = Vec::new();
        assert!(for_each("[1,2, 3]", |number: u8| told.push(number)).is_ok());
        assert!(for_each("[]", |number: u8| told.push(number)).is_ok());
        for bad in ["[1,2,x]", "[1,2", "[1]]", "[1,256]", "7", "", "null"] {
            assert!(for_each(bad, |number: u8| told.push(number)).is_err(), "{bad}");
        }
        assert_eq!(told, [1, 2, 3]);
    }

    #[test]
    fn level_pairs_pass_over_what_follows() {
        let pairs: LevelPairs = serde_json::from_str(r#"[["1.50","2",[]],["1.4","0.0"]]"#).expect("levels");
        assert_eq!(pairs.0.len(), 2);
        assert_eq!(pairs.0[0].price, Decimal::new(15, 1));
        assert!(serde_json::from_str::<LevelPairs>(r#"[["1"]]"#).is_err());
        assert!(serde_json::from_str::<LevelPairs>("null").expect("an empty side").0.is_empty());
        assert!(serde_json::from_str::<LevelPairs>("0").is_err());
    }
}
