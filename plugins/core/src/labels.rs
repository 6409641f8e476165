//! Labels of sensors and gateways, and selections by them.
//!
//! A selector is what a release is addressed to: terms joined by commas, all of which must hold.
//!
//! | term | holds for |
//! |---|---|
//! | `site=berlin` | who has the label with this value |
//! | `site!=berlin` | who has not: another value, or no such label |
//! | `site in (berlin, bonn)` | who has one of these values |
//! | `site notin (berlin, bonn)` | who has none of them |
//! | `battery` | who has the label, whatever its value |
//! | `!battery` | who has no such label |
//!
//! Two labels need not be given: [`SENSOR`] and [`GATEWAY`], the names of the sensor and of its gateway.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::names::{LabelText, NameError, NodeId, SensorId};

/// The label that is every sensor's own name.
pub const SENSOR: &str = "sensor";
/// The label that is the name of a sensor's gateway.
pub const GATEWAY: &str = "gateway";

/// What is known of a sensor or a gateway beside its name; at most [`Labels::MOST`].
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct Labels(#[n(0)] BTreeMap<LabelText, LabelText>);

impl Labels {
    /// The most labels that somebody carries.
    pub const MOST: usize = 16;

    /// Whether there are few enough; what comes from outside is asked.
    #[must_use]
    pub fn is_sensible(&self) -> bool {
        self.0.len() <= Self::MOST
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a label.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(LabelText::as_str)
    }

    /// Sets a label.
    pub fn set(&mut self, key: LabelText, value: LabelText) {
        self.0.insert(key, value);
    }

    /// These labels with others laid over them.
    #[must_use]
    pub fn with(mut self, over: &Self) -> Self {
        self.0.extend(over.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        self
    }

    /// These labels, with the two that every sensor has.
    #[must_use]
    pub fn named<'a>(&'a self, sensor: &'a SensorId, gateway: &'a NodeId) -> Named<'a> {
        Named { labels: self, sensor, gateway }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Whoever carries labels.
pub trait Labelled {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labelled for Labels {
    fn label(&self, key: &str) -> Option<&str> {
        self.value(key)
    }
}

/// A sensor's labels, its own name and its gateway's among them. Nobody can give these two another value.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    labels: &'a Labels,
    sensor: &'a SensorId,
    gateway: &'a NodeId,
}

impl Labelled for Named<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        match key {
            SENSOR => Some(self.sensor.as_str()),
            GATEWAY => Some(self.gateway.as_str()),
            other => self.labels.value(other),
        }
    }
}

/// Labels by the names of those who carry them: what an operator writes for many at once. A name may end in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelRules(BTreeMap<String, Labels>);

impl LabelRules {
    /// The labels of this name: those of all rules that fit, the closer ones laid over the others.
    #[must_use]
    pub fn of(&self, name: &str) -> Labels {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        let mut rules: Vec<_> = self.0.iter().filter(|(pattern, _)| fits(pattern)).collect();
        rules.sort_by_key(|(pattern, _)| (pattern.trim_end_matches('*').len(), !pattern.ends_with('*')));
        rules.into_iter().fold(Labels::default(), |labels, (_, rule)| labels.with(rule))
    }

    /// Whether each rule gives few enough labels.
    #[must_use]
    pub fn is_sensible(&self) -> bool {
        self.0.values().all(Labels::is_sensible)
    }
}

impl FromIterator<(LabelText, LabelText)> for Labels {
    fn from_iter<T: IntoIterator<Item = (LabelText, LabelText)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, value)) in self.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

/// Whom something is addressed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    key: LabelText,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Is(LabelText),
    IsNot(LabelText),
    In(Vec<LabelText>),
    NotIn(Vec<LabelText>),
    Present,
    Absent,
}

impl Selector {
    /// The longest selector, in bytes.
    pub const LONGEST: usize = 1024;

