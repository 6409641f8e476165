//! The two steps of a key agreement and the messages that follow it, for both tiers and both sides: 5.6.3.1
//! (manufacturer → broker) and 5.6.4.1 (broker → gateway).
//!
//! # Order of calls
//!
//! | initiator | responder |
//! |---|---|
//! | [`offer`] makes the PUSH | |
//! | | [`accept`] verifies it and makes the RESPONSE with `C` |
//! | [`conclude`] verifies the RESPONSE and `C` | |
//! | then both: [`Exchange::seal`] and [`Exchange::open`], in order | the responder: [`Exchange::ack`] |
//!
//! A fault of any of these ends the link. Where the handler's event does not belong to the link (a timer, a job's
//! answer), the role closes the link itself: the counters of an [`Exchange`] may have moved in a transaction that
//! was dropped.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::bytes::{Digest, Point};
use crate::cbor;
use crate::formula::{self, Formula};
use crate::message::{
    Ack, AgreementResponse, Held, LARGEST_MESSAGE, PROTOCOL, Push, Response, Sealed, TIER_1, Talk,
};
use crate::names::{ModelName, NodeId, RoleKind};
use crate::role::{Agreement, Certified, Fault, Host, Identity, LinkId, Offer, Subject, code};

/// The most entries of [`AgreementResponse::held`]: 125 bytes each at most, so they fit a control packet with the
/// certificate beside them.
pub const MOST_HELD: usize = 256;

/// A session whose keys are agreed: what is needed to speak under them. The keys themselves stay with the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    th: Digest,
    initiator: bool,
    sent: u64,
    received: u64,
}

impl Exchange {
    /// A session with this transcript hash, before its first message.
    #[must_use]
    pub fn new(th: Digest, initiator: bool) -> Self {
        Self { th, initiator, sent: 0, received: 0 }
    }

    /// `TH`.
    #[must_use]
    pub fn th(&self) -> &Digest {
        &self.th
    }

    /// Whether this side sent the PUSH.
    #[must_use]
    pub fn initiator(&self) -> bool {
        self.initiator
    }

    /// The payload of a RESPONSE that carries `talk` under this side's key.
    ///
    /// # Errors
    /// `limit` when it does not fit a control packet; what [`Host::mac`] says.
    pub fn seal(&mut self, host: &mut dyn Host, link: LinkId, talk: &Talk) -> Result<Vec<u8>, Fault> {
        let content = cbor::encode(talk);
        let tag = host.mac(link, &formula::sealed(self.initiator, &self.th, self.sent, &content))?;
        let payload = bounded(cbor::encode(&Response::Sealed(Sealed { sequence: self.sent, content, tag })))?;
        self.sent += 1;
        Ok(payload)
    }

    /// What the peer says; messages are taken in the order in which they were sealed, each once.
    ///
    /// # Errors
    /// `unexpected` for another sequence number than the next, `authentication`, `malformed`.
    pub fn open(&mut self, host: &mut dyn Host, link: LinkId, sealed: &Sealed) -> Result<Talk, Fault> {
        if sealed.sequence != self.received {
            let text = alloc::format!(
                "message {} of the session came where {} was due",
                sealed.sequence,
                self.received
            );
            return Err(Fault::new(code::UNEXPECTED, text));
        }
        let formula = formula::sealed(!self.initiator, &self.th, sealed.sequence, &sealed.content);
        host.check(link, &formula, &sealed.tag)?;
        let talk = cbor::decode(&sealed.content, LARGEST_MESSAGE)?;
        self.received += 1;
        Ok(talk)
    }

    /// The payload of a RESPONSE with `A`: what became of a release. `result` is [`Ack::STORED`] or a fault's code;
    /// where a release is refused before its digest is known (suite 1), the digest is all zeros.
    ///
    /// # Errors
    /// What [`Host::mac`] says.
    pub fn ack(
        &self,
        host: &mut dyn Host,
        link: LinkId,
        release: &Held,
        size: u64,
        result: &str,
    ) -> Result<Vec<u8>, Fault> {
        let tag = host.mac(link, &formula::ack(&self.th, size, &release.digest, result))?;
        let Held { model, version, digest } = release.clone();
        Ok(cbor::encode(&Response::Ack(Ack { model, version, size, digest, result: result.into(), tag })))
    }

