//! Chance that is the same for the same seed (SplitMix64).

use trireme_core::rollout::{Share, WHOLE};

/// A generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below this number, which is at least 1.
    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    /// From one to the other, both of them possible.
    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        let span = u64::try_from(most.saturating_sub(least)).unwrap_or(0).saturating_add(1);
        least.saturating_add(i64::try_from(self.below(span)).unwrap_or(0))
    }

    /// Whether something of this share happens.
    pub fn happens(&mut self, share: Share) -> bool {
        self.below(u64::from(WHOLE)) < u64::from(share.as_millionths())
    }

    /// Something from three quarters of this to five quarters.
    pub fn around(&mut self, middle: u64) -> u64 {
        let quarter = middle / 4;
        middle - quarter + self.below(2 * quarter + 1)
    }
}
