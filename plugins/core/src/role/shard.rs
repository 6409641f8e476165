//! The instances of a role.

/// Which of a role's instances this is. A role that is [`super::About::sharded`] runs as several, each with links, timers and
/// jobs of its own; an incoming link goes to one by whom it claims to be. Number 0 is the main one: requests go there,
/// all may open the blobs that it pins, and when it ends, all others start anew after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub number: u32,
    /// At least 1.
    pub count: u32,
}

impl Shard {
    /// The number of the main shard.
    pub const MAIN: u32 = 0;
    /// A role in one piece.
    pub const ALONE: Self = Self { number: Self::MAIN, count: 1 };

    /// Whether this is the main one.
    #[must_use]
    pub fn is_main(self) -> bool {
        self.number == Self::MAIN
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::ALONE
    }
}
