//! Ten thousand gateways: how long it takes until all are connected, and until all have a release.

use trireme_tests::bench::crowd::{Crowd, Kind, Sink};
use trireme_tests::bench::crowds::Crowds;
use trireme_tests::bench::measure::{Sample, seconds};
use trireme_tests::bench::ours::Ours;
use trireme_tests::bench::report::{Goal, Row};
use trireme_tests::bench::yardstick::{Mosquitto, TOPIC};
use trireme_tests::lab::image;

use crate::{Bench, say};

const IMAGE: usize = 256 << 10;
const PROCESSES: usize = 2;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let count = bench.many(10_000, 200);
    say(&format!("fleet: {count} connections"));
    let mut times = (Vec::new(), Vec::new());
    let (mut agreed, mut released, mut bounds, mut idle) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.repeat {
        times.1.push(plain(bench, count).await?);
        let fleet = gateways(bench, count).await?;
        times.0.push(fleet.connected);
        agreed.push(count as f64 / fleet.agreed);
        released.push(fleet.released);
        bounds.push(fleet.bound);
        idle.push(fleet.idle);
    }
    Ok(vec![
        Row {
            name: format!("fleet/connect-{count}"),
            what: format!("time until {count} gateways are connected and subscribed; plain subscribers at mosquitto"),
            unit: "s".into(),
            ours: Sample::of(times.0),
            yardstick: Some(("mosquitto".into(), Sample::of(times.1))),
            goal: Goal::AtMost(3.0),
        },
        Row {
            name: format!("fleet/agree-{count}"),
            what: "key agreements of all of them while they connect, gateways' side on the same machine".into(),
            unit: "1/s".into(),
            ours: Sample::of(agreed),
            yardstick: None,
            goal: Goal::More,
        },
        Row {
            name: format!("fleet/release-{count}"),
            what: "time until all have a release of 256 KiB under new keys; beside it, the time for as many key \
                   agreements and bytes at the rates of this run"
                .into(),
            unit: "s".into(),
            ours: Sample::of(released),
            yardstick: Some(("agreements + bytes".into(), Sample::of(bounds))),
            goal: Goal::AtMost(1.5),
        },
        Row {
            name: "memory/idle".into(),
            what: format!("memory of the broker for one of {count} gateways, connected and idle, keys agreed"),
            unit: "KiB".into(),
            ours: Sample::of(idle),
            yardstick: Some(("bound".into(), Sample::of(vec![24.0]))),
            goal: Goal::AtMost(1.0),
        },
    ])
}

async fn plain(bench: &Bench, count: usize) -> Result<f64, String> {
    let mosquitto = Mosquitto::start(bench.folder.path(), None).await?;
    let crowd = |process: usize| Crowd {
        address: mosquitto.address,
        tls: false,
        kind: Kind::Plain(format!("plain-{process}-"), count / PROCESSES),
        filter: TOPIC.into(),
        sink: Sink::Count,
        at_once: 100,
    };
    let crowds: Vec<Crowd> = (0..PROCESSES).map(crowd).collect();
    let mut crowds = Crowds::start(bench.folder.path(), &crowds)?;
    let (first, last) = crowds.subscribed().await?;
    crowds.end().await;
    Ok(seconds(first, last))
}

struct Fleet {
    connected: f64,
    agreed: f64,
    released: f64,
    bound: f64,
    idle: f64,
}

async fn gateways(bench: &Bench, count: usize) -> Result<Fleet, String> {
    let mut broker = Ours::start(&bench.binary).await?;
    let before = broker.process().anonymous();
    let gateways = broker.gateways(0, count, PROCESSES, &Sink::Count)?;
    let mut crowds = Crowds::start(bench.folder.path(), &gateways)?;
    let (first, subscribed) = crowds.subscribed().await?;
    let agreed = crowds.agreed().await?;
    // What the last handshake left is tidied up.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let idle = broker.process().anonymous().saturating_sub(before) as f64 / count as f64 / 1024.0;
    // The first release goes out under the keys that are there: its time is that of the bytes.
    let begun = broker.publish(&image(IMAGE, 1)).await?;
    let bytes = seconds(begun, crowds.received().await?.1);
    let begun = broker.publish(&image(IMAGE, 2)).await?;
    let released = seconds(begun, crowds.received().await?.1);
    crowds.end().await;
    broker.end().await;
    let exchanges = seconds(first, agreed);
    Ok(Fleet {
        connected: seconds(first, subscribed),
        agreed: exchanges,
        released,
        bound: exchanges + bytes,
        idle,
    })
}
