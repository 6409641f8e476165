//! What an authority does with its issuing keys, and what a certificate says of itself.

use trireme_core::role::{Certified, Described, ListOrder, MadeIdentity, RevokedSerial, code};
use trireme_core::{Digest, Fault};
use trireme_crypto::certificate::{Certificate, CertificateError, RevocationReason, RevokedEntry, chain};
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;

use crate::actor::Context;
use crate::keyring::Trust;

/// A certificate begins so much earlier than it was made: a node whose clock is a little late must be able to use it.
pub(crate) const EARLIER_MS: u64 = 60 * 60 * 1000;

impl Context {
    /// 127 random bits, never zero (RFC 5280, 4.1.2.2).
    fn serial(&mut self) -> [u8; 16] {
        let mut serial = [0; 16];
        serial.iter_mut().zip(self.random.bytes(16)).for_each(|(to, from)| *to = from);
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        serial
    }

    /// A certificate by the newest issuer, followed by the issuer's own.
    pub(crate) fn issue(
        &mut self,
        request: &issue::Request,
        certified: &Certified,
        now_ms: Option<u64>,
    ) -> Result<Vec<u8>, Fault> {
        let now =
            now_ms.ok_or_else(|| Fault::new(code::TIME, "the time is not proven, so nothing is issued"))?;
        let serial = self.serial();
        let issuer = self.keys.issuers.first();
        let issuer =
            issuer.ok_or_else(|| Fault::new(code::NOT_GRANTED, "this role has no key to issue with"))?;
        let (from, until) = (now.saturating_sub(EARLIER_MS), certified.not_after_ms);
        let (signer, certificate) = (issuer.signer.as_ref(), &issuer.certificate);
        let mut made = issue::certify(signer, certificate, request, certified, from, until, serial)
            .map_err(malformed)?;
        made.extend_from_slice(&issuer.chain);
        Ok(made)
    }

    /// A key pair for somebody else, certified; the private key under a secret (5.2).
    pub(crate) fn keys_made(
        &mut self,
        certified: &Certified,
        secret: &[u8],
        now_ms: Option<u64>,
    ) -> Result<MadeIdentity, Fault> {
        let key = SoftwareKey::generate()?;
        let request = issue::request(&key, &certified.subject).map_err(malformed)?;
        let request = issue::parse_request(&request).map_err(malformed)?;
        let certificate = self.issue(&request, certified, now_ms)?;
        let sealed_key = key.to_pkcs8_encrypted_pem(secret)?;
        Ok(MadeIdentity { certificate, sealed_key: sealed_key.to_string() })
    }

    /// A revocation list of one of our issuers, followed by its own certificate.
    pub(crate) fn revocation_list(&self, issuer: &Digest, order: &ListOrder) -> Result<Vec<u8>, Fault> {
        if order.entries.len() > ListOrder::MOST {
            let text = format!(
                "a revocation list has at most {} entries; certify a new intermediate and let this one go",
                ListOrder::MOST
            );
            return Err(Fault::new(code::LIMIT, text));
        }
        let entry = |entry: &RevokedSerial| {
            let wrong = || Fault::new(code::MALFORMED, format!("{:?} is no reason", entry.reason));
            let reason = RevocationReason::parse(&entry.reason).ok_or_else(wrong)?;
            Ok(RevokedEntry { serial: entry.serial.clone(), at_ms: entry.at_ms, reason })
        };
        let entries = order.entries.iter().map(entry).collect::<Result<Vec<_>, Fault>>()?;
        let mut issuers = self.keys.issuers.iter();
        let issuer = issuers.find(|one| one.id() == *issuer);
        let issuer = issuer.ok_or_else(|| Fault::new(code::UNKNOWN, "no such issuing key is held here"))?;
        let (signer, certificate) = (issuer.signer.as_ref(), &issuer.certificate);
        let (from, until) = (order.this_update_ms, order.next_update_ms);
        let mut item = issue::revocation_list(signer, certificate, order.number, &entries, from, until)
            .map_err(malformed)?;
        item.extend_from_slice(&issuer.chain);
        Ok(item)
    }
}

/// What the first certificate of a chain says of itself; only whether it is listed is anybody else's word.
pub(crate) fn describe(trust: Option<&Trust>, der: &[u8]) -> Result<Described, Fault> {
    let certificate = first(der)?;
    Ok(Described {
        subject: certificate.owner().ok().map(|certified| certified.subject),
        serial: certificate.serial().to_vec(),
        digest: trireme_crypto::hash::of_bytes(certificate.der()),
        key: certificate.public_key().to_point(),
        not_before_ms: certificate.not_before_ms(),
        not_after_ms: certificate.not_after_ms(),
        revoked: trust.is_some_and(|trust| trust.is_listed(der)),
    })
}

/// The first certificate of a chain.
pub(crate) fn first(der: &[u8]) -> Result<Certificate, Fault> {
    let leaf = chain::split(der).map_err(malformed)?.into_iter().next();
    let leaf = leaf.ok_or_else(|| Fault::new(code::MALFORMED, "there is no certificate"))?;
    Certificate::parse(&leaf).map_err(malformed)
}

/// What a certificate says of its owner, unjudged.
pub(crate) fn owner(der: &[u8]) -> Option<Certified> {
    first(der).ok()?.owner().ok()
}

fn malformed(error: CertificateError) -> Fault {
    Fault::new(code::MALFORMED, error.to_string())
}
