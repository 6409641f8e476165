//! A release on its way through tiers 1 and 2, as both receivers see it: where it is published, its header's tag,
//! its manifest under `M5`, and the answer to "is this newer than what is here?".

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Encode};

use crate::bytes::{Digest, Tag};
use crate::formula::{self, Formula, Suite};
use crate::message::{Extension, GenerationToken, Header, LARGEST_IMAGE, LARGEST_MESSAGE, Manifest};
use crate::names::{ModelName, RoleKind, TopicName};
use crate::role::{Certified, Fault, Host, LinkId, code};
use crate::rollout::ORDER;
use crate::through::THROUGH;
use crate::version::Version;
use crate::{cbor, role};

/// What every topic of the release namespace begins with.
pub const NAMESPACE: &str = "trireme/fw/";

/// Where releases of one model are published: `trireme/fw/<Topic>/<MD>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Channel {
    /// `Topic_MF`.
    #[n(0)]
    pub topic: TopicName,
    /// `MD`.
    #[n(1)]
    pub model: ModelName,
}

impl Channel {
    /// `<prefix>/<Topic>/<MD>`: a key of a role's state.
    #[must_use]
    pub fn key(&self, prefix: &str) -> String {
        format!("{prefix}/{}/{}", self.topic, self.model)
    }

    /// The channel of the last two parts of such a key.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        let mut parts = key.rsplit('/');
        let model = ModelName::new(parts.next()?).ok()?;
        let topic = TopicName::new(parts.next()?).ok()?;
        Some(Self { topic, model })
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAMESPACE}{}/{}", self.topic, self.model)
    }
}

impl FromStr for Channel {
    type Err = Fault;

    fn from_str(filter: &str) -> Result<Self, Fault> {
        let wrong = || Fault::new(code::MALFORMED, format!("{filter:?} is not {NAMESPACE}<topic>/<model>"));
        let (topic, model) =
            filter.strip_prefix(NAMESPACE).and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
        let topic = TopicName::new(topic).map_err(|_| wrong())?;
        let model = ModelName::new(model).map_err(|_| wrong())?;
        Ok(Self { topic, model })
    }
}

/// The tag of a header that this side sends.
///
/// # Errors
/// What [`Host::mac`] says.
pub fn head_tag(host: &mut dyn Host, link: LinkId, th: &Digest, header: &Header) -> Result<Tag, Fault> {
    let manifest = manifest_hash(host, header);
    host.mac(link, &formula::head(th, &header.fields(), manifest.as_ref()))
}

/// Reads a header and checks its tag: before that, no word of it is believed.
///
/// # Errors
/// `malformed`, `authentication`.
pub fn open_header(host: &mut dyn Host, link: LinkId, th: &Digest, bytes: &[u8]) -> Result<Header, Fault> {
    let header: Header = cbor::decode(bytes, LARGEST_MESSAGE)?;
    let manifest = manifest_hash(host, &header);
    host.check(link, &formula::head(th, &header.fields(), manifest.as_ref()), &header.head)?;
    Ok(header)
}

/// `H(manifest)`, where there is one.
fn manifest_hash(host: &mut dyn Host, header: &Header) -> Option<Digest> {
    let signed = header.manifest.as_ref()?;
    Some(host.hash(&formula::manifest_hash(&signed.manifest, &signed.signature, &signed.certificate)))
}

/// Whether what is not under a header's tag fits what is: how many bytes follow, where the body begins, and whether
/// `S` stands in the header. If it does not, somebody altered it on the way: that is the network's doing, ends the
/// link, and must never become a refusal under the peer's own key, or one altered bit would settle a release's fate.
///
/// # Errors
/// `network`.
pub fn fits(header: &Header, follows: u64) -> Result<(), Fault> {
    let body = header.size.saturating_sub(header.offset);
    let announced = body.saturating_add(u64::from(header.suite.trailer()));
    if follows != announced {
        return Err(altered(format!("{announced} bytes were announced, {follows} follow")));
    }
    let bodiless = header.offset == header.size && header.suite == Suite::Digest;
    if header.offset != 0 && !bodiless {
        return Err(altered(format!("a body begins at 0 or is not sent, not at {}", header.offset)));
    }
    if header.tag.is_some() != (header.suite == Suite::Digest) {
        return Err(altered(format!("the tag of suite {} is not where it belongs", header.suite)));
    }
    Ok(())
}

