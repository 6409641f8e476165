//! What the broker keeps: releases, subscriptions, what each gateway holds. All of it is durable, and mirrored here.
//!
//! | key | value |
//! |---|---|
//! | `release/<Topic>/<MD>` | [`Stored`] |
//! | `sub/<ID_GW>/<Topic>/<MD>` | empty |
//! | `held/<ID_GW>/<Topic>/<MD>` | [`Standing`] |
//! | `doomed/<digest>` | empty: a superseded image that a delivery still reads |

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};
use trireme_core::message::{Ack, Held, LARGEST_MESSAGE, SignedManifest};
use trireme_core::release::{Channel, Mark};
use trireme_core::{Digest, Host, ModelName, NodeId, Suite, Token, Version, cbor};

/// The most lost images that are looked after at one start: a transaction of the host is bounded.
const MOST_MISSED: usize = 512;

/// A release as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Stored {
    #[n(0)]
    pub(crate) mark: Mark,
    #[n(1)]
    pub(crate) suite: Suite,
    #[n(2)]
    pub(crate) manufacturer: NodeId,
    #[n(3)]
    pub(crate) token: Token,
    #[n(4)]
    pub(crate) manifest: Option<SignedManifest>,
    /// Withdrawn by its manufacturer: the record stays, so that gateways hear of it, the image does not.
    #[n(5)]
    pub(crate) withdrawn: bool,
    /// Suite 1: the certificate of the session that brought it; none in records of earlier versions.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub(crate) certificate: Option<Vec<u8>>,
    /// Its certificate was revoked: what is left says so, and is delivered to nobody. Any release that the
    /// manufacturer signs under a certificate that counts takes its place.
    #[cbor(n(7), skip_if = "no")]
    pub(crate) revoked: bool,
    /// Its image was damaged or is gone: nothing is delivered from it until its manufacturer has sent it again.
    #[cbor(n(8), skip_if = "no")]
    pub(crate) lost: bool,
    /// Its manufacturer calls it an emergency.
    #[cbor(n(9), skip_if = "no")]
    pub(crate) emergency: bool,
    /// Intermediate versions that its manifest names, lowest first.
    #[cbor(n(10), skip_if = "Vec::is_empty")]
    pub(crate) through: Vec<Through>,
    /// Of what goes out: that it is an intermediate version of the release with this mark.
    #[cbor(skip)]
    pub(crate) leads_to: Option<Mark>,
}

/// An intermediate version of a release.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Through {
    #[n(0)]
    pub(crate) version: Version,
    #[n(1)]
    pub(crate) size: u64,
    #[n(2)]
    pub(crate) digest: Digest,
    /// The header's Token.
    #[n(3)]
    pub(crate) token: Token,
    /// Whether its image is here.
    #[n(4)]
    pub(crate) here: bool,
}

fn no(flag: &bool) -> bool {
    !flag
}

impl Stored {
    /// Whether its image is kept.
    pub(crate) fn image(&self) -> bool {
        !self.withdrawn && !self.revoked && !self.lost
    }

    /// The certificate that stands behind it.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        let signed = self.manifest.as_ref().map(|signed| &signed.certificate);
        signed.or(self.certificate.as_ref()).map(Vec::as_slice)
    }

    /// How the release is named in RESPONSE packets.
    pub(crate) fn held(&self, channel: &Channel) -> Held {
        Held { model: channel.model.clone(), version: self.mark.version, digest: self.mark.digest }
    }

    /// The images that are kept for it.
    pub(crate) fn images(&self) -> impl Iterator<Item = &Digest> {
        let own = Some(&self.mark.digest).filter(|_| self.image());
        own.into_iter().chain(self.through.iter().filter(|image| image.here).map(|image| &image.digest))
    }

    /// Bytes of all images that it is to have here.
    pub(crate) fn bytes(&self) -> u64 {
        let own = if self.withdrawn { 0 } else { self.mark.size };
        self.through.iter().fold(own, |sum, image| sum.saturating_add(image.size))
    }

    /// One of its intermediate versions, as it goes out: the release with another image.
    fn leading(&self, image: &Through) -> Self {
        let Through { version, size, digest, token, .. } = *image;
        let mark = Mark { version, size, digest, sequence: self.mark.sequence };
        let (through, leads_to) = (Vec::new(), Some(self.mark.clone()));
        Self { mark, token, through, leads_to, ..self.clone() }
    }
}

