//! Intermediate versions: images that devices which run something older install before a release's own.
//!
//! A release that must not be reached from everywhere names them in its manifest, so they are signed with it, go where
//! it goes, end with it, and need no manifest of their own. A device below one of them is offered the lowest that is
//! above what it runs, and the release itself when none is left.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use crate::bytes::{Digest, Token};
use crate::cbor;
use crate::message::{Extension, GenerationToken, LARGEST_IMAGE, LARGEST_MESSAGE, Manifest};
use crate::release::Mark;
use crate::role::{Fault, code};
use crate::version::Version;

/// The name of the extension that carries an array of [`Image`]s, lowest version first. It may not be ignored: who
/// does not know it would offer the release to devices that must not jump to it.
pub const THROUGH: &str = "through";
/// The most intermediate versions of a release.
pub const MOST_THROUGH: usize = 8;

/// An image that a manifest names: an intermediate one, or the release's own.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Image {
    /// `V`.
    #[n(0)]
    pub version: Version,
    /// Bytes of the image.
    #[n(1)]
    pub size: u64,
    /// `SHA-256(FW)`.
    #[n(2)]
    pub digest: Digest,
    /// One Token for each generation of the model's secrets in use, newest first; made over this image and version.
    #[n(3)]
    pub tokens: Vec<GenerationToken>,
}

impl Image {
    /// The Token for devices of this generation.
    #[must_use]
    pub fn token(&self, generation: u32) -> Option<Token> {
        self.tokens.iter().find(|token| token.generation == generation).map(|token| token.token)
    }

    /// What tells it from others, under a manifest of this number.
    #[must_use]
    pub fn mark(&self, sequence: u64) -> Mark {
        Mark { version: self.version, size: self.size, digest: self.digest, sequence }
    }
}

/// Intermediate versions as an extension of the manifest; none where there are none.
#[must_use]
pub fn extension(through: &[Image]) -> Option<Extension> {
    let value = || cbor::encode(&through.to_vec());
    (!through.is_empty()).then(|| Extension { name: THROUGH.into(), ignorable: false, value: value() })
}

/// The image that a device which runs this is to get: the lowest intermediate one above it; none where it can take the
/// release's own.
#[must_use]
pub fn next<'a>(through: impl IntoIterator<Item = &'a Image>, running: Version) -> Option<&'a Image> {
    through.into_iter().find(|image| image.version > running)
}

impl Manifest {
    /// The intermediate versions, lowest first.
    ///
    /// # Errors
    /// `malformed` where they are not in order and below the release's own, are too many or too large, have no Token,
    /// come twice, or where the release is withdrawn.
    pub fn through(&self) -> Result<Vec<Image>, Fault> {
        let extension = self.extensions.iter().find(|extension| extension.name == THROUGH);
        let Some(extension) = extension else { return Ok(Vec::new()) };
        let wrong = |why: String| Fault::new(code::MALFORMED, format!("intermediate versions: {why}"));
        let images: Vec<Image> =
            cbor::decode(&extension.value, LARGEST_MESSAGE).map_err(|why| wrong(format!("{why}")))?;
        if images.is_empty() || images.len() > MOST_THROUGH {
            return Err(wrong(format!("there are 1 to {MOST_THROUGH}, not {}", images.len())));
        }
        if self.withdrawn {
            return Err(wrong("a withdrawn release has none".into()));
        }
        for (position, image) in images.iter().enumerate() {
            let above = images.get(position + 1).map_or(self.version, |above| above.version);
            if image.version >= above {
                return Err(wrong(format!("{} is not below {above}", image.version)));
            }
            if !(1..=LARGEST_IMAGE).contains(&image.size) {
                return Err(wrong(format!("{} has {} bytes", image.version, image.size)));
            }
            if image.tokens.is_empty() {
                return Err(wrong(format!("{} has no Token", image.version)));
            }
            let later = images.iter().skip(position + 1).any(|other| other.digest == image.digest);
            if later || image.digest == self.digest {
                return Err(wrong(format!("the image of {} comes twice", image.version)));
            }
        }
        Ok(images)
    }

    /// The image of this version: the release's own, or an intermediate one.
    ///
    /// # Errors
    /// As [`Manifest::through`].
    pub fn image(&self, version: Version) -> Result<Option<Image>, Fault> {
        let through = self.through()?;
        if version == self.version {
            let (size, digest, tokens) = (self.size, self.digest, self.tokens.clone());
            return Ok(Some(Image { version, size, digest, tokens }));
        }
        Ok(through.into_iter().find(|image| image.version == version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::Suite;
    use crate::names::{ModelName, NodeId, TopicName};

    fn image(version: &str, byte: u8) -> Image {
        let tokens = [GenerationToken { generation: 1, token: Token([byte; 32]) }].into();
        Image { version: version.parse().unwrap(), size: 5, digest: Digest([byte; 32]), tokens }
    }

    fn manifest(version: &str, through: &[Image]) -> Manifest {
        let own = image(version, 1);
        Manifest {
            suite: Suite::Digest,
            sequence: 7,
            manufacturer: NodeId::new("acme").unwrap(),
            topic: TopicName::new("acme").unwrap(),
            model: ModelName::new("MD").unwrap(),
            version: own.version,
            size: own.size,
            digest: own.digest,
            tokens: own.tokens,
            issued_ms: 0,
            expires_ms: 0,
            withdrawn: false,
            extensions: extension(through).into_iter().collect(),
        }
    }

    #[test]
    fn a_manifest_names_its_own_image_and_those_that_lead_to_it() {
        let through = [image("1.5", 5), image("1.9", 9)];
        let manifest = manifest("2.0", &through);
        assert_eq!(manifest.through().unwrap(), through);
        let named = |version: &str| manifest.image(version.parse().unwrap()).unwrap();
        assert_eq!(named("1.9"), Some(image("1.9", 9)));
        assert_eq!(named("2.0"), Some(image("2.0", 1)));
        assert_eq!(named("1.8"), None);
    }

    #[test]
    fn whoever_runs_less_takes_the_lowest_above_it() {
        let through = [image("1.5", 5), image("1.9", 9)];
        let next = |running: &str| next(&through, running.parse().unwrap()).map(|image| image.version);
        assert_eq!(next("1.2"), Some("1.5".parse().unwrap()));
        assert_eq!(next("1.5"), Some("1.9".parse().unwrap()));
        assert_eq!(next("1.9"), None);
        assert_eq!(next("2.0"), None);
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for (why, through) in [
            ("not in order", [image("1.9", 9), image("1.5", 5)].to_vec()),
            ("one twice", [image("1.9", 9), image("1.9", 8)].to_vec()),
            ("the same image twice", [image("1.5", 9), image("1.9", 9)].to_vec()),
            ("the release's own image", [image("1.9", 1)].to_vec()),
            ("not below the release", [image("2.0", 9)].to_vec()),
            ("too many", (10..19).map(|minor| image(&format!("1.{minor}"), minor)).collect()),
            ("an empty image", [Image { size: 0, ..image("1.9", 9) }].to_vec()),
            ("no Token", [Image { tokens: Vec::new(), ..image("1.9", 9) }].to_vec()),
        ] {
            let fault = manifest("2.0", &through).through().expect_err(why);
            assert_eq!(fault.code, code::MALFORMED, "{why}");
        }
        let mut withdrawn = manifest("2.0", &[image("1.9", 9)]);
        withdrawn.withdrawn = true;
        assert!(withdrawn.through().is_err());
        let mut garbled = manifest("2.0", &[image("1.9", 9)]);
        garbled.extensions[0].value.push(0);
        assert!(garbled.through().is_err());
    }
}