/// Checks `S1` or `S2` of suite 2. Who made the header's tag made this one too, with the same key: where only this
/// one fails, it was altered on the way ([`fits`]).
///
/// # Errors
/// `network` when it does not match; `malformed` in suite 1, which has it after the body.
pub fn check_tag(host: &mut dyn Host, link: LinkId, header: &Header, s: &Formula<'_>) -> Result<(), Fault> {
    let missing = || Fault::new(code::MALFORMED, "the header has no tag for its image");
    let tag = header.tag.as_ref().ok_or_else(missing)?;
    host.check(link, s, tag).map_err(|fault| altered(fault.detail))
}

fn altered(how: String) -> Fault {
    Fault::new(code::NETWORK, format!("the release was altered on its way: {how}"))
}

/// Whether a header is of one piece: its sizes, its offset, and what its suite asks. `follows` is how many bytes
/// come after it.
///
/// # Errors
/// `malformed`, `limit`.
pub fn well_formed(header: &Header, follows: u64, largest: u64) -> Result<(), Fault> {
    let most = largest.min(LARGEST_IMAGE);
    if header.size == 0 || header.size > most {
        return Err(Fault::new(code::LIMIT, format!("an image has 1 to {most} bytes, not {}", header.size)));
    }
    let bodiless = header.offset == header.size && header.suite == Suite::Digest;
    let body = if bodiless { 0 } else { header.size };
    let consistent = (bodiless || header.offset == 0)
        && follows == body + u64::from(header.suite.trailer())
        && header.manifest.is_some() == (header.suite == Suite::Digest)
        && header.tag.is_some() == (header.suite == Suite::Digest);
    if !consistent {
        return Err(Fault::new(code::MALFORMED, "the header's offset, tag or manifest do not fit its suite"));
    }
    Ok(())
}

/// Verifies `M5` (suite 2): the manufacturer's certificate, its signature, that the certificate binds topic and model,
/// and that the manifest says what the header says, of its own image or of an intermediate one ([`crate::through`]).
/// `None` in suite 1.
///
/// # Errors
/// `certificate`, `authentication`, `malformed`; `forbidden` for a topic or a model of somebody else.
pub fn verify_manifest(host: &mut dyn Host, header: &Header) -> Result<Option<(Certified, Manifest)>, Fault> {
    let Some(signed) = &header.manifest else { return Ok(None) };
    let certified = host.verify(&signed.certificate, &formula::m5(&signed.manifest), &signed.signature)?;
    let manifest: Manifest = cbor::decode(&signed.manifest, LARGEST_MESSAGE)?;
    if certified.subject.role != RoleKind::Manufacturer || certified.subject.id != manifest.manufacturer {
        let text = format!("{} signed a manifest of {}", certified.subject, manifest.manufacturer);
        return Err(Fault::new(code::FORBIDDEN, text));
    }
    binds(&certified, &manifest.topic, &manifest.model)?;
    let named = manifest.image(header.version)?.is_some_and(|image| {
        image.size == header.size && image.tokens.first().is_some_and(|first| first.token == header.token)
    });
    let same = manifest.suite == header.suite
        && manifest.topic == header.topic
        && manifest.model == header.model
        && named;
    if !same {
        return Err(Fault::new(code::AUTHENTICATION, "the manifest says something else than the header"));
    }
    let unknown =
        |extension: &&Extension| !extension.ignorable && ![ORDER, THROUGH].contains(&&*extension.name);
    if let Some(extension) = manifest.extensions.iter().find(unknown) {
        let text = format!("the manifest needs {:?}, which is not known here", extension.name);
        return Err(Fault::new(code::MALFORMED, text));
    }
    manifest.order()?;
    Ok(Some((certified, manifest)))
}

/// Whether a manufacturer's certificate lists this topic and this model.
///
/// # Errors
/// `forbidden`.
pub fn binds(certified: &Certified, topic: &TopicName, model: &ModelName) -> Result<(), Fault> {
    if certified.topic.as_ref() == Some(topic) && certified.models.contains(model) {
        return Ok(());
    }
    let text = format!("the certificate of {} does not list {topic}/{model}", certified.subject);
    Err(Fault::new(role::code::FORBIDDEN, text))
}

/// Whether two manifests of one release agree on its Tokens: for every generation that both name it is the same.
#[must_use]
pub fn same_tokens(one: &[GenerationToken], other: &[GenerationToken]) -> bool {
    let token = |generation| other.iter().find(|token| token.generation == generation);
    one.iter().all(|mine| token(mine.generation).is_none_or(|theirs| theirs.token == mine.token))
}