/// What a gateway said last about a channel's release.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Standing {
    #[n(0)]
    pub(crate) mark: Mark,
    /// [`Ack::STORED`] or the code of its refusal.
    #[n(1)]
    pub(crate) result: String,
    /// The same of intermediate versions.
    #[cbor(n(2), skip_if = "Vec::is_empty")]
    pub(crate) through: Vec<Answered>,
}

/// What a gateway said about an intermediate version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Answered {
    #[n(0)]
    pub(crate) version: Version,
    #[n(1)]
    pub(crate) digest: Digest,
    /// As [`Standing::result`].
    #[n(2)]
    pub(crate) result: String,
}

impl Standing {
    /// The answer to what was delivered, after what the gateway had answered before.
    pub(crate) fn after(before: Option<&Self>, delivered: &Stored, result: String) -> Option<Self> {
        let Mark { version, digest, .. } = delivered.mark;
        let mut through = before.map(|before| before.through.clone()).unwrap_or_default();
        match &delivered.leads_to {
            None => {
                // Refusals are for this manifest; images stay, as long as the release leads through them.
                through.retain(|answered| {
                    let named = delivered.through.iter().any(|image| image.digest == answered.digest);
                    named && answered.result == Ack::STORED
                });
                Some(Self { mark: delivered.mark.clone(), result, through })
            }
            Some(release) => {
                let before = before.filter(|before| before.mark == *release)?;
                through.retain(|answered| answered.digest != digest);
                through.push(Answered { version, digest, result });
                Some(Self { through, ..before.clone() })
            }
        }
    }

    /// Forgets intermediate versions that the gateway does not hold; whether there were any.
    pub(crate) fn keep_held(&mut self, model: &ModelName, held: &[Held]) -> bool {
        let before = self.through.len();
        self.through.retain(|answered| {
            let named = Held { model: model.clone(), version: answered.version, digest: answered.digest };
            answered.result != Ack::STORED || held.contains(&named)
        });
        self.through.len() != before
    }
}

/// The mirror of the durable state.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) releases: BTreeMap<Channel, Stored>,
    subscribers: BTreeMap<Channel, Subscribers>,
    channels: BTreeMap<NodeId, BTreeSet<Channel>>,
    /// Superseded images that deliveries still read.
    doomed: BTreeSet<Digest>,
}

/// Who subscribes to a channel, and what each said last.
#[derive(Debug, Default)]
struct Subscribers {
    standings: BTreeMap<NodeId, Option<Standing>>,
    /// How many hold the channel's image; counted along, since policies ask for it with each delivery.
    holding: usize,
}

impl Subscribers {
    fn set(&mut self, gateway: NodeId, standing: Option<Standing>, stored: Option<&Stored>) {
        let holds = has_image(standing.as_ref(), stored);
        let before = self.standings.insert(gateway, standing);
        self.holding -= usize::from(has_image(before.flatten().as_ref(), stored));
        self.holding += usize::from(holds);
    }

    fn remove(&mut self, gateway: &NodeId, stored: Option<&Stored>) {
        let before = self.standings.remove(gateway).flatten();
        self.holding -= usize::from(has_image(before.as_ref(), stored));
    }

    /// The channel's release is another.
    fn count(&mut self, stored: Option<&Stored>) {
        let holds = |standing: &&Option<Standing>| has_image(standing.as_ref(), stored);
        self.holding = self.standings.values().filter(holds).count();
    }
}

