//! What the thesis keeps in secure elements: `SC` and `PK` of a model (5.5), the manufacturer's `MRK` and each
//! sensor's `DK` made of it (protocol, "Receipts").

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use trireme_core::formula::{self, label};
use trireme_core::role::code;
use trireme_core::{Fault, Formula, ModelName, NodeId, SensorId, Tag, Token};
use zeroize::Zeroizing;

use crate::mac::{self, Secret};
use crate::store::{Reader, Writer};

const MODEL_MAGIC: [u8; 4] = *b"TRMS";
const SENSOR_MAGIC: [u8; 4] = *b"TRSS";
/// The most bytes of stored secrets: three names, three keys and what is around them.
const LARGEST_STORED: usize = 512;

/// `SC` and `PK`.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) sc: Secret,
    pub(crate) pk: Secret,
}

impl Pair {
    /// `Token = SC ⊕ HMAC_PK(…)`.
    pub(crate) fn token(&self, mac: [u8; 32]) -> Token {
        Token(mac::xor(self.sc.bytes(), &mac))
    }

    /// `SC' = Token ⊕ HMAC_PK(…)`, and `SC' = SC` in constant time (5.6.5.2).
    pub(crate) fn accepts(&self, mac: &[u8; 32], token: &[u8]) -> bool {
        Secret::from_slice(token)
            .map(|token| Zeroizing::new(mac::xor(token.bytes(), mac)))
            .is_some_and(|sc| mac::same(sc.as_slice(), self.sc.bytes()))
    }
}

/// A manufacturer's secrets for one generation of one model: `SC`, `PK`, `MRK`.
pub struct ModelSecrets {
    model: ModelName,
    generation: u32,
    pair: Pair,
    mrk: Secret,
}

impl ModelSecrets {
    /// New secrets from the system's random generator.
    ///
    /// # Errors
    /// [`ElementError::Random`].
    pub fn generate(model: ModelName, generation: u32) -> Result<Self, ElementError> {
        let random = || Secret::random().map_err(|error| ElementError::Random(error.to_string()));
        Ok(Self { model, generation, pair: Pair { sc: random()?, pk: random()? }, mrk: random()? })
    }

    /// `MD`.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.model
    }

    /// Which generation of the model's secrets these are.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The Token over a formula of suite 2, or of suite 1 where the image is small enough to be a field.
    ///
    /// # Errors
    /// [`ElementError::Label`] for any formula but a Token's.
    pub fn token(&self, formula: &Formula<'_>) -> Result<Token, ElementError> {
        token_label(formula)?;
        Ok(self.pair.token(self.pair.pk.tag(formula)))
    }

    /// The secrets to put into one sensor before it ships: with the device key `DK = HKDF(MRK, T(MD, ID_SN))`.
    ///
    /// # Errors
    /// [`ElementError::Derivation`].
    pub fn sensor(&self, sensor: &SensorId, manufacturer: &NodeId) -> Result<SensorSecrets, ElementError> {
        Ok(SensorSecrets {
            sensor: sensor.clone(),
            manufacturer: manufacturer.clone(),
            model: self.model.clone(),
            generation: self.generation,
            pair: self.pair.clone(),
            dk: Some(self.device_key(sensor)?),
        })
    }

    /// Checks a receipt of one of the model's sensors in constant time. `formula` has the counter as its last field
    /// ([`Formula::with_counter`]).
    ///
    /// # Errors
    /// [`ElementError::Mismatch`], [`ElementError::Label`] for any formula but a receipt's.
    pub fn check_receipt(
        &self,
        sensor: &SensorId,
        formula: &Formula<'_>,
        tag: &Tag,
    ) -> Result<(), ElementError> {
        receipt_label(formula)?;
        let expected = self.device_key(sensor)?.tag(formula);
        if mac::same(&expected, tag.as_bytes()) { Ok(()) } else { Err(ElementError::Mismatch) }
    }

    /// The form for the key store, and for nothing else.
    #[must_use]
    pub fn to_store_bytes(&self) -> Zeroizing<Vec<u8>> {
        Writer::new(MODEL_MAGIC, LARGEST_STORED)
            .name(self.model.as_str())
            .number(self.generation)
            .secret(&self.pair.sc)
            .secret(&self.pair.pk)
            .secret(&self.mrk)
            .finish()
    }

    /// Reads what [`ModelSecrets::to_store_bytes`] wrote.
    ///
    /// # Errors
    /// [`ElementError::Stored`].
    pub fn from_store_bytes(bytes: &[u8]) -> Result<Self, ElementError> {
        let read = || {
            let mut reader = Reader::new(MODEL_MAGIC, bytes)?;
            let secrets = Self {
                model: ModelName::new(reader.name()?).ok()?,
                generation: reader.number()?,
                pair: Pair { sc: reader.secret()?, pk: reader.secret()? },
                mrk: reader.secret()?,
            };
            reader.end().map(|()| secrets)
        };
        read().ok_or(ElementError::Stored("a model"))
    }

    pub(crate) fn pair(&self) -> &Pair {
        &self.pair
    }

    fn device_key(&self, sensor: &SensorId) -> Result<Secret, ElementError> {
        self.mrk.derive(&formula::device(&self.model, sensor)).ok_or(ElementError::Derivation)
    }
}

