//! Versions, by the one parser and the one order that there is.

use std::cmp::Ordering;

use rhai::{Dynamic, Engine, INT};
use trireme_core::Version;

use super::{Fallible, text};

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("version_compare", |one: Dynamic, other: Dynamic| -> Fallible<INT> {
        Ok(match version(&one)?.cmp(&version(&other)?) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        })
    });
    engine.register_fn("version_at_least", |one: Dynamic, other: Dynamic| -> Fallible<bool> {
        Ok(version(&one)? >= version(&other)?)
    });
    engine.register_fn("version_matches", |one: Dynamic, pattern: &str| -> Fallible<bool> {
        Ok(matches(version(&one)?, pattern)?)
    });
}

fn version(value: &Dynamic) -> Result<Version, String> {
    let written = text(value, "a version")?;
    written.parse().map_err(|error| format!("{:?} is no version: {error}", written.as_str()))
}

/// `1.x` is every version that begins with 1, `1.9` is 1.9 alone, `*` is every version.
fn matches(version: Version, pattern: &str) -> Result<bool, String> {
    let wrong = || format!("{pattern:?} is no pattern of versions: write 1.9, 1.x or *");
    let parts: Vec<&str> = pattern.split('.').collect();
    let open = parts.last().is_some_and(|last| matches!(*last, "x" | "*"));
    let fixed = if open { parts.split_last().map_or(&[][..], |(_, fixed)| fixed) } else { &parts };
    if fixed.is_empty() {
        return if open { Ok(true) } else { Err(wrong()) };
    }
    let least: Version = fixed.join(".").parse().map_err(|_| wrong())?;
    let length = if open { 4 * fixed.len() } else { 16 };
    Ok(version.to_bytes().get(..length) == least.to_bytes().get(..length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_what_begins_like_it() {
        let matches = |version: &str, pattern: &str| matches(version.parse().unwrap(), pattern);
        for (version, pattern, holds) in [
            ("1.9", "1.x", true),
            ("1", "1.x", true),
            ("2.0", "1.x", false),
            ("1.10", "1.1.x", false),
            ("1.9.3", "1.9.*", true),
            ("1.9.0", "1.9", true),
            ("1.9.1", "1.9", false),
            ("7.1", "*", true),
        ] {
            assert_eq!(matches(version, pattern), Ok(holds), "{version} {pattern}");
        }
        for pattern in ["", "x.1", "1.x.2", "one", "1..x"] {
            assert!(matches("1.0", pattern).is_err(), "{pattern}");
        }
    }
}