/// Whether a gateway that said this holds the release's image, whichever manifest it came with.
fn has_image(standing: Option<&Standing>, stored: Option<&Stored>) -> bool {
    standing.zip(stored).is_some_and(|(standing, stored)| {
        standing.result == Ack::STORED
            && (standing.mark.version, standing.mark.digest) == (stored.mark.version, stored.mark.digest)
    })
}

impl Store {
    /// Reads what an earlier run kept, and lets go of images that only its deliveries still needed.
    pub(crate) fn load(host: &mut dyn Host) -> Self {
        let mut store = Self::default();
        for key in keys(host, "release/") {
            let stored = host.get(&key).and_then(|value| cbor::decode(&value, LARGEST_MESSAGE).ok());
            if let (Some(channel), Some(stored)) = (Channel::of_key(&key), stored) {
                store.releases.insert(channel, stored);
            }
        }
        store.miss_images(host);
        // An earlier version kept the images of withdrawn releases too.
        for stored in store.releases.values().filter(|stored| !stored.image()) {
            if !store.uses(&stored.mark.digest) {
                host.unpin(&stored.mark.digest);
            }
        }
        for key in keys(host, "sub/") {
            let Some(channel) = Channel::of_key(&key) else { continue };
            let Some(Ok(gateway)) = key.split('/').nth(1).map(NodeId::new) else { continue };
            let standing = host
                .get(&channel.key(&format!("held/{gateway}")))
                .and_then(|value| cbor::decode(&value, LARGEST_MESSAGE).ok());
            store.index(gateway, channel, standing);
        }
        for key in keys(host, "doomed/") {
            let digest =
                key.strip_prefix("doomed/").and_then(|text| Digest::try_from(String::from(text)).ok());
            if let Some(digest) = digest.filter(|digest| !store.uses(digest)) {
                host.unpin(&digest);
            }
            host.delete(&key);
        }
        store
    }

    /// Images that are not in the blobs any more, because somebody removed or cut their files.
    fn miss_images(&mut self, host: &mut dyn Host) {
        let images = self.releases.values().flat_map(Stored::images).copied();
        let gone: BTreeSet<Digest> =
            images.filter(|digest| host.blob_size(digest).is_none()).take(MOST_MISSED).collect();
        for digest in gone {
            self.lose(host, &digest, "its file is gone or was cut");
        }
    }

    /// An image is of no use any more: what was kept with it has lost it, and waits for it to be sent again.
    /// Gives its channels.
    pub(crate) fn lose(&mut self, host: &mut dyn Host, digest: &Digest, why: &str) -> Vec<Channel> {
        let mut lost = Vec::new();
        let kept = |stored: &Stored| stored.images().any(|image| image == digest);
        for (channel, stored) in self.releases.iter_mut().filter(|(_, stored)| kept(stored)) {
            let own = stored.mark.digest == *digest;
            stored.lost |= own;
            let through = stored.through.iter_mut().find(|image| image.digest == *digest);
            let version = through.map_or(stored.mark.version, |image| {
                image.here = false;
                image.version
            });
            lost.push(channel.clone());
            host.put(&channel.key("release"), cbor::encode(stored));
            host.audit(&format!(
                "the image {} of {channel} {version} is lost: {why}; {} is asked for it again",
                digest.short(),
                stored.manufacturer
            ));
        }
        if !lost.is_empty() {
            host.unpin(digest);
        }
        lost
    }

