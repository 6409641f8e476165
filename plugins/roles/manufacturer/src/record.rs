//! What a manufacturer keeps, as JSON:
//!
//! | key | value |
//! |---|---|
//! | `list` | the list of brokers as it was last signed |
//! | `release/<model>/<version>` | [`Release`] |
//! | `reached/<model>/<version>/<broker>` | [`Reached`]: what became of the release there, finally |
//! | `rollout/…`, `approval/…`, `fleet/…` | see `rollout` and `fleet` |
//! | `preparing/<digest>` | an image whose Tokens are being made |
//! | `image/<model>/<version>` | [`HandedIn`]: an image for a release that will lead through it |
//! | `mark/<broker>` | the number of the last batch of receipts that was collected there |
//! | `spread/<broker>/<model>` | [`Reach`]: gateways that hold a release, or do not yet |
//! | `seen/<model>/<sensor>` | [`Seen`], of sensors whose receipts verified |
//! | `guest/<model>/<sensor>` | [`Seen`], of sensors without a device key |
//! | `sensor/<model>/<version>/<sensor>` | [`SensorRecord`] |
//!
//! Versions stand as 32 hexadecimal digits, so that keys are in the order of versions. What is owed to a broker is
//! not written down but follows: the newest release of each model, unless `reached` has an entry. So nothing owed
//! can be lost in a restart.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use trireme_core::message::{LARGEST_MESSAGE, Manifest, SignedManifest};
use trireme_core::role::code;
use trireme_core::{Digest, Fault, Host, ModelName, NodeId, Suite, Token, Version, cbor, json};

/// A release as it is published, the image aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Release {
    /// `MD`.
    pub(crate) model: ModelName,
    /// `V`.
    pub(crate) version: Version,
    /// Suite of the release.
    pub(crate) suite: Suite,
    /// Bytes of the image.
    pub(crate) size: u64,
    /// Digest of the image.
    pub(crate) digest: Digest,
    /// Rises with each release of the model, and each time that one is signed anew.
    pub(crate) sequence: u64,
    /// `Token` for the newest generation of the model's secrets.
    pub(crate) token: Token,
    /// Suite 2: a [`SignedManifest`], canonical CBOR in hexadecimal.
    pub(crate) manifest: Option<String>,
    /// Days that it was last given until no install starts any more; none, where it never ends.
    #[serde(default)]
    pub(crate) expires_days: Option<u32>,
    /// Whether policies may let it pass where others wait.
    #[serde(default)]
    pub(crate) emergency: bool,
    /// The intermediate versions, lowest first. They stay on record when the release is withdrawn.
    #[serde(default)]
    pub(crate) through: Vec<Through>,
}

/// An intermediate version of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Through {
    /// `V`.
    pub(crate) version: Version,
    /// Bytes of the image.
    pub(crate) size: u64,
    /// Digest of the image.
    pub(crate) digest: Digest,
    /// `Token` for the newest generation of the model's secrets.
    pub(crate) token: Token,
}

/// An image that was handed in for a release to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedIn {
    /// Bytes of the image.
    pub(crate) size: u64,
    /// Digest of the image.
    pub(crate) digest: Digest,
}

impl Release {
    /// One of its intermediate versions, as it is sent: the same manifest, with another image.
    #[must_use]
    pub(crate) fn leading(&self, through: &Through) -> Self {
        let Through { version, size, digest, token } = *through;
        Self { version, size, digest, token, through: Vec::new(), ..self.clone() }
    }

    /// The intermediate versions that brokers and gateways are to have now.
    #[must_use]
    pub(crate) fn through_now(&self) -> &[Through] {
        if self.through.is_empty() || self.withdrawn() { &[] } else { &self.through }
    }

