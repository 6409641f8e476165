//! Rollouts and the inventory as a terminal shows them.

use std::fmt::Write as _;

use trireme_core::api::{Fleet, FleetSensor, RolloutStatus};
use trireme_core::rollout::{Counts, State};

use crate::table::{Table, clean};

/// Sensors that are named in a rollout's status; the rest is counted.
const SHOWN_CULPRITS: usize = 20;
/// Entries of its log.
const SHOWN_ENTRIES: usize = 12;
/// Columns of the bar.
const BAR: u64 = 40;

/// One rollout, for people.
#[must_use]
pub fn rollout(status: &RolloutStatus) -> String {
    let RolloutStatus { model, version, state, reason, wave, plan, counts, .. } = status;
    let mut text = String::new();
    let emergency = if status.emergency { ", an emergency" } else { "" };
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let _ = writeln!(text, "{model} {version}{emergency} is {state}{why}");
    let select = plan.select.as_ref().map_or_else(|| "every sensor of the model".into(), ToString::to_string);
    let _ = writeln!(
        text,
        "  for {select}; budgets: failures {}, silence {} after {}",
        plan.failures,
        plan.silence,
        span(plan.silent_after_ms)
    );
    let (stored, brokers) = status.brokers;
    let _ = writeln!(text, "  order {} is at {stored} of {brokers} brokers", status.sequence);
    if !status.approvals.is_empty() {
        let _ = writeln!(text, "  approved by {}", status.approvals.join(", "));
    }
    for (number, planned) in plan.waves.iter().enumerate() {
        let began = status.began.get(number).map(|ms| trireme_store::utc(ms / 1000));
        let mark = match (began, *wave as usize == number) {
            (Some(began), _) => format!("began {began}"),
            (None, true) if !state.is_over() => "is next".into(),
            (None, _) => "waits".into(),
        };
        let _ = writeln!(text, "  wave {} of {}: {planned}: {mark}", number + 1, plan.waves.len());
    }
    if !state.is_over() {
        text.push_str(&bar(counts));
    }
    if !status.culprits.is_empty() {
        let mut table = Table::new(&["sensor", "gateway", "outcome"]);
        for culprit in status.culprits.iter().take(SHOWN_CULPRITS) {
            table.row([culprit.sensor.to_string(), culprit.gateway.to_string(), culprit.outcome.clone()]);
        }
        let _ = write!(text, "{table}");
        let rest = status.culprits.len().saturating_sub(SHOWN_CULPRITS);
        if rest > 0 {
            let _ = writeln!(text, "  and {rest} more; see --json");
        }
    }
    for entry in status.log.iter().rev().take(SHOWN_ENTRIES).rev() {
        let when = entry.unix_ms.map_or_else(|| "time unknown".into(), |ms| trireme_store::utc(ms / 1000));
        let _ = writeln!(text, "  {when}  {}", clean(&entry.what));
    }
    if *state == State::Halted {
        let _ = writeln!(
            text,
            "  go on with `trireme rollout resume {model}`, or take it back with `trireme rollout withdraw {model} {version}`"
        );
    }
    text
}

/// `###--..` and what it means.
fn bar(counts: &Counts) -> String {
    let Counts { sensors, admitted, confirmed, failed, refused, silent, waiting } = counts;
    let columns = |count: u64| if *sensors == 0 { 0 } else { (count * BAR).div_ceil(*sensors) };
    let mut drawn = String::new();
    for (count, sign) in [(*confirmed, '#'), (*failed, '!'), (*silent, '?'), (*refused, 'x'), (*waiting, '~')]
    {
        (0..columns(count)).for_each(|_| drawn.push(sign));
    }
    let drawn: String =
        drawn.chars().chain(std::iter::repeat('.')).take(usize::try_from(BAR).unwrap_or(40)).collect();
    format!(
        "  [{drawn}] {admitted} of {sensors} sensors are admitted:\n  # {confirmed} confirmed  ! {failed} failed  ? {silent} \
         silent  x {refused} refused  ~ {waiting} waiting\n"
    )
}

/// The inventory, for people.
#[must_use]
pub fn fleet(sensors: &[FleetSensor], summary: &Fleet) -> String {
    let mut text = String::new();
    let mut table =
        Table::new(&["sensor", "model", "running", "said by", "gateway", "last", "labels", "seen"]);
    for sensor in sensors {
        let last = sensor.last.as_ref().map_or_else(
            || if sensor.unauthenticated { "unauthenticated".into() } else { "-".into() },
            |last| format!("{} {}", last.version, last.outcome),
        );
        let seen = if sensor.seen_ms == 0 { "-".into() } else { trireme_store::utc(sensor.seen_ms / 1000) };
        table.row([
            sensor.sensor.to_string(),
            sensor.model.to_string(),
            sensor.running.to_string(),
            if sensor.proven { "itself" } else { "its gateway" }.into(),
            sensor.gateway.to_string(),
            last,
            sensor.labels.to_string(),
            seen,
        ]);
    }
    let _ = write!(text, "{table}");
    for (model, versions) in &summary.versions {
        let each: Vec<String> =
            versions.iter().rev().map(|(version, count)| format!("{count} run {version}")).collect();
        let _ = writeln!(text, "{model}: {}", each.join(", "));
    }
    if sensors.is_empty() {
        text.push_str("no sensor that fits has been heard of\n");
    }
    text
}

fn span(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_all_sensors_and_who_stands_how() {
        let counts = Counts {
            sensors: 100,
            admitted: 50,
            confirmed: 40,
            failed: 3,
            silent: 2,
            waiting: 5,
            refused: 0,
        };
        let text = bar(&counts);
        assert!(text.contains("[################!!?~~"), "{text}");
        assert!(text.contains("50 of 100 sensors are admitted") && text.contains("! 3 failed"), "{text}");
        assert!(bar(&Counts::default()).contains("0 of 0"));
    }
}