    /// The selector of this text; see the module.
    ///
    /// # Errors
    /// [`SelectorError`] says which term is not understood.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > Self::LONGEST {
            return Err(SelectorError::TooLong(text.len()));
        }
        let terms = split(text).into_iter().map(str::trim).map(Term::parse).collect::<Result<_, _>>()?;
        Ok(Self { terms })
    }

    /// Whether all terms hold for these labels.
    #[must_use]
    pub fn matches(&self, labels: &impl Labelled) -> bool {
        self.terms.iter().all(|term| term.holds(labels.label(term.key.as_str())))
    }
}

/// At the commas that are not within parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut inside = false;
    let at_comma = |character: char| {
        inside = match character {
            '(' => true,
            ')' => false,
            _ => inside,
        };
        character == ',' && !inside
    };
    text.split(at_comma).collect()
}

impl Term {
    fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.is_empty() {
            return Err(SelectorError::Empty);
        }
        let wrong = || SelectorError::Term(text.to_string());
        let name = |part: &str| {
            LabelText::new(part.trim()).map_err(|why| SelectorError::Name(text.to_string(), why))
        };
        if let Some((key, value)) = text.split_once("!=") {
            return Ok(Self { key: name(key)?, test: Test::IsNot(name(value)?) });
        }
        if let Some((key, value)) = text.split_once('=') {
            // As Kubernetes has it, two are as good as one.
            let value = value.strip_prefix('=').unwrap_or(value);
            return Ok(Self { key: name(key)?, test: Test::Is(name(value)?) });
        }
        if let Some((head, list)) = text.split_once('(') {
            let list = list.strip_suffix(')').ok_or_else(wrong)?;
            let values = list.split(',').map(name).collect::<Result<Vec<_>, _>>()?;
            let (key, word) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
            let test = match word {
                "in" => Test::In(values),
                "notin" => Test::NotIn(values),
                _ => return Err(wrong()),
            };
            return Ok(Self { key: name(key)?, test });
        }
        match text.strip_prefix('!') {
            Some(key) => Ok(Self { key: name(key)?, test: Test::Absent }),
            None => Ok(Self { key: name(text)?, test: Test::Present }),
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let is = |wanted: &LabelText| value == Some(wanted.as_str());
        match &self.test {
            Test::Is(wanted) => is(wanted),
            Test::IsNot(wanted) => !is(wanted),
            Test::In(all) => all.iter().any(is),
            Test::NotIn(all) => !all.iter().any(is),
            Test::Present => value.is_some(),
            Test::Absent => value.is_none(),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, test } = self;
        let mut list = |word: &str, values: &[LabelText]| {
            write!(f, "{key} {word} (")?;
            for (position, value) in values.iter().enumerate() {
                write!(f, "{}{value}", if position == 0 { "" } else { ", " })?;
            }
            write!(f, ")")
        };
        match test {
            Test::In(values) => list("in", values),
            Test::NotIn(values) => list("notin", values),
            Test::Is(value) => write!(f, "{key}={value}"),
            Test::IsNot(value) => write!(f, "{key}!={value}"),
            Test::Present => write!(f, "{key}"),
            Test::Absent => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, term) in self.terms.iter().enumerate() {
            write!(f, "{}{term}", if position == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        Self::parse(&text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl<C> Encode<C> for Selector {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Selector {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::parse(d.str()?).map_err(|why| minicbor::decode::Error::message(why.to_string()))
    }
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorError {
    /// It has more than [`Selector::LONGEST`] bytes; this many.
    TooLong(usize),
    /// There is nothing where a term should be.
    Empty,
    /// This term is none of the documented forms.
    Term(String),
    /// A key or a value in this term is no text of a label.
    Name(String, NameError),
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes) => {
                write!(f, "a selector has at most {} bytes, this one has {bytes}", Selector::LONGEST)
            }
            Self::Empty => {
                write!(f, "a term of the selector is empty; leave out the comma, or say `site=berlin`")
            }
            Self::Term(term) => write!(
                f,
                "{term:?} is not understood; a term is `site=berlin`, `site!=berlin`, `site in (berlin, bonn)`, \
                 `site notin (berlin, bonn)`, `battery` or `!battery`"
            ),
            Self::Name(term, why) => write!(f, "in {term:?}: {why}"),
        }
    }
}

impl core::error::Error for SelectorError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let text = |text: &str| LabelText::new(text).unwrap();
        pairs.iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    fn selects(selector: &str, pairs: &[(&str, &str)]) -> bool {
        Selector::parse(selector).unwrap().matches(&labels(pairs))
    }

    #[test]
    fn each_form_of_a_term_selects_whom_it_says() {
        let berlin = [("site", "berlin"), ("battery", "yes")];
        for (selector, holds) in [
            ("site=berlin", true),
            ("site==berlin", true),
            ("site = bonn", false),
            ("site!=bonn", true),
            ("floor!=3", true),
            ("site in (bonn, berlin)", true),
            ("site in (bonn)", false),
            ("site notin (bonn,cologne)", true),
            ("floor notin (3)", true),
            ("battery", true),
            ("!battery", false),
            ("!floor", true),
            ("site=berlin, battery", true),
            ("site=berlin, !battery", false),
            ("site in (bonn, berlin), battery=yes", true),
        ] {
            assert_eq!(selects(selector, &berlin), holds, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_term_that_is_wrong() {
        for (text, says) in [
            ("", "empty"),
            ("a=b,", "empty"),
            ("a=ö", "in \"a=ö\""),
            ("a within (b)", "is not understood"),
            ("a in (b", "is not understood"),
            ("a in ()", "at least one character"),
            ("a=", "at least one character"),
        ] {
            let why = Selector::parse(text).unwrap_err().to_string();
            assert!(why.contains(says), "{text:?}: {why}");
        }
        assert_eq!(Selector::parse(&"a".repeat(2000)), Err(SelectorError::TooLong(2000)));
    }

    #[test]
    fn a_selector_is_its_text_again_in_every_encoding() {
        let selector = Selector::parse("a=b,c!=d,e in (f,g),h notin (i),j,!k").unwrap();
        let text = "a=b, c!=d, e in (f, g), h notin (i), j, !k";
        assert_eq!(selector.to_string(), text);
        assert_eq!(cbor::decode::<Selector>(&cbor::encode(&selector), 1024).unwrap(), selector);
        assert_eq!(
            serde_json::from_str::<Selector>(&serde_json::to_string(&selector).unwrap()).unwrap(),
            selector
        );
    }

    #[test]
    fn names_of_sensor_and_gateway_are_labels_and_nobody_can_give_others() {
        let (sensor, gateway) = (SensorId::new("sn-1").unwrap(), NodeId::new("gw-1").unwrap());
        let all = labels(&[("sensor", "sn-9"), ("site", "bonn")]);
        let selector = Selector::parse("sensor in (sn-1, sn-2), gateway=gw-1, site=bonn").unwrap();
        assert!(selector.matches(&all.named(&sensor, &gateway)));
    }

    #[test]
    fn rules_give_labels_by_name_and_the_closer_one_wins() {
        let text =
            r#"{"sn-*": {"site": "bonn", "ring": "3"}, "sn-1*": {"ring": "2"}, "sn-1": {"ring": "1"}}"#;
        let rules: LabelRules = serde_json::from_str(text).unwrap();
        assert_eq!(rules.of("sn-1").to_string(), "ring=1,site=bonn");
        assert_eq!(rules.of("sn-12").to_string(), "ring=2,site=bonn");
        assert_eq!(rules.of("sn-2").to_string(), "ring=3,site=bonn");
        assert!(rules.of("gw-1").is_empty() && rules.is_sensible());
    }

    #[test]
    fn labels_laid_over_others_win() {
        let all = labels(&[("site", "bonn"), ("ring", "1")]).with(&labels(&[("ring", "2")]));
        assert_eq!((all.value("site"), all.value("ring")), (Some("bonn"), Some("2")));
        assert_eq!(cbor::decode::<Labels>(&cbor::encode(&all), 1024).unwrap(), all);
    }
}
