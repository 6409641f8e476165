//! Chains of certificates as TLS shows them: one by one, where everywhere else they are the bytes of
//! [`trireme_crypto::certificate::chain`].

use trireme_core::Fault;
use trireme_core::role::code;
use trireme_crypto::certificate::CertificateError;
use trireme_crypto::certificate::chain::{self, LARGEST_CHAIN, LONGEST_CHAIN};

/// The chain of what a peer showed; judged before anything is joined.
pub(crate) fn join<T: AsRef<[u8]>>(certificates: &[T]) -> Result<Vec<u8>, Fault> {
    let bytes =
        certificates.iter().map(|certificate| certificate.as_ref().len()).fold(0, usize::saturating_add);
    if certificates.len() > LONGEST_CHAIN {
        return Err(CertificateError::ChainTooLong.into());
    }
    if bytes > LARGEST_CHAIN {
        return Err(CertificateError::ChainTooLarge(bytes).into());
    }
    let joined = chain::join(certificates);
    let shown = certificates.iter().map(AsRef::as_ref);
    // Else two ends could differ in where a certificate ends.
    if !chain::split(&joined)?.iter().map(Vec::as_slice).eq(shown) {
        return Err(Fault::new(code::CERTIFICATE, "what was shown as a certificate is not one DER sequence"));
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(content: usize) -> Vec<u8> {
        let head = match content {
            0..=0x7f => vec![0x30, content as u8],
            0x80..=0xff => vec![0x30, 0x81, content as u8],
            _ => [&[0x30, 0x82][..], &(content as u16).to_be_bytes()].concat(),
        };
        [head, vec![7; content]].concat()
    }

    #[test]
    fn a_chain_splits_into_what_it_was_joined_from() {
        for sizes in [&[3][..], &[127, 128], &[0, 255, 256, 900]] {
            let certificates: Vec<Vec<u8>> = sizes.iter().map(|&size| certificate(size)).collect();
            let joined = join(&certificates).unwrap();
            assert_eq!(chain::split(&joined).unwrap(), certificates, "{sizes:?}");
        }
    }

    #[test]
    fn a_chain_has_an_end() {
        assert!(join(&vec![certificate(100); LONGEST_CHAIN]).is_ok());
        assert_eq!(join(&vec![certificate(100); LONGEST_CHAIN + 1]).unwrap_err().code, code::CERTIFICATE);
        let large = certificate(LARGEST_CHAIN / 2);
        assert!(join(&[&large, &large]).is_err() && join::<Vec<u8>>(&[]).is_err());
    }

    #[test]
    fn what_is_not_one_sequence_each_is_refused() {
        let whole = certificate(300);
        for length in 1..whole.len() {
            assert!(join(&[&whole[..length]]).is_err(), "{length} bytes");
        }
        assert!(join(&[certificate(3).repeat(2)]).is_err(), "two certificates are not one");
        let (head, tail) = whole.split_at(100);
        assert!(join(&[head, tail]).is_err(), "nor are two halves");
    }
}