    /// Checks `A`, and that it is about this release. `A` itself names neither model nor version: a session carries
    /// one release, so the receiver knows them.
    ///
    /// # Errors
    /// `unexpected` for another release, `authentication`.
    pub fn check_ack(
        &self,
        host: &mut dyn Host,
        link: LinkId,
        ack: &Ack,
        release: &Held,
        size: u64,
    ) -> Result<(), Fault> {
        let unread = ack.result != Ack::STORED && ack.digest == Digest([0; 32]);
        let same = ack.model == release.model
            && ack.version == release.version
            && ack.size == size
            && (ack.digest == release.digest || unread);
        if !same {
            let text = alloc::format!(
                "the peer acknowledged {} {} where {} {} was sent",
                ack.model,
                ack.version,
                release.model,
                release.version
            );
            return Err(Fault::new(code::UNEXPECTED, text));
        }
        host.check(link, &formula::ack(&self.th, ack.size, &ack.digest, &ack.result), &ack.tag)
    }
}

/// Step 1 of the initiator: `PUSH(Cert, M1 or M3, ID, Q)`, as a message and as the payload to send.
///
/// # Errors
/// What [`Host::offer`] says.
pub fn offer(host: &mut dyn Host, link: LinkId, tier: u8) -> Result<(Push, Vec<u8>), Fault> {
    let Offer { identity, key, signature } = host.offer(link, tier)?;
    let Identity { subject, certificate } = identity;
    let push = Push { protocols: [PROTOCOL].into(), tier, id: subject.id, key, signature, certificate };
    let payload = bounded(cbor::encode(&push))?;
    Ok((push, payload))
}

/// Steps 1 and 2 of the responder: verifies `Cert` and `M1` or `M3`, agrees the keys, and makes
/// `RESPONSE(Cert, M2 or M4, ID, Q)` with `held` (at most [`MOST_HELD`] entries, the rest is left out) and `C`.
/// `role` is the role that the initiator must have.
///
/// # Errors
/// `malformed`, `unexpected` for another tier or protocol, `forbidden` for another role, `certificate`,
/// `authentication`.
pub fn accept(
    host: &mut dyn Host,
    link: LinkId,
    binding: &str,
    tier: u8,
    push_payload: &[u8],
    mut held: Vec<Held>,
    role: RoleKind,
) -> Result<(Certified, Exchange, Vec<u8>), Fault> {
    let push: Push = cbor::decode(push_payload, LARGEST_MESSAGE)?;
    same_protocol(&push, tier)?;
    let signed = first(tier, &push.id, &push.key);
    // `agree` verifies again; here it comes first because nobody unproven shall make this side sign or make keys.
    let certified = host.verify(&push.certificate, &signed, &push.signature)?;
    is_whom_it_says(&certified, &Subject { role, id: push.id.clone() })?;

    held.truncate(MOST_HELD);
    let me = host.identity();
    let key = host.ephemeral(link)?;
    let signature = host.sign(&second(tier, &me.subject.id, &key, &push.key))?;
    let mut response = AgreementResponse {
        protocol: PROTOCOL,
        id: me.subject.id,
        key,
        signature,
        certificate: me.certificate,
        held,
        confirmation: None,
    };
    let agreement = Agreement {
        tier,
        binding,
        initiator: false,
        certificate: &push.certificate,
        key: &push.key,
        signature: &push.signature,
        signed,
        push: push_payload,
        response: &response.without_confirmation(),
    };
    let (certified, th) = host.agree(link, &agreement)?;
    response.confirmation = Some(host.mac(link, &formula::confirm(&th))?);
    let payload = bounded(cbor::encode(&Response::Agreement(response)))?;
    Ok((certified, Exchange::new(th, false), payload))
}

