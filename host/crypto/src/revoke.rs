//! Making revocation lists (RFC 5280, 5).

use alloc::vec::Vec;

use der::asn1::{BitString, ObjectIdentifier, OctetString, Uint};
use der::{Encode, Sequence};
use x509_cert::Version;
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use crate::certificate::{
    CRL_NUMBER, Certificate, CertificateError, LARGEST_LIST, MOST_REVOKED, REASON_CODE, RevocationReason,
    RevokedEntry, ecdsa_sha256, identifies,
};
use crate::issue::{sign, time};
use crate::key::Signer;

/// A revocation list, in DER. Lists of one issuer are numbered upwards: with the seconds since 1970, or one more than
/// the last when that is higher. Times are in milliseconds since 1970, and lose what is below a second.
///
/// Reasons are for people: where they would make the list larger than [`LARGEST_LIST`], they are left away.
///
/// # Errors
/// [`CertificateError`] for impossible dates or serial numbers, too many entries, a certificate that is not of the
/// key, or when the key does not sign.
pub fn revocation_list(
    issuer: &dyn Signer,
    issuer_certificate: &Certificate,
    number: u64,
    entries: &[RevokedEntry],
    this_update_ms: u64,
    next_update_ms: u64,
) -> Result<Vec<u8>, CertificateError> {
    if issuer_certificate.public_key() != issuer.public_key() {
        return Err(CertificateError::OtherKey);
    }
    if entries.len() > MOST_REVOKED {
        return Err(CertificateError::ListEntries(entries.len()));
    }
    if next_update_ms < this_update_ms {
        return Err(CertificateError::Dates);
    }
    let make = |reasons: bool| -> Result<Vec<u8>, CertificateError> {
        let revoked = entries.iter().map(|entry| revoked(entry, reasons)).collect::<Result<Vec<_>, _>>()?;
        let content = ToBeSigned {
            version: Version::V2,
            signature: ecdsa_sha256(),
            issuer: issuer_certificate.subject_name().clone(),
            this_update: time(this_update_ms)?,
            next_update: time(next_update_ms)?,
            revoked: (!revoked.is_empty()).then_some(revoked),
            extensions: alloc::vec![
                identifies(&issuer.public_key())?,
                extension(CRL_NUMBER, &Uint::new(&number.to_be_bytes())?)?,
            ],
        };
        let signature = sign(issuer, &content.to_der()?)?;
        Ok(Signed { content, algorithm: ecdsa_sha256(), signature }.to_der()?)
    };
    let mut der = make(true)?;
    if der.len() > LARGEST_LIST {
        der = make(false)?;
    }
    if der.len() > LARGEST_LIST { Err(CertificateError::ListTooLarge(der.len())) } else { Ok(der) }
}

/// TBSCertList as we write it: version 2, always with the date of the next one and extensions.
#[derive(Sequence)]
struct ToBeSigned {
    version: Version,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    this_update: Time,
    next_update: Time,
    #[asn1(optional = "true")]
    revoked: Option<Vec<Revoked>>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Revoked {
    serial: SerialNumber,
    at: Time,
    #[asn1(optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct Signed {
    content: ToBeSigned,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

fn revoked(entry: &RevokedEntry, reasons: bool) -> Result<Revoked, CertificateError> {
    if entry.serial.iter().all(|byte| *byte == 0) {
        return Err(CertificateError::Serial);
    }
    // "Unspecified" is said by saying nothing (RFC 5280, 5.3.1).
    let said = reasons && entry.reason != RevocationReason::Unspecified;
    let extensions = said.then(|| extension(REASON_CODE, &entry.reason.code())).transpose()?;
    Ok(Revoked {
        serial: SerialNumber::new(&entry.serial)?,
        at: time(entry.at_ms)?,
        extensions: extensions.map(|extension| alloc::vec![extension]),
    })
}

fn extension(id: ObjectIdentifier, value: &impl Encode) -> Result<Extension, CertificateError> {
    Ok(Extension { extn_id: id, critical: false, extn_value: OctetString::new(value.to_der()?)? })
}
