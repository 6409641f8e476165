//! Mutual TLS between certified parties. Certificates are judged by the project's own rules ([`PeerVerifier`]): identity
//! is the URI in a certificate, names of hosts mean nothing. rustls checks that the peer holds the certificate's key.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};
use trireme_core::role::{Certified, code};
use trireme_core::{Fault, RoleKind};
use trireme_crypto::key::{Signer, signature_to_der};

/// Judges certificates: signature of the authority, dates, revocation.
pub trait PeerVerifier: Send + Sync {
    /// Whom this certificate (X.509 DER) speaks for.
    ///
    /// # Errors
    /// `certificate`, saying what is wrong with it.
    fn verify(&self, der: &[u8]) -> Result<Certified, Fault>;
}

/// Who we are on a connection, and how peers are judged.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Our certificate, X.509 DER.
    pub certificate: Vec<u8>,
    /// Its private key; stays where it is.
    pub signer: Arc<dyn Signer>,
    /// Judges the peers.
    pub verifier: Arc<dyn PeerVerifier>,
}

impl TlsIdentity {
    /// For servers: every client must have a certificate. Sessions are not resumed, since a certificate may be revoked
    /// meanwhile.
    pub(crate) fn server(&self) -> Result<Arc<ServerConfig>, Fault> {
        let judge = Judge::new(Arc::clone(&self.verifier), None);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&judge.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Fault::new(code::INTERNAL, error.to_string()))?
            .with_client_cert_verifier(Arc::new(judge))
            .with_cert_resolver(Arc::new(self.own()));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// For one connection to a server that must be certified for `role`. The second value tells why a server was
    /// refused.
    pub(crate) fn client(&self, role: RoleKind) -> Result<(Arc<ClientConfig>, Verdict), Fault> {
        let judge = Judge::new(Arc::clone(&self.verifier), Some(role));
        let verdict = judge.verdict.clone();
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&judge.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Fault::new(code::INTERNAL, error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge))
            .with_client_cert_resolver(Arc::new(self.own()));
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Arc::new(config), verdict))
    }

    fn own(&self) -> Own {
        let certificate = CertificateDer::from(self.certificate.clone());
        let key = Key(Arc::clone(&self.signer));
        Own(Arc::new(CertifiedKey::new(vec![certificate], Arc::new(key))))
    }
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
    provider: Arc<CryptoProvider>,
    verdict: Verdict,
}

impl Judge {
    fn new(verifier: Arc<dyn PeerVerifier>, role: Option<RoleKind>) -> Self {
        Self { verifier, role, provider: Arc::new(ring::default_provider()), verdict: Verdict::default() }
    }

    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let result = self.verifier.verify(certificate).and_then(|certified| match self.role {
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
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity).map(|()| ClientCertVerified::assertion())
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
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity).map(|()| ServerCertVerified::assertion())
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

/// Our certificate, whatever the peer asks for.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        schemes.iter().any(|scheme| SCHEMES.contains(scheme)).then(|| Arc::clone(&self.0))
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
