//! The broker as it is shipped, in a process of its own, with an authority that tells it the time and a manufacturer that
//! releases.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trireme_core::message::TIER_1;
use trireme_core::{RoleKind, Suite};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::key::SoftwareKey;
use trireme_crypto::pem;

use super::crowd::{Crowd, Kind, PATIENCE, Sink};
use super::measure::{Watched, now_ns};
use super::yardstick::free;
use crate::attacker::line::Line;
use crate::attacker::party::{Goods, Party};
use crate::lab::{Centre, DAY_MS, Lab, model, now_ms};
use crate::processes::Processes;

/// What gateways of the bench subscribe to.
pub const FILTER: &str = "trireme/fw/acme/MD-01";

/// A broker's process, and all that it needs.
pub struct Ours {
    pub(super) lab: Lab,
    pub(super) centre: Centre,
    processes: Processes,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens under TLS.
    pub secure: SocketAddr,
    maker: Party,
    secrets: Arc<ModelSecrets>,
    releases: u64,
    pub(super) gateway_key: Arc<SoftwareKey>,
}

impl Ours {
    /// Starts it, with limits for a fleet behind one address.
    ///
    /// # Errors
    /// In words.
    pub async fn start(binary: &Path) -> Result<Self, String> {
        let lab = Lab::new();
        let centre = lab.centre().await;
        let key = Arc::new(SoftwareKey::generate().map_err(|error| error.to_string())?);
        let keys = lab.certify_key(key.clone(), RoleKind::Broker, "bk-1", None, &[], now_ms() + 365 * DAY_MS);
        let (address, secure) = (free(), free());
        let folder = lab.path("broker");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).map_err(|error| error.to_string())?;
            let private = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
            std::fs::set_permissions(&file, private).map_err(|error| error.to_string())
        };
        let certificate = |der: &[u8]| pem::chain_to_pem(der).map_err(|error| error.to_string());
        write("root.pem", &certificate(lab.root.certificate.der())?)?;
        write("bk-1.pem", &certificate(&keys.certificate)?)?;
        write("bk-1.key", &key.to_pkcs8_pem().map_err(|error| error.to_string())?)?;
        let authority = &centre.authority;
        let log = std::env::var("TRIREME_LOG").unwrap_or_else(|_| "warn".into());
        write(
            "bk-1.toml",
            &format!(
                "[node]\nname = \"bk-1\"\ndata = \"data/bk-1\"\nlog = \"{log}\"\n\n[trust]\nauthority = \"root.pem\"\n\n\
                 [broker]\ncertificate = \"bk-1.pem\"\nkey = \"bk-1.key\"\nlisten = [\"mqtt://{address}\", \"mqtts://{secure}\"]\nwithout_certificate = true\n\
                 authority = \"{authority}\"\nrenew = false\nfollow_lists = false\ndeliveries = 10000\n\
                 pushes_per_address = 1000000\npushes_in_all = 1000000\nanswer_ms = 120000\n"
            ),
        )?;
        let processes = Processes::new(binary, &folder);
        processes.start("bk-1").await?;
        let maker =
            Party::new("acme", &lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
        let gateway_key = Arc::new(SoftwareKey::generate().map_err(|error| error.to_string())?);
        Ok(Self {
            lab,
            centre,
            processes,
            address,
            secure,
            maker,
            secrets: model("MD-01"),
            releases: 0,
            gateway_key,
        })
    }

    /// Its process.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn process(&self) -> Watched {
        Watched(self.processes.pid("bk-1").unwrap())
    }

    /// Gateways `from..from + count`, in so many processes.
    ///
    /// # Errors
    /// In words.
    pub fn gateways(
        &self,
        from: usize,
        count: usize,
        processes: usize,
        sink: &Sink,
    ) -> Result<Vec<Crowd>, String> {
        let key = self.gateway_key.to_pkcs8_pem().map_err(|error| error.to_string())?;
        let ids: Vec<usize> = (from..from + count).collect();
        let crowds = ids.chunks(count.div_ceil(processes)).map(|ids| {
            let gateway = |number: &usize| {
                let (id, until) = (format!("gw-{number}"), now_ms() + 365 * DAY_MS);
                let signer = self.gateway_key.clone();
                let keys = self.lab.certify_key(signer, RoleKind::Gateway, &id, None, &[], until);
                (id, hex::encode(keys.certificate))
            };
            Crowd {
                address: self.address,
                tls: false,
                kind: Kind::Gateways(key.to_string(), ids.iter().map(gateway).collect()),
                filter: FILTER.into(),
                sink: sink.clone(),
                at_once: 100,
            }
        });
        Ok(crowds.collect())
    }

    /// The manufacturer sends its next release and waits until the broker has acknowledged it. When the first byte left,
    /// in nanoseconds.
    ///
    /// # Errors
    /// In words.
    pub async fn publish(&mut self, image: &[u8]) -> Result<u64, String> {
        self.releases += 1;
        let version = self.version();
        let goods =
            Goods::new(&self.maker, "acme", &self.secrets, &version, Suite::Digest, image, self.releases);
        let mut line = Line::mqtt(self.address, "acme").await;
        let agreed = self.maker.agree(&mut line, TIER_1).await;
        let agreed = agreed.map_err(|frame| format!("the broker does not agree: {frame:?}"))?;
        let begun = now_ns();
        for frame in goods.frames(&agreed, TIER_1, &self.maker.id) {
            if !line.send(&frame).await {
                return Err("the broker closed while it was sent a release".into());
            }
        }
        let answer = line.acknowledgement().await;
        let answer = match answer {
            // PUBACK says that the bytes came; `A` says more.
            crate::attacker::wire::Frame::Puback(_) => line.acknowledgement().await,
            other => other,
        };
        match agreed.result(&answer).as_str() {
            "stored" => Ok(begun),
            other => Err(format!("the broker refused the release: {other}")),
        }
    }

    /// The version of the newest release.
    #[must_use]
    pub fn version(&self) -> String {
        format!("1.{}", self.releases)
    }

    /// The directory has the manufacturer's list with this broker, as gateways need it that look for one.
    ///
    /// # Errors
    /// In words, when it does not come there.
    pub async fn announced(&self) -> Result<(), String> {
        let brokers = [("bk-1", format!("mqtt://{}", self.address))];
        let models = std::slice::from_ref(&self.secrets);
        // It lives for its list alone: releases come from a party that counts its own bytes.
        let _maker = self.lab.manufacturer(&self.centre, "acme", models, &brokers).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.centre.node.status("directory").await;
            if status["lists"].as_array().is_some_and(|lists| !lists.is_empty()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the list of brokers does not come to the directory".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The broker's audit log.
    #[must_use]
    pub fn audit_log(&self) -> std::path::PathBuf {
        self.lab.path("broker").join("data/bk-1/audit.log")
    }

    /// What the broker says of itself.
    ///
    /// # Errors
    /// In words.
    pub async fn status(&self) -> Result<serde_json::Value, String> {
        let status = self.processes.ask("bk-1", "/broker/v1/status", serde_json::json!({})).await;
        status.map_err(|fault| fault.to_string())
    }

    /// The broker's certificates and key, in files that another program can use.
    #[must_use]
    pub fn credentials(&self) -> [std::path::PathBuf; 2] {
        ["bk-1.pem", "bk-1.key"].map(|file| self.lab.path("broker").join(file))
    }

    /// A folder for files of the measurement, on the file system that the broker uses.
    ///
    /// # Errors
    /// In words.
    pub fn folder(&self, name: &str) -> Result<std::path::PathBuf, String> {
        let folder = self.lab.path(name);
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        Ok(folder)
    }

    /// Ends it.
    pub async fn end(self) {
        self.processes.stop().await;
    }
}
