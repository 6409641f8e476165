//! A key that signs inside a token.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use trireme_core::Signature;
use trireme_crypto::hash;
use trireme_crypto::key::{KeyError, PublicKey, Signer};

use crate::error::{Unfit, said};
use crate::object::{self, P256};
use crate::session::{Access, open, refused};
use crate::{Found, KeyUri, TokenError};

/// Signed when a key is opened, to see that its public key is the right one. No formula has a label of no bytes, and no
/// DER begins with one, so this is a signature under nothing.
const PROBE: &[u8] = b"\0does the public key belong to the private key?";

/// How many bytes an identifier has that we choose.
const ID_LENGTH: usize = 8;

/// The private key of a P-256 key pair in a token. Whatever it signs is verified before it is given out, so that a token
/// that errs, or was exchanged, gives an error and no signature.
///
/// Several threads can sign with it: one waits for the other. When the token was taken away and is back, or its library
/// ended the session, the next signature logs in again.
pub struct TokenKey {
    uri: KeyUri,
    /// The label that the URI names.
    object: String,
    public: PublicKey,
    state: Mutex<State>,
}

struct State {
    /// `None` after the session was lost, until it is opened again.
    live: Option<Live>,
    /// The token did not take the pin: it is not tried again, because that would lock the token in the end.
    barred: Option<String>,
}

struct Live {
    session: Session,
    key: ObjectHandle,
}

/// Why a token gave no signature.
enum Failure {
    /// It may do so after another login.
    Lost(String),
    /// It will not.
    Final(String),
}

impl TokenKey {
    /// The key that the URI names: logs in, and sees that it is on P-256, signs, cannot be taken out of the token, and
    /// belongs to the public key beside it.
    ///
    /// # Errors
    /// [`TokenError`]: each case says what to do.
    pub fn open(uri: &KeyUri) -> Result<Self, TokenError> {
        let object = uri.object().ok_or(TokenError::NoObject)?.to_owned();
        let live = connect(uri, &object)?;
        check(&live, uri, &object)?;
        let public = public_half(&live, uri, &object)?;
        let state = Mutex::new(State { live: Some(live), barred: None });
        Ok(Self { uri: uri.clone(), object, public, state })
    }

    /// Makes a key pair in the token, and opens it: it cannot leave the token, and it signs and does nothing else. Its
    /// identifier is the URI's, or a random one.
    ///
    /// # Errors
    /// [`TokenError::Exists`] when the token has an object of this label or identifier; else as [`TokenKey::open`].
    pub fn generate(uri: &KeyUri) -> Result<Self, TokenError> {
        let label = uri.object().ok_or(TokenError::NoObject)?;
        let session = open(uri, Access::Write)?;
        let id = match uri.id() {
            Some(id) => id.to_vec(),
            None => random_id()?,
        };
        let exists = |what, object| TokenError::Exists { token: uri.token().to_owned(), what, object };
        let is_there = |wanted| object::find(&session, &[wanted]).map(|found| !found.is_empty());
        let looking = refused(uri, "look for objects");
        if is_there(Attribute::Label(label.into())).map_err(&looking)? {
            return Err(exists("label", format!("{label:?}")));
        }
        if is_there(Attribute::Id(id.clone())).map_err(&looking)? {
            return Err(exists("id", hex::encode(&id)));
        }
        let (public, private) = templates(label, &id);
        session
            .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            .map_err(refused(uri, "make a key pair on P-256"))?;
        Self::open(uri)
    }

    /// Which key it is.
    #[must_use]
    pub fn uri(&self) -> &KeyUri {
        &self.uri
    }

    fn signature(&self, message: &[u8]) -> Result<Signature, String> {
        // What a panic interrupted is at worst a session that has to be opened again.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &state.barred {
            return Err(why.clone());
        }
        if let Some(live) = &state.live {
            match self.verified(live, message) {
                Ok(signature) => return Ok(signature),
                Err(Failure::Final(why)) => return Err(why),
                // Closed first: a token may have few sessions.
                Err(Failure::Lost(_)) => state.live = None,
            }
        }
        let live = match connect(&self.uri, &self.object) {
            Ok(live) => live,
            Err(
                error @ (TokenError::WrongPin { .. }
                | TokenError::PinLocked { .. }
                | TokenError::LastTry { .. }),
            ) => {
                let why = format!("{error}; after it is corrected, start again");
                state.barred = Some(why.clone());
                return Err(why);
            }
            Err(error) => return Err(error.to_string()),
        };
        match self.verified(&live, message) {
            Ok(signature) => {
                state.live = Some(live);
                Ok(signature)
            }
            Err(Failure::Lost(why) | Failure::Final(why)) => Err(why),
        }
    }

    fn verified(&self, live: &Live, message: &[u8]) -> Result<Signature, Failure> {
        let signature = sign(live, message).map_err(|error| {
            if is_lost(&error) { Failure::Lost(said(&error)) } else { Failure::Final(said(&error)) }
        })?;
        // Another key behind the same handle: it happens when a library was ended and started behind our back.
        self.public.verify_bytes(message, &signature).map_err(|_| {
            Failure::Lost(String::from(
                "what it signed does not verify: it may hold another key of this name now",
            ))
        })?;
        Ok(signature)
    }
}

