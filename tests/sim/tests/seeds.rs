//! Many seeds of several scenarios: whatever goes wrong, nothing bad happens, and in the end all is right.
//!
//! `SIM_SEEDS=2000 cargo test -p trireme-sim --test seeds` runs more of them, `SIM_FROM=17 SIM_SEEDS=1` one alone
//! with its trace.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests, and their helpers"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use trireme_core::Suite;
use trireme_sim::{Network, Scenario};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs the seeds on all cores; the first failure ends the test, with the last of its trace.
fn run(scenario: &Scenario, seeds: u64) {
    let began = std::time::Instant::now();
    let sums = std::sync::Mutex::new([0_u64; 8]);
    let (from, seeds) = (number("SIM_FROM", 0), number("SIM_SEEDS", seeds));
    let next = AtomicU64::new(from);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || failures.lock().unwrap().len() >= 10 {
                        return;
                    }
                    let report = scenario.run(seed);
                    let counts = report.counts;
                    let more = [
                        report.took_ms / 1000,
                        counts.events,
                        counts.written,
                        counts.kept,
                        counts.crashes,
                        counts.resets,
                        counts.disorders,
                        counts.requests,
                    ];
                    sums.lock().unwrap().iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                    if !report.good() {
                        failures.lock().unwrap().push(report);
                    }
                }
            });
        }
    });
    let [seconds, events, written, kept, crashes, resets, disorders, requests] = sums.into_inner().unwrap();
    println!(
        "{seeds} seeds in {:?}: {seconds} virtual seconds, {events} events, {written} images written, {kept} kept, \
         {crashes} crashes, {resets} resets, {disorders} messages out of order, {requests} requests lost or repeated",
        began.elapsed()
    );
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|report| report.seed);
    let Some(first) = failures.first() else {
        // A run in which nothing happened proves nothing.
        assert!(kept > 0 && written >= kept);
        let bad = scenario.network != Network::GOOD && seeds >= 50;
        assert!(!bad || [crashes, resets, disorders, requests].iter().all(|count| *count > seeds / 4));
        return;
    };
    if seeds == 1 {
        first.trace.iter().for_each(|line| println!("{line}"));
        first.faults.iter().for_each(|line| println!("fault: {line}"));
    }
    for report in &failures {
        println!("seed {} after {} ms: {:?}", report.seed, report.took_ms, report.broken);
    }
    panic!("{} of {seeds} seeds from {from} failed", failures.len());
}

#[test]
fn on_a_good_network_every_sensor_gets_every_release_and_its_manufacturer_knows() {
    run(&Scenario { releases: 3, ..Scenario::default() }, 20);
}

#[test]
fn on_a_good_network_the_thesis_suite_works_as_well() {
    run(&Scenario { suites: Vec::from([Suite::Thesis]), ..Scenario::default() }, 20);
}

#[test]
fn crashes_resets_and_lost_requests_only_delay_it() {
    run(&Scenario { network: Network::BAD, releases: 3, ..Scenario::default() }, 1800);
}

#[test]
fn several_manufacturers_models_brokers_and_gateways_do_not_disturb_each_other() {
    let scenario = Scenario {
        manufacturers: 2,
        models: 2,
        brokers: 2,
        gateways: 2,
        sensors: 2,
        suites: Vec::from([Suite::Digest, Suite::Thesis]),
        network: Network::BAD,
        ..Scenario::default()
    };
    run(&scenario, 120);
}

#[test]
fn releases_that_do_not_work_are_reverted_and_strand_nobody() {
    let scenario = Scenario { releases: 4, faulty: 300_000, network: Network::BAD, ..Scenario::default() };
    run(&scenario, 400);
}

#[test]
fn no_sensor_jumps_over_a_version_that_a_release_leads_through() {
    let scenario = Scenario {
        step_by_step: true,
        waves: ["50%", "100%"].map(|wave| wave.parse().unwrap()).into(),
        releases: 4,
        brokers: 2,
        gateways: 2,
        sensors: 3,
        network: Network::BAD,
        ..Scenario::default()
    };
    run(&scenario, 150);
}

#[test]
fn no_sensor_is_ahead_of_its_wave_and_every_wave_comes() {
    let waves = ["30%", "60%", "100%"].map(|wave| wave.parse().unwrap());
    let network = Network::BAD;
    let scenario = Scenario { waves: waves.into(), sensors: 4, releases: 2, network, ..Scenario::default() };
    run(&scenario, 150);
}
