//! JSON as values of rhai, without a step between.

use core::fmt;

use rhai::{Array, Dynamic, ImmutableString, Map};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// An object.
pub(crate) fn read(json: &str) -> Result<Map, serde_json::Error> {
    serde_json::from_str::<Object>(json).map(|Object(map)| map)
}

/// What of a question a script can see. Making values of what nobody looks at costs more than most scripts do: of the
/// question itself and of its records (`release`, `subject`, …) only those entries are made whose names occur in the
/// script or its settings. What is below them is made whole. Who looks at a map as a whole gets all of it.
pub(crate) struct Wanted {
    all: bool,
    /// In order.
    words: Vec<Box<str>>,
}

/// Functions that look at a map as a whole.
const WHOLE: [&str; 10] =
    ["keys", "values", "filter", "retain", "drain", "mixin", "to_json", "to_debug", "to_string", "is_empty"];
/// How deep records are: the question's own entries, and theirs.
const RECORDS: u8 = 2;

impl Wanted {
    pub(crate) fn of(source: &str, settings: &str) -> Self {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let texts = [source, settings].into_iter();
        let mut words: Vec<Box<str>> =
            texts.flat_map(|text| text.split(|letter| !is_part(letter))).map(Into::into).collect();
        words.sort_unstable();
        words.dedup();
        let all = WHOLE.iter().any(|name| words.binary_search_by(|word| (**word).cmp(name)).is_ok());
        Self { all, words }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.words.binary_search_by(|word| (**word).cmp(name)).is_ok()
    }

    /// What is wanted of a question.
    pub(crate) fn read(&self, json: &str) -> Result<Map, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let Value(value) = Record { wanted: self, depth: RECORDS }.deserialize(&mut reader)?;
        reader.end()?;
        value.try_cast::<Map>().ok_or_else(|| serde_json::Error::custom("it is no object"))
    }
}

/// A record, of which not all is wanted.
struct Record<'a> {
    wanted: &'a Wanted,
    /// How deep records can be from here.
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Record<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth == 0 { Value::deserialize(deserializer) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Record<'_> {
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
        while let Some(key) = entries.next_key_seed(WantedKey(self.wanted))? {
            match key {
                Some(key) => {
                    let record = Record { wanted: self.wanted, depth: self.depth - 1 };
                    let Value(value) = entries.next_value_seed(record)?;
                    map.insert(key, value);
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value(Dynamic::from_map(map)))
    }
}

/// A key, where it is wanted.
struct WantedKey<'a>(&'a Wanted);

impl<'de> DeserializeSeed<'de> for WantedKey<'_> {
    type Value = Option<rhai::Identifier>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for WantedKey<'_> {
    type Value = Option<rhai::Identifier>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.has(key).then(|| key.into()))
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

    #[test]
    fn entries_whose_names_do_not_occur_are_not_made_and_what_is_below_is_made_whole() {
        let source = "fn install(question) { if question.subject.labels.site == \"bonn\" { allow() } }";
        let map = Wanted::of(source, "{}").read(QUESTION).unwrap();
        assert!(!map.contains_key("unix_ms") && !map.contains_key("release"));
        let subject = map["subject"].clone().cast::<Map>();
        assert!(!subject.contains_key("sensor"));
        assert_eq!(subject["labels"].clone().cast::<Map>().len(), 2);
        let named_by_a_setting = Wanted::of(source, r#"{"what":"unix_ms"}"#).read(QUESTION).unwrap();
        assert!(named_by_a_setting.contains_key("unix_ms"));
    }

    #[test]
    fn who_looks_at_a_map_as_a_whole_gets_all_of_it() {
        let source = "fn install(question) { for key in question.keys() { } allow() }";
        assert_eq!(Wanted::of(source, "{}").read(QUESTION).unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_object_is_refused_as_before() {
        for text in ["", "[]", "7", "{\"a\":1} x", "{\"a\":"] {
            assert!(Wanted::of("a", "{}").read(text).is_err(), "{text}");
            assert!(read(text).is_err(), "{text}");
        }
    }
}
