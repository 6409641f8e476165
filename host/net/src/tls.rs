//! Mutual TLS between certified parties. Certificates are judged by the project's own rules ([`PeerVerifier`]): identity
//! is the URI in a certificate, names of hosts mean nothing. rustls checks that the peer holds the certificate's key.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};
use trireme_core::role::{Certified, code};
use trireme_core::{Fault, RoleKind};
use trireme_crypto::certificate::chain::{LONGEST_CHAIN, split};
use trireme_crypto::key::{Signer, signature_to_der};

use crate::chain;

/// Judges certificates: signatures up to a root, dates, revocation.
pub trait PeerVerifier: Send + Sync {
    /// Whom this chain speaks for: X.509 DER certificates one after the other, leaf first, at most 4 and 16 KiB.
    ///
    /// # Errors
    /// `certificate`, saying what is wrong with it.
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault>;
}

/// Our chain of certificates and its leaf's key. Clones are one: what is switched for one is switched for all, while
/// servers and clients run. The next handshake shows the new chain; what is open goes on.
#[derive(Clone)]
pub struct Credentials(Arc<RwLock<Held>>);

struct Held {
    chain: Vec<u8>,
    /// Ready for handshakes; or why it is not.
    shown: Result<Arc<CertifiedKey>, Fault>,
}

impl Credentials {
    /// A chain as in [`PeerVerifier::verify`], and the key of its leaf, which stays where it is.
    #[must_use]
    pub fn new(chain: Vec<u8>, signer: Arc<dyn Signer>) -> Self {
        Self(Arc::new(RwLock::new(Held::new(chain, signer))))
    }

    /// From now on these.
    pub fn switch(&self, chain: Vec<u8>, signer: Arc<dyn Signer>) {
        let held = Held::new(chain, signer);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// The chain as it is now.
    #[must_use]
    pub fn chain(&self) -> Vec<u8> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).chain.clone()
    }

    fn shown(&self) -> Result<Arc<CertifiedKey>, Fault> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).shown.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Held {
    fn new(chain: Vec<u8>, signer: Arc<dyn Signer>) -> Self {
        let shown = split(&chain).map(|certificates| {
            let certificates = certificates.into_iter().map(CertificateDer::from).collect();
            Arc::new(CertifiedKey::new(certificates, Arc::new(Key(signer))))
        });
        let shown = shown.map_err(|error| {
            let detail = format!("our own certificate is unusable: {error}");
            tracing::error!("{detail}");
            Fault::new(code::CERTIFICATE, detail)
        });
        Self { chain, shown }
    }
}

/// Who we are on a connection, and how peers are judged.
#[derive(Clone)]
pub struct TlsIdentity {
    /// What we show.
    pub own: Credentials,
    /// Judges the peers.
    pub verifier: Arc<dyn PeerVerifier>,
}

impl TlsIdentity {
    /// With credentials of its own.
    #[must_use]
    pub fn new(chain: Vec<u8>, signer: Arc<dyn Signer>, verifier: Arc<dyn PeerVerifier>) -> Self {
        Self { own: Credentials::new(chain, signer), verifier }
    }

    /// For servers: every client must have a certificate, or may. Sessions are not resumed, since a certificate may be
    /// revoked meanwhile.
    /// Speaks one of these protocols with clients that ask for any (ALPN).
    pub(crate) fn server(&self, must: bool, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, Fault> {
        // Said at once, not in each handshake.
        self.own.shown()?;
        let judge = Judge { must, ..Judge::new(Arc::clone(&self.verifier), None) };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&judge.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Fault::new(code::INTERNAL, error.to_string()))?
            .with_client_cert_verifier(Arc::new(judge))
            .with_cert_resolver(Arc::new(Own(self.own.clone())));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = owned(protocols);
        Ok(Arc::new(config))
    }

