//! A party: one role in its actor, over the real cryptography. What lasts is on its [`Disk`]; a crash drops the party
//! and keeps the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trireme_actor::{
    Actor, Boot, BootView, Commit, Effect, Grants, Intake, Issuer, Keyring, ModelKeys, ProvenTime,
    SensorKeys, Store, StoreError, Trust, Work,
};
use trireme_core::role::{Answer, Fault, Identity, Subject, code};
use trireme_core::{Digest, Event, Role, RoleKind};
use trireme_crypto::certificate::{Certificate, TrustAnchor};
use trireme_crypto::element::{ModelSecrets, SensorSecrets};
use trireme_crypto::key::{Signer, SoftwareKey};

use crate::custody::{Drawer, Lasting};
use crate::device::Device;
use crate::hierarchy::Ca;

/// The world's beginning, in milliseconds since 1970: 2026-01-01.
pub const BEGINNING_MS: u64 = 1_767_225_600_000;

/// Makes a role anew, as after a restart.
pub type Maker = fn() -> Box<dyn Role + Send>;

/// Who a party is: made once for all runs.
pub struct Keys {
    /// Whom its certificate names.
    pub subject: Subject,
    /// Its certificate.
    pub certificate: Vec<u8>,
    /// Its long-term key.
    pub key: Arc<SoftwareKey>,
    /// The authority, and what verified under it.
    pub trust: Trust,
    /// A manufacturer's secrets of its models.
    pub secrets: Vec<Arc<ModelSecrets>>,
    /// A sensor's secrets.
    pub sensor: Option<Arc<SensorSecrets>>,
    /// The authority's root: its key and its certificate.
    pub root: Option<(Arc<SoftwareKey>, Vec<u8>)>,
    /// A party whose keys and trust change: then certificate, key and issuers are those of its [`Disk`], and its trust
    /// is its own.
    pub lasting: Option<Lasting>,
}

/// What a crash leaves.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    /// The role's state.
    pub state: BTreeMap<String, Vec<u8>>,
    /// Pinned blobs, with their sizes.
    pub pins: BTreeMap<Digest, u64>,
    /// Blobs that are durable.
    pub blobs: BTreeMap<Digest, Arc<[u8]>>,
    /// A sensor's hardware.
    pub device: Option<Device>,
    /// The key store of a party whose certificate is renewed.
    pub keys: Option<Drawer>,
    /// What such an authority issues with, newest first.
    pub issuers: Vec<Ca>,
}

/// A disk that the world and the party share.
pub type SharedDisk = Arc<Mutex<Disk>>;

/// Opens a disk; a run that failed in another thread does not matter here.
pub fn lock(disk: &SharedDisk) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running role.
pub struct Party {
    actor: Actor,
    disk: SharedDisk,
    trust: Trust,
    time: ProvenTime,
}

impl Party {
    /// A party that is about to start, `world_ms` after the beginning: what nobody pinned is swept.
    ///
    /// # Errors
    /// When the role's grants or the authority's certificate cannot be read.
    pub fn new(
        maker: Maker,
        keys: &Keys,
        disk: &SharedDisk,
        config: &str,
        world_ms: u64,
    ) -> Result<Self, String> {
        {
            let mut disk = lock(disk);
            let Disk { pins, blobs, .. } = &mut *disk;
            blobs.retain(|digest, _| pins.contains_key(digest));
        }
        let time = ProvenTime::default();
        if keys.subject.role == RoleKind::Authority {
            time.prove(BEGINNING_MS + world_ms, 0);
        }
        let factory = move || Ok(maker());
        let trust = match &keys.lasting {
            Some(lasting) => {
                let root = TrustAnchor::from_certificate(&lasting.root).map_err(|error| error.to_string())?;
                Trust::new(Vec::from([root]))
            }
            None => keys.trust.clone(),
        };
        let (ring, grants) = (keyring(keys, disk, &trust)?, grants(keys.subject.role)?);
        let store = DiskStore(disk.clone());
        let mut actor = Actor::new(factory, ring, grants, store, time.clone(), config.into());
        if let Some(lasting) = &keys.lasting {
            actor = actor.with_custody(lasting.custody(disk));
        }
        // Addresses of runs differ, and their numbers may; what a role draws must not.
        let seed = world_ms
            ^ keys
                .subject
                .id
                .as_str()
                .bytes()
                .fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Ok(Self { actor: actor.with_seed(seed), disk: disk.clone(), trust, time })
    }

    /// Whom it trusts.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The time as it knows it, milliseconds since 1970, when its own clock stands at `now_ms`.
    #[must_use]
    pub fn proven_ms(&self, now_ms: u64) -> Option<u64> {
        self.time.at(now_ms)
    }

    /// Starts the role. Times are milliseconds since the party's own start.
    pub fn start(&mut self, now_ms: u64) -> Vec<Effect> {
        self.actor.start(now_ms).unwrap_or_default()
    }

