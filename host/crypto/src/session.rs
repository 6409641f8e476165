//! The key agreement of 5.6.3.1 and 5.6.4.1 and the keys that come of it (protocol, "Sessions").
//!
//! Order of calls: [`Ephemeral::generate`], its public half goes out signed, the peer's comes in; after its
//! certificate and signature verified, [`Ephemeral::agree`] uses the ephemeral key up and gives the [`Session`].

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;

use trireme_core::formula::{self, SessionKey};
use trireme_core::message::{TIER_1, TIER_2};
use trireme_core::role::code;
use trireme_core::{Digest, Fault, Formula, NodeId, Point, Tag};
use zeroize::Zeroizing;

use crate::key::KeyError;
use crate::mac::{self, Secret};
#[cfg(feature = "vectors")]
use crate::provider::Scalar;
use crate::provider::{Active, Provider};

/// `d` and `Q`, for one agreement. Wiped when dropped.
pub struct Ephemeral {
    secret: <Active as Provider>::EphemeralKey,
    public: Point,
}

/// All that enters the keys besides the own ephemeral key.
#[derive(Debug, Clone, Copy)]
pub struct AgreementInput<'a> {
    /// Tier 1 (manufacturer → broker) or 2 (broker → gateway).
    pub tier: u8,
    /// Whether this side sent the PUSH.
    pub initiator: bool,
    /// This side's identifier.
    pub own_id: &'a NodeId,
    /// The peer's identifier, as its certificate says.
    pub peer_id: &'a NodeId,
    /// The peer's `Q`.
    pub peer_point: &'a Point,
    /// `TH` ([`formula::transcript`]).
    pub transcript: Digest,
}

impl Ephemeral {
    /// A new pair from the system's random generator.
    ///
    /// # Errors
    /// [`SessionError::Random`].
    pub fn generate() -> Result<Self, SessionError> {
        Active::ephemeral().map(Self::of).map_err(|error| match error {
            KeyError::Random(why) => SessionError::Random(why),
            other => SessionError::Random(other.to_string()),
        })
    }

    /// The pair of a private scalar, for test vectors.
    ///
    /// # Errors
    /// [`SessionError::Point`] when the scalar is zero or not below the group's order.
    #[cfg(feature = "vectors")]
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, SessionError> {
        let scalar = Scalar::from_bytes(seed).ok_or(SessionError::Point)?;
        Active::ephemeral_of(&scalar).map(Self::of).map_err(|_| SessionError::Point)
    }

    fn of((secret, public): (<Active as Provider>::EphemeralKey, Point)) -> Self {
        Self { secret, public }
    }

    /// `Q`.
    #[must_use]
    pub fn public(&self) -> Point {
        self.public
    }

    /// Agrees on `Kc ‖ Ki ‖ Kr = HKDF-SHA256(ikm = ECDH x-coordinate, salt = TH, info = T(…))`.
    ///
    /// # Errors
    /// [`SessionError`]: a point off the curve, the own `Q` or the own identifier given back, another tier.
    pub fn agree(self, input: AgreementInput<'_>) -> Result<Session, SessionError> {
        if ![TIER_1, TIER_2].contains(&input.tier) {
            return Err(SessionError::Tier(input.tier));
        }
        if input.own_id == input.peer_id {
            return Err(SessionError::OwnId(input.own_id.clone()));
        }
        if same_x(&self.public, input.peer_point) {
            return Err(SessionError::OwnPoint);
        }
        let shared = Active::agree(&self.secret, input.peer_point).map_err(|_| SessionError::Point)?;
        let own = (input.own_id, &self.public);
        let peer = (input.peer_id, input.peer_point);
        let info = if input.initiator {
            formula::session(input.tier, own, peer)
        } else {
            formula::session(input.tier, peer, own)
        };
        let mut keys = Zeroizing::new([0_u8; 96]);
        mac::expand(Some(input.transcript.as_bytes()), shared.0.as_slice(), &info, keys.as_mut_slice())
            .ok_or(SessionError::Derivation)?;
        Session::of(keys.as_slice(), &input).ok_or(SessionError::Derivation)
    }
}

/// `Q` and `−Q` have the same x-coordinate, and so give the same secret: neither may come back.
fn same_x(a: &Point, b: &Point) -> bool {
    a.0.get(1..33) == b.0.get(1..33)
}

/// The keys of one agreement, from one side.
pub struct Session {
    initiator: bool,
    transcript: Digest,
    confirm: Arc<Secret>,
    from_initiator: Arc<Secret>,
    from_responder: Arc<Secret>,
}

impl Session {
    fn of(keys: &[u8], input: &AgreementInput<'_>) -> Option<Self> {
        let key = |range| keys.get(range).and_then(Secret::from_slice).map(Arc::new);
        Some(Self {
            initiator: input.initiator,
            transcript: input.transcript,
            confirm: key(0..32)?,
            from_initiator: key(32..64)?,
            from_responder: key(64..96)?,
        })
    }

    /// `TH`.
    #[must_use]
    pub fn transcript(&self) -> Digest {
        self.transcript
    }

    /// Whether this side sent the PUSH.
    #[must_use]
    pub fn initiator(&self) -> bool {
        self.initiator
    }

