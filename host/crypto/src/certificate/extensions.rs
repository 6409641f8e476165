//! The extensions of a certificate: those that are understood, read and written.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use der::asn1::{Ia5String, Null, ObjectIdentifier, OctetString};
use der::{Decode, Encode, Sequence};
use trireme_core::role::{Certified, Subject};
use trireme_core::{ModelName, NodeId, TopicName};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::name::Name;

use super::{CertificateError, MOST_MODELS, SCOPE, SUCCESSOR};
use crate::hash;
use crate::key::PublicKey;

const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const SCHEME: &str = "trireme://";

/// What the extensions say.
#[derive(Default)]
pub(crate) struct Extensions {
    /// Whether the owner certifies others (basic constraints).
    pub(crate) authority: bool,
    /// Whether the key signs.
    pub(crate) signs: bool,
    /// Whether the key signs certificates.
    pub(crate) certifies: bool,
    /// How many authorities may stand between it and a node.
    pub(crate) path_length: Option<u8>,
    /// Whether the key signs revocation lists.
    pub(crate) signs_lists: bool,
    /// Whether the issuer says that the owner comes after it.
    pub(crate) successor: bool,
    /// What identifies the issuer's key.
    pub(crate) issuer_id: Option<Vec<u8>>,
    /// The owner.
    pub(crate) subject: Option<Subject>,
    /// A manufacturer's topic and models.
    pub(crate) scope: Option<Scope>,
}

/// A manufacturer's topic and models.
pub(crate) struct Scope {
    pub(crate) topic: TopicName,
    pub(crate) models: Vec<ModelName>,
}

/// Reads the extensions; one that is critical and not understood, or there twice, is an error.
pub(crate) fn extensions(list: Option<&Vec<Extension>>) -> Result<Extensions, CertificateError> {
    let mut read = Extensions::default();
    let mut seen: Vec<ObjectIdentifier> = Vec::new();
    for extension in list.into_iter().flatten() {
        let id = extension.extn_id;
        if seen.contains(&id) {
            return Err(CertificateError::Twice(id.to_string()));
        }
        seen.push(id);
        let value = extension.extn_value.as_bytes();
        match id {
            BASIC_CONSTRAINTS => {
                let constraints = BasicConstraints::from_der(value)?;
                read.authority = constraints.ca;
                read.path_length = constraints.path_len_constraint;
            }
            KEY_USAGE => {
                let usage = KeyUsage::from_der(value)?;
                read.signs = usage.digital_signature();
                read.certifies = usage.key_cert_sign();
                read.signs_lists = usage.crl_sign();
            }
            EXTENDED_KEY_USAGE => {
                let uses = ExtendedKeyUsage::from_der(value)?;
                if !uses.0.iter().any(|purpose| [SERVER, CLIENT].contains(purpose)) {
                    return Err(CertificateError::ExtendedKeyUsage);
                }
            }
            SUBJECT_ALT_NAME => read.subject = Some(subject(&SubjectAltName::from_der(value)?)?),
            SCOPE => read.scope = Some(Scope::read(value)?),
            SUBJECT_KEY_IDENTIFIER => {
                SubjectKeyIdentifier::from_der(value)?;
            }
            AUTHORITY_KEY_IDENTIFIER => {
                let issuer = AuthorityKeyIdentifier::from_der(value)?;
                read.issuer_id = issuer.key_identifier.map(|id| id.as_bytes().to_vec());
            }
            SUCCESSOR => {
                Null::from_der(value)?;
                read.successor = true;
            }
            _ if extension.critical => return Err(CertificateError::Critical(id.to_string())),
            _ => {}
        }
    }
    Ok(read)
}

fn subject(names: &SubjectAltName) -> Result<Subject, CertificateError> {
    match names.0.as_slice() {
        [GeneralName::UniformResourceIdentifier(uri)] => {
            parse_uri(uri.as_str()).ok_or_else(|| CertificateError::Name(uri.as_str().into()))
        }
        [_] => Err(CertificateError::Name("another kind of name".into())),
        names => Err(CertificateError::Names(names.len())),
    }
}

/// `trireme://<role>/<id>`, and nothing more.
fn parse_uri(uri: &str) -> Option<Subject> {
    let (role, id) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    Some(Subject { role: role.parse().ok()?, id: NodeId::new(id).ok()? })
}

#[derive(Sequence)]
struct ScopeSyntax {
    topic: String,
    models: Vec<String>,
}

impl Scope {
    fn read(value: &[u8]) -> Result<Self, CertificateError> {
        let syntax = ScopeSyntax::from_der(value)?;
        if syntax.models.len() > MOST_MODELS {
            return Err(CertificateError::Models(syntax.models.len()));
        }
        let topic = TopicName::new(syntax.topic).map_err(CertificateError::ScopeName)?;
        let models: Result<_, _> = syntax.models.into_iter().map(ModelName::new).collect();
        Ok(Self { topic, models: models.map_err(CertificateError::ScopeName)? })
    }

