//! What a configuration type asks for at a path, found by letting its own `Deserialize` ask for it.
//!
//! serde has no schema, but a struct names its fields when it is deserialized. So a deserializer that hands out exactly
//! one key at each level leads to any place, notes what is asked for there, and fails on purpose.

use std::cell::RefCell;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A struct with these fields.
    Section(&'static [&'static str]),
    /// A table with any keys.
    Map,
    /// A list.
    List,
    /// Text: taken as it is.
    Text,
    /// Something that says what it is.
    Any,
}

/// What `T` asks for at `path`; `None` if the path leads nowhere in it.
pub(super) fn shape<T: DeserializeOwned>(path: &[String]) -> Option<Shape> {
    let found = RefCell::new(None);
    let _on_purpose: Result<T, _> = T::deserialize(Probe { path, found: &found });
    found.into_inner()
}

struct Probe<'a> {
    path: &'a [String],
    found: &'a RefCell<Option<Shape>>,
}

type Failed = serde::de::value::Error;

impl<'a> Probe<'a> {
    fn note(&self, shape: Shape) -> Failed {
        if self.path.is_empty() {
            *self.found.borrow_mut() = Some(shape);
        }
        Failed::custom("found")
    }

    fn descend<'de, V: Visitor<'de>>(self, shape: Shape, visitor: V) -> Result<V::Value, Failed> {
        match self.path {
            [] => Err(self.note(shape)),
            [key, ..] => visitor.visit_map(Step { key: Some(key), probe: self }),
        }
    }
}

/// A map of the one key that the path names.
struct Step<'a> {
    key: Option<&'a str>,
    probe: Probe<'a>,
}

impl<'de> MapAccess<'de> for Step<'_> {
    type Error = Failed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failed> {
        self.key.take().map(|key| seed.deserialize(StrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failed> {
        seed.deserialize(Probe { path: self.probe.path.get(1..).unwrap_or_default(), found: self.probe.found })
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        Err(self.note(Shape::Any))
    }

    fn deserialize_str<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        Err(self.note(Shape::Text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        Err(self.note(Shape::Text))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Failed> {
        Err(self.note(Shape::Any))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        Err(self.note(Shape::List))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.descend(Shape::Map, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        self.descend(Shape::Section(fields), visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}