    /// For one connection to a server that must be certified for `role`. The second value tells why a server was
    /// refused.
    pub(crate) fn client(
        &self,
        role: RoleKind,
        protocols: &[&[u8]],
    ) -> Result<(Arc<ClientConfig>, Verdict), Fault> {
        self.own.shown()?;
        client(Arc::clone(&self.verifier), role, Some(self.own.clone()), protocols)
    }

    /// Whom the other end of a connection is certified for, as it is judged now; `None`: it has shown nothing.
    pub(crate) fn certified(&self, connection: &CommonState) -> Result<Option<Certified>, Fault> {
        let chain = connection.peer_certificates().map(chain::join).transpose()?;
        chain.map(|chain| self.verifier.verify(&chain)).transpose()
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity")
    }
}

/// The only application protocol of [`crate::http`].
pub(crate) const HTTP: &[&[u8]] = &[b"http/1.1"];

fn owned(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
}

/// The same without a certificate of our own.
pub(crate) fn anonymous(
    verifier: Arc<dyn PeerVerifier>,
    role: RoleKind,
) -> Result<(Arc<ClientConfig>, Verdict), Fault> {
    client(verifier, role, None, HTTP)
}

fn client(
    verifier: Arc<dyn PeerVerifier>,
    role: RoleKind,
    own: Option<Credentials>,
    protocols: &[&[u8]],
) -> Result<(Arc<ClientConfig>, Verdict), Fault> {
    let judge = Judge::new(verifier, Some(role));
    let verdict = judge.verdict.clone();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&judge.provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| Fault::new(code::INTERNAL, error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(Own(own))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = owned(protocols);
    Ok((Arc::new(config), verdict))
}

/// Why a server was refused.
#[derive(Clone, Default)]
pub(crate) struct Verdict(Arc<Mutex<Option<Fault>>>);

impl Verdict {
    pub(crate) fn take(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, fault: Fault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }
}

struct Judge {
    verifier: Arc<dyn PeerVerifier>,
    /// What a server must be certified for; clients may be anything.
    role: Option<RoleKind>,
    /// Whether a client must have a certificate.
    must: bool,
    provider: Arc<CryptoProvider>,
    verdict: Verdict,
}

impl Judge {
    fn new(verifier: Arc<dyn PeerVerifier>, role: Option<RoleKind>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Self { verifier, role, must: true, provider, verdict: Verdict::default() }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        // Borrowed: how much it is stands to be judged.
        let shown: Vec<&CertificateDer<'_>> =
            std::iter::once(leaf).chain(intermediates).take(LONGEST_CHAIN + 1).collect();
        let certified = chain::join(&shown).and_then(|chain| self.verifier.verify(&chain));
        let result = certified.and_then(|certified| match self.role {
            Some(role) if certified.subject.role != role => {
                let detail = format!(
                    "the server is certified as {}, not as the {role} that was wanted",
                    certified.subject
                );
                Err(Fault::new(code::CERTIFICATE, detail))
            }
            _ => Ok(()),
        });
        result.map_err(|fault| {
            tracing::info!(%fault, "a TLS peer was refused");
            self.verdict.set(fault);
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        })
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("role", &self.role).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Judge {
    fn client_auth_mandatory(&self) -> bool {
        self.must
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// The only signatures there are in this project.
const SCHEMES: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

/// Our certificates as they are at that moment, whatever the peer asks for.
#[derive(Debug)]
struct Own(Credentials);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.shown().ok()
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        schemes.iter().any(|scheme| SCHEMES.contains(scheme)).then(|| self.0.shown().ok()).flatten()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Signs handshakes with a key that never comes here.
#[derive(Clone)]
struct Key(Arc<dyn Signer>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(ECDSA P-256)")
    }
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        let fits = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        fits.then(|| Box::new(self.clone()) as Box<dyn rustls::sign::Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl rustls::sign::Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signed = self.0.sign(message).and_then(|signature| signature_to_der(&signature));
        signed.map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
