//! The conversation with an authority that is not known yet.

use std::sync::{Arc, Mutex, PoisonError};

use trireme_core::api::{self, Enrol, Roots, TrustAnswer, TrustQuestion, path};
use trireme_core::role::{Certified, Subject, code};
use trireme_core::{Digest, Fault, NodeId, RoleKind, json};
use trireme_crypto::certificate::{
    LARGEST_CERTIFICATE, LARGEST_CHAIN, LARGEST_LIST, TrustAnchor, TrustStore, fingerprint,
};
use trireme_crypto::issue;
use trireme_crypto::key::{Signer, SoftwareKey};
use trireme_net::http::{self, HttpConfig};
use trireme_net::tls::PeerVerifier;

use super::{EnrolError, TokenText, blocking};

/// The most roots of an answer that are looked at.
const MOST_ROOTS: usize = 16;

/// What is asked of an authority.
pub struct Question<'a> {
    /// `https://host:port`.
    pub authority: &'a str,
    /// What the operator was given.
    pub token: &'a TokenText,
    /// The node's role.
    pub role: RoleKind,
    /// Its identifier, where it is known.
    pub id: Option<&'a NodeId>,
    /// What the request calls it; nothing is proven by it.
    pub name: &'a NodeId,
    /// Its key; none where the authority makes one.
    pub key: Option<&'a dyn Signer>,
}

/// What the authority gave, and it is what was asked for.
pub struct Answer {
    /// The certificate, followed by its issuers'.
    pub chain: Vec<u8>,
    /// For whom and what it is.
    pub certified: Certified,
    /// The root of the token's fingerprint, X.509 DER.
    pub root: Vec<u8>,
    /// The key, where the authority made it.
    pub key: Option<SoftwareKey>,
}

/// Exchanges a token for a certificate. The same question again gets the same answer, until the token expires.
///
/// # Errors
/// [`EnrolError`]. The token is seen by nobody but an authority under its root.
pub async fn ask(question: &Question<'_>) -> Result<Answer, EnrolError> {
    let Question { authority, token, role, id, name, key } = question;
    let contact = Contact { url: authority.trim_end_matches('/').to_owned() };
    let root = contact.root(&token.fingerprint).await?;
    let anchor = TrustAnchor::from_certificate(&root)
        .map_err(|source| EnrolError::Root { fingerprint: token.fingerprint, source })?;
    let trust = Arc::new(Pinned(Mutex::new(TrustStore::new(vec![anchor], 16))));

    let subject = Subject { role: *role, id: id.unwrap_or(name).clone() };
    let request = key.map(|key| issue::request(key, &subject)).transpose();
    let request = request.map_err(|source| EnrolError::Request { subject: subject.clone(), source })?;
    let body = Enrol { token: token.shown.to_string(), request: request.as_deref().map(json::hexed) };
    let enrolled = contact.enrol(&trust, &body).await?;

    let wrong = |what: String| EnrolError::Answer { url: contact.url.clone(), what };
    let chain = json::hexadecimal(&enrolled.certificate, LARGEST_CHAIN, "the certificate");
    let chain = chain.map_err(|fault| wrong(fault.detail))?;
    // Dates are judged once the time is proven, not now.
    let (certified, certified_key) = trust.judge(&chain).map_err(|error| wrong(error.to_string()))?;
    let Subject { role: found, id: named } = &certified.subject;
    if found != role || id.is_some_and(|id| id != named) {
        return Err(wrong(format!("a certificate for {} and not for {subject}", certified.subject)));
    }
    let made = match (key, enrolled.key) {
        (Some(_), _) => None,
        (None, None) => return Err(wrong("no key, though it was to make one".into())),
        (None, Some(sealed)) => {
            let secret = token.secret.clone();
            let open = move || Ok(SoftwareKey::from_pkcs8_encrypted_pem(&sealed, secret.as_bytes()));
            let opened = blocking(open).await?;
            Some(opened.map_err(|error| wrong(format!("a key that the token does not open: {error}")))?)
        }
    };
    let own = match (key, &made) {
        (Some(key), _) => Some(key.public_key()),
        (None, made) => made.as_ref().map(Signer::public_key),
    };
    if own != Some(certified_key) {
        return Err(wrong("a certificate for another key".into()));
    }
    Ok(Answer { chain, certified, root, key: made })
}

