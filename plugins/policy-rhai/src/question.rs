//! JSON as values of rhai, without a step between.

use core::fmt;
use std::collections::BTreeMap;

use rhai::{Array, Dynamic, ImmutableString, Map};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::need::Need;

/// An object.
pub(crate) fn read(json: &str) -> Result<Map, serde_json::Error> {
    serde_json::from_str::<Object>(json).map(|Object(map)| map)
}

impl Need {
    /// What is needed of a question.
    pub(crate) fn read(&self, json: &str) -> Result<Map, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let Value(value) = Needed(self).deserialize(&mut reader)?;
        reader.end()?;
        value.try_cast::<Map>().ok_or_else(|| serde_json::Error::custom("it is no object"))
    }

    /// What is needed of a record that is there already.
    pub(crate) fn of(&self, map: &Map) -> Map {
        let Self::Entries(entries) = self else { return map.clone() };
        let needed = entries.iter().filter_map(|(name, need)| {
            let value = map.get(name.as_str())?;
            let within = value.as_map_ref().ok().map(|map| Dynamic::from_map(need.of(&map)));
            Some((name.as_str().into(), within.unwrap_or_else(|| value.clone())))
        });
        needed.collect()
    }
}

/// A value of which not all is needed.
struct Needed<'a>(&'a Need);

impl<'de> DeserializeSeed<'de> for Needed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0 {
            Need::Whole => Value::deserialize(deserializer),
            Need::Entries(entries) => deserializer.deserialize_any(Entries(entries)),
        }
    }
}

/// A record of which these entries are needed, or anything else.
struct Entries<'a>(&'a BTreeMap<ImmutableString, Need>);

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ValueVisitor.expecting(f)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        ValueVisitor.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        ValueVisitor.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        ValueVisitor.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        ValueVisitor.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        ValueVisitor.visit_f64(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        ValueVisitor.visit_str(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<Value, A::Error> {
        ValueVisitor.visit_seq(values)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(known) = entries.next_key_seed(Known(self.0))? {
            match known {
                Some((name, need)) => {
                    let Value(value) = entries.next_value_seed(Needed(need))?;
                    map.insert(name.as_str().into(), value);
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value(Dynamic::from_map(map)))
    }
}

/// A key, where it is needed.
struct Known<'a>(&'a BTreeMap<ImmutableString, Need>);

impl<'de, 'a> DeserializeSeed<'de> for Known<'a> {
    type Value = Option<(&'a ImmutableString, &'a Need)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Known<'a> {
    type Value = Option<(&'a ImmutableString, &'a Need)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.get_key_value(key))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &str = r#"{"release":{"version":"1.3","size":5},"subject":{"labels":{"site":"bonn","x":"y"},"sensor":"sn-1"},
        "unix_ms":7}"#;

    fn entries<const N: usize>(entries: [(&str, Need); N]) -> Need {
        Need::Entries(entries.into_iter().map(|(name, need)| (name.into(), need)).collect())
    }

    #[test]
    fn only_what_is_needed_is_made_and_records_stay_records() {
        let need = entries([("subject", entries([("labels", Need::Whole)])), ("release", Need::NOTHING)]);
        for map in [need.read(QUESTION).unwrap(), need.of(&read(QUESTION).unwrap())] {
            assert!(!map.contains_key("unix_ms"));
            assert!(map["release"].as_map_ref().unwrap().is_empty());
            let subject = map["subject"].clone().cast::<Map>();
            assert!(!subject.contains_key("sensor"));
            assert_eq!(subject["labels"].clone().cast::<Map>().len(), 2);
        }
    }

    #[test]
    fn what_is_no_object_is_refused_whatever_is_needed() {
        for text in ["", "[]", "7", "{\"a\":1} x", "{\"a\":"] {
            assert!(Need::Whole.read(text).is_err() && Need::NOTHING.read(text).is_err(), "{text}");
            assert!(read(text).is_err(), "{text}");
        }
    }
}
