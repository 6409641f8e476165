//! One image to many: how fast it is delivered, and how long it takes until all have verified and kept it.

use trireme_tests::bench::crowd::{Crowd, Kind, Sink};
use trireme_tests::bench::crowds::Crowds;
use trireme_tests::bench::gateways::Gateways;
use trireme_tests::bench::measure::{Sample, seconds};
use trireme_tests::bench::ours::Ours;
use trireme_tests::bench::report::{Goal, Row};
use trireme_tests::bench::yardstick::{Mosquitto, TOPIC};
use trireme_tests::lab::image;

use crate::{Bench, say};

const IMAGE: usize = 16 << 20;
/// Processes that the receivers of each side share.
const PROCESSES: usize = 2;

/// Times of one side for each release.
struct Times {
    /// From the first byte at any receiver to the last one's last, in seconds.
    delivery: Vec<f64>,
    /// From the publisher's first byte to the last receiver's being done, in seconds.
    whole: Vec<f64>,
}

/// Receivers that count bytes.
pub(crate) async fn counted(bench: &Bench) -> Result<Vec<Row>, String> {
    let count = bench.many(100, 10);
    let mut rows = Vec::new();
    for (kind, tls, over) in [("plain", false, "TCP"), ("tls", true, "TLS")] {
        say(&format!("delivery: 16 MiB to {count} receivers that count bytes, {over}"));
        let (ours, theirs) = both(bench, count, &Sink::Count, tls).await?;
        let rate = |seconds: Vec<f64>| {
            Sample::of(seconds.into_iter().map(|seconds| (count * IMAGE) as f64 / seconds / 1e6).collect())
        };
        rows.push(Row {
            name: format!("delivery/{kind}-{count}"),
            what: format!(
                "rate in all from the first to the last byte of 16 MiB at {count} receivers that count bytes, {over}"
            ),
            unit: "MB/s".into(),
            ours: rate(ours.delivery),
            yardstick: Some(("mosquitto".into(), rate(theirs.delivery))),
            goal: Goal::AtLeast(0.9),
        });
    }
    Ok(rows)
}

/// Receivers that hash, write and sync.
pub(crate) async fn verified(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for count in [20, 100] {
        let count = bench.many(count, count / 10);
        say(&format!("verified: 16 MiB to {count} receivers that hash, write and sync"));
        let folder = bench.folder.path().join(format!("kept-{count}"));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let (ours, theirs) = both(bench, count, &Sink::Keep(folder.clone()), false).await?;
        std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
        rows.push(Row {
            name: format!("verified/plain-{count}"),
            what: format!(
                "time from the publisher's first byte until all of {count} receivers have hashed 16 MiB, written and synced \
                 it; on our side the broker has verified and synced it too"
            ),
            unit: "ms".into(),
            ours: Sample::of(ours.whole).scaled(1e3),
            yardstick: Some(("mosquitto".into(), Sample::of(theirs.whole).scaled(1e3))),
            goal: Goal::AtMost(1.3),
        });
    }
    Ok(rows)
}

/// Gateways as they are shipped, a process each, beside as many processes of a subscriber each.
pub(crate) async fn shipped(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for count in [20, 100] {
        let count = bench.many(count, count / 10);
        say(&format!("verified: 16 MiB to {count} gateways of the trireme binary"));
        let (ours, theirs) = beside(bench, count).await?;
        rows.push(Row {
            name: format!("verified/gateways-{count}"),
            what: format!(
                "time from the publisher's first byte until the broker has noted that all of {count} gateways, a process \
                 each, have verified and stored 16 MiB; beside it, as many processes that hash it, write and sync it \
                 beside the one before, and let it take its place"
            ),
            unit: "ms".into(),
            ours: Sample::of(ours).scaled(1e3),
            yardstick: Some(("mosquitto".into(), Sample::of(theirs).scaled(1e3))),
            goal: Goal::AtMost(1.3),
        });
    }
    Ok(rows)
}

/// Seconds for each release: of the gateways, and of the subscribers.
async fn beside(bench: &Bench, count: usize) -> Result<(Vec<f64>, Vec<f64>), String> {
    let mut broker = Ours::start(&bench.binary).await?;
    let mosquitto = Mosquitto::start(bench.folder.path(), None).await?;
    // Both sides keep what they take on the broker's file system.
    let sink = Sink::Keep(broker.folder("kept")?);
    let mut gateways = Gateways::start(&broker, &bench.binary, count).await?;
    let crowds = subscribers(&mosquitto, count, count, &sink, false);
    let mut theirs = Crowds::start(&broker.folder("crowds")?, &crowds)?;
    theirs.subscribed().await?;
    let mut times = (Vec::new(), Vec::new());
    // The first of each warms up, and waits for gateways that have not connected yet.
    for number in 0..=bench.repeat {
        let bytes = image(IMAGE, number as u64);
        let begun = broker.publish(&bytes).await?;
        let ours = seconds(begun, gateways.stored(&broker.version()).await?);
        let begun = mosquitto.publish(&bytes).await?;
        let theirs = seconds(begun, theirs.received().await?.1);
        if number > 0 {
            times.0.push(ours);
            times.1.push(theirs);
        }
    }
    theirs.end().await;
    gateways.end().await;
    broker.end().await;
    Ok(times)
}

/// The same number of receivers at our broker and at mosquitto, release by release in turn.
async fn both(bench: &Bench, count: usize, sink: &Sink, tls: bool) -> Result<(Times, Times), String> {
    let mut broker = Ours::start(&bench.binary).await?;
    let mosquitto = Mosquitto::start(bench.folder.path(), Some(broker.credentials())).await?;
    let [first, second] = ["ours", "theirs"].map(|name| bench.folder.path().join(name));
    for folder in [&first, &second] {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let mut gateways = broker.gateways(0, count, PROCESSES, sink)?;
    if tls {
        gateways.iter_mut().for_each(|crowd| (crowd.address, crowd.tls) = (broker.secure, true));
    }
    let mut ours = Crowds::start(&first, &gateways)?;
    ours.subscribed().await?;
    ours.agreed().await?;
    let mut theirs = Crowds::start(&second, &subscribers(&mosquitto, count, PROCESSES, sink, tls))?;
    theirs.subscribed().await?;
    let mut times = [(); 2].map(|()| Times { delivery: Vec::new(), whole: Vec::new() });
    // The first of each warms up.
    for number in 0..=bench.repeat {
        let bytes = image(IMAGE, number as u64);
        let begun = broker.publish(&bytes).await?;
        let mut both = vec![(begun, ours.received().await?)];
        let begun = mosquitto.publish(&bytes).await?;
        both.push((begun, theirs.received().await?));
        if number == 0 {
            continue;
        }
        for (times, (begun, (first, last))) in times.iter_mut().zip(both) {
            times.delivery.push(seconds(first, last));
            times.whole.push(seconds(begun, last));
        }
    }
    ours.end().await;
    theirs.end().await;
    broker.end().await;
    let [ours, theirs] = times;
    Ok((ours, theirs))
}

fn subscribers(mosquitto: &Mosquitto, count: usize, processes: usize, sink: &Sink, tls: bool) -> Vec<Crowd> {
    let crowd = |process: usize| Crowd {
        address: if tls { mosquitto.secure } else { mosquitto.address },
        tls,
        kind: Kind::Plain(
            format!("plain-{process}-"),
            count.div_ceil(processes).min(count - process * count.div_ceil(processes)),
        ),
        filter: TOPIC.into(),
        sink: sink.clone(),
        at_once: 100,
    };
    (0..processes).map(crowd).collect()
}