/// Step 2 of the initiator: verifies `Cert`, `M2` or `M4`, and `C`. `push_payload` is what [`offer`] gave for this
/// link; `response` is what [`parse`] gave. `role` and `id` say who the responder must be.
///
/// # Errors
/// `malformed`, `unexpected` for another protocol or a RESPONSE without `C`, `forbidden` for somebody else,
/// `certificate`, `authentication`.
pub fn conclude(
    host: &mut dyn Host,
    link: LinkId,
    binding: &str,
    push_payload: &[u8],
    response: &AgreementResponse,
    role: RoleKind,
    id: Option<&NodeId>,
) -> Result<(Certified, Exchange), Fault> {
    let push = Offered::read(push_payload)?;
    if response.protocol != PROTOCOL {
        let text = alloc::format!("the peer chose protocol {}, which was not offered", response.protocol);
        return Err(Fault::new(code::UNEXPECTED, text));
    }
    if let Some(id) = id.filter(|id| **id != response.id) {
        let text = alloc::format!("{} answers at the address of {id}", response.id);
        return Err(Fault::new(code::FORBIDDEN, text));
    }
    let confirmation = response
        .confirmation
        .ok_or_else(|| Fault::new(code::UNEXPECTED, "the RESPONSE does not confirm the session's keys"))?;
    let agreement = Agreement {
        tier: push.tier,
        binding,
        initiator: true,
        certificate: &response.certificate,
        key: &response.key,
        signature: &response.signature,
        signed: second(push.tier, &response.id, &response.key, &push.key),
        push: push_payload,
        response: &response.without_confirmation(),
    };
    let peer = Subject { role, id: response.id.clone() };
    let (certified, th) = host.conclude(link, &agreement, &peer, &confirmation)?;
    Ok((certified, Exchange::new(th, true)))
}

/// The RESPONSE of this payload.
///
/// # Errors
/// `malformed`.
pub fn parse(payload: &[u8]) -> Result<Response, Fault> {
    Ok(cbor::decode(payload, LARGEST_MESSAGE)?)
}

/// Whether the result of an `A` says nothing about the release itself: it may do better later. A certificate that
/// does not verify is such a case (a revocation list that ran out comes anew), a revoked one is not.
#[must_use]
pub fn passing(result: &str) -> bool {
    [
        code::STORAGE,
        code::NETWORK,
        code::INTERNAL,
        code::TIME,
        code::POLICY,
        code::UNEXPECTED,
        code::UNKNOWN,
        code::CERTIFICATE,
    ]
    .contains(&result)
}

/// Growing pauses between attempts: doubled each time up to a limit, with jitter, so that many who lost the same
/// peer do not come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure, in milliseconds.
    pub first_ms: u64,
    /// The longest pause, in milliseconds.
    pub most_ms: u64,
}

impl Backoff {
    /// The pause after `failures` failures in a row (1 is the first), in milliseconds: between half and all of the
    /// doubled pause.
    pub fn pause(&self, host: &mut dyn Host, failures: u32) -> u64 {
        let random = host.random(4).iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let doublings = failures.saturating_sub(1).min(32);
        let whole = self.first_ms.max(1).saturating_mul(1 << doublings).min(self.most_ms.max(1));
        let half = whole / 2;
        whole - half + random % (half + 1)
    }
}

/// How often something may happen: a full minute's worth at once, then as it comes back, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_minute: u64,
    /// What is left, in units of a 60000th.
    left: u64,
    since_ms: u64,
}

impl Rate {
    const ONE: u64 = 60_000;

    /// So many in a minute.
    #[must_use]
    pub fn per_minute(most: u32) -> Self {
        let per_minute = u64::from(most);
        Self { per_minute, left: per_minute * Self::ONE, since_ms: 0 }
    }

    /// Counts one more at this moment of the monotonic clock; whether it is within the rate.
    pub fn admits(&mut self, now_ms: u64) -> bool {
        let passed = now_ms.saturating_sub(self.since_ms);
        self.since_ms = now_ms.max(self.since_ms);
        let left = self.left.saturating_add(passed.saturating_mul(self.per_minute));
        self.left = left.min(self.per_minute * Self::ONE);
        let within = self.left >= Self::ONE;
        if within {
            self.left -= Self::ONE;
        }
        within
    }

    /// Whether as much is left as ever: nothing is known by keeping it.
    #[must_use]
    pub fn is_full(&self, now_ms: u64) -> bool {
        let back = now_ms.saturating_sub(self.since_ms).saturating_mul(self.per_minute);
        self.left.saturating_add(back) >= self.per_minute * Self::ONE
    }
}

/// Of this side's own PUSH, which nobody else has touched: what [`conclude`] needs.
#[derive(minicbor::Decode)]
#[cbor(map)]
struct Offered {
    #[n(1)]
    tier: u8,
    #[n(3)]
    key: Point,
}

impl Offered {
    fn read(push: &[u8]) -> Result<Self, Fault> {
        let wrong = |error: minicbor::decode::Error| Fault::new(code::MALFORMED, error.to_string());
        minicbor::decode(push).map_err(wrong)
    }
}

/// `M1` on tier 1, `M3` on tier 2.
pub(crate) fn first<'a>(tier: u8, id: &'a NodeId, key: &'a Point) -> Formula<'a> {
    if tier == TIER_1 { formula::m1(id, key) } else { formula::m3(id, key) }
}

