//! What an ordinary message costs the broker.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trireme_tests::attacker::line::connect;
use trireme_tests::bench::measure::{Sample, Watched};
use trireme_tests::bench::ours::Ours;
use trireme_tests::bench::report::{Goal, Row};
use trireme_tests::bench::yardstick::{Mosquitto, publish_head};

use crate::{Bench, say};

const PAYLOAD: usize = 200;
const TOPIC: &str = "bench/ordinary";
/// Messages on their way at a time.
const WINDOW: usize = 100;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    say("ordinary: messages of 200 bytes at QoS 0");
    let count = bench.many(200_000, 20_000);
    let broker = Ours::start(&bench.binary).await?;
    let mosquitto = Mosquitto::start(bench.folder.path(), None).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeat {
        ours.push(messages(broker.address, broker.process(), count).await?);
        theirs.push(messages(mosquitto.address, mosquitto.process(), count).await?);
    }
    broker.end().await;
    Ok(vec![Row {
        name: "ordinary/qos0".into(),
        what: format!(
            "processor time of the broker for a QoS 0 message of {PAYLOAD} bytes from one client to another, {WINDOW} on their \
             way at a time"
        ),
        unit: "µs".into(),
        ours: Sample::of(ours),
        yardstick: Some(("mosquitto".into(), Sample::of(theirs))),
        goal: Goal::AtMost(1.0),
    }])
}

/// Microseconds of processor time for one message.
pub(crate) async fn messages(address: SocketAddr, broker: Watched, count: usize) -> Result<f64, String> {
    let why = |error: std::io::Error| error.to_string();
    let mut subscriber = client(address, "bench-subscriber").await.map_err(why)?;
    let filter = [&[0, 1], &(TOPIC.len() as u16).to_be_bytes()[..], TOPIC.as_bytes(), &[0]].concat();
    subscriber.write_all(&[&[0x82, filter.len() as u8], &filter[..]].concat()).await.map_err(why)?;
    subscriber.read_exact(&mut [0; 5]).await.map_err(why)?;
    let mut publisher = client(address, "bench-publisher").await.map_err(why)?;
    let message = [publish_head(TOPIC, None, PAYLOAD), vec![7; PAYLOAD]].concat();
    let batch = message.repeat(WINDOW);
    let mut heard = vec![0; batch.len()];
    let before = broker.processor();
    for _ in 0..count / WINDOW {
        publisher.write_all(&batch).await.map_err(why)?;
        let read =
            tokio::time::timeout(std::time::Duration::from_secs(30), subscriber.read_exact(&mut heard)).await;
        read.map_err(|_| "messages were lost")?.map_err(why)?;
    }
    Ok((broker.processor() - before) * 1e6 / count as f64)
}

/// Clients that retain a message each and are gone without a word, so that the broker sends their wills.
pub(crate) async fn killed(address: SocketAddr, count: usize) -> Result<(), String> {
    let why = |error: std::io::Error| error.to_string();
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    for number in 0..count {
        let mut stream = TcpStream::connect(address).await.map_err(why)?;
        // A clean session, and a will that is retained.
        let (id, topic) = (format!("bench-killed-{number}"), format!("bench/last/{number}"));
        let body = [&b"\x00\x04MQTT\x04\x26\x00\x3c"[..], &text(&id), &text(&topic), &text("gone")].concat();
        stream.write_all(&[&[0x10, body.len() as u8], &body[..]].concat()).await.map_err(why)?;
        stream.read_exact(&mut [0; 4]).await.map_err(why)?;
        let mut message = [publish_head(&topic, None, PAYLOAD), vec![7; PAYLOAD]].concat();
        if let Some(first) = message.first_mut() {
            *first |= 1;
        }
        // Its PING is answered when the message was taken.
        stream.write_all(&[&message[..], &[0xC0, 0]].concat()).await.map_err(why)?;
        stream.read_exact(&mut [0; 2]).await.map_err(why)?;
    }
    Ok(())
}

async fn client(address: SocketAddr, id: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&connect(id)).await?;
    stream.read_exact(&mut [0; 4]).await?;
    Ok(stream)
}
