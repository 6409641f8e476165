//! Gateways as they are shipped: each a process of the `trireme` binary with its component, store and audit log.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use trireme_core::message::Ack;
use trireme_core::message::lan::Hello;
use trireme_core::{ModelName, NodeId, RoleKind, SensorId, Version, cbor};
use trireme_crypto::pem;

use super::crowd::PATIENCE;
use super::measure::now_ns;
use super::ours::{FILTER, Ours};
use crate::attacker::line::Line;
use crate::attacker::wire::{Frame, Kind};
use crate::lab::{DAY_MS, now_ms};
use crate::processes::Processes;

/// Processes that start at a time.
const AT_ONCE: usize = 4;
/// The most gateways: each has an address of its own in one block of the loopback.
const MOST: usize = 250;
/// How often the broker's audit log is looked at: small against any time that is measured.
const LOOK: Duration = Duration::from_millis(2);

/// The processes of so many gateways; they end with it.
pub struct Gateways {
    processes: Arc<Processes>,
    count: usize,
    answers: Answers,
}

impl Gateways {
    /// Starts them, each with a sensor that has said hello once, so that they look for the releases of its model. None
    /// needs to be connected yet: the first release that all have stored shows that.
    ///
    /// # Errors
    /// In words, with the end of a log where a node does not come up.
    pub async fn start(broker: &Ours, binary: &Path, count: usize) -> Result<Self, String> {
        if count > MOST {
            return Err(format!("{count} gateways are too many for one machine: at most {MOST}"));
        }
        broker.announced().await?;
        let folder = broker.folder("gateways")?;
        for number in 0..count {
            configure(broker, &folder, number)?;
        }
        let processes = Arc::new(Processes::new(binary, &folder));
        let (places, mut starts) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        for number in 0..count {
            let (processes, places) = (processes.clone(), places.clone());
            let address = address_in(&folder, number)?;
            starts.spawn(async move {
                let _place = places.acquire().await.map_err(|error| error.to_string())?;
                let name = name(number);
                processes.start(&name).await?;
                greet(&processes, &name, address).await
            });
        }
        while let Some(started) = starts.join_next().await {
            started.map_err(|error| error.to_string())??;
        }
        Ok(Self { processes, count, answers: Answers::open(&broker.audit_log())? })
    }