    /// Keeps a release in place of the channel's earlier one, whose images go when nothing uses them any more.
    /// `busy` says whether a delivery reads an image.
    pub(crate) fn put(
        &mut self,
        host: &mut dyn Host,
        channel: &Channel,
        stored: Stored,
        busy: impl Fn(&Digest) -> bool,
    ) {
        for image in stored.images() {
            self.keep_image(host, image);
        }
        if let Some(subscribers) = self.subscribers.get_mut(channel) {
            subscribers.count(Some(&stored));
        }
        host.put(&channel.key("release"), cbor::encode(&stored));
        let Some(superseded) = self.releases.insert(channel.clone(), stored) else { return };
        for old in superseded.images().filter(|old| !self.uses(old)).copied().collect::<Vec<_>>() {
            if busy(&old) {
                host.put(&format!("doomed/{old}"), Vec::new());
                self.doomed.insert(old);
            } else {
                host.unpin(&old);
            }
        }
    }

    fn keep_image(&mut self, host: &mut dyn Host, image: &Digest) {
        host.pin(image);
        host.delete(&format!("doomed/{image}"));
        self.doomed.remove(image);
    }

    /// Keeps the image of an intermediate version.
    pub(crate) fn put_through(&mut self, host: &mut dyn Host, channel: &Channel, image: &Digest) {
        let Some(stored) = self.releases.get_mut(channel) else { return };
        let Some(through) = stored.through.iter_mut().find(|through| through.digest == *image) else {
            return;
        };
        through.here = true;
        host.put(&channel.key("release"), cbor::encode(stored));
        self.keep_image(host, image);
    }

    /// Leaves of a release that its certificate was revoked, and lets its image go.
    pub(crate) fn purge(&mut self, host: &mut dyn Host, channel: &Channel, busy: impl Fn(&Digest) -> bool) {
        let Some(stored) = self.releases.get(channel).cloned() else { return };
        let (manifest, certificate, through) = (None, None, Vec::new());
        let tombstone = Stored { manifest, certificate, through, revoked: true, lost: false, ..stored };
        self.put(host, channel, tombstone, busy);
    }

    /// Lets a superseded image go when the last delivery of it has ended.
    pub(crate) fn release_image(&mut self, host: &mut dyn Host, digest: &Digest) {
        self.doomed.remove(digest);
        if !self.uses(digest) {
            host.unpin(digest);
            host.delete(&format!("doomed/{digest}"));
        }
    }

    /// Whether this is a superseded image that goes with its last delivery.
    pub(crate) fn is_doomed(&self, digest: &Digest) -> bool {
        self.doomed.contains(digest)
    }

    /// Whether a release is kept whose image this is.
    pub(crate) fn uses(&self, digest: &Digest) -> bool {
        self.releases.values().any(|stored| stored.images().any(|image| image == digest))
    }

    /// Makes a subscription durable; whether it is a new one, or nothing where the gateway has `most` already.
    pub(crate) fn subscribe(
        &mut self,
        host: &mut dyn Host,
        gateway: &NodeId,
        channel: &Channel,
        most: u32,
    ) -> Option<bool> {
        if let Some(channels) = self.channels.get(gateway) {
            if channels.contains(channel) {
                return Some(false);
            }
            if channels.len() >= most as usize {
                return None;
            }
        }
        host.put(&channel.key(&format!("sub/{gateway}")), Vec::new());
        self.index(gateway.clone(), channel.clone(), None);
        Some(true)
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, host: &mut dyn Host, gateway: &NodeId, channel: &Channel) {
        host.delete(&channel.key(&format!("sub/{gateway}")));
        host.delete(&channel.key(&format!("held/{gateway}")));
        if let Some(gateways) = self.subscribers.get_mut(channel) {
            gateways.remove(gateway, self.releases.get(channel));
        }
        if let Some(channels) = self.channels.get_mut(gateway) {
            channels.remove(channel);
        }
    }

    fn index(&mut self, gateway: NodeId, channel: Channel, standing: Option<Standing>) {
        self.channels.entry(gateway.clone()).or_default().insert(channel.clone());
        let stored = self.releases.get(&channel);
        self.subscribers.entry(channel).or_default().set(gateway, standing, stored);
    }