    fn write(topic: &TopicName, models: &[ModelName]) -> Result<Vec<u8>, CertificateError> {
        if models.len() > MOST_MODELS {
            return Err(CertificateError::Models(models.len()));
        }
        let models = models.iter().map(|model| model.as_str().into()).collect();
        Ok(ScopeSyntax { topic: topic.as_str().into(), models }.to_der()?)
    }
}

/// What a new certificate is for.
pub(crate) enum Purpose<'a> {
    /// The authority itself.
    Root(&'a Subject),
    /// An authority that certifies nodes.
    Intermediate(&'a Subject),
    /// Another root, of this name.
    Link {
        /// The other root's name.
        name: &'a Name,
        /// Whether it comes after the issuer.
        successor: bool,
    },
    /// A node.
    Node(&'a Certified),
}

impl Purpose<'_> {
    /// The owner; a link says only the root's name.
    pub(crate) fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Root(subject) | Self::Intermediate(subject) => Some(subject),
            Self::Link { .. } => None,
            Self::Node(certified) => Some(&certified.subject),
        }
    }

    /// A root issues intermediates and links, whose roots issue intermediates.
    fn path_length(&self) -> Option<u8> {
        match self {
            Self::Root(_) => Some(2),
            Self::Link { .. } => Some(1),
            Self::Intermediate(_) => Some(0),
            Self::Node(_) => None,
        }
    }

    /// The extensions of such a certificate, for `key`, signed by `issuer`.
    pub(crate) fn extensions(
        &self,
        key: &PublicKey,
        issuer: &PublicKey,
    ) -> Result<Vec<Extension>, CertificateError> {
        let path_length = self.path_length();
        let authority = path_length.is_some();
        let constraints = BasicConstraints { ca: authority, path_len_constraint: path_length };
        let usage = if authority {
            KeyUsages::DigitalSignature | KeyUsages::KeyCertSign | KeyUsages::CRLSign
        } else {
            KeyUsages::DigitalSignature.into()
        };
        let mut list = alloc::vec![
            extension(BASIC_CONSTRAINTS, true, &constraints)?,
            extension(KEY_USAGE, true, &KeyUsage(usage))?,
            extension(SUBJECT_KEY_IDENTIFIER, false, &SubjectKeyIdentifier(key_identifier(key)?))?,
            identifies(issuer)?,
        ];
        if let Some(subject) = self.subject() {
            list.push(alternative_name(subject)?);
        }
        if let Self::Link { successor: true, .. } = self {
            list.push(extension(SUCCESSOR, false, &Null)?);
        }
        if let Self::Node(certified) = self {
            let uses = ExtendedKeyUsage([SERVER, CLIENT].into());
            list.push(extension(EXTENDED_KEY_USAGE, false, &uses)?);
            if let Some(topic) = &certified.topic {
                list.push(raw(SCOPE, false, Scope::write(topic, &certified.models)?)?);
            }
        }
        Ok(list)
    }
}

/// The authority key identifier, also for lists.
pub(crate) fn identifies(issuer: &PublicKey) -> Result<Extension, CertificateError> {
    let key_identifier = Some(key_identifier(issuer)?);
    let value = AuthorityKeyIdentifier { key_identifier, ..AuthorityKeyIdentifier::default() };
    extension(AUTHORITY_KEY_IDENTIFIER, false, &value)
}

/// The one subject alternative name, also for requests.
pub(crate) fn alternative_name(subject: &Subject) -> Result<Extension, CertificateError> {
    let uri = alloc::format!("{SCHEME}{}/{}", subject.role, subject.id);
    let name = GeneralName::UniformResourceIdentifier(Ia5String::new(&uri)?);
    extension(SUBJECT_ALT_NAME, false, &SubjectAltName([name].into()))
}

fn extension(
    id: ObjectIdentifier,
    critical: bool,
    value: &impl Encode,
) -> Result<Extension, CertificateError> {
    raw(id, critical, value.to_der()?)
}

fn raw(id: ObjectIdentifier, critical: bool, value: Vec<u8>) -> Result<Extension, CertificateError> {
    Ok(Extension { extn_id: id, critical, extn_value: OctetString::new(value)? })
}

/// The first 160 bits of SHA-256 of the key (RFC 7093, 2, method 1).
fn key_identifier(key: &PublicKey) -> Result<OctetString, CertificateError> {
    let digest = hash::of_bytes(key.to_point().as_bytes());
    Ok(OctetString::new(digest.0.get(..20).unwrap_or_default())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_one_of_six_roles_and_a_name() {
        let subject = parse_uri("trireme://broker/bk-1").unwrap();
        assert_eq!((subject.role.as_str(), subject.id.as_str()), ("broker", "bk-1"));
        for uri in [
            "trireme://broker/",
            "trireme://broker",
            "trireme://Broker/bk-1",
            "trireme://king/bk-1",
            "trireme://broker/a/b",
            "trireme://broker/bk-1?x",
            "Trireme://broker/bk-1",
            "https://broker/bk-1",
            "trireme:broker/bk-1",
            "",
        ] {
            assert!(parse_uri(uri).is_none(), "{uri} was taken");
        }
    }
}
