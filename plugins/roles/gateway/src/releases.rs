//! The releases that the gateway keeps for its sensors, one a model with the images that lead to it, and the floors
//! below which it takes none.
//!
//! | key | value |
//! |---|---|
//! | `release/<MD>` | [`Release`] |
//! | `floor/<MD>` | the [`Mark`] of the highest release whose `M5` and digest verified; suite 2 only |
//! | `doomed/<digest>` | empty: a superseded image that a transfer still reads |

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use minicbor::{Decode, Encode};
use trireme_core::exchange::MOST_HELD;
use trireme_core::message::{GenerationToken, Held, LARGEST_MESSAGE};
use trireme_core::release::{Channel, Mark, Novelty, same_tokens};
use trireme_core::role::code;
use trireme_core::rollout::Order;
use trireme_core::through::Image;
use trireme_core::{Digest, Fault, Host, ModelName, NodeId, Suite, Token, Version, cbor};

use crate::keys;

/// The most lost images that are looked after at one start: a transaction of the host is bounded.
const MOST_MISSED: usize = 512;

/// A release that was verified and is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Release {
    #[n(0)]
    pub(crate) channel: Channel,
    #[n(1)]
    pub(crate) mark: Mark,
    #[n(2)]
    pub(crate) suite: Suite,
    #[n(3)]
    pub(crate) manufacturer: NodeId,
    /// The header's Token: in suite 1 the one for every sensor.
    #[n(4)]
    pub(crate) token: Token,
    /// Suite 2: the Tokens by generation.
    #[n(5)]
    pub(crate) tokens: Vec<GenerationToken>,
    /// Milliseconds since 1970 after which no install starts; 0 means never.
    #[n(6)]
    pub(crate) expires_ms: u64,
    #[n(7)]
    pub(crate) withdrawn: bool,
    /// Whether the image is here; a withdrawal can come alone.
    #[n(8)]
    pub(crate) image: bool,
    /// The certificate that stands behind it: the manifest's, in suite 1 that of the manufacturer's list of brokers;
    /// none in records of earlier versions.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub(crate) certificate: Option<Vec<u8>>,
    /// Suite 2: the end of that certificate, milliseconds since 1970.
    #[n(10)]
    pub(crate) not_after_ms: Option<u64>,
    /// Suite 2: to whom it may be offered; to everybody, where there is none.
    #[n(11)]
    pub(crate) order: Option<Order>,
    /// Suite 2: the manufacturer calls it an emergency.
    #[cbor(n(12), skip_if = "no")]
    pub(crate) emergency: bool,
    /// Suite 2: intermediate versions, lowest first.
    #[cbor(n(13), skip_if = "Vec::is_empty")]
    pub(crate) through: Vec<Through>,
}

/// An intermediate version of a release.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Through {
    #[n(0)]
    pub(crate) image: Image,
    /// Whether it is here.
    #[n(1)]
    pub(crate) here: bool,
}

/// What a sensor is to get: a release, or what leads to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending<'a> {
    pub(crate) release: &'a Release,
    through: Option<&'a Through>,
}

impl Pending<'_> {
    pub(crate) fn mark(&self) -> Mark {
        match self.through {
            Some(through) => through.image.mark(self.release.mark.sequence),
            None => self.release.mark.clone(),
        }
    }

    /// Whether its image is here.
    pub(crate) fn here(&self) -> bool {
        self.through.map_or(self.release.image, |through| through.here)
    }

    /// The Token for sensors of a generation of secrets.
    pub(crate) fn token(&self, generation: u32) -> Option<Token> {
        match self.through {
            Some(through) => through.image.token(generation),
            None => self.release.token(generation),
        }
    }

    /// The release that an intermediate version leads to.
    pub(crate) fn leads_to(&self) -> Option<Version> {
        self.through.map(|_| self.release.mark.version)
    }
}

fn no(flag: &bool) -> bool {
    !flag
}

impl Release {
    /// The Token for sensors of a generation of secrets.
    pub(crate) fn token(&self, generation: u32) -> Option<Token> {
        match self.suite {
            Suite::Thesis => Some(self.token),
            Suite::Digest => {
                let token = self.tokens.iter().find(|token| token.generation == generation);
                token.map(|token| token.token)
            }
        }
    }