/// `M2` on tier 1, `M4` on tier 2.
fn second<'a>(tier: u8, id: &'a NodeId, key: &'a Point, theirs: &'a Point) -> Formula<'a> {
    if tier == TIER_1 { formula::m2(id, key, theirs) } else { formula::m4(id, key, theirs) }
}

fn same_protocol(push: &Push, tier: u8) -> Result<(), Fault> {
    if !push.protocols.contains(&PROTOCOL) {
        let text = alloc::format!("{} does not speak protocol {PROTOCOL}", push.id);
        return Err(Fault::new(code::UNEXPECTED, text));
    }
    if push.tier != tier {
        let text = alloc::format!("{} pushes for tier {}, this is tier {tier}", push.id, push.tier);
        return Err(Fault::new(code::UNEXPECTED, text));
    }
    Ok(())
}

pub(crate) fn is_whom_it_says(certified: &Certified, peer: &Subject) -> Result<(), Fault> {
    let subject = &certified.subject;
    if subject != peer {
        let text = alloc::format!("the certificate is for {subject}, the message comes from {peer}");
        return Err(Fault::new(code::FORBIDDEN, text));
    }
    Ok(())
}

fn bounded(payload: Vec<u8>) -> Result<Vec<u8>, Fault> {
    if payload.len() > LARGEST_MESSAGE {
        let text = alloc::format!("{} bytes do not fit a message of {LARGEST_MESSAGE}", payload.len());
        return Err(Fault::new(code::LIMIT, text));
    }
    Ok(payload)
}

