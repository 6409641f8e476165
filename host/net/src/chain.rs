//! Chains of certificates as bytes: DER certificates one after the other, leaf first. What is in a certificate is not
//! looked at here.

use trireme_core::Fault;
use trireme_core::role::code;

/// The most certificates of a chain.
pub(crate) const MOST: usize = 4;
/// The most bytes of a chain.
pub(crate) const LARGEST: usize = 16 * 1024;

/// The certificates of a chain, each exactly one DER sequence.
pub(crate) fn split(chain: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    bounded(1, chain.len())?;
    let mut certificates = Vec::new();
    let mut rest = chain;
    while !rest.is_empty() {
        let whole = sequence(rest).and_then(|length| rest.split_at_checked(length));
        let (certificate, after) = whole
            .ok_or_else(|| refused("a chain of certificates is DER sequences and nothing else".into()))?;
        bounded(certificates.len() + 1, chain.len())?;
        certificates.push(certificate);
        rest = after;
    }
    bounded(certificates.len(), chain.len())?;
    Ok(certificates)
}

/// The chain of these certificates; judged before anything is joined.
pub(crate) fn join<T: AsRef<[u8]>>(certificates: &[T]) -> Result<Vec<u8>, Fault> {
    let bytes =
        certificates.iter().map(|certificate| certificate.as_ref().len()).fold(0, usize::saturating_add);
    bounded(certificates.len(), bytes)?;
    // Else two ends could differ in where a certificate ends.
    if !certificates
        .iter()
        .all(|certificate| sequence(certificate.as_ref()) == Some(certificate.as_ref().len()))
    {
        return Err(refused("what was shown as a certificate is not one DER sequence".into()));
    }
    let mut chain = Vec::with_capacity(bytes);
    certificates.iter().for_each(|certificate| chain.extend_from_slice(certificate.as_ref()));
    Ok(chain)
}

fn bounded(certificates: usize, bytes: usize) -> Result<(), Fault> {
    match certificates {
        0 => Err(refused("no certificate is there".into())),
        _ if certificates > MOST => {
            Err(refused(format!("a chain has at most {MOST} certificates, this one has more")))
        }
        _ if bytes > LARGEST => {
            Err(refused(format!("a chain of certificates has at most {LARGEST} bytes, this one has {bytes}")))
        }
        _ => Ok(()),
    }
}

/// How long the DER sequence at the beginning of `bytes` says that it is, its head included.
fn sequence(bytes: &[u8]) -> Option<usize> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag != 0x30 {
        return None;
    }
    match first {
        0..=0x7f => Some(2 + usize::from(first)),
        // Lengths are written in the shortest form; a longer one than these could not be within the limit.
        0x81 => rest.first().filter(|&&length| length >= 0x80).map(|&length| 3 + usize::from(length)),
        0x82 => {
            let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
            (length > 0xff).then_some(4 + length)
        }
        _ => None,
    }
}

fn refused(detail: String) -> Fault {
    Fault::new(code::CERTIFICATE, detail)
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
            let chain = join(&certificates).unwrap();
            assert_eq!(split(&chain).unwrap(), certificates, "{sizes:?}");
        }
    }

    #[test]
    fn a_chain_has_an_end() {
        assert_eq!(split(&certificate(100).repeat(MOST)).unwrap().len(), MOST);
        assert_eq!(split(&certificate(100).repeat(MOST + 1)).unwrap_err().code, "certificate");
        assert!(join(&vec![certificate(100); MOST + 1]).is_err());
        let large = certificate(LARGEST / 2);
        assert!(join(&[&large, &large]).unwrap_err().detail.contains("16384"));
        assert!(split(&[&large[..], &large].concat()).is_err());
        assert!(split(&[]).is_err() && join::<Vec<u8>>(&[]).is_err());
    }

    #[test]
    fn what_is_no_sequence_of_sequences_is_refused() {
        let whole = certificate(300);
        for length in 1..whole.len() {
            assert!(split(&whole[..length]).is_err(), "{length} bytes");
            assert!(join(&[&whole[..length]]).is_err(), "{length} bytes");
        }
        // Something after it, another tag, lengths in a form that is not the shortest or has no end.
        for bytes in
            [&[0x30, 0, 0][..], &[0x31, 0], &[0x30, 0x81, 0], &[0x30, 0x82, 0, 0], &[0x30, 0x80, 0, 0]]
        {
            assert!(split(bytes).is_err(), "{bytes:?}");
        }
        // Two certificates are not one.
        assert!(join(&[certificate(3).repeat(2)]).is_err());
    }
}
