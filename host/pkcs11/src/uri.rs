//! Which key in which token: PKCS#11 URIs (RFC 7512).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::pin::LONGEST_PIN;
use crate::{TokenError, UriError};

const SCHEME: &str = "pkcs11:";
const LONGEST_URI: usize = 4096;
/// A token's label has 32 bytes in PKCS#11, its serial number 16.
const LONGEST_TOKEN: usize = 32;
const LONGEST_SERIAL: usize = 16;
/// Of labels and identifiers of objects, for which PKCS#11 knows no bound.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 1024;

/// A key in a token:
/// `pkcs11:token=NAME;object=LABEL?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/path/to/file`.
///
/// | attribute | |
/// |---|---|
/// | `token` | the token's label; needed |
/// | `serial` | the token's serial number, where two tokens have one label |
/// | `object` | the key's label (`CKA_LABEL`); needed for a key, not for [`list`](crate::list) |
/// | `id` | the key's identifier (`CKA_ID`), `%01%02`, where two keys have one label |
/// | `type` | `private`, or left out |
/// | `module-path` | the token's PKCS#11 library; needed, absolute |
/// | `pin-source` | a file with the pin, mode 0600, also as `file:` URI; without it the token must have keys of its own to type the pin |
/// | `pin-value` | the pin itself. Advised against: configurations are copied, and command lines are seen by everybody |
///
/// Attributes that are not in this table are errors. Text that stands for itself has letters, digits and `-._~`;
/// everything may be written `%xx`, and `%`, `;`, `&`, `?`, `#`, spaces and what is not ASCII must be.
/// `Debug` and `Display` leave the pin out.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUri {
    token: String,
    serial: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    module_path: PathBuf,
    pin_source: Option<PathBuf>,
    pin_value: Option<Zeroizing<String>>,
}

impl KeyUri {
    /// Whether the text is meant to be one, right or wrong: tells keys in tokens from names of files.
    #[must_use]
    pub fn is_uri(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
    }

    /// The same, with a `pin-source` that is no absolute path taken as a file in this folder. Without this it is one
    /// in the working directory.
    #[must_use]
    pub fn relative_to(mut self, folder: &Path) -> Self {
        self.pin_source = self.pin_source.map(|file| folder.join(file));
        self
    }

    /// The token's label.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The token's serial number, where it is given.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// The key's label.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// The key's identifier, where it is given.
    #[must_use]
    pub fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// The library of the token.
    #[must_use]
    pub fn module_path(&self) -> &Path {
        &self.module_path
    }

    /// The file with the pin.
    #[must_use]
    pub fn pin_source(&self) -> Option<&Path> {
        self.pin_source.as_deref()
    }

    pub(crate) fn pin_value(&self) -> Option<&str> {
        self.pin_value.as_ref().map(|pin| pin.as_str())
    }
}

impl FromStr for KeyUri {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        parse(text).map_err(TokenError::Uri)
    }
}

/// What was read so far.
#[derive(Default)]
struct Parts {
    token: Option<String>,
    serial: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    kind: Option<String>,
    module_path: Option<String>,
    pin_source: Option<String>,
    pin_value: Option<Zeroizing<String>>,
}

fn parse(text: &str) -> Result<KeyUri, UriError> {
    if text.len() > LONGEST_URI {
        return Err(UriError::TooLong { what: "the URI", most: LONGEST_URI });
    }
    let rest = text.get(SCHEME.len()..).filter(|_| KeyUri::is_uri(text)).ok_or(UriError::Scheme)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut parts = Parts::default();
    for (attributes, separator, read) in
        [(path, ';', path_attribute as fn(&mut Parts, &str, &str) -> _), (query, '&', query_attribute)]
    {
        for attribute in attributes.split(separator).filter(|_| !attributes.is_empty()) {
            let (name, value) = attribute.split_once('=').ok_or(UriError::NoValue)?;
            read(&mut parts, name, value)?;
        }
    }
    whole(parts)
}

fn path_attribute(parts: &mut Parts, name: &str, value: &str) -> Result<(), UriError> {
    match name {
        "token" => once(&mut parts.token, "token", text("token", value, LONGEST_TOKEN)?),
        "serial" => once(&mut parts.serial, "serial", text("serial", value, LONGEST_SERIAL)?),
        "object" => once(&mut parts.object, "object", text("object", value, LONGEST_NAME)?),
        "id" => once(&mut parts.id, "id", decode("id", value, LONGEST_NAME)?.to_vec()),
        "type" => once(&mut parts.kind, "type", text("type", value, LONGEST_NAME)?),
        "module-path" | "pin-source" | "pin-value" => {
            Err(UriError::Misplaced { name: name.to_owned(), mark: '?' })
        }
        _ => Err(unknown(name)),
    }
}

