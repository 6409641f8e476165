//! What an authority issues with: keys of intermediates, or of a root, with their certificates.

use std::path::{Path, PathBuf};

use trireme_crypto::certificate::{Certificate, TrustAnchor, chain};

use super::Issuing;
use super::identity::{Believed, place};
use super::read::Section;
use super::source::Problem;
use crate::authority::duties::issued;
use crate::keys::{self, Place};
use crate::keystore;
use crate::passphrase::Passphrase;

/// The issuing key, then those that are retired.
pub(super) fn read(
    section: &Section<'_, '_>,
    believed: &Believed<'_>,
    passphrase: &Passphrase,
    problems: &mut Vec<Problem>,
) -> Vec<Issuing> {
    let mut pairs: Vec<(&str, Place, PathBuf)> = Vec::new();
    match (place(section, "issuing_key", problems), section.path("issuing_certificate")) {
        (Some(key), Some(certificate)) => pairs.push(("issuing_key", key, certificate)),
        (None, None) => {}
        (Some(_), None) => {
            problems.push(section.problem("issuing_certificate", "is missing; it belongs to issuing_key"));
        }
        (None, Some(_)) => {
            problems.push(section.problem("issuing_key", "is missing; it belongs to issuing_certificate"));
        }
    }
    let retired = section.json("retired");
    for one in retired.as_ref().and_then(serde_json::Value::as_array).into_iter().flatten() {
        let text = |key: &str| one.get(key)?.as_str();
        let (Some(key), Some(certificate)) = (text("key"), text("certificate")) else { continue };
        match Place::parse(key, &section.source.path("")) {
            Ok(key) => pairs.push(("retired", key, section.source.path(certificate))),
            Err(error) => problems.push(section.problem("retired", error.to_string())),
        }
    }
    if pairs.first().is_some_and(|(name, ..)| *name == "retired") && problems.is_empty() {
        problems.push(section.problem("retired", "needs an issuing_key: a retired key issues nothing"));
    }
    let mut issuers = Vec::new();
    for (name, key, certificate) in pairs {
        match one(&key, &certificate, believed, passphrase) {
            Ok(issuing) => issuers.push(issuing),
            Err(what) => problems.push(section.problem(name, what)),
        }
    }
    issuers
}

fn one(
    place: &Place,
    file: &Path,
    believed: &Believed<'_>,
    passphrase: &Passphrase,
) -> Result<Issuing, String> {
    let key = keys::open_at(place, passphrase).map_err(|error| error.to_string())?;
    let (whole, _) = keystore::certificate_of(file).map_err(|error| error.to_string())?;
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let all = chain::split(&whole).map_err(|error| named(&error))?;
    let read: Result<Vec<Certificate>, _> = all.iter().map(|der| Certificate::parse(der)).collect();
    let read = read.map_err(|error| named(&error))?;
    let (Some(certificate), Some(last)) = (read.first().cloned(), read.last()) else {
        return Err(named(&"there is no certificate"));
    };
    if key.public_key() != certificate.public_key() {
        return Err(format!("{place} is not the key of {}", file.display()));
    }
    let root = TrustAnchor::from_certificate(certificate.der()).is_ok();
    let fine = match root {
        true => believed.roots.iter().any(|known| known.public_key() == certificate.public_key()),
        false => {
            read.iter().all(Certificate::is_authority)
                && read.iter().zip(read.iter().skip(1)).all(|(one, next)| issued(one, next))
                && believed.roots.iter().any(|known| issued(last, known.certificate()))
        }
    };
    if !fine {
        return Err(named(&"expected an authority's certificate under a root of [trust], or such a root"));
    }
    Ok(Issuing { key, certificate, chain: if root { Vec::new() } else { whole } })
}