impl Signer for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Signature, KeyError> {
        self.signature(message).map_err(|why| {
            KeyError::Refused(format!("key {:?} in token {:?}: {why}", self.object, self.uri.token()))
        })
    }

    fn public_key(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("uri", &self.uri)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Logs in and finds the private key.
fn connect(uri: &KeyUri, object: &str) -> Result<Live, TokenError> {
    let session = open(uri, Access::Read)?;
    let looking = refused(uri, "look for the key");
    let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(object.into())];
    wanted.extend(uri.id().map(|id| Attribute::Id(id.to_vec())));
    let handles = object::find(&session, &wanted).map_err(&looking)?;
    let name = || match uri.id() {
        Some(id) => format!("{object:?} with the id {}", hex::encode(id)),
        None => format!("{object:?}"),
    };
    let token = || uri.token().to_owned();
    match handles.as_slice() {
        &[key] => Ok(Live { session, key }),
        [] => {
            let all =
                object::find(&session, &[Attribute::Class(ObjectClass::PRIVATE_KEY)]).map_err(&looking)?;
            let labels = all.into_iter().map(|key| object::label(&session, key)).collect::<Result<_, _>>();
            Err(TokenError::NoKey { token: token(), wanted: name(), found: Found(labels.map_err(&looking)?) })
        }
        several => {
            let ids = several.iter().map(|key| object::id(&session, *key).map(hex::encode));
            let found = Found(ids.collect::<Result<_, _>>().map_err(&looking)?);
            Err(TokenError::TwoKeys { token: token(), wanted: name(), count: several.len(), found })
        }
    }
}

/// Whether it is a key for us.
fn check(live: &Live, uri: &KeyUri, object: &str) -> Result<(), TokenError> {
    let Live { session, key } = live;
    let looking = refused(uri, "describe the key");
    let flag = |which| object::flag(session, *key, which).map_err(&looking);
    let unfit = if !object::is_p256(session, *key).map_err(&looking)? {
        Unfit::Curve
    } else if flag(AttributeType::Sign)? == Some(false) {
        Unfit::NotForSigning
    } else if flag(AttributeType::Extractable)? != Some(false) {
        Unfit::Extractable
    } else if flag(AttributeType::AlwaysAuthenticate)? == Some(true) {
        Unfit::AsksEachTime
    } else {
        return Ok(());
    };
    Err(TokenError::Unfit { token: uri.token().to_owned(), object: object.to_owned(), why: unfit })
}

/// The public key of the same identifier, or else of the same label, that verifies what the private key signs.
fn public_half(live: &Live, uri: &KeyUri, object: &str) -> Result<PublicKey, TokenError> {
    let unfit = |why| TokenError::Unfit { token: uri.token().to_owned(), object: object.to_owned(), why };
    let keys = public_keys(live, object).map_err(refused(uri, "show the public key"))?;
    if keys.is_empty() {
        return Err(unfit(Unfit::NoPublicKey));
    }
    let probe = sign(live, PROBE).map_err(refused(uri, "sign"))?;
    keys.into_iter()
        .find(|key| key.verify_bytes(PROBE, &probe).is_ok())
        .ok_or_else(|| unfit(Unfit::OtherPublicKey))
}

fn public_keys(live: &Live, object: &str) -> Result<Vec<PublicKey>, Error> {
    let Live { session, key } = live;
    let class = Attribute::Class(ObjectClass::PUBLIC_KEY);
    let id = object::id(session, *key)?;
    let mut handles = Vec::new();
    if !id.is_empty() {
        handles = object::find(session, &[class.clone(), Attribute::Id(id)])?;
    }
    if handles.is_empty() {
        handles = object::find(session, &[class, Attribute::Label(object.into())])?;
    }
    let keys = handles.into_iter().filter_map(|handle| object::public_key(session, handle).transpose());
    keys.collect()
}

/// ECDSA over what we hashed ourselves: every token has that, and not all of them hash.
fn sign(live: &Live, message: &[u8]) -> Result<Signature, Error> {
    let digest = hash::of_bytes(message);
    let bytes = live.session.sign(&Mechanism::Ecdsa, live.key, digest.as_bytes())?;
    <[u8; 64]>::try_from(bytes.as_slice()).map(Signature).map_err(Error::TryFromSlice)
}

/// What a token says when it was away, or its library has been ended and started: another login may help.
fn is_lost(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::UserNotLoggedIn
                | RvError::DeviceError
                | RvError::DeviceRemoved
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SlotIdInvalid
                | RvError::OperationActive
                | RvError::CryptokiNotInitialized
                | RvError::GeneralError
                | RvError::FunctionFailed,
            _
        )
    )
}

fn random_id() -> Result<Vec<u8>, TokenError> {
    let mut id = [0; ID_LENGTH];
    getrandom::fill(&mut id).map_err(|error| TokenError::Random(error.to_string()))?;
    Ok(id.to_vec())
}

/// What a new key pair may do: sign and verify, in this token.
fn templates(label: &str, id: &[u8]) -> (Vec<Attribute>, Vec<Attribute>) {
    let both = [Attribute::Token(true), Attribute::KeyType(KeyType::EC), Attribute::Label(label.into())];
    let both = || both.iter().cloned().chain([Attribute::Id(id.to_vec())]);
    let public = [Attribute::Private(false), Attribute::EcParams(P256.to_vec()), Attribute::Verify(true)];
    let private = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::SignRecover(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    (both().chain(public).collect(), both().chain(private).collect())
}
