//! A node's first certificate (5.2), over the network: a token, which the authority's administrator made and handed
//! over some other way, is exchanged for it.
//!
//! At first contact nothing is known of the authority but what the token says: the fingerprint of its root. So the
//! roots are fetched from whoever answers, the one of that fingerprint counts, and only an authority that is certified
//! under it gets to see the token's secret.
//!
//! | module | what it does |
//! |---|---|
//! | [`ask`] | the conversation with the authority; touches no file |
//! | [`enrol`] | the same with a node's files: key, certificate, root |

mod contact;
mod place;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use trireme_core::role::Subject;
use trireme_core::{Digest, Fault, NodeId, RoleKind};
use trireme_crypto::certificate::CertificateError;
use trireme_crypto::pem::PemError;
use zeroize::Zeroizing;

pub use contact::{Answer, Question, ask};
pub use place::Place;

use crate::config::Named;
use crate::files::FileError;
use crate::keys::{self, KeyFileError};
use crate::keystore::IdentityError;
use crate::passphrase::Passphrase;

/// Why a node has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The text is no token.
    #[error(
        "this is no token: expected <id>.<secret>.<fingerprint>, as `trireme authority token create` shows it"
    )]
    Token,
    /// Another authority, or somebody in between.
    #[error(
        "{url} shows the root {}, and the token is of the root {wanted}; nothing was sent there. Either the token is \
         another authority's, or somebody stands in between",
        list(found)
    )]
    Fingerprint {
        /// Who was asked.
        url: String,
        /// The token's.
        wanted: Digest,
        /// Those that were shown.
        found: Vec<Digest>,
    },
    /// The node believes another root than the token's.
    #[error(
        "the token is of the root {wanted}, and {} holds the root {}; nothing was sent. Where both are right, name a \
         further file in `authority` of [trust], and enrol again", file.display(), list(found)
    )]
    OtherRoot {
        /// The trust file.
        file: PathBuf,
        /// The token's.
        wanted: Digest,
        /// Those of the files.
        found: Vec<Digest>,
    },
    /// The node has a key or certificate already.
    #[error(
        "{} is there already; a certificate renews itself while the node runs. To enrol anew with a new key, add \
         --renew-key", .0.display()
    )]
    Enrolled(PathBuf),
    /// A key that stays would be the authority's to make.
    #[error("{0} is there already, and with this token the authority makes the key; move it away first")]
    KeyThere(keys::Place),
    /// The authority's word, or none.
    #[error("{url}: {fault}")]
    Authority {
        /// Who was asked.
        url: String,
        /// What came of it.
        fault: Fault,
    },
    /// The authority does not take the token, and tells strangers no more.
    #[error(
        "{0} does not take the token: it is used, withdrawn, expired or for another authority, or it was made with \
         --make-key and needs that here too. The authority's audit log says which"
    )]
    Refused(String),
    /// The answer is not what was asked for.
    #[error("{url} answered with {what}; nothing of it was taken")]
    Answer {
        /// Who was asked.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// A root that is none.
    #[error("the root {fingerprint}: {source}")]
    Root {
        /// Which.
        fingerprint: Digest,
        /// What is wrong.
        source: CertificateError,
    },
    /// Key or certificate that are there already.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A request that could not be made.
    #[error("no request for {subject}: {source}")]
    Request {
        /// For whom.
        subject: Subject,
        /// Why.
        source: CertificateError,
    },
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A PEM file.
    #[error("{}: {source}", file.display())]
    Pem {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A sensor has no certificate, and an authority is not enrolled with itself.
    #[error(
        "a {0} is not enrolled: a sensor is provisioned, an authority certified with `trireme authority issue`"
    )]
    Role(RoleKind),
    /// The process ends.
    #[error("interrupted")]
    Interrupted,
}

fn list(digests: &[Digest]) -> String {
    let texts: Vec<String> = digests.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "of nobody".into() } else { texts.join(", ") }
}

/// What the operator was given.
#[derive(Clone)]
pub struct TokenText {
    /// `<id>.<secret>`: what the authority gets to see.
    shown: Zeroizing<String>,
    /// The secret alone.
    secret: Zeroizing<String>,
    /// SHA-256 of the newest root's DER.
    pub fingerprint: Digest,
}

