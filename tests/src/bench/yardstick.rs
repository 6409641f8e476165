//! mosquitto, in a process of its own, and a publisher for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::measure::{Watched, now_ns};
use crate::attacker::line::connect;

/// Where plain subscribers of the bench listen.
pub const TOPIC: &str = "bench/image";

/// A running mosquitto. Ends when dropped.
pub struct Mosquitto {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens under TLS, if it was given credentials.
    pub secure: SocketAddr,
}

impl Mosquitto {
    /// Starts it with room for large messages and ten thousand clients; with a certificate and its key, under TLS too.
    ///
    /// # Errors
    /// In words, when it is not installed or does not come up.
    pub async fn start(folder: &Path, credentials: Option<[PathBuf; 2]>) -> Result<Self, String> {
        let (address, secure) = (free(), free());
        let file = folder.join("mosquitto.conf");
        let mut text = format!(
            "user root\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nmax_inflight_messages 0\n\
             max_connections -1\nlog_type error\nlistener {} 127.0.0.1\n",
            address.port()
        );
        if let Some([certificate, key]) = &credentials {
            let (port, certificate, key) = (secure.port(), certificate.display(), key.display());
            text += &format!("listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n");
        }
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        let child = ["mosquitto", "/usr/sbin/mosquitto"].iter().find_map(|program| {
            Command::new(program)
                .arg("-c")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        });
        let child = child.ok_or("mosquitto is not installed (Debian: mosquitto)")?;
        let mosquitto = Self { child, address, secure };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).await.is_err() {
            if Instant::now() > deadline {
                return Err("mosquitto does not come up".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(mosquitto)
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> Watched {
        Watched(self.child.id())
    }

    /// Publishes an image at QoS 1 and waits for its acknowledgement. When it began, in nanoseconds.
    ///
    /// # Errors
    /// In words.
    pub async fn publish(&self, image: &[u8]) -> Result<u64, String> {
        let text = |error: std::io::Error| format!("publishing to mosquitto: {error}");
        let mut stream = TcpStream::connect(self.address).await.map_err(text)?;
        stream.write_all(&connect("bench-publisher")).await.map_err(text)?;
        stream.read_exact(&mut [0; 4]).await.map_err(text)?;
        let head = publish_head(TOPIC, Some(1), image.len());
        let begun = now_ns();
        stream.write_all(&head).await.map_err(text)?;
        stream.write_all(image).await.map_err(text)?;
        stream.read_exact(&mut [0; 4]).await.map_err(text)?;
        Ok(begun)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything of a PUBLISH but its payload; with a packet identifier at QoS 1.
#[must_use]
pub fn publish_head(topic: &str, id: Option<u16>, payload: usize) -> Vec<u8> {
    let mut remaining = 2 + topic.len() + id.map_or(0, |_| 2) + payload;
    let mut head = vec![if id.is_some() { 0x32 } else { 0x30 }];
    loop {
        let more = remaining >> 7;
        head.push((remaining & 0x7f) as u8 | if more > 0 { 0x80 } else { 0 });
        remaining = more;
        if more == 0 {
            break;
        }
    }
    head.extend((topic.len() as u16).to_be_bytes());
    head.extend(topic.as_bytes());
    head.extend(id.iter().flat_map(|id| id.to_be_bytes()));
    head
}

/// A port that was free a moment ago.
#[must_use]
pub fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}