    /// Bytes of all its images.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.through.iter().fold(self.size, |sum, through| sum.saturating_add(through.size))
    }

    /// Its own image and those that lead to it.
    pub(crate) fn images(&self) -> impl Iterator<Item = Digest> {
        [self.digest].into_iter().chain(self.through.iter().map(|through| through.digest))
    }

    /// The manifest with `M5`.
    ///
    /// # Errors
    /// `storage` when the record cannot be read back.
    pub(crate) fn signed_manifest(&self) -> Result<Option<SignedManifest>, Fault> {
        let Some(text) = &self.manifest else { return Ok(None) };
        let bytes = json::hexadecimal(text, LARGEST_MESSAGE, "a stored manifest")?;
        cbor::decode(&bytes, LARGEST_MESSAGE).map(Some).map_err(|why| self.damaged(&why))
    }

    /// The manifest, and the certificate that it was signed under.
    ///
    /// # Errors
    /// As [`Release::signed_manifest`].
    pub(crate) fn opened_manifest(&self) -> Result<Option<(Manifest, Vec<u8>)>, Fault> {
        let Some(signed) = self.signed_manifest()? else { return Ok(None) };
        let manifest = cbor::decode(&signed.manifest, LARGEST_MESSAGE).map_err(|why| self.damaged(&why))?;
        Ok(Some((manifest, signed.certificate)))
    }

    /// Whether the manufacturer took it back.
    pub(crate) fn withdrawn(&self) -> bool {
        matches!(self.opened_manifest(), Ok(Some((manifest, _))) if manifest.withdrawn)
    }

    /// Whether its rollout is halted.
    pub(crate) fn halted(&self) -> bool {
        let manifest = self.opened_manifest().ok().flatten();
        let order = manifest.and_then(|(manifest, _)| manifest.order().ok().flatten());
        order.is_some_and(|order| order.halted)
    }

    /// The manifest's number, as brokers say it; 0 where there is no manifest.
    pub(crate) fn manifest_sequence(&self) -> u64 {
        if self.manifest.is_some() { self.sequence } else { 0 }
    }

    fn damaged(&self, why: &dyn core::fmt::Display) -> Fault {
        let text = format!("the stored manifest of {} {} is damaged: {why}", self.model, self.version);
        Fault::new(code::STORAGE, text)
    }
}

/// What finally became of a release at a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// `stored` or `refused`.
    pub(crate) stage: String,
    /// Why, where it was refused.
    pub(crate) detail: String,
    /// [`Release::sequence`] of what was stored or refused. Records without it are of releases that were never signed
    /// anew.
    #[serde(default)]
    pub(crate) sequence: u64,
}

/// How far a release came from one broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// `MD`.
    pub(crate) model: ModelName,
    /// `V`.
    pub(crate) version: Version,
    /// Gateways that subscribe and do not hold it.
    pub(crate) pending: Vec<NodeId>,
    /// Gateways that hold it.
    pub(crate) holding: Vec<NodeId>,
    /// Number of the manifest that this is about.
    #[serde(default)]
    pub(crate) sequence: u64,
}

/// A sensor that reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The highest counter of its receipts.
    pub(crate) counter: u64,
    /// The gateway of that receipt.
    pub(crate) gateway: NodeId,
}

/// What became of a release on a sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SensorRecord {
    /// The receipt's outcome.
    pub(crate) outcome: String,
    /// The receipt's counter.
    pub(crate) counter: u64,
    /// The receipt's gateway.
    pub(crate) gateway: NodeId,
    /// Whether it verified under the sensor's device key.
    pub(crate) authenticated: bool,
}

/// Releases of a model that are kept on record; images are kept for [`KEPT_IMAGES`].
pub(crate) const KEPT_RECORDS: usize = 16;
/// The most models that are looked for on record.
const MOST_MODELS: usize = 1024;
/// Releases of a model whose images stay pinned.
pub(crate) const KEPT_IMAGES: usize = 2;

/// The key of a release, or with more behind it of what belongs to one.
#[must_use]
pub(crate) fn key(kind: &str, model: &ModelName, version: Version) -> String {
    format!("{kind}/{model}/{}", json::hexed(&version.to_bytes()))
}

/// The key of what a release came to at a broker.
#[must_use]
pub(crate) fn reached_key(model: &ModelName, version: Version, broker: &NodeId) -> String {
    format!("{}/{broker}", key("reached", model, version))
}

/// What finally became of a release at a broker, as it is signed now.
#[must_use]
pub(crate) fn reached(host: &dyn Host, release: &Release, broker: &NodeId) -> Option<Reached> {
    let reached: Reached = load(host, &reached_key(&release.model, release.version, broker))?;
    Some(reached).filter(|reached| [0, release.sequence].contains(&reached.sequence))
}

/// Forgets what became of a release as it was signed before.
pub(crate) fn forget_reached(host: &mut dyn Host, release: &Release) {
    for key in host.scan(&format!("{}/", key("reached", &release.model, release.version)), None, 1024) {
        if load::<Reached>(host, &key).is_none_or(|reached| reached.sequence != release.sequence) {
            host.delete(&key);
        }
    }
}

