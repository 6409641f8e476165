//! Rollouts: in which waves a release reaches its sensors, and when it stops.
//!
//! A manufacturer owns the rollout ([`Rollout`]), and says what of it is in force in a signed, numbered order
//! ([`Order`], part of the manifest). Brokers and gateways may only be stricter.
//!
//! # States
//!
//! | state | goes to | when |
//! |---|---|---|
//! | `waiting` | `running` | the policies let the first wave begin |
//! | `running` | `running` | the policies let the next wave begin, after the one before was confirmed |
//! | `running` | `done` | the last wave has no sensor left that is waited for |
//! | `waiting`, `running`, `done` | `halted` | a budget is used up, a policy or an operator says so |
//! | `halted` | `waiting`, `running` | an operator resumes it; what failed until then is excused |
//! | all but `superseded` | `withdrawn` | an operator takes the release back |
//! | all | `superseded` | a newer version of the model is published |
//!
//! `done` is no end: sensors that appear later are offered the release too, and count.
//!
//! # Order of calls
//!
//! After whatever changes the counts: [`Rollout::next`]. It says what is to be done: [`Step::Ask`] the policies, then
//! [`Rollout::begin`]; [`Step::Halt`] is followed by [`Rollout::halt`], [`Step::Finish`] by [`Rollout::finish`].
//! Nothing here reads a clock: every moment is given.

mod order;
mod plan;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::labels::Labelled;
use crate::names::SensorId;

pub use order::{EMERGENCY, ORDER, Order, place};
pub use plan::{Budget, Plan, PlanError, Share, WHOLE, Wave};

/// How a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No wave has begun.
    Waiting,
    /// Waves have begun.
    Running,
    /// Nobody is offered the release until an operator resumes it.
    Halted,
    /// All waves have begun, and nobody is waited for.
    Done,
    /// The release was taken back.
    Withdrawn,
    /// A newer release of the model took its place.
    Superseded,
}

impl State {
    /// As it stands in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Halted => "halted",
            Self::Done => "done",
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
        }
    }

    /// Whether it is over for good.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Withdrawn | Self::Superseded)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sensors by how they stand to a release. Each that is admitted is in one of the five of [`Counts::reported`] and
/// [`Counts::waiting`] or [`Counts::silent`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// That the rollout is addressed to, in all waves.
    pub sensors: u64,
    /// Of these, in waves that have begun.
    pub admitted: u64,
    /// Of the admitted: an authenticated receipt says that they run it.
    pub confirmed: u64,
    /// An authenticated receipt says that it failed there.
    pub failed: u64,
    /// The device said no for reasons of its own.
    pub refused: u64,
    /// Nothing was heard for too long: unknown, never success.
    pub silent: u64,
    /// Their time to report is not over.
    pub waiting: u64,
}

impl Counts {
    /// Those who reported something.
    #[must_use]
    pub fn reported(&self) -> u64 {
        self.confirmed + self.failed + self.refused
    }

    /// Counts one more sensor.
    pub fn add(&mut self, place: Place) {
        let standing = match place {
            Place::Outside => return,
            Place::Later => {
                self.sensors += 1;
                return;
            }
            Place::Admitted(standing) => standing,
        };
        self.sensors += 1;
        self.admitted += 1;
        let counter = match standing {
            Standing::Confirmed => &mut self.confirmed,
            Standing::Failed => &mut self.failed,
            Standing::Refused => &mut self.refused,
            Standing::Waiting => &mut self.waiting,
            Standing::Silent => &mut self.silent,
        };
        *counter += 1;
    }
}

/// How one admitted sensor stands to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It runs the release, or a later one.
    Confirmed,
    /// It gave the release up, or found it damaged.
    Failed,
    /// Its own policy refused it for now, or it has no use for it.
    Refused,
    /// It has not reported.
    Waiting,
    /// It should have reported by now.
    Silent,
}

/// Where a sensor is in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is not addressed.
    Outside,
    /// Its wave has not begun.
    Later,
    /// Its wave has begun.
    Admitted(Standing),
}

impl Standing {
    /// What an authenticated receipt about this release says.
    #[must_use]
    pub fn of_outcome(outcome: &str) -> Self {
        match outcome {
            "installed" => Self::Confirmed,
            "reverted" | "refused-checksum" | "refused-token" | "refused-image" => Self::Failed,
            "refused-policy" | "refused-version" => Self::Refused,
            _ => Self::Waiting,
        }
    }
}

/// What is to be done about a rollout now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing; `until` (milliseconds since 1970) is when to look again, whatever happens before.
    Stay {
        /// When time alone may change something.
        until: Option<u64>,
        /// What is waited for.
        why: String,
    },
    /// The policies are to be asked whether this wave, from 1, may begin.
    Ask(u32),
    /// It is to be halted, for this reason.
    Halt(String),
    /// Nobody is waited for any more.
    Finish,
}

