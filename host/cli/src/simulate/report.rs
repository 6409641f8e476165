//! What a simulation showed, for a terminal.

use std::fmt::Write as _;

use trireme_core::rollout::State;

use super::engine::{Outcome, Sample, Setup};
use crate::table::Table;

/// Rows of the table over time.
const ROWS: usize = 20;
/// Lines of the plot.
const HEIGHT: u64 = 12;
/// Reasons to wait that are shown.
const REASONS: usize = 6;
/// Sensors that failed and are shown.
const FAILED: usize = 10;

/// How it ended, in a sentence.
#[must_use]
pub fn verdict(outcome: &Outcome) -> String {
    let rollout = &outcome.rollout;
    let after = span(outcome.took_ms);
    match (&outcome.stalled, rollout.state) {
        (Some(why), _) => format!("stalled in wave {} after {after}: {why}", rollout.wave),
        (None, State::Halted) => format!("halted in wave {} after {after}: {}", rollout.wave, rollout.reason),
        (None, _) => format!("done after {after}: {}", rollout.reason),
    }
}

/// All of it; the plot has so many columns.
#[must_use]
pub fn text(setup: &Setup, outcome: &Outcome, columns: usize, ascii: bool) -> String {
    let mut text = String::new();
    let from = trireme_store::utc(setup.start_ms / 1000);
    let _ = writeln!(text, "{} {} from {from}: {}\n", setup.model, setup.version, verdict(outcome));
    text.push_str(&table(outcome));
    text.push('\n');
    text.push_str(&plot(outcome, columns, ascii));
    if !outcome.waits.is_empty() {
        let mut waits: Vec<_> = outcome.waits.iter().collect();
        waits.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        text.push_str("\nwhat was waited for:\n");
        let mut table = Table::new(&["times", "reason"]);
        waits
            .iter()
            .take(REASONS)
            .for_each(|(reason, count)| table.row([count.to_string(), (*reason).clone()]));
        let _ = write!(text, "{table}");
    }
    if !outcome.failed.is_empty() {
        let names: Vec<String> =
            outcome.failed.iter().take(FAILED).map(|(sensor, _)| sensor.to_string()).collect();
        let more = outcome.failed.len().saturating_sub(FAILED);
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        let _ = writeln!(text, "\nfailed: {}{more}", names.join(", "));
    }
    let _ = writeln!(text, "\n{} questions were answered by policies", outcome.asked);
    text
}

fn table(outcome: &Outcome) -> String {
    let mut table =
        Table::new(&["time", "wave", "admitted", "confirmed", "failed", "silent", "waiting", "of"]);
    for sample in spread(&outcome.samples, ROWS) {
        let counts = sample.counts;
        table.row([
            span(sample.at_ms),
            sample.wave.to_string(),
            counts.admitted.to_string(),
            counts.confirmed.to_string(),
            counts.failed.to_string(),
            counts.silent.to_string(),
            counts.waiting.to_string(),
            counts.sensors.to_string(),
        ]);
    }
    table.to_string()
}

/// At most so many of them: the first, the last, those where a wave began, and what lies evenly between.
fn spread(samples: &[Sample], most: usize) -> Vec<Sample> {
    let mut chosen: Vec<usize> = Vec::new();
    let last = samples.len().saturating_sub(1);
    chosen.extend([0, last]);
    let begins = samples.windows(2).enumerate();
    chosen
        .extend(begins.filter(|(_, pair)| matches!(pair, [a, b] if a.wave != b.wave)).map(|(at, _)| at + 1));
    let free = most.saturating_sub(chosen.len());
    chosen.extend((1..=free).map(|step| step * last / (free + 1)));
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().filter_map(|index| samples.get(index).copied()).collect()
}

/// The numbers over time, stacked: confirmed at the bottom, then failed, silent, and who is still waited for.
fn plot(outcome: &Outcome, columns: usize, ascii: bool) -> String {
    let [confirmed, failed, silent, waiting] =
        if ascii { ['#', '!', '?', '~'] } else { ['█', '▒', '░', '·'] };
    let columns = columns.clamp(20, 200);
    // Of a rollout that halted early there would be nothing to see, if this were all sensors.
    let whole = outcome.admitted();
    let end = outcome.took_ms.max(1);
    let series: Vec<Sample> = (0..columns)
        .filter_map(|column| at(&outcome.samples, end * (column as u64 + 1) / columns as u64))
        .collect();
    let mut text = String::new();
    for line in (1..=HEIGHT).rev() {
        // The sensor whose place in the stack this line shows.
        let level = (whole * (2 * line - 1)).div_ceil(2 * HEIGHT);
        let label = match line {
            HEIGHT => "100%",
            line if line == HEIGHT / 2 => " 50%",
            1 => "  0%",
            _ => "    ",
        };
        let _ = write!(text, "  {label} |");
        for sample in &series {
            let counts = sample.counts;
            let tops = [
                (counts.confirmed, confirmed),
                (counts.confirmed + counts.failed, failed),
                (counts.confirmed + counts.failed + counts.silent, silent),
                (counts.admitted, waiting),
            ];
            text.push(tops.iter().find(|(top, _)| level <= *top).map_or(' ', |(_, sign)| *sign));
        }
        text.push('\n');
    }
    let _ = writeln!(text, "       +{}", "-".repeat(columns));
    let until = span(end);
    let _ = writeln!(text, "        0{until:>width$}", width = columns - 1);
    let _ = writeln!(
        text,
        "        {confirmed} confirmed  {failed} failed  {silent} silent  {waiting} waiting; 100% is {whole} of {} sensors",
        outcome.counts().sensors
    );
    text
}

/// The numbers at a moment: those of the last sample before it.
fn at(samples: &[Sample], ms: u64) -> Option<Sample> {
    let after = samples.partition_point(|sample| sample.at_ms <= ms);
    samples.get(after.saturating_sub(1)).copied()
}

/// `2h 5m`, to the two largest units.
#[must_use]
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let shown = parts.iter().skip_while(|(count, _)| *count == 0).take(2);
    let words: Vec<String> =
        shown.filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if words.is_empty() { "0s".into() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_two_largest_units() {
        assert_eq!(span(0), "0s");
        assert_eq!(span(59_999), "59s");
        assert_eq!(span(3_600_000 + 65_000), "1h 1m");
        assert_eq!(span(2 * 86_400_000 + 5_000), "2d");
    }
}