impl FromStr for TokenText {
    type Err = EnrolError;

    fn from_str(text: &str) -> Result<Self, EnrolError> {
        const LONGEST: usize = 512;
        let text = text.trim();
        let fine = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let parts: Vec<&str> = text.split('.').collect();
        let [id, secret, fingerprint] = parts.as_slice() else { return Err(EnrolError::Token) };
        let mut digest = [0; 32];
        let read = hex::decode_to_slice(fingerprint, &mut digest);
        if text.len() > LONGEST || !fine(id) || !fine(secret) || read.is_err() {
            return Err(EnrolError::Token);
        }
        Ok(Self {
            shown: Zeroizing::new(format!("{id}.{secret}")),
            secret: Zeroizing::new((*secret).to_owned()),
            fingerprint: Digest(digest),
        })
    }
}

/// How a node is enrolled.
#[derive(Clone)]
pub struct Wish {
    /// `https://host:port` of the authority.
    pub authority: String,
    /// The node's role.
    pub role: RoleKind,
    /// Its identifier, where it is known; the token says it in any case.
    pub id: Option<NodeId>,
    /// What the request calls the node; nothing is proven by it.
    pub name: NodeId,
    /// Where its files are.
    pub place: Place,
    /// Whether the authority makes the key, as the token has it.
    pub make_key: bool,
    /// Whether a key and a certificate that are there are replaced.
    pub renew_key: bool,
}

/// An enrolled node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// For whom the certificate is.
    pub subject: Subject,
    /// Until when, milliseconds since 1970.
    pub not_after_ms: u64,
    /// The root's file, where it was written now.
    pub root: Option<PathBuf>,
}

/// Enrols a node: key (0600), certificate with its issuers', and root are in their files afterwards. What is cut off is
/// done again with the same token: the key stays, the authority answers the same.
///
/// # Errors
/// [`EnrolError`].
pub async fn enrol(wish: &Wish, token: &TokenText) -> Result<Enrolled, EnrolError> {
    if matches!(wish.role, RoleKind::Authority | RoleKind::Sensor) {
        return Err(EnrolError::Role(wish.role));
    }
    let shared = Arc::new(wish.clone());
    let (ready, fingerprint) = (shared.clone(), token.fingerprint);
    let ready = blocking(move || place::prepare(&ready, &fingerprint)).await?;
    let question = Question {
        authority: &wish.authority,
        token,
        role: wish.role,
        id: wish.id.as_ref(),
        name: &wish.name,
        key: ready.key.as_deref(),
    };
    let answer = ask(&question).await?;
    blocking(move || place::store(&shared, &ready, &answer)).await
}

/// Puts in place what [`enrol`] left beside the files of this node's roles when it was cut off in the switch.
///
/// # Errors
/// [`EnrolError`]; what is there stays then.
pub fn finish(node: &Named) -> Result<(), EnrolError> {
    node.roles.iter().try_for_each(|role| {
        place::finish(&Place {
            key: role.key.clone(),
            passphrase: Passphrase::of_node(node.passphrase_file.clone()),
            certificate: role.certificate.clone(),
            trust: node.trust.clone(),
        })
    })
}

/// Files and passphrases take their time; others go on meanwhile.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EnrolError> + Send + 'static,
) -> Result<T, EnrolError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(EnrolError::Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts_and_the_last_is_a_fingerprint() {
        let fingerprint = "07".repeat(32);
        let token: TokenText = format!(" 0a1b.5ec7e7.{fingerprint}\n").parse().ok().unwrap();
        assert_eq!((token.shown.as_str(), token.secret.as_str()), ("0a1b.5ec7e7", "5ec7e7"));
        assert_eq!(token.fingerprint, Digest([7; 32]));
        for wrong in ["", "a.b", "a.b.c", &format!("a..{fingerprint}"), &format!("a.b.{fingerprint}.d")] {
            assert!(wrong.parse::<TokenText>().is_err(), "{wrong}");
        }
    }
}