/// A sensor's own secrets: `SC`, `PK`, `ID_MF`, and its device key where the factory gave it one.
#[derive(Clone)]
pub struct SensorSecrets {
    sensor: SensorId,
    manufacturer: NodeId,
    model: ModelName,
    generation: u32,
    pair: Pair,
    dk: Option<Secret>,
}

impl SensorSecrets {
    /// `ID_SN`.
    #[must_use]
    pub fn sensor(&self) -> &SensorId {
        &self.sensor
    }

    /// `ID_MF`.
    #[must_use]
    pub fn manufacturer(&self) -> &NodeId {
        &self.manufacturer
    }

    /// `MD_L`.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.model
    }

    /// Generation of `SC` and `PK`.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the sensor can authenticate its receipts.
    #[must_use]
    pub fn has_device_key(&self) -> bool {
        self.dk.is_some()
    }

    /// The same secrets without a device key: a sensor whose factory gives none.
    #[must_use]
    pub fn without_device_key(mut self) -> Self {
        self.dk = None;
        self
    }

    /// `SC' = Token ⊕ HMAC_PK(formula)`, compared with `SC` in constant time (5.6.5.2).
    ///
    /// # Errors
    /// [`ElementError::Mismatch`], [`ElementError::Label`] for any formula but a Token's.
    pub fn check_token(&self, formula: &Formula<'_>, token: &Token) -> Result<(), ElementError> {
        token_label(formula)?;
        let mac = Zeroizing::new(self.pair.pk.tag(formula));
        if self.pair.accepts(&mac, token.as_bytes()) { Ok(()) } else { Err(ElementError::Mismatch) }
    }

    /// The MAC over a receipt with `counter` as its last field; `None` without a device key.
    ///
    /// # Errors
    /// [`ElementError::Label`] for any formula but a receipt's.
    pub fn receipt_tag(&self, formula: &Formula<'_>, counter: u64) -> Result<Option<Tag>, ElementError> {
        receipt_label(formula)?;
        let formula = formula.clone().with_counter(counter);
        Ok(self.dk.as_ref().map(|dk| Tag(dk.tag(&formula))))
    }

    /// The form for the key store, and for nothing else.
    #[must_use]
    pub fn to_store_bytes(&self) -> Zeroizing<Vec<u8>> {
        Writer::new(SENSOR_MAGIC, LARGEST_STORED)
            .name(self.sensor.as_str())
            .name(self.manufacturer.as_str())
            .name(self.model.as_str())
            .number(self.generation)
            .secret(&self.pair.sc)
            .secret(&self.pair.pk)
            .optional(self.dk.as_ref())
            .finish()
    }

    /// Reads what [`SensorSecrets::to_store_bytes`] wrote.
    ///
    /// # Errors
    /// [`ElementError::Stored`].
    pub fn from_store_bytes(bytes: &[u8]) -> Result<Self, ElementError> {
        let read = || {
            let mut reader = Reader::new(SENSOR_MAGIC, bytes)?;
            let secrets = Self {
                sensor: SensorId::new(reader.name()?).ok()?,
                manufacturer: NodeId::new(reader.name()?).ok()?,
                model: ModelName::new(reader.name()?).ok()?,
                generation: reader.number()?,
                pair: Pair { sc: reader.secret()?, pk: reader.secret()? },
                dk: reader.optional()?,
            };
            reader.end().map(|()| secrets)
        };
        read().ok_or(ElementError::Stored("a sensor"))
    }

    pub(crate) fn pair(&self) -> &Pair {
        &self.pair
    }
}

/// `PK` serves Tokens alone, so that it never becomes an oracle for anything else.
fn token_label(formula: &Formula<'_>) -> Result<(), ElementError> {
    if label::TOKEN.contains(&formula.label.as_ref()) {
        Ok(())
    } else {
        Err(ElementError::Label(formula.label.to_string()))
    }
}

fn receipt_label(formula: &Formula<'_>) -> Result<(), ElementError> {
    if formula.label == label::RECEIPT { Ok(()) } else { Err(ElementError::Label(formula.label.to_string())) }
}

/// Why a secure element did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementError {
    /// The system gave no random bytes.
    Random(String),
    /// A device key could not be derived.
    Derivation,
    /// The stored bytes are not the secrets of this.
    Stored(&'static str),
    /// The element's keys do not serve formulas of this label.
    Label(String),
    /// The Token gives another `SC`, or the receipt's MAC does not match.
    Mismatch,
}

impl fmt::Display for ElementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random(why) => write!(f, "no secrets made: the system gave no random bytes: {why}"),
            Self::Derivation => write!(f, "the device key could not be derived"),
            Self::Stored(of) => {
                write!(
                    f,
                    "the stored secrets of {of} cannot be read: damaged, or of another version; restore them"
                )
            }
            Self::Label(label) => write!(f, "the secure element's keys do not serve {label:?}"),
            Self::Mismatch => write!(
                f,
                "it does not verify under the secrets of the model: other content, another model or generation, or forged"
            ),
        }
    }
}

impl core::error::Error for ElementError {}

impl From<ElementError> for Fault {
    fn from(error: ElementError) -> Self {
        let code = match error {
            ElementError::Mismatch => code::AUTHENTICATION,
            ElementError::Label(_) => code::NOT_GRANTED,
            ElementError::Stored(_) => code::STORAGE,
            ElementError::Random(_) | ElementError::Derivation => code::INTERNAL,
        };
        Self::new(code, error.to_string())
    }
}
