//! The releases that the gateway keeps for its sensors, one a model, and the floors below which it takes none.
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
        let here = releases.by_model.values().filter(|release| release.image);
        let gone: BTreeSet<Digest> = here
            .map(|release| release.mark.digest)
            .filter(|digest| host.blob_size(digest).is_none())
            .take(MOST_MISSED)
            .collect();
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
        let here = self.by_model.values().filter(|release| release.image && channels(&release.channel));
        let held = here.map(|release| Held {
            model: release.channel.model.clone(),
            version: release.mark.version,
            digest: release.mark.digest,
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
        if release.image {
            host.pin(&release.mark.digest);
            host.delete(&format!("doomed/{}", release.mark.digest));
        }
        host.put(&format!("release/{model}"), cbor::encode(&release));
        if release.suite == Suite::Digest {
            host.put(&format!("floor/{model}"), cbor::encode(&release.mark));
            self.floors.insert(model.clone(), release.mark.clone());
        }
        let old = self.by_model.insert(model, release).filter(|old| old.image).map(|old| old.mark.digest);
        let Some(old) = old.filter(|old| !self.uses(old)) else { return };
        if busy(&old) {
            host.put(&format!("doomed/{old}"), Vec::new());
        } else {
            host.unpin(&old);
        }
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
        let digest = release.mark.digest;
        if release.image && !self.uses(&digest) {
            if busy(&digest) {
                host.put(&format!("doomed/{digest}"), Vec::new());
            } else {
                host.unpin(&digest);
            }
        }
        Some(release)
    }

    /// An image is of no use any more: it is not among what is held here, so a broker sends it again. Gives the
    /// channels of its releases.
    pub(crate) fn lose(&mut self, host: &mut dyn Host, digest: &Digest, why: &str) -> Vec<Channel> {
        let kept = |release: &Release| release.image && release.mark.digest == *digest;
        let mut channels = Vec::new();
        for (model, release) in self.by_model.iter_mut().filter(|(_, release)| kept(release)) {
            release.image = false;
            host.put(&format!("release/{model}"), cbor::encode(release));
            host.audit(&format!(
                "the image {} of {model} {} is lost: {why}; brokers are asked for it again",
                digest.short(),
                release.mark.version
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
        self.by_model.values().any(|release| release.image && release.mark.digest == *digest)
    }
}