    /// Hands over an event.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        self.actor.handle(now_ms, event).unwrap_or_default()
    }

    /// When a timer is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        self.actor.next_timer()
    }

    /// Hands over the timers that are due.
    pub fn fire(&mut self, now_ms: u64) -> Vec<Effect> {
        self.actor.fire(now_ms).unwrap_or_default()
    }

    /// What a `receive` job does with a body: image, then trailer.
    ///
    /// # Errors
    /// The intake's.
    pub fn take_in(&self, mut intake: Intake, body: &[u8]) -> Result<Answer, Fault> {
        let trailer = intake.trailer() as usize;
        let (image, trailer) = body
            .len()
            .checked_sub(trailer)
            .and_then(|length| body.split_at_checked(length))
            .ok_or_else(|| Fault::new(code::MALFORMED, "the body ended before its trailer"))?;
        for window in image.chunks(Work::WINDOW) {
            intake.feed(window)?;
        }
        let (digest, size) = intake.finish(trailer)?;
        lock(&self.disk).blobs.insert(digest, image.into());
        Ok(Answer { blob: Some((digest, size)), values: Vec::new() })
    }

    /// What a `compute` job does.
    ///
    /// # Errors
    /// `storage` for a blob that is not there.
    pub fn compute(&self, mut work: Work) -> Result<Answer, Fault> {
        let (digest, _) = work.image();
        let image = self.blob(&digest).ok_or_else(|| Fault::new(code::STORAGE, "no such blob"))?;
        for window in image.chunks(Work::WINDOW) {
            work.feed(window)?;
        }
        work.finish()
    }

    /// The bytes of a blob.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        lock(&self.disk).blobs.get(digest).cloned()
    }
}

fn keyring(keys: &Keys, disk: &SharedDisk, trust: &Trust) -> Result<Keyring, String> {
    let role = keys.subject.role;
    let mut signer: Arc<dyn Signer> = keys.key.clone();
    let mut identity = Identity { subject: keys.subject.clone(), certificate: keys.certificate.clone() };
    let mut issuers = Vec::new();
    if let Some((key, root)) = &keys.root {
        let certificate = Certificate::parse(root).map_err(|error| error.to_string())?;
        issuers.push(Issuer { signer: key.clone(), certificate, chain: Vec::new() });
    }
    let kept = lock(disk);
    if let Some(kept) = &kept.keys {
        signer = kept.key.clone();
        identity.certificate.clone_from(&kept.certificate);
    }
    issuers.extend(kept.issuers.iter().cloned().map(|Ca { key, certificate, chain }| Issuer {
        signer: key,
        certificate,
        chain,
    }));
    drop(kept);
    let mut models = ModelKeys::default();
    keys.secrets.iter().for_each(|secrets| models.add(secrets.clone()));
    let sensor = keys.sensor.clone();
    let sensor = sensor.map(|secrets| SensorKeys { secrets, boot: Arc::new(BootLoader(disk.clone())) });
    let certified = role != RoleKind::Sensor;
    Ok(Keyring {
        identity,
        signer: certified.then_some(signer),
        trust: certified.then(|| trust.clone()),
        issuers,
        models,
        sensor,
    })
}

/// The grants that ship with the roles: too few of them show here.
fn grants(role: RoleKind) -> Result<Grants, String> {
    let json = match role {
        RoleKind::Authority => include_str!("../../../plugins/roles/authority/grants.json"),
        RoleKind::Directory => include_str!("../../../plugins/roles/directory/grants.json"),
        RoleKind::Manufacturer => include_str!("../../../plugins/roles/manufacturer/grants.json"),
        RoleKind::Broker => include_str!("../../../plugins/roles/broker/grants.json"),
        RoleKind::Gateway => include_str!("../../../plugins/roles/gateway/grants.json"),
        RoleKind::Sensor => include_str!("../../../plugins/roles/sensor/grants.json"),
    };
    serde_json::from_str(json).map_err(|error| format!("the grants of the {role}: {error}"))
}

struct DiskStore(SharedDisk);

impl Store for DiskStore {
    fn load(&mut self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        Ok(lock(&self.0).state.clone())
    }

    fn pins(&mut self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        Ok(lock(&self.0).pins.clone())
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        let mut disk = lock(&self.0);
        apply(&mut disk.state, commit.puts);
        apply(&mut disk.pins, commit.pins);
        Ok(())
    }
}

fn apply<K: Ord, V>(map: &mut BTreeMap<K, V>, changes: BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

struct BootLoader(SharedDisk);

impl BootView for BootLoader {
    fn boot(&self) -> Boot {
        let disk = lock(&self.0);
        disk.device.as_ref().map_or_else(Boot::default, |device| Boot {
            version: device.running.version,
            floor: device.floor,
            trial: device.trial,
            reverted: device.reverted,
        })
    }
}