fn query_attribute(parts: &mut Parts, name: &str, value: &str) -> Result<(), UriError> {
    match name {
        "module-path" => {
            once(&mut parts.module_path, "module-path", text("module-path", value, LONGEST_PATH)?)
        }
        "pin-source" => once(&mut parts.pin_source, "pin-source", text("pin-source", value, LONGEST_PATH)?),
        "pin-value" => {
            let pin = decode("pin-value", value, LONGEST_PIN)?;
            let pin = std::str::from_utf8(&pin).map_err(|_| UriError::NotText { name: "pin-value" })?;
            once(&mut parts.pin_value, "pin-value", Zeroizing::new(pin.to_owned()))
        }
        "token" | "serial" | "object" | "id" | "type" => {
            Err(UriError::Misplaced { name: name.to_owned(), mark: ';' })
        }
        _ => Err(unknown(name)),
    }
}

fn whole(parts: Parts) -> Result<KeyUri, UriError> {
    if parts.kind.is_some_and(|kind| kind != "private") {
        return Err(UriError::Kind);
    }
    if parts.pin_source.is_some() && parts.pin_value.is_some() {
        return Err(UriError::TwoPins);
    }
    let module_path = PathBuf::from(parts.module_path.ok_or(UriError::Missing { name: "module-path" })?);
    if !module_path.is_absolute() {
        // A bare name would be searched for in places that the environment can name.
        return Err(UriError::NotAbsolute);
    }
    let pin_source = parts.pin_source.map(|source| file_of(&source)).transpose()?;
    Ok(KeyUri {
        token: parts.token.ok_or(UriError::Missing { name: "token" })?,
        serial: parts.serial,
        object: parts.object,
        id: parts.id,
        module_path,
        pin_source,
        pin_value: parts.pin_value,
    })
}

/// RFC 7512, 2.4: a file's name or URI. Programs to run (`|`) and other schemes are not for a daemon.
fn file_of(source: &str) -> Result<PathBuf, UriError> {
    let file = match source.strip_prefix("file:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None if source.starts_with('|') || source.contains("://") => return Err(UriError::PinSource),
        None => source,
    };
    if source.starts_with("file:") && !file.starts_with('/') {
        return Err(UriError::PinSource);
    }
    Ok(PathBuf::from(file))
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), UriError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Twice { name }),
    }
}

fn unknown(name: &str) -> UriError {
    let shown = name.chars().take(40).map(|c| if c.is_ascii_graphic() { c } else { '?' });
    UriError::Unknown { name: shown.collect() }
}

fn text(name: &'static str, value: &str, most: usize) -> Result<String, UriError> {
    let bytes = decode(name, value, most)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| UriError::NotText { name })?;
    if text.contains(char::is_control) {
        return Err(UriError::NotText { name });
    }
    Ok(text.to_owned())
}

/// Undoes `%xx`. At most `most` bytes, at least one.
fn decode(name: &'static str, value: &str, most: usize) -> Result<Zeroizing<Vec<u8>>, UriError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    let mut rest = value.as_bytes();
    while let Some((first, mut after)) = rest.split_first() {
        let byte = match first {
            b'%' => {
                let digits = after.get(..2).ok_or(UriError::Percent { name })?;
                after = after.get(2..).unwrap_or_default();
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).map_err(|_| UriError::Percent { name })?;
                let [byte] = byte;
                byte
            }
            b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'}' => {
                return Err(UriError::Character { name });
            }
            graphic if graphic.is_ascii_graphic() => *graphic,
            _ => return Err(UriError::Character { name }),
        };
        if bytes.len() == most {
            return Err(UriError::TooLong { what: name, most });
        }
        bytes.push(byte);
        rest = after;
    }
    if bytes.is_empty() { Err(UriError::Empty { name }) } else { Ok(bytes) }
}

/// As it is parsed again, without the pin.
impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}token={}", Escaped(self.token.as_bytes()))?;
        if let Some(serial) = &self.serial {
            write!(f, ";serial={}", Escaped(serial.as_bytes()))?;
        }
        if let Some(object) = &self.object {
            write!(f, ";object={}", Escaped(object.as_bytes()))?;
        }
        if let Some(id) = &self.id {
            f.write_str(";id=")?;
            id.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
        }
        write!(f, "?module-path={}", Escaped(self.module_path.as_os_str().as_encoded_bytes()))?;
        match &self.pin_source {
            Some(file) => write!(f, "&pin-source={}", Escaped(file.as_os_str().as_encoded_bytes())),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = if self.pin_value.is_some() { ", with a pin" } else { "" };
        write!(f, "KeyUri({self}{pin})")
    }
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'-' | b'.' | b'_' | b'~' | b'/' => write!(f, "{}", char::from(*byte)),
            letter if letter.is_ascii_alphanumeric() => write!(f, "{}", char::from(*letter)),
            other => write!(f, "%{other:02X}"),
        })
    }
}

#[cfg(test)]
mod tests;