/// What tells one state of a release from another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Mark {
    /// `V`.
    #[n(0)]
    pub version: Version,
    /// Bytes of the image.
    #[n(1)]
    pub size: u64,
    /// Digest of the image.
    #[n(2)]
    pub digest: Digest,
    /// The manifest's sequence number; 0 in suite 1.
    #[n(3)]
    pub sequence: u64,
}

/// What a release is to someone who knows another of the same model already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// A higher version.
    New,
    /// The same version and image under a newer manifest: no image is needed.
    Refresh,
    /// Known as it is.
    Duplicate,
    /// A lower version, or an older manifest of the same version.
    Old,
    /// The same version with other bytes: never a mistake of the network.
    Conflict,
}

impl Mark {
    /// Compares a release that comes with the one that is known.
    #[must_use]
    pub fn novelty(&self, known: Option<&Self>) -> Novelty {
        let Some(known) = known else { return Novelty::New };
        match self.version.cmp(&known.version) {
            core::cmp::Ordering::Greater => Novelty::New,
            core::cmp::Ordering::Less => Novelty::Old,
            core::cmp::Ordering::Equal if (self.size, self.digest) != (known.size, known.digest) => {
                Novelty::Conflict
            }
            core::cmp::Ordering::Equal => match self.sequence.cmp(&known.sequence) {
                core::cmp::Ordering::Greater => Novelty::Refresh,
                core::cmp::Ordering::Equal => Novelty::Duplicate,
                core::cmp::Ordering::Less => Novelty::Old,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn mark(version: &str, byte: u8, sequence: u64) -> Mark {
        Mark { version: version.parse().unwrap(), size: 5, digest: Digest([byte; 32]), sequence }
    }

    #[test]
    fn a_channel_reads_back_and_anything_wider_is_refused() {
        let channel: Channel = "trireme/fw/acme/MD-1".parse().unwrap();
        assert_eq!(channel.to_string(), "trireme/fw/acme/MD-1");
        assert_eq!(Channel::of_key(&channel.key("sub/gw-1")), Some(channel));
        for filter in ["trireme/fw/acme/+", "trireme/fw/#", "trireme/fw/acme", "trireme/fw/a/b/c", "x/fw/a/b"]
        {
            assert!(filter.parse::<Channel>().is_err(), "{filter} was taken");
        }
    }

    #[test]
    fn what_the_headers_tag_does_not_cover_has_to_fit_what_it_covers() {
        let name = crate::NodeId::new("acme").unwrap();
        let (topic, model) = (TopicName::new("acme").unwrap(), ModelName::new("MD").unwrap());
        let header = |suite, offset, tag| Header {
            suite,
            topic: topic.clone(),
            id: name.clone(),
            model: model.clone(),
            version: Version::default(),
            size: 5,
            offset,
            token: crate::Token([0; 32]),
            manifest: None,
            tag,
            head: Tag([0; 32]),
        };
        let tag = Some(Tag([0; 32]));
        for (header, follows) in [
            (header(Suite::Digest, 0, tag), 5),
            (header(Suite::Digest, 5, tag), 0),
            (header(Suite::Thesis, 0, None), 37),
        ] {
            assert_eq!(fits(&header, follows), Ok(()));
        }
        for (header, follows) in [
            (header(Suite::Digest, 0, tag), 4),
            (header(Suite::Digest, 0, None), 5),
            (header(Suite::Digest, 2, tag), 3),
            (header(Suite::Digest, 6, tag), 0),
            (header(Suite::Thesis, 5, None), 32),
            (header(Suite::Thesis, 0, tag), 37),
        ] {
            assert_eq!(fits(&header, follows).unwrap_err().code, code::NETWORK);
        }
    }

    #[test]
    fn novelty_follows_version_then_image_then_sequence() {
        let known = mark("1.9", 1, 4);
        assert_eq!(mark("1.9", 1, 4).novelty(None), Novelty::New);
        assert_eq!(mark("1.10", 2, 1).novelty(Some(&known)), Novelty::New);
        assert_eq!(mark("1.9", 1, 5).novelty(Some(&known)), Novelty::Refresh);
        assert_eq!(mark("1.9", 1, 4).novelty(Some(&known)), Novelty::Duplicate);
        assert_eq!(mark("1.9", 1, 3).novelty(Some(&known)), Novelty::Old);
        assert_eq!(mark("1.9", 2, 5).novelty(Some(&known)), Novelty::Conflict);
        assert_eq!(mark("1.8", 2, 9).novelty(Some(&known)), Novelty::Old);
    }
}
