//! The plan of a rollout as people write it: in a file, or as options of `trireme publish`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use trireme_core::Selector;
use trireme_core::rollout::{Budget, Plan, PlanError, Share, Wave};

use crate::files::{self, FileError};

/// The most bytes of a plan's file.
const LARGEST_PLAN: u64 = 64 * 1024;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no plan: the parser's words have line and column.
    #[error("{}: {source}", file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: toml::de::Error,
    },
    /// It cannot be carried out.
    #[error("the plan of the rollout: {0}")]
    Plan(#[from] PlanError),
}

/// A plan, every part of which may be left out. Times are written as `90s`, `30m`, `2h`, `1day 6h`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanText {
    /// Whom the release is addressed to: `site=berlin, !battery`.
    pub select: Option<Selector>,
    /// The waves: `ring=canary`, `10%`, `10% of ring=canary`. One wave of everybody, where there is none.
    pub waves: Vec<Wave>,
    /// How much of a wave has to confirm before the next.
    pub confirmed: Option<Share>,
    /// How many sensors may fail: `2%`, or `5`.
    pub failures: Option<Budget>,
    /// How many may stay silent.
    pub silence: Option<Budget>,
    /// After how long without a word a sensor is silent.
    pub silent_after: Option<Span>,
    /// From one wave to the next at least.
    pub soak: Option<Span>,
}

/// A duration as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

/// It is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration: write 90s, 30m, 2h or 1d")]
pub struct SpanError(String);

impl std::str::FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self).map_err(|_| SpanError(text.into()))
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Span {
    fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl PlanText {
    /// The plan of a TOML file.
    ///
    /// # Errors
    /// [`PlanFileError`].
    pub fn read(file: &Path) -> Result<Self, PlanFileError> {
        let text = files::read_text(file, LARGEST_PLAN)?;
        toml::from_str(&text).map_err(|source| PlanFileError::Syntax { file: file.into(), source })
    }

    /// This plan with what the other one says laid over it.
    #[must_use]
    pub fn with(self, over: Self) -> Self {
        Self {
            select: over.select.or(self.select),
            waves: if over.waves.is_empty() { self.waves } else { over.waves },
            confirmed: over.confirmed.or(self.confirmed),
            failures: over.failures.or(self.failures),
            silence: over.silence.or(self.silence),
            silent_after: over.silent_after.or(self.silent_after),
            soak: over.soak.or(self.soak),
        }
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { select, waves, confirmed, failures, silence, silent_after, soak } = self;
        let said = select.is_some() || confirmed.is_some() || failures.is_some() || silence.is_some();
        !said && waves.is_empty() && silent_after.is_none() && soak.is_none()
    }

    /// The whole plan: what is not said is as [`Plan::default`] has it.
    ///
    /// # Errors
    /// [`PlanFileError::Plan`].
    pub fn plan(self) -> Result<Plan, PlanFileError> {
        let usual = Plan::default();
        let plan = Plan {
            select: self.select,
            waves: if self.waves.is_empty() { usual.waves } else { self.waves },
            confirmed: self.confirmed.unwrap_or(usual.confirmed),
            failures: self.failures.unwrap_or(usual.failures),
            silence: self.silence.unwrap_or(usual.silence),
            silent_after_ms: self.silent_after.map_or(usual.silent_after_ms, Span::ms),
            soak_ms: self.soak.map_or(usual.soak_ms, Span::ms),
        };
        plan.check()?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_as_it_is_written_and_says_where_it_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plan.toml");
        let text = "select = \"site=bonn\"\nwaves = [\"ring=canary\", \"10%\", \"100%\"]\nfailures = \"5\"\nsoak = \"2h\"\n";
        std::fs::write(&file, text).unwrap();
        let plan = PlanText::read(&file).unwrap().plan().unwrap();
        assert_eq!((plan.waves.len(), plan.soak_ms, plan.failures), (3, 7_200_000, Budget::Count(5)));
        assert_eq!(plan.silent_after_ms, Plan::default().silent_after_ms);
        for (text, says) in [
            ("wave = [\"1%\"]", "unknown field `wave`"),
            ("waves = [\"1%\", \"1%\"]", "admits nobody new"),
            ("waves = [\"ten\", \"a within b\"]", "is no wave"),
            ("soak = \"soon\"", "line 1"),
        ] {
            std::fs::write(&file, text).unwrap();
            let why = PlanText::read(&file).and_then(PlanText::plan).unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn options_are_laid_over_a_file() {
        let file = PlanText { failures: Some("5".parse().unwrap()), ..PlanText::default() };
        let options = PlanText { waves: vec!["10%".parse().unwrap()], ..PlanText::default() };
        let plan = file.with(options).plan().unwrap();
        assert_eq!((plan.waves.len(), plan.failures), (1, Budget::Count(5)));
        assert!(PlanText::default().is_empty());
    }
}