/// Something that happened to a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since 1970; none where the time was not proven.
    pub unix_ms: Option<u64>,
    /// What.
    pub what: String,
}

/// The rollout of a release, as its owner keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// What was planned.
    pub plan: Plan,
    /// How it stands.
    pub state: State,
    /// Waves that have begun.
    pub wave: u32,
    /// When each of them began, milliseconds since 1970.
    #[serde(default)]
    pub began: Vec<u64>,
    /// When an operator resumed it last: whoever was kept waiting has all of their time again.
    #[serde(default)]
    pub resumed_ms: u64,
    /// Why it stands as it does, for people.
    #[serde(default)]
    pub reason: String,
    /// Sensors that a halt is about; at most [`Rollout::MOST_NAMED`].
    #[serde(default)]
    pub culprits: Vec<SensorId>,
    /// Failures that an operator has seen and excused.
    #[serde(default)]
    pub excused_failed: u64,
    /// Silent sensors that an operator has excused.
    #[serde(default)]
    pub excused_silent: u64,
    /// What happened, oldest first; at most [`Rollout::MOST_ENTRIES`].
    #[serde(default)]
    pub log: Vec<Entry>,
}

impl Rollout {
    /// The most sensors that a halt names.
    pub const MOST_NAMED: usize = 32;
    /// The most entries of the log; the oldest go first.
    pub const MOST_ENTRIES: usize = 64;

    /// A rollout of which nothing has happened yet.
    #[must_use]
    pub fn new(plan: Plan, unix_ms: Option<u64>) -> Self {
        let mut rollout = Self {
            plan,
            state: State::Waiting,
            wave: 0,
            began: Vec::new(),
            resumed_ms: 0,
            reason: String::new(),
            culprits: Vec::new(),
            excused_failed: 0,
            excused_silent: 0,
            log: Vec::new(),
        };
        let waves = rollout.plan.waves.len();
        rollout.note(unix_ms, format!("planned in {waves} {}", if waves == 1 { "wave" } else { "waves" }));
        rollout
    }

    /// What is to be done now. `unix_ms` is the proven time: without it no wave begins, but a rollout can halt.
    #[must_use]
    pub fn next(&self, counts: &Counts, unix_ms: Option<u64>) -> Step {
        let stay = |until, why: String| Step::Stay { until, why };
        match self.state {
            State::Halted | State::Withdrawn | State::Superseded => return stay(None, self.reason.clone()),
            State::Waiting | State::Running | State::Done => {}
        }
        if let Some(why) = self.exhausted(counts) {
            return Step::Halt(why);
        }
        if self.state == State::Done {
            return stay(None, String::from("new sensors are offered it as they appear"));
        }
        let Some(now) = unix_ms else { return stay(None, String::from("the time is not proven yet")) };
        if self.wave == 0 {
            return Step::Ask(1);
        }
        if counts.sensors == 0 {
            return stay(None, String::from("no sensor of this selection has reported yet"));
        }
        if !self.confirmed(counts) {
            let Counts { admitted, confirmed, waiting, .. } = counts;
            let until = Some(self.began_ms().saturating_add(self.plan.silent_after_ms));
            let why = format!("{confirmed} of {admitted} sensors have confirmed, {waiting} are waited for");
            return stay(until, why);
        }
        let ripe = self.began_ms().saturating_add(self.plan.soak_ms);
        if now < ripe {
            return stay(Some(ripe), format!("wave {} is confirmed and being watched", self.wave));
        }
        if (self.wave as usize) < self.plan.waves.len() {
            return Step::Ask(self.wave + 1);
        }
        if counts.waiting > 0 {
            let until = Some(self.began_ms().saturating_add(self.plan.silent_after_ms));
            return stay(until, format!("{} sensors of the last wave are waited for", counts.waiting));
        }
        Step::Finish
    }

    /// When the newest wave began or was resumed, milliseconds since 1970.
    #[must_use]
    pub fn began_ms(&self) -> u64 {
        self.began.last().copied().unwrap_or(0).max(self.resumed_ms)
    }

