//! Who is meant: by labels, by chance that is none, by name.

use std::{collections::BTreeMap, sync::Mutex};

use rhai::{Dynamic, Engine, ImmutableString, Map};
use sha2::{Digest as _, Sha256};
use trireme_core::{LabelText, Labels, Selector};

use super::{Fallible, text, wrong};

/// The most selectors that are kept parsed.
const MOST_KEPT: usize = 64;

pub(super) fn register(engine: &mut Engine) {
    let known = Mutex::new(BTreeMap::<ImmutableString, Selector>::new());
    engine.register_fn("selected", move |labels: Dynamic, selector: ImmutableString| -> Fallible<bool> {
        let labels = labels_of(&labels)?;
        let parse = || {
            Selector::parse(&selector)
                .map_err(|error| format!("{:?} is no selector: {error}", selector.as_str()))
        };
        // A poisoned lock means that a thread panicked here; what is kept is only kept for speed.
        let Ok(mut known) = known.lock() else { return Ok(parse()?.matches(&labels)) };
        if let Some(selector) = known.get(&selector) {
            return Ok(selector.matches(&labels));
        }
        let parsed = parse()?;
        let matches = parsed.matches(&labels);
        if known.len() < MOST_KEPT {
            known.insert(selector.clone(), parsed);
        }
        Ok(matches)
    });
    engine.register_fn("share", |subject: Dynamic, salt: &str| -> Fallible<f64> {
        Ok(share(&text(&subject, "a name")?, salt))
    });
    engine.register_fn("like", |name: Dynamic, pattern: &str| -> Fallible<bool> {
        Ok(like(text(&name, "a name")?.as_bytes(), pattern.as_bytes()))
    });
}

/// Nobody has no labels.
fn labels_of(value: &Dynamic) -> Result<Labels, String> {
    if value.is_unit() {
        return Ok(Labels::default());
    }
    let map = value.as_map_ref().map_err(|_| wrong(value, "labels"))?;
    labels(&map)
}

fn labels(map: &Map) -> Result<Labels, String> {
    let label = |text: &str| LabelText::new(text).map_err(|error| format!("{text:?} is no label: {error}"));
    map.iter()
        .map(|(key, value)| match value.as_immutable_string_ref() {
            Ok(value) => Ok((label(key)?, label(&value)?)),
            Err(_) => Err(wrong(value, "the value of a label")),
        })
        .collect()
}

/// The same text and salt give the same number from 0 up to 1, whose like is spread evenly.
fn share(subject: &str, salt: &str) -> f64 {
    let digest = Sha256::new().chain_update(salt).chain_update([0]).chain_update(subject).finalize();
    let first = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    // 53 bits are what a float holds exactly.
    (first >> 11) as f64 / (1_u64 << 53) as f64
}

/// `*` is any text, `?` any one byte.
fn like(name: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(at) {
        match pattern.get(of) {
            Some(b'*') => {
                again = Some((at, of));
                of += 1;
                continue;
            }
            Some(wanted) if wanted == byte || *wanted == b'?' => {
                at += 1;
                of += 1;
                continue;
            }
            _ => {}
        }
        // The last `*` takes one byte more.
        let Some((from, star)) = again else { return false };
        again = Some((from + 1, star));
        at = from + 1;
        of = star + 1;
    }
    pattern.get(of..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_their_patterns() {
        for (name, pattern, holds) in [
            ("bk-1", "bk-*", true),
            ("bk-1", "bk-?", true),
            ("bk-12", "bk-?", false),
            ("a", "*", true),
            ("", "*", true),
            ("", "?", false),
            ("berlin-gw-7", "*-gw-*", true),
            ("abab", "*ab", true),
            ("abac", "*ab", false),
        ] {
            assert_eq!(like(name.as_bytes(), pattern.as_bytes()), holds, "{name} {pattern}");
        }
    }

    #[test]
    fn shares_are_spread_evenly_and_differ_with_the_salt() {
        let below = |salt: &str| (0..1000).filter(|n| share(&format!("sn-{n}"), salt) < 0.25).count();
        assert!((200..300).contains(&below("a")), "{}", below("a"));
        assert!((0..1000).all(|n| (0.0..1.0).contains(&share(&format!("sn-{n}"), ""))));
        assert!(share("sn-1", "a") != share("sn-1", "b"));
    }
}