/// Whether a list would name this model, were it there. One that could not name all names what lies between its first
/// and its last entry in the order of names, and may go on from the beginning once: of the rest it says nothing.
#[must_use]
pub fn speaks_of(held: &[Held], model: &ModelName) -> bool {
    let (Some(first), Some(last)) = (held.first(), held.last()) else { return true };
    if held.len() < MOST_HELD {
        return true;
    }
    let begun_again = held.iter().zip(held.iter().skip(1)).filter(|(one, next)| next.model < one.model);
    match begun_again.count() {
        0 => first.model <= *model && *model <= last.model,
        1 if last.model < first.model => first.model <= *model || *model <= last.model,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::TIER_2;
    use crate::testing::Fake;

    const LINK: LinkId = 7;

    fn pair() -> (Fake, Fake) {
        let manufacturer = Fake::new(RoleKind::Manufacturer, "acme", Some("acme"), &["MD"]);
        (manufacturer, Fake::new(RoleKind::Broker, "bk-1", None, &[]))
    }

    fn agreement(payload: &[u8]) -> AgreementResponse {
        match parse(payload) {
            Ok(Response::Agreement(response)) => response,
            other => panic!("{other:?} is no RESPONSE to a PUSH"),
        }
    }

    fn agreed() -> (Fake, Exchange, Fake, Exchange) {
        let (mut mf, mut bk) = pair();
        let (_, push) = offer(&mut mf, LINK, TIER_1).unwrap();
        let (initiator, theirs, response) =
            accept(&mut bk, LINK, "native", TIER_1, &push, Vec::new(), RoleKind::Manufacturer).unwrap();
        assert_eq!(initiator.subject.id.as_str(), "acme");
        let response = agreement(&response);
        let (_, ours) =
            conclude(&mut mf, LINK, "native", &push, &response, RoleKind::Broker, Some(&response.id))
                .unwrap();
        (mf, ours, bk, theirs)
    }

    #[test]
    fn both_sides_come_to_the_same_transcript_and_hear_each_other_in_order() {
        let (mut mf, mut ours, mut bk, mut theirs) = agreed();
        assert_eq!(ours.th(), theirs.th());
        for number in 0..3 {
            let payload = ours.seal(&mut mf, LINK, &Talk::Collect(number)).unwrap();
            let Ok(Response::Sealed(sealed)) = parse(&payload) else { panic!("not sealed") };
            assert_eq!(theirs.open(&mut bk, LINK, &sealed), Ok(Talk::Collect(number)));
            assert_eq!(theirs.open(&mut bk, LINK, &sealed).unwrap_err().code, code::UNEXPECTED);
        }
    }

    #[test]
    fn a_message_sent_back_to_its_sender_does_not_verify() {
        let (mut mf, mut ours, ..) = agreed();
        let payload = ours.seal(&mut mf, LINK, &Talk::Collect(0)).unwrap();
        let Ok(Response::Sealed(sealed)) = parse(&payload) else { panic!("not sealed") };
        assert_eq!(ours.open(&mut mf, LINK, &sealed).unwrap_err().code, code::AUTHENTICATION);
    }

    #[test]
    fn what_a_broker_says_it_holds_is_under_the_confirmation() {
        let (mut mf, mut bk) = pair();
        let (_, push) = offer(&mut mf, LINK, TIER_1).unwrap();
        let (.., response) =
            accept(&mut bk, LINK, "native", TIER_1, &push, Vec::new(), RoleKind::Manufacturer).unwrap();
        let mut response = agreement(&response);
        let model = crate::ModelName::new("MD").unwrap();
        response.held.push(Held { model, version: crate::Version::default(), digest: Digest([0; 32]) });
        let fault = conclude(&mut mf, LINK, "native", &push, &response, RoleKind::Broker, None).unwrap_err();
        assert_eq!(fault.code, code::AUTHENTICATION);
    }

    #[test]
    fn the_wrong_role_tier_or_broker_ends_the_agreement() {
        let (mut mf, mut bk) = pair();
        let (_, push) = offer(&mut mf, LINK, TIER_1).unwrap();
        let mut refused =
            |tier, role| accept(&mut bk, LINK, "native", tier, &push, Vec::new(), role).unwrap_err().code;
        assert_eq!(refused(TIER_1, RoleKind::Broker), code::FORBIDDEN);
        assert_eq!(refused(TIER_2, RoleKind::Manufacturer), code::UNEXPECTED);
        let (.., response) =
            accept(&mut bk, LINK, "native", TIER_1, &push, Vec::new(), RoleKind::Manufacturer).unwrap();
        let response = agreement(&response);
        let other = NodeId::new("bk-2").unwrap();
        let fault = conclude(&mut mf, LINK, "native", &push, &response, RoleKind::Broker, Some(&other));
        assert_eq!(fault.unwrap_err().code, code::FORBIDDEN);
    }

    #[test]
    fn an_acknowledgement_counts_for_the_release_that_was_sent_alone() {
        let (mut mf, ours, mut bk, theirs) = agreed();
        let model = crate::ModelName::new("MD").unwrap();
        let release = Held { model, version: crate::Version::new([1, 0, 0, 0]), digest: Digest([9; 32]) };
        let payload = theirs.ack(&mut bk, LINK, &release, 5, Ack::STORED).unwrap();
        let Ok(Response::Ack(ack)) = parse(&payload) else { panic!("no acknowledgement") };
        assert_eq!(ours.check_ack(&mut mf, LINK, &ack, &release, 5), Ok(()));
        let later = Held { version: crate::Version::new([2, 0, 0, 0]), ..release.clone() };
        assert!(ours.check_ack(&mut mf, LINK, &ack, &later, 5).is_err());
        let forged = Ack { result: "version".into(), ..ack };
        let fault = ours.check_ack(&mut mf, LINK, &forged, &release, 5).unwrap_err();
        assert_eq!(fault.code, code::AUTHENTICATION);
    }

    #[test]
    fn pauses_grow_up_to_their_limit_and_keep_at_least_half() {
        let (mut mf, _) = pair();
        let backoff = Backoff { first_ms: 1000, most_ms: 60_000 };
        for (failures, whole) in [(1, 1000), (2, 2000), (3, 4000), (20, 60_000), (u32::MAX, 60_000)] {
            let pause = backoff.pause(&mut mf, failures);
            assert!((whole / 2..=whole).contains(&pause), "{pause} after {failures}");
        }
    }

    #[test]
    fn a_rate_admits_a_minutes_worth_at_once_and_then_as_it_comes_back() {
        let mut rate = Rate::per_minute(3);
        let admitted = |rate: &mut Rate, at| (0..5).filter(|_| rate.admits(at)).count();
        assert_eq!(admitted(&mut rate, 1000), 3);
        assert_eq!(admitted(&mut rate, 20_999), 0);
        assert_eq!(admitted(&mut rate, 21_000), 1);
        assert!(!rate.is_full(80_999));
        assert!(rate.is_full(81_000));
        assert_eq!(admitted(&mut rate, u64::MAX), 3);
        assert_eq!(admitted(&mut rate, 0), 0, "a clock that went back gives nothing");
        assert_eq!(admitted(&mut Rate::per_minute(0), 1), 0);
    }
}
