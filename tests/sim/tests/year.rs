//! A year: what runs out is renewed, what is replaced is learned, what is stolen is shut out.
//! `cargo xtask year` shows it.

use trireme_sim::year;

#[test]
fn a_year_passes_without_a_missed_release() {
    let summary = year::run(1, &mut |_| {});
    let told: Vec<String> = summary.timeline.iter().map(ToString::to_string).collect();
    assert!(summary.good(), "{:?}\n{}", summary.broken, told.join("\n"));
    // A year in which nothing happened would prove nothing.
    assert!(summary.releases >= 80, "{} releases", summary.releases);
    assert_eq!(summary.waits_ms.len(), summary.releases, "each arrived");
    assert!(summary.renewals.values().all(|count| *count >= 2), "{:?}", summary.renewals);
    let often = summary.renewals.values().filter(|count| **count >= 8).count();
    assert!(often >= 8, "who was there all the year renewed about nine times: {:?}", summary.renewals);
    assert!(summary.fooled > 0, "the theft mattered");
    assert!(summary.spread_ms > 0 && summary.spread_ms <= 24 * 3_600_000);
    let counts = summary.counts;
    assert!([counts.crashes, counts.resets, counts.requests].iter().all(|count| *count > 20), "{counts:?}");
}
