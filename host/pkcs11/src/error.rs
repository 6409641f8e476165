//! What can be wrong with a URI and with a token, in words for people.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why the text names no key in a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme.
    #[error("it does not begin with \"pkcs11:\"")]
    Scheme,
    /// The URI or a value in it.
    #[error("{what} is too long: at most {most} bytes are allowed")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// What is allowed.
        most: usize,
    },
    /// An attribute without `=`.
    #[error(
        "an attribute has no value: expected name=value, separated by \";\", and by \"&\" after the \"?\""
    )]
    NoValue,
    /// An attribute that we do not know.
    #[error(
        "the attribute {name:?} is not known; known are token, serial, object, id and type, and after the \"?\" \
         module-path, pin-source and pin-value"
    )]
    Unknown {
        /// Its name.
        name: String,
    },
    /// An attribute on the wrong side of the question mark.
    #[error("the attribute {name:?} stands {}", if *mark == '?' { "after the \"?\"" } else { "before the \"?\"" })]
    Misplaced {
        /// Its name.
        name: String,
        /// `?` when it belongs after the question mark, `;` when before.
        mark: char,
    },
    /// An attribute that is given twice.
    #[error("the attribute \"{name}\" is given twice")]
    Twice {
        /// Its name.
        name: &'static str,
    },
    /// An attribute that is needed.
    #[error("the attribute \"{name}\" is missing")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A value of no bytes.
    #[error("the value of \"{name}\" is empty")]
    Empty {
        /// Its attribute.
        name: &'static str,
    },
    /// A `%` without two digits.
    #[error("in the value of \"{name}\" a \"%\" is not followed by two hexadecimal digits")]
    Percent {
        /// The attribute.
        name: &'static str,
    },
    /// A character that has to be escaped.
    #[error("the value of \"{name}\" has a character that must be written as %xx (a space is %20)")]
    Character {
        /// The attribute.
        name: &'static str,
    },
    /// Bytes that are no text.
    #[error("the value of \"{name}\" is not text in UTF-8 without control characters")]
    NotText {
        /// The attribute.
        name: &'static str,
    },
    /// `type` of something else.
    #[error("only type=private can be used: the key that signs")]
    Kind,
    /// A pin and a file with one.
    #[error("both pin-source and pin-value are given; keep pin-source")]
    TwoPins,
    /// The library's path.
    #[error("module-path must be absolute, for example /usr/lib/softhsm/libsofthsm2.so")]
    NotAbsolute,
    /// The pin's source.
    #[error("pin-source must be a file: its path, or file:/path; programs and other URIs are not supported")]
    PinSource,
}

