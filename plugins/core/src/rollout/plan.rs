//! What an operator plans: waves and budgets, as they write them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::labels::Selector;

/// All of something, in millionths.
pub const WHOLE: u32 = 1_000_000;

/// A part of something, in millionths; written in percent: `2.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cbor(transparent)]
pub struct Share(#[n(0)] u32);

impl Share {
    /// All.
    pub const ALL: Self = Self(WHOLE);

    /// So many millionths; no more than all.
    #[must_use]
    pub fn millionths(millionths: u32) -> Self {
        Self(millionths.min(WHOLE))
    }

    /// In millionths.
    #[must_use]
    pub fn as_millionths(self) -> u32 {
        self.0
    }

    /// So many of this many, rounded up.
    #[must_use]
    pub fn of(self, count: u64) -> u64 {
        let product = u128::from(count) * u128::from(self.0);
        u64::try_from(product.div_ceil(u128::from(WHOLE))).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let digits = format!("{rest:04}");
        write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
    }
}

impl FromStr for Share {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let wrong = || PlanError::Share(text.to_string());
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim();
        let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || rest.len() > 4 || !digits(whole) || !digits(rest) || number.ends_with('.') {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let rest: u32 = format!("{rest:0<4}").parse().map_err(|_| wrong())?;
        let millionths = whole.checked_mul(10_000).and_then(|whole| whole.checked_add(rest));
        millionths.filter(|millionths| *millionths <= WHOLE).map(Self).ok_or_else(wrong)
    }
}

/// How many may go wrong: a share of the sensors in waves that have begun (`2%`, rounded down), or a number of them
/// (`5`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Budget {
    /// So many.
    Count(u32),
    /// Such a part.
    Share(Share),
}

impl Budget {
    /// How many of so many may go wrong.
    #[must_use]
    pub fn allowed(&self, of: u64) -> u64 {
        match self {
            Self::Count(count) => u64::from(*count),
            Self::Share(share) => {
                let product = u128::from(of) * u128::from(share.as_millionths());
                u64::try_from(product / u128::from(WHOLE)).unwrap_or(u64::MAX)
            }
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Share(share) => share.fmt(f),
        }
    }
}

impl FromStr for Budget {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        match text.trim().parse() {
            Ok(count) => Ok(Self::Count(count)),
            Err(_) => text.parse().map(Self::Share).map_err(|_| PlanError::Budget(text.to_string())),
        }
    }
}

/// One wave: `10%` of all that the release is addressed to, `ring=canary` for a selection of them, or
/// `10% of ring=canary`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cbor(map)]
pub struct Wave {
    /// How much of it.
    #[n(0)]
    pub share: Share,
    /// Of whom; of all, where there is none.
    #[n(1)]
    pub select: Option<Selector>,
}

impl fmt::Display for Wave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.select {
            None => self.share.fmt(f),
            Some(select) if self.share == Share::ALL => select.fmt(f),
            Some(select) => write!(f, "{} of {select}", self.share),
        }
    }
}

impl FromStr for Wave {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let select =
            |text: &str| Selector::parse(text).map_err(|why| PlanError::Wave(text.into(), why.to_string()));
        if let Some((share, of)) = text.split_once("% of ") {
            return Ok(Self { share: format!("{share}%").parse()?, select: Some(select(of)?) });
        }
        match text.trim() {
            share if share.ends_with('%') => Ok(Self { share: share.parse()?, select: None }),
            of => Ok(Self { share: Share::ALL, select: Some(select(of)?) }),
        }
    }
}

macro_rules! as_text {
    ($($type:ident),*) => {$(
        impl TryFrom<String> for $type {
            type Error = PlanError;
            fn try_from(text: String) -> Result<Self, PlanError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}

as_text!(Share, Budget, Wave);

/// What an operator plans for a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Whom the release is addressed to; every sensor of the model, where there is none.
    pub select: Option<Selector>,
    /// The waves, each admitting more than the one before; at most [`Plan::MOST_WAVES`].
    pub waves: Vec<Wave>,
    /// How much of what was admitted has to confirm before the next wave; who is silent or failed within the budgets
    /// is not waited for.
    pub confirmed: Share,
    /// How many may fail.
    pub failures: Budget,
    /// How many may stay silent.
    pub silence: Budget,
    /// After so long without a word a sensor is silent, in milliseconds.
    pub silent_after_ms: u64,
    /// From a wave's beginning to the next one at least, in milliseconds.
    pub soak_ms: u64,
}

impl Plan {
    /// The most waves.
    pub const MOST_WAVES: usize = 16;

    /// Whether it can be carried out.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn check(&self) -> Result<(), PlanError> {
        if self.waves.is_empty() || self.waves.len() > Self::MOST_WAVES {
            return Err(PlanError::Waves(self.waves.len()));
        }
        let whole = |wave: &&Wave| wave.select.is_none();
        let shares: Vec<Share> = self.waves.iter().filter(whole).map(|wave| wave.share).collect();
        match shares.windows(2).find(|pair| pair.first() >= pair.last()) {
            Some(&[before, after]) => Err(PlanError::Shrinks(before, after)),
            _ => Ok(()),
        }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            select: None,
            waves: [Wave { share: Share::ALL, select: None }].into(),
            confirmed: Share::millionths(950_000),
            failures: Budget::Share(Share::millionths(20_000)),
            silence: Budget::Share(Share::millionths(100_000)),
            silent_after_ms: 60 * 60 * 1000,
            soak_ms: 0,
        }
    }
}

/// Why a plan, or a part of it, is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanError {
    /// Not a percentage.
    Share(String),
    /// Neither a percentage nor a number.
    Budget(String),
    /// Not a wave: the selector, and what is wrong with it.
    Wave(String, String),
    /// No wave, or too many of them.
    Waves(usize),
    /// A wave that admits nobody whom the one before did not.
    Shrinks(Share, Share),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(text) => {
                write!(f, "{text:?} is no share: write 0% to 100%, with at most four digits behind the point")
            }
            Self::Budget(text) => {
                write!(f, "{text:?} is no budget: write a share as 2%, or a number of sensors")
            }
            Self::Wave(text, why) => {
                write!(f, "{text:?} is no wave (10%, ring=canary, or 10% of ring=canary): {why}")
            }
            Self::Waves(count) => {
                write!(f, "a rollout has 1 to {} waves, this one has {count}", Plan::MOST_WAVES)
            }
            Self::Shrinks(before, after) => {
                write!(
                    f,
                    "the wave of {after} after the one of {before} admits nobody new; shares have to grow"
                )
            }
        }
    }
}

impl core::error::Error for PlanError {}
