//! Versions: one parser, one order (protocol, "Algorithms, names, versions").

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// `V`: one to four dot-separated unsigned 32-bit integers, compared component by component, missing ones being
/// zero: `1.0 = 1.0.0`, `1.10 > 1.9`.
///
/// In a canonical encoding a version is always four big-endian 32-bit integers ([`Version::to_bytes`]).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Version([u32; 4]);

/// Why a text is not a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionError {
    /// There are not one to four components.
    Components(usize),
    /// A component is not a number, has a sign, a suffix, a leading zero, or does not fit 32 bits.
    Component(String),
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Components(n) => {
                write!(f, "a version has one to four numbers separated by dots, this one has {n}")
            }
            Self::Component(text) => write!(
                f,
                "{text:?} is no component of a version: digits only, no leading zero, at most {}",
                u32::MAX
            ),
        }
    }
}

impl core::error::Error for VersionError {}

impl Version {
    /// The version of these four components.
    #[must_use]
    pub const fn new(components: [u32; 4]) -> Self {
        Self(components)
    }

    /// Sixteen bytes: four u32, big endian. Their byte order is the order of versions.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0.map(u32::to_be_bytes);
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip([a, b, c, d].into_iter().flatten()) {
            *to = from;
        }
        bytes
    }

    /// The version that [`Version::to_bytes`] made; `None` unless there are sixteen bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        let mut components = [0; 4];
        for (component, four) in components.iter_mut().zip(bytes.chunks_exact(4)) {
            *component = u32::from_be_bytes(four.try_into().ok()?);
        }
        Some(Self(components))
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let count = text.split('.').count();
        let mut components = [0; 4];
        if count > components.len() {
            return Err(VersionError::Components(count));
        }
        for (component, part) in components.iter_mut().zip(text.split('.')) {
            *component = parse_component(part)?;
        }
        Ok(Self(components))
    }
}

fn parse_component(part: &str) -> Result<u32, VersionError> {
    let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = part.len() > 1 && part.starts_with('0');
    if !digits || leading_zero {
        return Err(VersionError::Component(part.into()));
    }
    part.parse().map_err(|_| VersionError::Component(part.into()))
}

impl fmt::Display for Version {
    /// At least two components, trailing zeros beyond them left out: `1.0`, `1.3`, `1.2.0.4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0;
        match (c, d) {
            (0, 0) => write!(f, "{a}.{b}"),
            (_, 0) => write!(f, "{a}.{b}.{c}"),
            _ => write!(f, "{a}.{b}.{c}.{d}"),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;
    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        alloc::format!("{version}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_compare_component_by_component() {
        assert!(version("1.10") > version("1.9"));
        assert_eq!(version("1.0"), version("1.0.0"));
        assert_eq!(version("1"), version("1.0.0.0"));
        assert!(version("2") > version("1.4294967295.4294967295.4294967295"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in
            ["", ".", "1.", "01.0", "1.0+x", "1.0-rc1", "-1", "+1", "1.2.3.4.5", "4294967296", " 1", "1..2"]
        {
            assert!(text.parse::<Version>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn bytes_keep_value_and_order() {
        let (old, new) = (version("1.9.4294967295"), version("1.10"));
        assert_eq!(Version::from_bytes(&old.to_bytes()), Some(old));
        assert!(old.to_bytes() < new.to_bytes());
        assert_eq!(Version::from_bytes(&[0; 15]), None);
    }

    #[test]
    fn a_version_prints_as_people_write_it() {
        assert_eq!(version("1").to_string(), "1.0");
        assert_eq!(version("1.2.0.4").to_string(), "1.2.0.4");
        assert_eq!(version("1.2.3").to_string(), "1.2.3");
    }
}