/// Why a key in a token cannot be opened, made or listed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The URI cannot be used.
    #[error(
        "not a PKCS#11 URI that can be used (pkcs11:token=NAME;object=LABEL?module-path=…&pin-source=…): {0}"
    )]
    Uri(#[source] UriError),
    /// The URI names a token and no key in it.
    #[error("the PKCS#11 URI names no key: add ;object=LABEL")]
    NoObject,
    /// The pin's file cannot be read.
    #[error("the pin's file {} cannot be read: {source}", file.display())]
    PinFile {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The pin's file is open to others.
    #[error("others can read the pin's file {file} (its mode is {mode:04o}): run `chmod 600 {file}`", file = file.display())]
    PinFileOpen {
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no pin in the pin's file.
    #[error("the pin's file {} cannot be used: {why}; it holds the pin in one line", file.display())]
    PinFileContent {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The token wants a pin.
    #[error(
        "token {token:?} asks for a pin: add &pin-source=FILE to the PKCS#11 URI (the file has mode 0600)"
    )]
    NoPin {
        /// The token.
        token: String,
    },
    /// There is no such library.
    #[error("there is no PKCS#11 library {}: {}", path.display(), package(path))]
    ModuleMissing {
        /// Its path.
        path: PathBuf,
    },
    /// The library cannot be used.
    #[error("the PKCS#11 library {} cannot be used: {why}", path.display())]
    Module {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The token is not there.
    #[error(
        "there is no token {token:?}; the library knows {found} (is it plugged in, may this user read it?)"
    )]
    NoToken {
        /// The token that was wanted.
        token: String,
        /// The tokens that are there.
        found: Found,
    },
    /// Several tokens have this name.
    #[error(
        "several tokens are called {token:?}: add ;serial=… to the PKCS#11 URI; their serial numbers are {found}"
    )]
    TwoTokens {
        /// The name.
        token: String,
        /// Their serial numbers.
        found: Found,
    },
    /// The pin is wrong.
    #[error("token {token:?} does not accept the pin{}", if *few_left { "; few tries are left before it locks" } else { "" })]
    WrongPin {
        /// The token.
        token: String,
        /// The token says that it will lock soon.
        few_left: bool,
    },
    /// The next wrong pin locks the token.
    #[error(
        "token {token:?} locks after one more wrong pin, so it is not tried: correct the pin, then log in once by hand \
         (pkcs11-tool --login --list-objects)"
    )]
    LastTry {
        /// The token.
        token: String,
    },
    /// The token is locked.
    #[error("token {token:?} is locked after too many wrong pins: its security officer can set a new one")]
    PinLocked {
        /// The token.
        token: String,
    },
    /// There is no such key.
    #[error("token {token:?} has no private key {wanted}; it has {found}")]
    NoKey {
        /// The token.
        token: String,
        /// What was looked for.
        wanted: String,
        /// The labels of the private keys that are there.
        found: Found,
    },
    /// Several keys have this name.
    #[error(
        "token {token:?} has {count} private keys {wanted}: add ;id=%xx… to the PKCS#11 URI; their ids are {found}"
    )]
    TwoKeys {
        /// The token.
        token: String,
        /// What was looked for.
        wanted: String,
        /// How many there are.
        count: usize,
        /// Their identifiers.
        found: Found,
    },
    /// The key cannot be what we need.
    #[error("the private key {object:?} in token {token:?} cannot be used: {why}")]
    Unfit {
        /// The token.
        token: String,
        /// The key's label.
        object: String,
        /// What is wrong with it.
        why: Unfit,
    },
    /// Nothing is overwritten.
    #[error(
        "token {token:?} has an object of this {what} already ({object}): choose another, or delete it first"
    )]
    Exists {
        /// The token.
        token: String,
        /// "label" or "id".
        what: &'static str,
        /// The object.
        object: String,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Random(String),
    /// The token refused something.
    #[error("token {token:?} refused to {doing}: {why}")]
    Refused {
        /// The token.
        token: String,
        /// What it should have done.
        doing: &'static str,
        /// What it said.
        why: String,
    },
}

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Another algorithm or curve.
    #[error("it is no key on the curve P-256")]
    Curve,
    /// It signs nothing.
    #[error("it is not for signing (CKA_SIGN)")]
    NotForSigning,
    /// It may leave the token.
    #[error("it may be taken out of the token (CKA_EXTRACTABLE is not false); make one that may not")]
    Extractable,
    /// It wants the pin each time.
    #[error("it asks for the pin before every signature (CKA_ALWAYS_AUTHENTICATE)")]
    AsksEachTime,
    /// The public key is not in the token.
    #[error("its public key is not in the token: an EC public key with the same id or label is needed")]
    NoPublicKey,
    /// The public key in the token is another one's.
    #[error("what it signs does not verify with the public key of the same id or label")]
    OtherPublicKey,
}

/// The names of what is there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found(pub Vec<String>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 16;
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (number, name) in self.0.iter().take(MOST).enumerate() {
            write!(f, "{}{name:?}", if number == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(MOST) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Where a library comes from, as Debian has it.
fn package(path: &Path) -> String {
    const PACKAGES: [(&str, &str); 5] = [
        ("softhsm2", "softhsm2"),
        ("opensc-pkcs11", "opensc-pkcs11"),
        ("ykcs11", "ykcs11"),
        ("tpm2_pkcs11", "libtpm2-pkcs11-1"),
        ("p11-kit", "p11-kit-modules"),
    ];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    PACKAGES.iter().find(|(part, _)| name.contains(part)).map_or_else(
        || {
            "install the package of the token's maker; for SoftHSM it is softhsm2 \
             (/usr/lib/softhsm/libsofthsm2.so), for smart cards opensc-pkcs11"
                .to_owned()
        },
        |(_, package)| format!("install the Debian package {package}, or correct module-path"),
    )
}

/// What the library said, as the name that its makers' documents use: the long texts explain it to programmers.
pub(crate) fn said(error: &cryptoki::error::Error) -> String {
    match error {
        cryptoki::error::Error::Pkcs11(value, function) => format!("{value:?} (C_{function:?})"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_its_debian_package() {
        let missing = |path: &str| TokenError::ModuleMissing { path: path.into() }.to_string();
        assert!(missing("/usr/lib/softhsm/libsofthsm2.so").contains("package softhsm2"));
        assert!(missing("/usr/lib/x86_64-linux-gnu/libykcs11.so.2").contains("package ykcs11"));
        assert!(missing("/opt/maker/libmaker.so").contains("token's maker"));
    }

    #[test]
    fn a_list_of_names_has_a_bound_and_shows_no_control_characters() {
        assert_eq!(Found(vec![]).to_string(), "none");
        assert_eq!(Found(vec!["a".into(), "b\u{1b}".into()]).to_string(), r#""a", "b\u{1b}""#);
        assert!(Found(vec![String::from("x"); 20]).to_string().ends_with("and 4 more"));
    }
}