    /// A MAC under the key that the formula's label takes; only with keys of this side's direction.
    ///
    /// # Errors
    /// [`SessionError::Label`], [`SessionError::NotOurs`].
    pub fn mac(&self, formula: &Formula<'_>) -> Result<Tag, SessionError> {
        let key = self.mac_key_for(&formula.label)?;
        Ok(Tag(*key.secret.tag(formula)))
    }

    /// Checks the peer's MAC in constant time; only with keys of the peer's direction, so that nothing that this
    /// side said can be given back to it.
    ///
    /// # Errors
    /// [`SessionError::Mismatch`], [`SessionError::Label`], [`SessionError::NotTheirs`].
    pub fn check(&self, formula: &Formula<'_>, tag: &Tag) -> Result<(), SessionError> {
        let key = self.check_key_for(&formula.label)?;
        if mac::same(key.secret.tag(formula).as_slice(), tag.as_bytes()) {
            Ok(())
        } else {
            Err(SessionError::Mismatch(formula.label.to_string()))
        }
    }

    /// The key of this side's direction for formulas of this label, for a value that is computed while an image
    /// passes.
    ///
    /// # Errors
    /// [`SessionError::Label`], [`SessionError::NotOurs`].
    pub fn mac_key_for(&self, label: &str) -> Result<MacKey, SessionError> {
        let (secret, ours) = self.key_for(label)?;
        if ours {
            Ok(MacKey::new(secret, label, true))
        } else {
            Err(SessionError::NotOurs(label.to_string()))
        }
    }

    /// The key of the peer's direction for formulas of this label, for a value that is compared once an image has
    /// passed.
    ///
    /// # Errors
    /// [`SessionError::Label`], [`SessionError::NotTheirs`].
    pub fn check_key_for(&self, label: &str) -> Result<MacKey, SessionError> {
        let (secret, ours) = self.key_for(label)?;
        if ours {
            Err(SessionError::NotTheirs(label.to_string()))
        } else {
            Ok(MacKey::new(secret, label, false))
        }
    }

    fn key_for(&self, label: &str) -> Result<(&Arc<Secret>, bool), SessionError> {
        match formula::session_key(label) {
            Some(SessionKey::Confirm) => Ok((&self.confirm, !self.initiator)),
            Some(SessionKey::Initiator) => Ok((&self.from_initiator, self.initiator)),
            Some(SessionKey::Responder) => Ok((&self.from_responder, !self.initiator)),
            None => Err(SessionError::Label(label.to_string())),
        }
    }
}

/// A session key for formulas of one label, as a handle: it outlives the session's link, and is wiped with the last
/// holder.
#[derive(Clone)]
pub struct MacKey {
    pub(crate) secret: Arc<Secret>,
    pub(crate) label: Cow<'static, str>,
    pub(crate) ours: bool,
}

impl MacKey {
    fn new(secret: &Arc<Secret>, label: &str, ours: bool) -> Self {
        Self { secret: Arc::clone(secret), label: Cow::Owned(label.to_string()), ours }
    }

    /// Whether the key is of this side's direction (it makes values) or of the peer's (it only checks them).
    #[must_use]
    pub fn ours(&self) -> bool {
        self.ours
    }
}

/// Why there is no session, or not this MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionError {
    /// The system gave no random bytes.
    Random(String),
    /// The tiers with a key agreement are 1 and 2.
    Tier(u8),
    /// The peer claims this side's own identifier.
    OwnId(NodeId),
    /// The peer gave this side's own `Q` back.
    OwnPoint,
    /// The peer's `Q` is not a point of the curve.
    Point,
    /// The keys could not be derived.
    Derivation,
    /// The label takes none of a session's keys.
    Label(String),
    /// Only the peer makes values of this label.
    NotOurs(String),
    /// Only this side makes values of this label; there is nothing to check.
    NotTheirs(String),
    /// The peer's MAC for this label does not match.
    Mismatch(String),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random(why) => write!(f, "no ephemeral key: the system gave no random bytes: {why}"),
            Self::Tier(tier) => write!(f, "keys are agreed on tiers 1 and 2, not on {tier}"),
            Self::OwnId(id) => write!(f, "the peer claims to be {id}, which is this node itself"),
            Self::OwnPoint => write!(f, "the peer gave this node's own ephemeral key back"),
            Self::Point => write!(f, "the peer's ephemeral key is not a point of the curve P-256"),
            Self::Derivation => write!(f, "the session keys could not be derived"),
            Self::Label(label) => write!(f, "no key of a session serves {label:?}"),
            Self::NotOurs(label) => write!(f, "only the peer makes MACs for {label:?}"),
            Self::NotTheirs(label) => {
                write!(f, "the peer makes no MACs for {label:?}: given back or misdirected")
            }
            Self::Mismatch(label) => write!(f, "the peer's MAC for {label:?} does not match"),
        }
    }
}

impl core::error::Error for SessionError {}

impl From<SessionError> for Fault {
    fn from(error: SessionError) -> Self {
        let code = match error {
            SessionError::Random(_) | SessionError::Derivation => code::INTERNAL,
            SessionError::Label(_) | SessionError::NotOurs(_) => code::NOT_GRANTED,
            SessionError::Tier(_) => code::MALFORMED,
            _ => code::AUTHENTICATION,
        };
        Self::new(code, error.to_string())
    }
}