    /// Remembers what a gateway said about a release.
    pub(crate) fn record(
        &mut self,
        host: &mut dyn Host,
        gateway: &NodeId,
        channel: &Channel,
        standing: Standing,
    ) {
        let Some(all) = self.subscribers.get_mut(channel) else { return };
        if all.standings.contains_key(gateway) {
            host.put(&channel.key(&format!("held/{gateway}")), cbor::encode(&standing));
            all.set(gateway.clone(), Some(standing), self.releases.get(channel));
        }
    }

    /// Forgets what a gateway said: it does not hold that release any more.
    pub(crate) fn forget(&mut self, host: &mut dyn Host, gateway: &NodeId, channel: &Channel) {
        let Some(all) = self.subscribers.get_mut(channel) else { return };
        if all.standings.contains_key(gateway) {
            host.delete(&channel.key(&format!("held/{gateway}")));
            all.set(gateway.clone(), None, self.releases.get(channel));
        }
    }

    /// Channels of a gateway.
    pub(crate) fn channels(&self, gateway: &NodeId) -> Vec<Channel> {
        self.channels.get(gateway).into_iter().flatten().cloned().collect()
    }

    /// What a gateway said last about a channel.
    pub(crate) fn standing(&self, gateway: &NodeId, channel: &Channel) -> Option<&Standing> {
        self.subscribers.get(channel)?.standings.get(gateway)?.as_ref()
    }

    /// The channel's release, where a gateway that answered this last has not answered for it in this state yet; then
    /// its intermediate versions whose images are here, for who has the release.
    pub(crate) fn due(&self, channel: &Channel, standing: Option<&Standing>) -> Option<Cow<'_, Stored>> {
        let stored = self.releases.get(channel).filter(|stored| !stored.revoked && !stored.lost)?;
        let Some(standing) = standing.filter(|standing| standing.mark == stored.mark) else {
            return Some(Cow::Borrowed(stored));
        };
        if standing.result != Ack::STORED {
            return None;
        }
        let answered = |image: &Through| standing.through.iter().any(|one| one.digest == image.digest);
        let next = stored.through.iter().find(|image| image.here && !answered(image))?;
        Some(Cow::Owned(stored.leading(next)))
    }

    /// Gateways that subscribe and have not acknowledged the channel's release in its present state, and those that
    /// have. `holds` says who holds the image as far as its link knows.
    pub(crate) fn spread(
        &self,
        channel: &Channel,
        holds: impl Fn(&NodeId) -> bool,
    ) -> (Vec<NodeId>, Vec<NodeId>) {
        let (mut pending, mut holding) = (Vec::new(), Vec::new());
        let Some(stored) = self.releases.get(channel).filter(|stored| !stored.revoked) else {
            return (pending, holding);
        };
        let standings = self.subscribers.get(channel).map(|all| &all.standings);
        for (gateway, standing) in standings.into_iter().flatten() {
            let standing = standing.as_ref();
            let heard = standing
                .is_some_and(|standing| standing.result == Ack::STORED && standing.mark == stored.mark);
            let same_image = standing.is_some_and(|standing| standing.mark.digest == stored.mark.digest);
            if heard {
                holding.push(gateway.clone());
            } else if !stored.withdrawn || same_image || holds(gateway) {
                pending.push(gateway.clone());
            }
        }
        (pending, holding)
    }

    /// How many gateways subscribe and do not hold the channel's image, and how many do, whichever manifest it came
    /// with: what a policy that spreads a release by and by goes by.
    pub(crate) fn reach(&self, channel: &Channel) -> (usize, usize) {
        let all = self.subscribers.get(channel).filter(|_| self.releases.contains_key(channel));
        all.map_or((0, 0), |all| (all.standings.len() - all.holding, all.holding))
    }
}

/// All keys with a prefix.
pub(crate) fn keys(host: &mut dyn Host, prefix: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let page = host.scan(prefix, all.last().map(String::as_str), 1024);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}
