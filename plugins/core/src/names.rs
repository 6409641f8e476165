//! Names: `[A-Za-z0-9._-]{1,64}`, checked where they enter (protocol, "Algorithms, names, versions").

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

/// The longest name, in bytes.
pub const LONGEST_NAME: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    /// It has no character.
    Empty,
    /// It has more than [`LONGEST_NAME`] bytes; this many.
    TooLong(usize),
    /// It has a character outside `[A-Za-z0-9._-]`.
    Character(char),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a name needs at least one character"),
            Self::TooLong(n) => write!(f, "a name has at most {LONGEST_NAME} characters, this one has {n}"),
            Self::Character(c) => {
                write!(f, "a name has only letters, digits, '.', '_' and '-', this one has {:?}", c)
            }
        }
    }
}

impl core::error::Error for NameError {}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > LONGEST_NAME {
        return Err(NameError::TooLong(text.len()));
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

// A name never changes and has many holders: each clone of it is the same text.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
    };
}

name!(
    /// `ID_MF`, `ID_BK`, `ID_GW`, and the identifiers of directory and authority.
    NodeId
);
name!(
    /// `ID_SN`, a sensor's identifier.
    SensorId
);
name!(
    /// `MD`, a model of sensor. It belongs to exactly one manufacturer (thesis 5.3).
    ModelName
);
name!(
    /// `Topic_MF`, the one topic of a manufacturer (thesis 5.3).
    TopicName
);
name!(
    /// The key or the value of a label ([`crate::labels`]).
    LabelText
);

// A name compares as its text does.
impl core::borrow::Borrow<str> for LabelText {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// The six roles of section 5.2, as they stand in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleKind {
    /// TTPKGC: parameters, certificates, time.
    Authority,
    /// BDS: which brokers serve which manufacturer.
    Directory,
    /// MF: starts a release.
    Manufacturer,
    /// BK: keeps releases and hands them to gateways.
    Broker,
    /// GW: brings releases to its sensors.
    Gateway,
    /// SN: verifies and installs.
    Sensor,
}

impl RoleKind {
    /// All six.
    pub const ALL: [Self; 6] =
        [Self::Authority, Self::Directory, Self::Manufacturer, Self::Broker, Self::Gateway, Self::Sensor];

    /// The role as it is written in certificates and configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Directory => "directory",
            Self::Manufacturer => "manufacturer",
            Self::Broker => "broker",
            Self::Gateway => "gateway",
            Self::Sensor => "sensor",
        }
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names none of the six roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownRole(pub String);

impl fmt::Display for UnknownRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no role; the roles are authority, directory, manufacturer, broker, gateway, sensor",
            self.0
        )
    }
}

impl core::error::Error for UnknownRole {}

impl FromStr for RoleKind {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_dot_underscore_and_dash_only() {
        assert!(ModelName::new("MD-01_a.b").is_ok());
        assert_eq!(ModelName::new(""), Err(NameError::Empty));
        assert_eq!(ModelName::new("a/b"), Err(NameError::Character('/')));
        assert_eq!(ModelName::new("a\u{0}"), Err(NameError::Character('\u{0}')));
        assert_eq!(ModelName::new("é"), Err(NameError::Character('é')));
        assert!(ModelName::new("x".repeat(64)).is_ok());
        assert_eq!(ModelName::new("x".repeat(65)), Err(NameError::TooLong(65)));
    }

    #[test]
    fn every_role_reads_back_from_its_own_text() {
        for role in RoleKind::ALL {
            assert_eq!(role.as_str().parse::<RoleKind>(), Ok(role));
        }
        assert!("Broker".parse::<RoleKind>().is_err());
    }
}
