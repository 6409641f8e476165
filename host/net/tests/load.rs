//! Bad input in quantity: limits hold, what is refused is counted, and honest peers are served meanwhile. How fast is
//! printed, not judged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)] // tests

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;
use trireme_mqtt::encode;
use trireme_net::link::Pace;
use trireme_net::mqtt::front::{Front, FrontConfig, Why};

fn refused(front: &Front, why: Why) -> u64 {
    front.refusals().iter().find(|(one, _)| *one == why).map_or(0, |(_, count)| *count)
}

/// So many times: two clients connect, one subscribes, the other publishes, the message arrives.
async fn honest(front: &Front, times: u32, what: &str) {
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let mut one = Raw::hello(front.local_addr(), "", 60).await;
        one.write(&subscribe(1, &[("honest", 1)])).await;
        assert_eq!(one.read(5).await, [0x90, 3, 0, 1, 1]);
        let mut other = Raw::hello(front.local_addr(), "", 60).await;
        other.write(&publish("honest", 1, 9, b"message")).await;
        assert_eq!(other.read(4).await, [0x40, 2, 0, 9]);
        assert!(one.read(publish("honest", 1, 1, b"message").len()).await.ends_with(b"message"));
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let last = took.len() - 1;
    println!("{what}: {times} times, median {:?}, longest {:?}", took[last / 2], took[last]);
}

/// Opens COUNT connections, 60 from each address of 127.1.0.0/16, says BYTES on each, and holds them.
const CROWD: &str = "
import socket, sys
port, count, bytes_ = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
crowd = []
for number in range(count):
    one = socket.socket()
    address = number // 60
    one.bind((f'127.1.{address // 250}.{address % 250 + 1}', 0))
    one.connect(('127.0.0.1', port))
    one.sendall(bytes_)
    crowd.append(one)
print(len(crowd), flush=True)
sys.stdin.read()
";

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_connections_leave_room_for_honest_clients() {
    let pace = Pace { opening: Duration::from_secs(100), ..Pace::default() };
    let (front, _links) = front(FrontConfig { pace, ..FrontConfig::default() }).await;
    honest(&front, 20, "alone").await;
    let port = front.local_addr().port().to_string();
    // A process of their own: a process has 20,000 open files, and each connection has two ends.
    let mut crowd = Command::new("python3")
        .args(["-c", CROWD, &port, "10000", "101f"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 is there");
    let mut lines = BufReader::new(crowd.stdout.take().unwrap()).lines();
    let there = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    assert_eq!(there.unwrap().unwrap().as_deref(), Some("10000"));
    soon(async {
        while open_files() < 10_000 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(refused(&front, Why::HalfOpen), 0);
    honest(&front, 20, "beside 10,000 half-open ones").await;
    // One address has 64 such places, and no more.
    let mut mine = Vec::new();
    for _ in 0..80 {
        mine.push(Raw::connect(front.local_addr()).await);
    }
    soon(async {
        while refused(&front, Why::HalfOpen) < 16 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(mine);
    crowd.kill().await.unwrap();
    soon(async {
        while open_files() > 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    honest(&front, 20, "after them").await;
}

/// One byte after the other, for as long as it is let.
async fn drip(front: std::net::SocketAddr, bytes: Vec<u8>) {
    let Ok(mut stream) = TcpStream::connect(front).await else { return };
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Says this after CONNECT and waits for the end.
async fn say(front: std::net::SocketAddr, bytes: &[u8]) {
    let Ok(stream) = TcpStream::connect(front).await else { return };
    let mut raw = Raw(stream);
    let _ = raw.0.write_all(&connect("", 60)).await;
    let _ = raw.0.write_all(bytes).await;
    raw.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drips_endless_lengths_and_floods_of_push_keep_no_honest_client_from_its_messages() {
    let pace = Pace { opening: Duration::from_secs(1), packet: Duration::from_secs(1), ..Pace::default() };
    let config = FrontConfig { pace, pushes: 4, half_open: 1000, ..FrontConfig::default() };
    let (front, mut links) = front(config).await;
    let address = front.local_addr();
    let mut roles = JoinSet::new();
    let takes = tokio::spawn(async move {
        // Every PUSH comes to a role; it says nothing, and drops the link when that is over.
        while let Some((link, mut events)) = links.recv().await {
            roles.spawn(async move {
                while events.recv().await.is_some() {}
                drop(link);
            });
        }
    });
    let until = Instant::now() + Duration::from_secs(3);
    let mut attack = JoinSet::new();
    for number in 0..60 {
        attack.spawn(async move {
            while Instant::now() < until {
                match number % 4 {
                    0 => drip(address, connect("slow", 60)).await,
                    1 => {
                        let after = [connect("slowly", 60), publish("a/topic/that/comes/slowly", 0, 0, b"x")];
                        drip(address, after.concat()).await;
                    }
                    // 256 MiB, and one more than that.
                    2 => {
                        say(address, &[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
                        say(address, &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]).await;
                        say(address, &[0x00, 0xff, 0xff, 0xff, 0x7f]).await;
                    }
                    _ => say(address, &encode::push(&[7; 200]).unwrap().repeat(20)).await,
                }
            }
        });
    }
    honest(&front, 100, "beside sixty attackers").await;
    while attack.join_next().await.is_some() {}
    honest(&front, 20, "after them").await;
    println!("{:?}", front.refusals());
    for why in [Why::Late, Why::Malformed, Why::Push] {
        assert!(refused(&front, why) > 0, "{why:?}");
    }
    takes.abort();
}
