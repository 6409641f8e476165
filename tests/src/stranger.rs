//! Whoever has no certificate: asks an authority, answers as one, and writes down what it got to see.

use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use trireme::enrol::{self, Answer, EnrolError, Question, TokenText};
use trireme_actor::Trust;
use trireme_core::api::{Roots, TokenMade, path};
use trireme_core::role::Certified;
use trireme_core::{Fault, NodeId, RoleKind, json};
use trireme_crypto::certificate::fingerprint;
use trireme_crypto::key::Signer;
use trireme_net::http::{self, Access, HttpConfig, HttpServer};
use trireme_net::tls::{PeerVerifier, TlsIdentity};

use crate::attacker::Party;
use crate::hierarchy::OPEN;
use crate::lab::Running;

/// Judges others by this trust, whatever the time is.
pub struct Believer(pub Trust);

impl PeerVerifier for Believer {
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault> {
        Ok(self.0.verify(chain, None).map_err(Fault::from)?.0)
    }
}

/// Asks an authority without a certificate.
///
/// # Errors
/// What it answered.
pub async fn ask(trust: &Trust, url: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, Fault> {
    let verifier = Arc::new(Believer(trust.clone()));
    let url = format!("{url}{path}");
    http::post_anonymous(verifier, &HttpConfig::default(), RoleKind::Authority, &url, body.to_vec()).await
}

/// Has a running authority make a token, as its administrator gets it.
///
/// # Errors
/// What the authority answered.
pub async fn token(authority: &Running, wish: serde_json::Value) -> Result<String, Fault> {
    let made: TokenMade =
        serde_json::from_value(authority.ask("/authority/v1/token", wish).await?).map_err(fault)?;
    let root = made.roots.first().and_then(|root| hex::decode(root).ok()).unwrap_or_default();
    Ok(format!("{}.{}", made.token, fingerprint(&root)))
}

/// Exchanges a token for a gateway's certificate.
///
/// # Errors
/// What came of it.
///
/// # Panics
/// When the text is no token.
pub async fn enrol(url: &str, token: &str, id: &str, key: Option<&dyn Signer>) -> Result<Answer, EnrolError> {
    let (token, id): (TokenText, _) = (token.parse().unwrap(), NodeId::new(id).unwrap());
    let role = RoleKind::Gateway;
    enrol::ask(&Question { authority: url, token: &token, role, id: Some(&id), name: &id, key }).await
}

/// Paths and bodies of requests.
type Heard = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Somebody who answers as an authority under a certificate of one's choice, and writes down every request.
pub struct Impostor {
    /// Where it listens.
    pub url: String,
    heard: Heard,
    _server: HttpServer,
}

impl Impostor {
    /// Shows these roots, and answers everything else with these bytes.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn new(keys: &Party, trust: &Trust, roots: &[&[u8]], says: Vec<u8>) -> Self {
        let verifier = Arc::new(Believer(trust.clone()));
        let identity = TlsIdentity::new(keys.certificate.clone(), keys.signer.clone(), verifier);
        let roots = json::write(&Roots { roots: roots.iter().map(|root| json::hexed(root)).collect() });
        let heard = Heard::default();
        let hears = heard.clone();
        let handler: http::Handler = Arc::new(move |request| {
            hears.lock().unwrap().push((request.path.clone(), request.body));
            let answer = if request.path == path::ROOTS { roots.clone() } else { says.clone() };
            Box::pin(async move { Ok(answer) })
        });
        let open = Access { open: OPEN.map(str::to_owned).to_vec() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = http::serve(listener, identity, open, HttpConfig::default(), handler).unwrap();
        Self { url: format!("https://{}", server.local_addr()), heard, _server: server }
    }

    /// What it was asked so far: paths and bodies.
    ///
    /// # Panics
    /// Never: nobody panics under its lock.
    #[must_use]
    pub fn heard(&self) -> Vec<(String, Vec<u8>)> {
        self.heard.lock().unwrap().clone()
    }
}

fn fault(error: serde_json::Error) -> Fault {
    Fault::new(trireme_core::role::code::MALFORMED, error.to_string())
}
