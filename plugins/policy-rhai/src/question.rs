//! JSON as values of rhai, without a step between.

use core::fmt;

use rhai::{Array, Dynamic, ImmutableString, Map};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// An object.
pub(crate) fn read(json: &str) -> Result<Map, serde_json::Error> {
    serde_json::from_str::<Object>(json).map(|Object(map)| map)
}

struct Object(Map);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value(value) = deserializer.deserialize_map(ValueVisitor)?;
        value.try_cast::<Map>().map(Self).ok_or_else(|| D::Error::custom("it is no object"))
    }
}

struct Value(Dynamic);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// A key, borrowed where it has no escapes.
struct Key(rhai::Identifier);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        Ok(Key(key.into()))
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value(Dynamic::UNIT))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value(Dynamic::from_bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value(Dynamic::from_int(value)))
    }

    /// What does not fit is as near as a float comes.
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value(match i64::try_from(value) {
            Ok(value) => Dynamic::from_int(value),
            Err(_) => Dynamic::from_float(value as f64),
        }))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value(Dynamic::from_float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value(ImmutableString::from(value).into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        let mut array = Array::new();
        while let Some(Value(value)) = values.next_element()? {
            array.push(value);
        }
        Ok(Value(Dynamic::from_array(array)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((Key(key), Value(value))) = entries.next_entry()? {
            map.insert(key, value);
        }
        Ok(Value(Dynamic::from_map(map)))
    }
}
