//! What a token holds.

use std::fmt;

use cryptoki::error::Error;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use trireme_core::Point;
use trireme_crypto::key::PublicKey;

use crate::session::{Access, open, refused};
use crate::{KeyUri, TokenError};

/// The most objects that are looked at in one search.
const MOST_OBJECTS: usize = 1024;

/// The object identifier of P-256 (RFC 5480, 2.1.1.1) as `CKA_EC_PARAMS` has it.
pub(crate) const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The tag and length of an OCTET STRING of 65 bytes.
const POINT_HEADER: [u8; 2] = [0x04, 0x41];

/// Something in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenObject {
    /// Its name (`CKA_LABEL`); not necessarily the only one of this name.
    pub label: String,
    /// Its identifier (`CKA_ID`): private key, public key and certificate that belong together share it.
    pub id: Vec<u8>,
    /// What it is.
    pub kind: ObjectKind,
    /// Of private and secret keys: whether they may leave the token. `None` where the token does not say.
    pub extractable: Option<bool>,
    /// Of public keys on P-256: the key.
    pub point: Option<Point>,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// What signs.
    PrivateKey,
    /// What verifies.
    PublicKey,
    /// A symmetric key.
    SecretKey,
    /// A certificate.
    Certificate,
    /// Something that is nothing to us.
    Other,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PrivateKey => "private key",
            Self::PublicKey => "public key",
            Self::SecretKey => "secret key",
            Self::Certificate => "certificate",
            Self::Other => "other",
        })
    }
}

/// What the URI's token holds, at most 1024 objects of it. What the URI says of an object does not count.
///
/// # Errors
/// [`TokenError`] when the token is not there or does not let us in.
pub fn list(uri: &KeyUri) -> Result<Vec<TokenObject>, TokenError> {
    let session = open(uri, Access::Read)?;
    let all = || -> Result<Vec<TokenObject>, Error> {
        let handles = find(&session, &[])?;
        handles.into_iter().map(|handle| describe(&session, handle)).collect()
    };
    all().map_err(refused(uri, "list what it holds"))
}

fn describe(session: &Session, handle: ObjectHandle) -> Result<TokenObject, Error> {
    let kind = match read(session, handle, AttributeType::Class)? {
        Some(Attribute::Class(ObjectClass::PRIVATE_KEY)) => ObjectKind::PrivateKey,
        Some(Attribute::Class(ObjectClass::PUBLIC_KEY)) => ObjectKind::PublicKey,
        Some(Attribute::Class(ObjectClass::SECRET_KEY)) => ObjectKind::SecretKey,
        Some(Attribute::Class(ObjectClass::CERTIFICATE)) => ObjectKind::Certificate,
        _ => ObjectKind::Other,
    };
    let extractable = match kind {
        ObjectKind::PrivateKey | ObjectKind::SecretKey => flag(session, handle, AttributeType::Extractable)?,
        _ => None,
    };
    let point = match kind {
        ObjectKind::PublicKey => public_key(session, handle)?.map(|key| key.to_point()),
        _ => None,
    };
    let id = match kind {
        // Data objects have none.
        ObjectKind::Other => Vec::new(),
        _ => id(session, handle)?,
    };
    Ok(TokenObject { label: label(session, handle)?, id, kind, extractable, point })
}

/// The token's objects that fit, and not those that live only as long as a session.
pub(crate) fn find(session: &Session, wanted: &[Attribute]) -> Result<Vec<ObjectHandle>, Error> {
    let mut template = vec![Attribute::Token(true)];
    template.extend_from_slice(wanted);
    session.iter_objects(&template)?.take(MOST_OBJECTS).collect()
}

/// The object's label, as far as it is text.
pub(crate) fn label(session: &Session, handle: ObjectHandle) -> Result<String, Error> {
    Ok(match read(session, handle, AttributeType::Label)? {
        Some(Attribute::Label(label)) => String::from_utf8_lossy(&label).into_owned(),
        _ => String::new(),
    })
}

/// The object's identifier; without bytes when it has none.
pub(crate) fn id(session: &Session, handle: ObjectHandle) -> Result<Vec<u8>, Error> {
    Ok(match read(session, handle, AttributeType::Id)? {
        Some(Attribute::Id(id)) => id,
        _ => Vec::new(),
    })
}

/// Whether it is a key on P-256.
pub(crate) fn is_p256(session: &Session, handle: ObjectHandle) -> Result<bool, Error> {
    let is_ec = read(session, handle, AttributeType::KeyType)? == Some(Attribute::KeyType(KeyType::EC));
    Ok(is_ec && read(session, handle, AttributeType::EcParams)? == Some(Attribute::EcParams(P256.to_vec())))
}

/// The key of a public key object, when it is on P-256.
pub(crate) fn public_key(session: &Session, handle: ObjectHandle) -> Result<Option<PublicKey>, Error> {
    if !is_p256(session, handle)? {
        return Ok(None);
    }
    Ok(match read(session, handle, AttributeType::EcPoint)? {
        Some(Attribute::EcPoint(bytes)) => {
            // The standard says OCTET STRING; some makers leave its header away.
            let header = bytes.strip_prefix(&POINT_HEADER).filter(|rest| rest.len() == Point::LENGTH);
            PublicKey::from_sec1(header.unwrap_or(&bytes)).ok()
        }
        _ => None,
    })
}

/// An attribute that is true or false.
pub(crate) fn flag(
    session: &Session,
    handle: ObjectHandle,
    which: AttributeType,
) -> Result<Option<bool>, Error> {
    Ok(match read(session, handle, which)? {
        Some(
            Attribute::Extractable(value) | Attribute::Sign(value) | Attribute::AlwaysAuthenticate(value),
        ) => Some(value),
        _ => None,
    })
}

/// One attribute; `None` where the object has none of it, or the value makes no sense.
fn read(session: &Session, handle: ObjectHandle, which: AttributeType) -> Result<Option<Attribute>, Error> {
    match session.get_attributes(handle, &[which]) {
        Ok(attributes) => Ok(attributes.into_iter().next()),
        Err(error @ Error::Pkcs11(..)) => Err(error),
        Err(_) => Ok(None),
    }
}
