//! Times, memory and processor time, and what becomes of several measurements.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970: processes of one machine can compare them.
#[must_use]
pub fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos())
        .unwrap_or(u64::MAX)
}

/// Seconds from one such time to another.
#[must_use]
pub fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

/// Several measurements of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The one in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// How many there are.
    pub runs: usize,
}

impl Sample {
    /// Of at least one value.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Self { median, least: values[0], most: values[values.len() - 1], runs: values.len() }
    }

    /// Of at least one value: the median, and between what half of them lie.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn middle(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: usize| values[(values.len() - 1) * part / 4];
        let (least, most) = (at(1), at(3));
        Self { least, most, ..Self::of(values) }
    }

    /// The same in another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { median: self.median * factor, least: self.least * factor, most: self.most * factor, ..self }
    }
}

/// A process, looked at from outside.
#[derive(Debug, Clone, Copy)]
pub struct Watched(pub u32);

impl Watched {
    /// Bytes of memory that are its own and of no file, in memory or swapped out (`RssAnon` and `VmSwap`).
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn anonymous(self) -> u64 {
        (self.status("RssAnon:") + self.status("VmSwap:")) * 1024
    }

    /// Open files.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn files(self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap().count()
    }

    /// Threads.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn threads(self) -> u64 {
        self.status("Threads:")
    }

    fn status(self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Seconds of processor time that it used since its start, of all its threads.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn processor(self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap();
        // The name stands in brackets and may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
        // 100 ticks a second, on every Linux there is.
        ticks as f64 / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle_or_between_the_two() {
        assert_eq!(Sample::of(vec![3.0, 1.0, 2.0]), Sample { median: 2.0, least: 1.0, most: 3.0, runs: 3 });
        assert_eq!(Sample::of(vec![4.0, 1.0]).median, 2.5);
    }

    #[test]
    fn a_process_can_be_looked_at() {
        let own = Watched(std::process::id());
        assert!(own.anonymous() > 0 && own.files() > 2 && own.threads() > 0);
        let before = own.processor();
        let begun = std::time::Instant::now();
        while begun.elapsed().as_millis() < 100 {
            std::hint::black_box(crate::lab::image(1000, 1));
        }
        assert!(own.processor() > before);
    }
}
