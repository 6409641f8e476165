//! What the broker's process needs of memory.

use std::time::Duration;

use trireme_tests::bench::crowd::Sink;
use trireme_tests::bench::crowds::Crowds;
use trireme_tests::bench::measure::Sample;
use trireme_tests::bench::ours::Ours;
use trireme_tests::bench::report::{Goal, Row};
use trireme_tests::lab::image;

use crate::{Bench, say};

const IMAGE: usize = 16 << 20;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    say("memory: alone, under stalled gateways, over forty releases");
    let stalled = bench.many(500, 50);
    let (mut alone, mut each) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeat {
        let mut broker = Ours::start(&bench.binary).await?;
        let process = broker.process();
        alone.push(process.anonymous() as f64 / f64::from(1 << 20));
        let gateways = broker.gateways(0, stalled, 1, &Sink::Stall)?;
        let mut crowds = Crowds::start(bench.folder.path(), &gateways)?;
        crowds.subscribed().await?;
        crowds.agreed().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let idle = process.anonymous();
        broker.publish(&image(IMAGE, 1)).await?;
        // All deliveries have begun by then, and none moves.
        tokio::time::sleep(Duration::from_secs(5)).await;
        each.push(process.anonymous().saturating_sub(idle) as f64 / stalled as f64 / 1024.0);
        crowds.end().await;
        broker.end().await;
    }
    let (early, late) = releases(bench).await?;
    let bound = |most: f64| Some(("bound".to_owned(), Sample::of(vec![most])));
    Ok(vec![
        Row {
            name: "memory/alone".into(),
            what: "memory of the broker's process before anybody connects".into(),
            unit: "MiB".into(),
            ours: Sample::of(alone),
            yardstick: bound(64.0),
            goal: Goal::AtMost(1.0),
        },
        Row {
            name: "memory/stalled".into(),
            what: format!("memory of the broker for one of {stalled} gateways that stall in the middle of 16 MiB"),
            unit: "KiB".into(),
            ours: Sample::of(each),
            yardstick: bound(64.0),
            goal: Goal::AtMost(1.0),
        },
        Row {
            name: "memory/releases".into(),
            what: "memory of the broker after the last of forty releases of 16 MiB to 10 gateways; beside it, after the fifth"
                .into(),
            unit: "MiB".into(),
            ours: Sample::of(vec![late]),
            yardstick: Some(("the fifth".into(), Sample::of(vec![early]))),
            goal: Goal::AtMost(1.1),
        },
    ])
}

/// MiB after the fifth release and after the last.
async fn releases(bench: &Bench) -> Result<(f64, f64), String> {
    let mut broker = Ours::start(&bench.binary).await?;
    let gateways = broker.gateways(0, 10, 1, &Sink::Count)?;
    let mut crowds = Crowds::start(bench.folder.path(), &gateways)?;
    crowds.subscribed().await?;
    let mut early = 0.0;
    for number in 1..=bench.many(40, 8) {
        broker.publish(&image(IMAGE, number as u64)).await?;
        crowds.received().await?;
        if number == 5 {
            early = broker.process().anonymous() as f64;
        }
    }
    let late = broker.process().anonymous() as f64;
    crowds.end().await;
    broker.end().await;
    let mib = f64::from(1 << 20);
    Ok((early / mib, late / mib))
}