    /// How a sensor counts: by its labels, its [`place`], what it last reported of the release, and when it was first
    /// heard of (milliseconds since 1970).
    #[must_use]
    pub fn standing(
        &self,
        labels: &impl Labelled,
        place: u32,
        reported: Standing,
        first_ms: u64,
        unix_ms: Option<u64>,
    ) -> Place {
        if !self.plan.select.as_ref().is_none_or(|select| select.matches(labels)) {
            return Place::Outside;
        }
        let mut waves = self.plan.waves.iter();
        let Some(wave) = waves.position(|wave| wave.admits(labels, place)) else { return Place::Outside };
        let Some(began) = self.began.get(wave) else { return Place::Later };
        if reported != Standing::Waiting {
            return Place::Admitted(reported);
        }
        let since = (*began).max(self.resumed_ms).max(first_ms);
        let silent = unix_ms.is_some_and(|now| now >= since.saturating_add(self.plan.silent_after_ms));
        Place::Admitted(if silent { Standing::Silent } else { Standing::Waiting })
    }

    /// Whether the waves that have begun may be followed by another: enough sensors have *confirmed*, or nobody is
    /// waited for any more and what did not confirm is within the budgets. Bytes that were sent count for nothing.
    fn confirmed(&self, counts: &Counts) -> bool {
        let enough = self.plan.confirmed.of(counts.admitted).max(1);
        // A wave too small to hold anybody tells nothing and holds up nobody.
        counts.admitted == 0 || counts.confirmed >= enough || (counts.waiting == 0 && counts.confirmed > 0)
    }

    /// Why it cannot go on, where a budget is used up.
    fn exhausted(&self, counts: &Counts) -> Option<String> {
        let over = |count: u64, excused: u64, budget: &Budget, what: &str| {
            let counted = count.saturating_sub(excused);
            let allowed = budget.allowed(counts.admitted);
            (counted > allowed).then(|| {
                let admitted = counts.admitted;
                format!("{counted} of {admitted} sensors {what}, the budget of {budget} allows {allowed}")
            })
        };
        over(counts.failed, self.excused_failed, &self.plan.failures, "failed")
            .or_else(|| over(counts.silent, self.excused_silent, &self.plan.silence, "are silent"))
    }

    /// The wave of this number begins.
    pub fn begin(&mut self, wave: u32, unix_ms: Option<u64>) {
        self.state = State::Running;
        self.wave = wave;
        self.began.push(unix_ms.unwrap_or(0));
        self.reason.clear();
        let what = self.plan.waves.get(wave.saturating_sub(1) as usize).map(ToString::to_string);
        let of = self.plan.waves.len();
        self.note(unix_ms, format!("wave {wave} of {of} begins: {}", what.unwrap_or_default()));
    }

    /// It stops; `culprits` are the sensors that are the reason.
    pub fn halt(&mut self, why: &str, culprits: Vec<SensorId>, unix_ms: Option<u64>) {
        self.state = State::Halted;
        self.reason = why.into();
        self.culprits = culprits;
        self.culprits.truncate(Self::MOST_NAMED);
        let wave = self.wave;
        self.note(unix_ms, format!("halted in wave {wave}: {why}"));
    }

    /// An operator lets it go on. What failed and who was silent until now is excused, or it would halt again at once.
    pub fn resume(&mut self, counts: &Counts, unix_ms: Option<u64>) {
        self.state = if self.wave == 0 { State::Waiting } else { State::Running };
        (self.excused_failed, self.excused_silent) = (counts.failed, counts.silent);
        self.culprits.clear();
        self.reason.clear();
        self.resumed_ms = unix_ms.unwrap_or(self.resumed_ms);
        let Counts { failed, silent, .. } = counts;
        self.note(unix_ms, format!("resumed; {failed} failed and {silent} silent sensors are excused"));
    }

    /// Nobody is waited for any more.
    pub fn finish(&mut self, counts: &Counts, unix_ms: Option<u64>) {
        self.state = State::Done;
        let Counts { confirmed, admitted, failed, silent, .. } = counts;
        self.reason =
            format!("{confirmed} of {admitted} sensors have confirmed, {failed} failed, {silent} are silent");
        let what = format!("done: {}", self.reason);
        self.note(unix_ms, what);
    }

    /// It is over: withdrawn or superseded.
    pub fn end(&mut self, state: State, why: &str, unix_ms: Option<u64>) {
        self.state = state;
        self.reason = why.into();
        self.note(unix_ms, format!("{state}: {why}"));
    }

    /// What is in force, for the manifest.
    #[must_use]
    pub fn order(&self) -> Order {
        let open = self.plan.waves.iter().take(self.wave as usize).cloned().collect();
        Order {
            wave: self.wave,
            of: u32::try_from(self.plan.waves.len()).unwrap_or(u32::MAX),
            halted: self.state == State::Halted,
            select: self.plan.select.clone(),
            open,
        }
    }

    fn note(&mut self, unix_ms: Option<u64>, what: String) {
        if self.log.len() >= Self::MOST_ENTRIES {
            self.log.remove(0);
        }
        self.log.push(Entry { unix_ms, what });
    }
}

#[cfg(test)]
mod tests;