/// A record, if it is there and readable.
pub(crate) fn load<T: DeserializeOwned>(host: &dyn Host, key: &str) -> Option<T> {
    json::read(&host.get(key)?, key).ok()
}

/// Sets a record.
pub(crate) fn save<T: Serialize>(host: &mut dyn Host, key: &str, value: &T) {
    host.put(key, json::write(value));
}

/// The releases of a model on record, oldest first.
#[must_use]
pub(crate) fn releases(host: &dyn Host, model: &ModelName) -> Vec<Release> {
    let keys = host.scan(&format!("release/{model}/"), None, 1024);
    keys.iter().filter_map(|key| load(host, key)).collect()
}

/// The newest release of a model.
#[must_use]
pub(crate) fn newest(host: &dyn Host, model: &ModelName) -> Option<Release> {
    releases(host, model).pop()
}

/// The models that have releases on record, in order; those that the certificate lists no more among them.
#[must_use]
pub(crate) fn models(host: &dyn Host) -> Vec<ModelName> {
    let mut models = Vec::new();
    let mut after: Option<String> = None;
    while models.len() < MOST_MODELS {
        let Some(key) = host.scan("release/", after.as_deref(), 1).pop() else { break };
        let name = key.split('/').nth(1).unwrap_or_default();
        // Behind every version, which are hexadecimal.
        after = Some(format!("release/{name}/~"));
        models.extend(ModelName::new(name));
    }
    models
}

/// Lets go of what is old: images beyond the newest [`KEPT_IMAGES`], records beyond the newest [`KEPT_RECORDS`].
/// An image that a release still needs stays.
pub(crate) fn forget_old(host: &mut dyn Host, model: &ModelName) {
    let all = releases(host, model);
    let kept: Vec<Digest> = needed_images(host).collect();
    for (age, release) in all.iter().rev().enumerate() {
        if age >= KEPT_IMAGES {
            release.images().filter(|image| !kept.contains(image)).for_each(|image| host.unpin(&image));
        }
        if age >= KEPT_RECORDS {
            let through = release.through.iter().map(|through| through.version);
            for version in through.filter(|version| all.iter().all(|other| other.version != *version)) {
                let prefix = format!("{}/", key("sensor", model, version));
                host.scan(&prefix, None, 1024).iter().for_each(|key| host.delete(key));
            }
            host.delete(&key("release", model, release.version));
            host.delete(&key("rollout", model, release.version));
            for kind in ["reached", "sensor", "approval"] {
                let prefix = format!("{}/", key(kind, model, release.version));
                host.scan(&prefix, None, 1024).iter().for_each(|key| host.delete(key));
            }
        }
    }
}

/// A release is published: what was handed in for it and is not part of it is not waited for any more.
pub(crate) fn forget_handed_in(host: &mut dyn Host, model: &ModelName) {
    for place in host.scan(&format!("image/{model}/"), None, 1024) {
        let handed_in = load::<HandedIn>(host, &place);
        host.delete(&place);
        if let Some(HandedIn { digest, .. }) = handed_in {
            unpin_unless_needed(host, &digest);
        }
    }
}

/// Lets an image go that did not become a release, unless it is one already.
pub(crate) fn unpin_unless_needed(host: &mut dyn Host, digest: &Digest) {
    if !needed_images(host).any(|image| image == *digest) {
        host.unpin(digest);
    }
}

/// The images of the newest releases of all models, and those that were handed in.
fn needed_images(host: &dyn Host) -> impl Iterator<Item = Digest> {
    let newest = |model: ModelName| releases(host, &model).into_iter().rev().take(KEPT_IMAGES);
    let published = models(host).into_iter().flat_map(newest);
    let published: Vec<Digest> = published.flat_map(|release| release.images().collect::<Vec<_>>()).collect();
    let handed_in = host.scan("image/", None, 1024);
    let handed_in = handed_in.into_iter().filter_map(|place| load::<HandedIn>(host, &place));
    published.into_iter().chain(handed_in.map(|image| image.digest))
}

/// Bytes and digest of the image of a version: of a release on record, or of one that the newest leads through.
#[must_use]
pub(crate) fn image_of(host: &dyn Host, model: &ModelName, version: Version) -> Option<(u64, Digest)> {
    if let Some(release) = load::<Release>(host, &key("release", model, version)) {
        return Some((release.size, release.digest));
    }
    let through = newest(host, model)?.through.into_iter().find(|through| through.version == version)?;
    Some((through.size, through.digest))
}