    /// What a sensor that runs this is to get: the lowest intermediate version above it, or the release itself.
    pub(crate) fn for_running(&self, running: Version) -> Pending<'_> {
        let through = self.through.iter().find(|through| through.image.version > running);
        Pending { release: self, through }
    }

    /// The mark of its image of this version.
    pub(crate) fn mark_of(&self, version: Version) -> Option<Mark> {
        if self.mark.version == version {
            return Some(self.mark.clone());
        }
        let through = self.through.iter().find(|through| through.image.version == version)?;
        Some(through.image.mark(self.mark.sequence))
    }

    /// The intermediate version that this is the image of.
    pub(crate) fn leading(&self, mark: &Mark) -> Option<&Through> {
        let same = |image: &Image| (image.version, image.digest) == (mark.version, mark.digest);
        self.through.iter().find(|through| same(&through.image))
    }

    /// The images that are here for it.
    fn images(&self) -> impl Iterator<Item = &Digest> {
        let own = Some(&self.mark.digest).filter(|_| self.image);
        let through = self.through.iter().filter(|through| through.here);
        own.into_iter().chain(through.map(|through| &through.image.digest))
    }
}

/// The mirror of the durable state.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    by_model: BTreeMap<ModelName, Release>,
    floors: BTreeMap<ModelName, Mark>,
}

impl Releases {
    /// Reads what an earlier run kept, and lets go of images that only its transfers still needed.
    pub(crate) fn load(host: &mut dyn Host) -> Self {
        let mut releases = Self::default();
        for key in keys(host, "release/") {
            let release =
                host.get(&key).and_then(|value| cbor::decode::<Release>(&value, LARGEST_MESSAGE).ok());
            if let Some(release) = release {
                releases.by_model.insert(release.channel.model.clone(), release);
            }
        }
        let here = releases.by_model.values().flat_map(Release::images).copied();
        let gone: BTreeSet<Digest> =
            here.filter(|digest| host.blob_size(digest).is_none()).take(MOST_MISSED).collect();
        for digest in gone {
            releases.lose(host, &digest, "its file is gone or was cut");
        }
        for key in keys(host, "floor/") {
            let model = key.strip_prefix("floor/").and_then(|model| ModelName::new(model).ok());
            let mark = host.get(&key).and_then(|value| cbor::decode(&value, LARGEST_MESSAGE).ok());
            if let (Some(model), Some(mark)) = (model, mark) {
                releases.floors.insert(model, mark);
            }
        }
        for key in keys(host, "doomed/") {
            let digest =
                key.strip_prefix("doomed/").and_then(|text| Digest::try_from(String::from(text)).ok());
            if let Some(digest) = digest {
                releases.let_go(host, &digest);
            }
        }
        releases
    }

    pub(crate) fn get(&self, model: &ModelName) -> Option<&Release> {
        self.by_model.get(model)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Release> {
        self.by_model.values()
    }

    /// Models with a release, in order, after this one.
    pub(crate) fn models_after(&self, after: Option<&ModelName>, most: usize) -> Vec<ModelName> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.by_model.range::<ModelName, _>((from, Bound::Unbounded));
        range.map(|(model, _)| model.clone()).take(most).collect()
    }

    pub(crate) fn floor(&self, model: &ModelName) -> Option<&Mark> {
        self.floors.get(model)
    }

    /// What RESPONSE says about images that are here already.
    pub(crate) fn held(&self, channels: impl Fn(&Channel) -> bool) -> Vec<Held> {
        let wanted = self.by_model.values().filter(|release| channels(&release.channel));
        let held = wanted.flat_map(|release| {
            let own = Some((release.mark.version, release.mark.digest)).filter(|_| release.image);
            let through = release.through.iter().filter(|through| through.here);
            let through = through.map(|through| (through.image.version, through.image.digest));
            let model = &release.channel.model;
            let held = move |(version, digest)| Held { model: model.clone(), version, digest };
            own.into_iter().chain(through).map(held)
        });
        held.take(MOST_HELD).collect()
    }

    /// The rule of versions for suite 2: above the floor, or the same image under a newer manifest.
    ///
    /// # Errors
    /// `version`; `conflict` for the same version with another image or another Token.
    pub(crate) fn judge(
        &self,
        model: &ModelName,
        mark: &Mark,
        tokens: &[GenerationToken],
    ) -> Result<Novelty, Fault> {
        let Some(floor) = self.floors.get(model) else { return Ok(Novelty::New) };
        match mark.novelty(Some(floor)) {
            Novelty::Old => {
                let text = format!("{model} {} is not above {}, which was seen", mark.version, floor.version);
                Err(Fault::new(code::VERSION, text))
            }
            Novelty::Conflict => {
                let text = format!("{model} {} came with two different images", mark.version);
                Err(Fault::new(code::CONFLICT, text))
            }
            Novelty::Refresh | Novelty::Duplicate if self.other_tokens(model, mark, tokens) => {
                let text = format!("{model} {} came with two different Tokens", mark.version);
                Err(Fault::new(code::CONFLICT, text))
            }
            novelty => Ok(novelty),
        }
    }

    /// Generations of secrets may come and go with a newer manifest; the Token for one of them stays.
    fn other_tokens(&self, model: &ModelName, mark: &Mark, tokens: &[GenerationToken]) -> bool {
        self.get(model).is_some_and(|release| {
            release.suite == Suite::Digest
                && release.mark.digest == mark.digest
                && !same_tokens(&release.tokens, tokens)
        })
    }