/// Whoever answers there.
struct Contact {
    url: String,
}

impl Contact {
    /// The root of this fingerprint, from whoever answers.
    async fn root(&self, wanted: &Digest) -> Result<Vec<u8>, EnrolError> {
        let answer = self.post(Arc::new(Unjudged), path::ROOTS, b"{}".to_vec()).await;
        let roots: Roots = answer
            .and_then(|body| json::read(&body, "the answer with the roots"))
            .map_err(|fault| self.said(fault))?;
        let mut found = Vec::new();
        for text in roots.roots.iter().take(MOST_ROOTS) {
            let root = json::hexadecimal(text, LARGEST_CERTIFICATE, "a root");
            let root = root.map_err(|fault| self.said(fault))?;
            let digest = fingerprint(&root);
            if digest == *wanted {
                return Ok(root);
            }
            found.push(digest);
        }
        Err(EnrolError::Fingerprint { url: self.url.clone(), wanted: *wanted, found })
    }

    /// The exchange itself. Where the authority stands under another root than the token's, its links lead there.
    async fn enrol(&self, trust: &Arc<Pinned>, body: &Enrol) -> Result<api::Enrolled, EnrolError> {
        let body = json::write(body);
        let mut answer = self.post(trust.clone(), path::ENROL, body.clone()).await;
        if answer.as_ref().is_err_and(|fault| fault.code == code::CERTIFICATE) && self.links(trust).await {
            answer = self.post(trust.clone(), path::ENROL, body).await;
        }
        let read = answer.and_then(|body| json::read(&body, "the authority's answer"));
        read.map_err(|fault| match fault.code.as_ref() {
            code::FORBIDDEN => EnrolError::Refused(self.url.clone()),
            _ => self.said(fault),
        })
    }

    /// Learns what the authority passes on; that is signed, whoever shows it. Says whether anything of it was news.
    async fn links(&self, trust: &Pinned) -> bool {
        let question = json::write(&TrustQuestion::default());
        let answer = self.post(Arc::new(Unjudged), path::TRUST, question).await;
        let answer = answer.and_then(|body| json::read::<TrustAnswer>(&body, "the trust items"));
        let items = answer.map(|answer| answer.items).unwrap_or_default();
        let mut news = false;
        for text in items.iter().take(TrustQuestion::MOST) {
            let item = json::hexadecimal(text, LARGEST_LIST + LARGEST_CHAIN, "a trust item");
            news |= item.is_ok_and(|item| trust.learn(&item));
        }
        news
    }

    async fn post(
        &self,
        verifier: Arc<dyn PeerVerifier>,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Fault> {
        let url = format!("{}{path}", self.url);
        http::post_anonymous(verifier, &HttpConfig::default(), RoleKind::Authority, &url, body).await
    }

    fn said(&self, fault: Fault) -> EnrolError {
        EnrolError::Authority { url: self.url.clone(), fault }
    }
}

/// Lets anybody pass: only what proves itself is asked for.
struct Unjudged;

impl PeerVerifier for Unjudged {
    fn verify(&self, _chain: &[u8]) -> Result<Certified, Fault> {
        let id = NodeId::new("unknown").map_err(|error| Fault::new(code::INTERNAL, error.to_string()))?;
        let subject = Subject { role: RoleKind::Authority, id };
        Ok(Certified { subject, topic: None, models: Vec::new(), not_after_ms: 0 })
    }
}

/// Trust in the token's root alone.
struct Pinned(Mutex<TrustStore>);

impl Pinned {
    fn judge(&self, chain: &[u8]) -> Result<(Certified, trireme_crypto::key::PublicKey), Fault> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).verify(chain, None)?)
    }

    fn learn(&self, item: &[u8]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).learn(item, None).unwrap_or(false)
    }
}

impl PeerVerifier for Pinned {
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault> {
        Ok(self.judge(chain)?.0)
    }
}
