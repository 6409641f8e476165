//! Hours in minutes: releases, ordinary messages, clients with retained messages and wills that are gone without a word,
//! gateways that come and go over TCP and TLS, or stall, all at once and without a pause; and whether the broker's process
//! grows meanwhile.

use std::time::{Duration, Instant};

use trireme_tests::bench::crowd::Sink;
use trireme_tests::bench::crowds::Crowds;
use trireme_tests::bench::ours::Ours;
use trireme_tests::lab::image;

use crate::{Bench, ordinary, say, show};

/// Gateways that stay.
const FAITHFUL: usize = 50;
/// Gateways that come and go, half of them over TLS.
const PASSING: usize = 50;
/// Gateways that stall in the middle of a release, and leave.
const STALLED: usize = 10;
/// Ordinary clients that are gone without a word.
const KILLED: usize = 20;
const IMAGE: usize = 1 << 20;
/// What a process may vary by: allocators keep what was needed once.
const SLACK: u64 = 4 << 20;

/// What the process had at one time.
#[derive(Clone, Copy)]
struct Look {
    at: Duration,
    anonymous: u64,
    files: usize,
    threads: u64,
}

/// Runs for so long and judges.
pub(crate) async fn run(bench: &Bench, time: Duration) -> Result<(), String> {
    say(&format!("soak: {} s of releases, messages, comings and goings", time.as_secs()));
    let mut broker = Ours::start(&bench.binary).await?;
    let [first, second, third] =
        ["faithful", "passing", "stalled"].map(|name| bench.folder.path().join(name));
    for folder in [&first, &second, &third] {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let faithful = broker.gateways(0, FAITHFUL, 1, &Sink::Count)?;
    let mut passing = broker.gateways(FAITHFUL, PASSING, 2, &Sink::Count)?;
    if let Some(crowd) = passing.last_mut() {
        (crowd.address, crowd.tls) = (broker.secure, true);
    }
    let stalled = broker.gateways(FAITHFUL + PASSING, STALLED, 1, &Sink::Stall)?;
    let mut stay = Crowds::start(&first, &faithful)?;
    stay.subscribed().await?;
    stay.agreed().await?;
    let (begun, mut looks, mut rounds, mut messages) = (Instant::now(), Vec::new(), 0_u64, 0);
    while begun.elapsed() < time {
        let mut pass = Crowds::start(&second, &passing)?;
        pass.subscribed().await?;
        let mut stall = Crowds::start(&third, &stalled)?;
        stall.subscribed().await?;
        rounds += 1;
        broker.publish(&image(IMAGE, rounds)).await?;
        stay.received().await?;
        pass.received().await?;
        messages += 5_000;
        ordinary::messages(broker.address, broker.process(), 5_000).await?;
        ordinary::killed(broker.address, KILLED).await?;
        pass.end().await;
        stall.end().await;
        let process = broker.process();
        let look = Look {
            at: begun.elapsed(),
            anonymous: process.anonymous(),
            files: process.files(),
            threads: process.threads(),
        };
        if looks.last().is_none_or(|last: &Look| (look.at - last.at).as_secs() >= 5) {
            show(&told(&look, rounds));
            looks.push(look);
        }
    }
    stay.end().await;
    broker.end().await;
    show(&format!("{rounds} releases to {} gateways each, {messages} ordinary messages", FAITHFUL + PASSING));
    judge(&looks)
}

fn told(look: &Look, rounds: u64) -> String {
    format!(
        "{:>5} s  {:>4} releases  {:>6.1} MiB  {:>4} open files  {:>3} threads",
        look.at.as_secs(),
        rounds,
        look.anonymous as f64 / f64::from(1 << 20),
        look.files,
        look.threads
    )
}

/// The last third may need no more than the middle one did.
fn judge(looks: &[Look]) -> Result<(), String> {
    let third = looks.len() / 3;
    let (_, later) = looks.split_at(third);
    let (middle, last) = later.split_at(third);
    if middle.is_empty() {
        return Err("that was too short to say anything: give it a minute at least".into());
    }
    let most = |looks: &[Look], of: fn(&Look) -> u64| looks.iter().map(of).max().unwrap_or(0);
    let grown = |what: &str, of: fn(&Look) -> u64, slack: u64| {
        let (before, after) = (most(middle, of), most(last, of));
        if after <= before + before / 10 + slack {
            Ok(())
        } else {
            Err(format!("{what} grew from {before} to {after}"))
        }
    };
    grown("memory, in bytes,", |look| look.anonymous, SLACK)?;
    grown("the number of open files", |look| look.files as u64, 8)?;
    grown("the number of threads", |look| look.threads, 4)?;
    show("memory, open files and threads are flat");
    Ok(())
}