    /// The rule of versions for suite 1, which has no floor: it could be poisoned. A model that was seen with a
    /// manifest does not go back.
    ///
    /// # Errors
    /// `forbidden` for a downgrade, `version` for something older than what is kept.
    pub(crate) fn judge_thesis(&self, model: &ModelName, version: Version) -> Result<(), Fault> {
        if self.floors.contains_key(model) {
            let text = format!("{model} was seen with a manifest and does not go back to suite 1");
            return Err(Fault::new(code::FORBIDDEN, text));
        }
        match self.get(model).filter(|kept| kept.mark.version > version) {
            Some(kept) => {
                let text = format!("{model} {version} is older than {}, which is kept", kept.mark.version);
                Err(Fault::new(code::VERSION, text))
            }
            None => Ok(()),
        }
    }

    /// Keeps a release; the floor rises with it where a manifest was verified. `busy` says whether a transfer reads
    /// an image.
    pub(crate) fn put(&mut self, host: &mut dyn Host, release: Release, busy: impl Fn(&Digest) -> bool) {
        let model = release.channel.model.clone();
        for image in release.images() {
            host.pin(image);
            host.delete(&format!("doomed/{image}"));
        }
        host.put(&format!("release/{model}"), cbor::encode(&release));
        if release.suite == Suite::Digest {
            host.put(&format!("floor/{model}"), cbor::encode(&release.mark));
            self.floors.insert(model.clone(), release.mark.clone());
        }
        if let Some(old) = self.by_model.insert(model, release) {
            self.drop_images(host, &old, busy);
        }
    }

    /// Images of a release that is not kept any more go, unless something else uses them.
    fn drop_images(&self, host: &mut dyn Host, old: &Release, busy: impl Fn(&Digest) -> bool) {
        for image in old.images().filter(|image| !self.uses(image)) {
            if busy(image) {
                host.put(&format!("doomed/{image}"), Vec::new());
            } else {
                host.unpin(image);
            }
        }
    }

    /// Keeps the image of an intermediate version.
    pub(crate) fn put_through(&mut self, host: &mut dyn Host, model: &ModelName, image: &Digest) {
        let Some(release) = self.by_model.get_mut(model) else { return };
        let Some(through) = release.through.iter_mut().find(|through| through.image.digest == *image) else {
            return;
        };
        through.here = true;
        host.pin(image);
        host.delete(&format!("doomed/{image}"));
        host.put(&format!("release/{model}"), cbor::encode(release));
    }

    /// Drops a release. Its floor falls to the lowest: what stays of it says that the model came with a manifest.
    pub(crate) fn remove(
        &mut self,
        host: &mut dyn Host,
        model: &ModelName,
        busy: impl Fn(&Digest) -> bool,
    ) -> Option<Release> {
        let release = self.by_model.remove(model)?;
        host.delete(&format!("release/{model}"));
        if let Some(floor) = self.floors.get_mut(model) {
            *floor = Mark { version: Version::default(), size: 0, digest: Digest([0; 32]), sequence: 0 };
            host.put(&format!("floor/{model}"), cbor::encode(floor));
        }
        self.drop_images(host, &release, busy);
        Some(release)
    }

    /// An image is of no use any more: it is not among what is held here, so a broker sends it again. Gives the
    /// channels of its releases.
    pub(crate) fn lose(&mut self, host: &mut dyn Host, digest: &Digest, why: &str) -> Vec<Channel> {
        let kept = |release: &Release| release.images().any(|image| image == digest);
        let mut channels = Vec::new();
        for (model, release) in self.by_model.iter_mut().filter(|(_, release)| kept(release)) {
            let through = release.through.iter_mut().find(|through| through.image.digest == *digest);
            let version = match through {
                Some(through) => {
                    through.here = false;
                    through.image.version
                }
                None => {
                    release.image = false;
                    release.mark.version
                }
            };
            host.put(&format!("release/{model}"), cbor::encode(release));
            host.audit(&format!(
                "the image {} of {model} {version} is lost: {why}; brokers are asked for it again",
                digest.short(),
            ));
            channels.push(release.channel.clone());
        }
        host.unpin(digest);
        channels
    }

    /// Lets a superseded image go when no transfer reads it any more.
    pub(crate) fn let_go(&self, host: &mut dyn Host, digest: &Digest) {
        if !self.uses(digest) {
            host.unpin(digest);
        }
        host.delete(&format!("doomed/{digest}"));
    }

    /// Whether a release is kept whose image this is.
    pub(crate) fn uses(&self, digest: &Digest) -> bool {
        self.by_model.values().any(|release| release.images().any(|image| image == digest))
    }
}