    /// Waits until the broker has noted that each has stored this release. A gateway says so after its commit, and the
    /// broker notes it with a commit of its own; when that was seen, in nanoseconds.
    ///
    /// # Errors
    /// In words, when one refused it or it takes too long.
    pub async fn stored(&mut self, version: &str) -> Result<u64, String> {
        let (deadline, mut have) = (Instant::now() + PATIENCE, BTreeSet::new());
        loop {
            self.answers.read(version, &mut have)?;
            if have.len() >= self.count {
                return Ok(now_ns());
            }
            if Instant::now() > deadline {
                return Err(format!("{} of {} gateways have stored {version}", have.len(), self.count));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends them.
    pub async fn end(self) {
        self.processes.stop().await;
    }
}

fn name(number: usize) -> String {
    format!("gw-{number}")
}

/// Certificate, key and configuration of a gateway that behaves as ever, but stays connected.
fn configure(broker: &Ours, folder: &Path, number: usize) -> Result<(), String> {
    let name = name(number);
    let until = now_ms() + 365 * DAY_MS;
    let keys = broker.lab.certify_key(broker.gateway_key.clone(), RoleKind::Gateway, &name, None, &[], until);
    let certificate = |der: &[u8]| pem::chain_to_pem(der).map_err(|error| error.to_string());
    let write = |ending: &str, text: &str| private(&folder.join(format!("{name}.{ending}")), text);
    private(&folder.join("root.pem"), &certificate(broker.lab.root.certificate.der())?)?;
    write("pem", &certificate(&keys.certificate)?)?;
    write("key", &broker.gateway_key.to_pkcs8_pem().map_err(|error| error.to_string())?)?;
    // An address of its own: no two ask the system for the same port.
    let home = Ipv4Addr::new(127, 0, 2, u8::try_from(number + 1).map_err(|error| error.to_string())?);
    let lan = TcpListener::bind((home, 0)).and_then(|listener| listener.local_addr());
    let lan = lan.map_err(|error| error.to_string())?;
    write("lan", &lan.to_string())?;
    let (authority, directory) = (&broker.centre.authority, &broker.centre.directory);
    write(
        "toml",
        &format!(
            "[node]\nname = \"{name}\"\ndata = \"data/{name}\"\nlog = \"warn\"\n\n[trust]\nauthority = \"root.pem\"\n\n\
             [gateway]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\nlan = \"{lan}\"\n\
             authority = \"{authority}\"\ndirectory = \"{directory}\"\nstay_connected = true\nreconnect_ms = 500\n\
             renew = false\nlists_every_s = 86400\n"
        ),
    )
}

fn private(file: &Path, text: &str) -> Result<(), String> {
    use std::io::Write as _;
    let made = File::options().create(true).write(true).truncate(true).mode(0o600).open(file);
    made.and_then(|mut made| made.write_all(text.as_bytes()))
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn address_in(folder: &Path, number: usize) -> Result<SocketAddr, String> {
    let file = folder.join(format!("{}.lan", name(number)));
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    text.parse().map_err(|error| format!("{}: {error}", file.display()))
}

/// A sensor joins and leaves; the gateway knows it from then on.
async fn greet(processes: &Processes, gateway: &str, address: SocketAddr) -> Result<(), String> {
    let why = |error: &dyn std::fmt::Display| format!("the sensor of {gateway}: {error}");
    let hello = Hello {
        sensor: SensorId::new(format!("sn-{gateway}")).map_err(|error| why(&error))?,
        manufacturer: NodeId::new("acme").map_err(|error| why(&error))?,
        model: ModelName::new("MD-01").map_err(|error| why(&error))?,
        running: Version::new([1, 0, 0, 0]),
        generation: 1,
        labels: None,
        facts: None,
    };
    let mut line = Line::open(Kind::Lan, address).await;
    line.send(&Frame::Lan("hello".into(), cbor::encode(&hello))).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = processes.ask(gateway, "/gateway/v1/status", json!({})).await;
        let status = status.map_err(|fault| why(&fault))?;
        if status["sensors"].as_array().is_some_and(|sensors| !sensors.is_empty()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(why(&"the gateway does not take its hello"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What gateways answered, as the broker's audit log tells it: read on from where the last look ended.
struct Answers {
    file: File,
    begun: Vec<u8>,
}

impl Answers {
    fn open(log: &PathBuf) -> Result<Self, String> {
        let file = File::open(log).map_err(|error| format!("{}: {error}", log.display()))?;
        Ok(Self { file, begun: Vec::new() })
    }

    /// Adds the gateways that stored this version since the last look.
    fn read(&mut self, version: &str, have: &mut BTreeSet<String>) -> Result<(), String> {
        self.file.read_to_end(&mut self.begun).map_err(|error| format!("the audit log: {error}"))?;
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.begun.split_off(whole);
        for line in std::mem::replace(&mut self.begun, rest).split(|byte| *byte == b'\n') {
            let Some((gateway, result)) = answer(line, version) else { continue };
            if result != format!("{:?}", Ack::STORED) {
                return Err(format!("{gateway} does not take the release: {result}"));
            }
            have.insert(gateway);
        }
        Ok(())
    }
}

/// The gateway and its result, where a line of the audit log tells of an answer for this version.
fn answer(line: &[u8], version: &str) -> Option<(String, String)> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    let (gateway, of) = line["entry"].as_str()?.split_once(" answers for ")?;
    let (of, result) = of.split_once(": ")?;
    (of == format!("{FILTER} {version}")).then(|| (gateway.to_owned(), result.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(entry: &str) -> String {
        format!("{}\n", json!({ "sequence": 1, "actor": "broker", "entry": entry }))
    }

    #[test]
    fn answers_are_counted_once_for_each_gateway_and_for_their_own_release() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        let mut writer = File::create(&log).unwrap();
        let mut answers = Answers::open(&log).unwrap();
        let mut have = BTreeSet::new();
        let other = line(&format!("gw-3 answers for {FILTER} 1.1: \"stored\""));
        let whole = line(&format!("gw-1 answers for {FILTER} 1.2: \"stored\""));
        let (first, second) = whole.split_at(40);
        write!(writer, "{other}{whole}{whole}{first}").unwrap();
        answers.read("1.2", &mut have).unwrap();
        assert_eq!(have.len(), 1, "half a line says nothing: {have:?}");
        write!(writer, "{}", second.replace("gw-1", "gw-2")).unwrap();
        write!(writer, "{}", line(&format!("gw-2 answers for {FILTER} 1.2: \"stored\""))).unwrap();
        answers.read("1.2", &mut have).unwrap();
        assert_eq!(have.into_iter().collect::<Vec<_>>(), ["gw-1", "gw-2"]);
        write!(writer, "{}", line(&format!("gw-4 answers for {FILTER} 1.2: \"version\""))).unwrap();
        let refused = answers.read("1.2", &mut BTreeSet::new()).unwrap_err();
        assert!(refused.contains("gw-4"), "{refused}");
    }
}
