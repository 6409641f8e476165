//! The key agreement and session of each link. They live as long as the link and no longer.

use std::collections::BTreeMap;

use trireme_core::role::{Agreement, LinkId, code};
use trireme_core::{Digest, Fault, Formula, NodeId, Point, Tag, formula};
use trireme_crypto::session::{AgreementInput, Ephemeral, MacKey, Session};

/// Ephemeral key and session of every open link.
#[derive(Default)]
pub(crate) struct Links(BTreeMap<LinkId, LinkKeys>);

#[derive(Default)]
struct LinkKeys {
    ephemeral: Option<Ephemeral>,
    session: Option<Session>,
    /// The certificate that the session's peer showed, with its issuers.
    peer: Vec<u8>,
}

impl Links {
    pub(crate) fn open(&mut self, link: LinkId) {
        self.0.insert(link, LinkKeys::default());
    }

    pub(crate) fn close(&mut self, link: LinkId) {
        self.0.remove(&link);
    }

    pub(crate) fn numbers(&self) -> Vec<LinkId> {
        self.0.keys().copied().collect()
    }

    /// The links with a session, and what their peers showed.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (LinkId, &[u8])> {
        let agreed = self.0.iter().filter(|(_, keys)| keys.session.is_some());
        agreed.map(|(link, keys)| (*link, keys.peer.as_slice()))
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn ephemeral(&mut self, link: LinkId) -> Result<Point, Fault> {
        let fresh = Ephemeral::generate().map_err(|error| Fault::new(code::INTERNAL, error.to_string()))?;
        let point = fresh.public();
        self.link(link)?.ephemeral = Some(fresh);
        Ok(point)
    }

    /// Uses the link's ephemeral key up, whatever comes of it.
    pub(crate) fn agree(
        &mut self,
        link: LinkId,
        own: &NodeId,
        peer: &NodeId,
        agreement: &Agreement<'_>,
    ) -> Result<Digest, Fault> {
        let keys = self.link(link)?;
        let missing = || Fault::new(code::UNEXPECTED, "no key agreement was begun on this link");
        let ephemeral = keys.ephemeral.take().ok_or_else(missing)?;
        let th = trireme_crypto::hash(&formula::transcript(
            agreement.binding,
            agreement.tier,
            agreement.push,
            agreement.response,
        ));
        let input = AgreementInput {
            tier: agreement.tier,
            initiator: agreement.initiator,
            own_id: own,
            peer_id: peer,
            peer_point: agreement.key,
            transcript: th,
        };
        let refuse = |error| Fault::new(code::AUTHENTICATION, format!("no keys with {peer}: {error}"));
        keys.session = Some(ephemeral.agree(input).map_err(refuse)?);
        keys.peer = agreement.certificate.to_vec();
        Ok(th)
    }

    pub(crate) fn mac(&self, link: LinkId, formula: &Formula<'_>) -> Result<Tag, Fault> {
        let refuse = |error| Fault::new(code::NOT_GRANTED, format!("{}: {error}", formula.label));
        self.session(link)?.mac(formula).map_err(refuse)
    }

    pub(crate) fn check(&self, link: LinkId, formula: &Formula<'_>, tag: &Tag) -> Result<(), Fault> {
        let refuse = |error| Fault::new(code::AUTHENTICATION, format!("{}: {error}", formula.label));
        self.session(link)?.check(formula, tag).map_err(refuse)
    }

    /// The key for a value over an image; own direction to make it, the peer's to check it.
    pub(crate) fn handle(&self, link: LinkId, label: &str, to_check: bool) -> Result<MacKey, Fault> {
        let refuse = |error| Fault::new(code::NOT_GRANTED, format!("{label}: {error}"));
        let session = self.session(link)?;
        if to_check { session.check_key_for(label) } else { session.mac_key_for(label) }.map_err(refuse)
    }

    fn session(&self, link: LinkId) -> Result<&Session, Fault> {
        let missing = || Fault::new(code::UNEXPECTED, "no keys were agreed on this link");
        self.0.get(&link).and_then(|keys| keys.session.as_ref()).ok_or_else(missing)
    }

    fn link(&mut self, link: LinkId) -> Result<&mut LinkKeys, Fault> {
        self.0.get_mut(&link).ok_or_else(|| Fault::new(code::UNKNOWN, format!("there is no link {link}")))
    }
}
