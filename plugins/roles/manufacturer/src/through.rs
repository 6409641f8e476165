//! Intermediate versions ([`trireme_core::through`]): which ones lead to a release, and their way to brokers. Each is
//! sent after its release, in a visit of its own, to brokers that do not hold it.

use alloc::format;
use alloc::vec::Vec;

use trireme_core::api::{HandIn, Publish};
use trireme_core::message::LARGEST_IMAGE;
use trireme_core::role::{Origin, Request, code};
use trireme_core::through::MOST_THROUGH;
use trireme_core::{Digest, Fault, Host, ModelName, NodeId, Token, Version, json};

use crate::Manufacturer;
use crate::publish::Making;
use crate::record::{HandedIn, Release, Through, image_of, key, load, save};

impl Manufacturer {
    /// The administrator hands in an image of an earlier version, for a release that leads through it.
    pub(crate) fn hand_in(&mut self, host: &mut dyn Host, request: &Request) -> Result<(), Fault> {
        if request.origin != Origin::Admin {
            return Err(Fault::new(code::FORBIDDEN, "only the manufacturer's administrator hands in images"));
        }
        let HandIn { model, version } = json::read(&request.body, "what is handed in")?;
        let (digest, size) =
            request.blob.ok_or_else(|| Fault::new(code::MALFORMED, "an image is to be handed in"))?;
        self.may_sign(host, &model)?;
        if !(1..=LARGEST_IMAGE).contains(&size) {
            let text = format!("an image has 1 to {LARGEST_IMAGE} bytes, this one has {size}");
            return Err(Fault::new(code::LIMIT, text));
        }
        if let Some((_, known)) = image_of(host, &model, version).filter(|known| *known != (size, digest)) {
            let text = format!("{model} {version} is published with another image ({})", known.short());
            return Err(Fault::new(code::CONFLICT, text));
        }
        let place = key("image", &model, version);
        let waiting = host.scan(&format!("image/{model}/"), None, 1024);
        if waiting.len() >= MOST_THROUGH && !waiting.contains(&place) {
            let text = format!("{MOST_THROUGH} images of {model} wait for a release already");
            return Err(Fault::new(code::LIMIT, text));
        }
        host.pin(&digest);
        let before = load::<HandedIn>(host, &place);
        save(host, &place, &HandedIn { size, digest });
        if let Some(before) = before.filter(|before| before.digest != digest) {
            crate::record::unpin_unless_needed(host, &before.digest);
        }
        host.audit(&format!("the image {} of {model} {version} is handed in", digest.short()));
        host.reply(request.id, Ok(b"{}".to_vec()));
        Ok(())
    }

    /// The intermediate versions that a publication asks for, lowest first, without their Tokens.
    pub(crate) fn leading_to(
        &self,
        host: &dyn Host,
        wish: &Publish,
        own: &Digest,
    ) -> Result<Vec<Making>, Fault> {
        let Publish { model, version: last, through, .. } = wish;
        if through.len() > MOST_THROUGH {
            let text = format!("a release leads through at most {MOST_THROUGH} versions");
            return Err(Fault::new(code::LIMIT, text));
        }
        let mut versions = through.clone();
        versions.sort();
        versions.dedup();
        let mut images: Vec<Making> = Vec::new();
        for version in versions {
            if version >= *last {
                let text = format!("{version} cannot lead to {last}: it is not below it");
                return Err(Fault::new(code::VERSION, text));
            }
            let handed_in: Option<HandedIn> = load(host, &key("image", model, version));
            let known = handed_in.map(|image| (image.size, image.digest));
            let Some((size, digest)) = known.or_else(|| image_of(host, model, version)) else {
                let text = format!(
                    "{model} {version} is not published here; hand in its image with `--through {version}=<file>`"
                );
                return Err(Fault::new(code::UNKNOWN, text));
            };
            if host.blob_size(&digest).is_none() {
                let text = format!(
                    "the image of {model} {version} is not here any more; hand it in with `--through {version}=<file>`"
                );
                return Err(Fault::new(code::UNKNOWN, text));
            }
            if digest == *own || images.iter().any(|image| image.digest == digest) {
                let text = format!("the image of {model} {version} is that of another version, too");
                return Err(Fault::new(code::CONFLICT, text));
            }
            images.push(Making { version, size, digest, tokens: Self::no_tokens(host, model) });
        }
        Ok(images)
    }

    /// Tokens to be made, one for each generation in use.
    pub(crate) fn no_tokens(host: &dyn Host, model: &ModelName) -> Vec<(u32, Option<Token>)> {
        Self::generations(host, model).into_iter().map(|generation| (generation, None)).collect()
    }

    /// What a broker is to get next of a release that it has stored: the first image that leads to it and is neither
    /// among what it holds nor was acknowledged.
    pub(crate) fn still_to_send(
        &self,
        broker: &NodeId,
        release: &Release,
        holds: &[(Version, Digest)],
    ) -> Option<Through> {
        let errand = self.errands.get(&(broker.clone(), release.model.clone()))?;
        let there = |one: &&Through| {
            holds.contains(&(one.version, one.digest)) || errand.stored.contains(&one.digest)
        };
        release.through_now().iter().find(|one| !there(one)).cloned()
    }
}
