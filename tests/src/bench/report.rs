//! Rows of a bench, their table, and how they compare with an earlier report.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::measure::Sample;

/// What is wanted of a row's ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// This, or more.
    AtLeast(f64),
    /// This, or less.
    AtMost(f64),
    /// Nothing: it explains other rows. More is better.
    More,
    /// Nothing: it explains other rows. Less is better.
    Less,
}

/// One thing measured, beside its yardstick in the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Names the row in this report and in others: `delivery/plain-100`.
    pub name: String,
    /// What was measured, in words.
    pub what: String,
    /// The unit of both figures.
    pub unit: String,
    /// Ours.
    pub ours: Sample,
    /// The yardstick's name, and its figure; for a bound that is no measurement, the bound.
    pub yardstick: Option<(String, Sample)>,
    /// What is wanted of ours ÷ yardstick.
    pub goal: Goal,
}

impl Row {
    /// Ours ÷ yardstick, of medians.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.yardstick.as_ref().map(|(_, sample)| self.ours.median / sample.median)
    }

    /// Whether the goal is reached; `None` where there is none.
    #[must_use]
    pub fn reached(&self) -> Option<bool> {
        match (self.goal, self.ratio()) {
            (Goal::AtLeast(least), Some(ratio)) => Some(ratio >= least),
            (Goal::AtMost(most), Some(ratio)) => Some(ratio <= most),
            _ => None,
        }
    }

    fn more_is_better(&self) -> bool {
        matches!(self.goal, Goal::AtLeast(_) | Goal::More)
    }
}

/// All rows of a run, and where they were measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Processor, cores, memory, kernel.
    pub machine: String,
    /// The version of Trireme, and of what it was measured against.
    pub versions: Vec<String>,
    /// Rows, in order.
    pub rows: Vec<Row>,
}

impl Report {
    /// As a table for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{}\n{}\n\n", self.machine, self.versions.join(", "));
        let heads = ["row", "ours", "yardstick", "ratio", "goal", ""];
        let mut lines = vec![heads.map(str::to_owned)];
        lines.extend(self.rows.iter().map(line));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        for line in &lines {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        text.push('\n');
        for row in &self.rows {
            let _ = writeln!(text, "{}: {}", row.name, row.what);
        }
        text
    }

    /// What became slower than in an earlier report, and what is missing: rows whose ratio (or figure, where there is
    /// no yardstick) is worse by more than a tenth and by more than both spreads explain.
    #[must_use]
    pub fn compare(&self, old: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for before in &old.rows {
            let Some(now) = self.rows.iter().find(|row| row.name == before.name) else {
                lines.push(format!("{}: was not measured this time", before.name));
                continue;
            };
            let (was, is) =
                (before.ratio().unwrap_or(before.ours.median), now.ratio().unwrap_or(now.ours.median));
            let change = if now.more_is_better() { was / is } else { is / was };
            if change > 1.1 + spread(before) / 2.0 + spread(now) / 2.0 {
                lines.push(format!(
                    "{}: {:.0} % worse: {} was {}",
                    now.name,
                    (change - 1.0) * 100.0,
                    figure(is),
                    figure(was)
                ));
            }
        }
        lines
    }
}

/// How far the measurements of a row lie apart, as a part of their median.
fn spread(row: &Row) -> f64 {
    let of = |sample: &Sample| (sample.most - sample.least) / sample.median.abs().max(f64::MIN_POSITIVE);
    of(&row.ours) + row.yardstick.as_ref().map_or(0.0, |(_, sample)| of(sample))
}

fn line(row: &Row) -> [String; 6] {
    let ratio = row.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let goal = match row.goal {
        Goal::AtLeast(least) => format!("≥ {least}"),
        Goal::AtMost(most) => format!("≤ {most}"),
        Goal::More | Goal::Less => String::new(),
    };
    let reached = match row.reached() {
        Some(true) => "reached",
        Some(false) => "MISSED",
        None => "",
    };
    let yardstick = row
        .yardstick
        .as_ref()
        .map_or(String::new(), |(name, sample)| format!("{} ({name})", shown(sample, &row.unit)));
    [row.name.clone(), shown(&row.ours, &row.unit), yardstick, ratio, goal, reached.to_owned()]
}

fn shown(sample: &Sample, unit: &str) -> String {
    if sample.runs == 1 {
        return format!("{} {unit}", figure(sample.median));
    }
    format!("{} {unit} [{}–{}]", figure(sample.median), figure(sample.least), figure(sample.most))
}

/// Three digits that count.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, ours: f64, goal: Goal) -> Row {
        let one = |value| Sample::of(vec![value]);
        let yardstick = Some(("mosquitto".to_owned(), one(10.0)));
        Row { name: name.into(), what: "a test".into(), unit: "ms".into(), ours: one(ours), yardstick, goal }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report { machine: "a machine".into(), versions: vec!["trireme 0.1".into()], rows }
    }

    #[test]
    fn a_goal_is_reached_from_its_own_side() {
        assert_eq!(row("a", 13.0, Goal::AtMost(1.3)).reached(), Some(true));
        assert_eq!(row("a", 13.1, Goal::AtMost(1.3)).reached(), Some(false));
        assert_eq!(row("a", 8.9, Goal::AtLeast(0.9)).reached(), Some(false));
        assert_eq!(row("a", 1.0, Goal::More).reached(), None);
    }

    #[test]
    fn what_became_slower_is_named_and_what_became_faster_is_not() {
        let old = report(vec![
            row("rate", 10.0, Goal::AtLeast(0.9)),
            row("time", 10.0, Goal::AtMost(1.3)),
            row("gone", 1.0, Goal::Less),
        ]);
        let new = report(vec![row("rate", 7.0, Goal::AtLeast(0.9)), row("time", 8.0, Goal::AtMost(1.3))]);
        let said = new.compare(&old);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with("rate: 43 % worse") && said[1].starts_with("gone: was not measured"),
            "{said:?}"
        );
        assert!(old.compare(&old).is_empty());
    }

    #[test]
    fn a_report_survives_json_and_its_table_names_every_row() {
        let report =
            report(vec![row("rate", 10.0, Goal::AtLeast(0.9)), row("time", 20.0, Goal::AtMost(1.3))]);
        let again: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(again, report);
        let table = report.table();
        assert!(table.contains("≥ 0.9") && table.contains("MISSED") && table.contains("reached"), "{table}");
    }
}
