//! Why sensors and waves waited, counted by kind.

use std::collections::{BTreeMap, HashMap};

/// Different kinds of reasons that are counted one by one.
const MOST_KINDS: usize = 64;
/// Different reasons whose kind is known at once.
const MOST_KNOWN: usize = 4096;

/// Reasons that differ in numbers alone are one: the first stands for all.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    /// The first of each kind, and how often there were such.
    counted: Vec<(String, u64)>,
    /// By the reason without its digits.
    kinds: HashMap<String, usize>,
    known: HashMap<String, usize>,
    others: u64,
}

impl Reasons {
    pub(super) fn count(&mut self, reason: &str) {
        let kind = self.known.get(reason).copied().or_else(|| self.kind(reason));
        match kind.and_then(|kind| self.counted.get_mut(kind)) {
            Some((_, count)) => *count += 1,
            None => self.others += 1,
        }
    }

    fn kind(&mut self, reason: &str) -> Option<usize> {
        let plain: String = reason.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        let kind = match self.kinds.get(&plain) {
            Some(kind) => *kind,
            None if self.counted.len() < MOST_KINDS => {
                self.counted.push((reason.to_owned(), 0));
                self.kinds.insert(plain, self.counted.len() - 1);
                self.counted.len() - 1
            }
            None => return None,
        };
        if self.known.len() < MOST_KNOWN {
            self.known.insert(reason.to_owned(), kind);
        }
        Some(kind)
    }

    /// How often each was counted.
    pub(super) fn counted(self) -> BTreeMap<String, u64> {
        let others = Some(("other reasons".to_owned(), self.others)).filter(|(_, count)| *count > 0);
        self.counted.into_iter().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_numbers_are_one_and_there_are_only_so_many() {
        let mut reasons = Reasons::default();
        for number in 0..10_000 {
            reasons.count(&format!("{number} transfers are under way"));
        }
        reasons.count("the sensor is away");
        for kind in 0..100_u8 {
            reasons.count(&"x".repeat(usize::from(kind) + 1));
        }
        let counted = reasons.counted();
        assert_eq!(counted["0 transfers are under way"], 10_000);
        assert_eq!(counted["the sensor is away"], 1);
        assert_eq!(counted["other reasons"], 38);
        assert_eq!(counted.len(), MOST_KINDS + 1);
    }
}
