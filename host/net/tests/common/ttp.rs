//! An authority, the nodes that it certifies, and a stock TLS client.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use trireme_core::role::{Certified, Subject};
use trireme_core::{Fault, NodeId, RoleKind, TopicName};
use trireme_crypto::certificate::{Certificate, TrustAnchor};
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;
use trireme_net::tls::{PeerVerifier, TlsIdentity};

const YEAR_2000: u64 = 946_684_800_000;
const YEAR_2100: u64 = 4_102_444_800_000;

pub struct Authority {
    key: SoftwareKey,
    pub root: Certificate,
}

impl Authority {
    pub fn new() -> Self {
        let key = SoftwareKey::generate().unwrap();
        let name = NodeId::new("root").unwrap();
        let root = issue::root(&key, &name, YEAR_2000, YEAR_2100, [1; 16]).unwrap();
        Self { key, root: Certificate::parse(&root).unwrap() }
    }

    /// A certificate of this authority, and its key.
    pub fn certify(&self, role: RoleKind, id: &str) -> (Vec<u8>, Arc<SoftwareKey>) {
        let key = SoftwareKey::generate().unwrap();
        let subject = Subject { role, id: NodeId::new(id).unwrap() };
        let request = issue::parse_request(&issue::request(&key, &subject).unwrap()).unwrap();
        let topic = (role == RoleKind::Manufacturer).then(|| TopicName::new("acme").unwrap());
        let certified = Certified { subject, topic, models: vec![], not_after_ms: YEAR_2100 };
        let certificate =
            issue::certify(&self.key, &self.root, &request, &certified, YEAR_2000, YEAR_2100, [2; 16])
                .unwrap();
        (certificate, Arc::new(key))
    }

    /// A node of this authority, which believes in another one's certificates.
    pub fn node(&self, role: RoleKind, id: &str, believes: &Authority) -> TlsIdentity {
        let (certificate, key) = self.certify(role, id);
        TlsIdentity::new(certificate, key, believes.verifier())
    }

    /// Judges chains of one.
    pub fn verifier(&self) -> Arc<dyn PeerVerifier> {
        Arc::new(Verifier(TrustAnchor::from_certificate(self.root.der()).unwrap()))
    }
}

struct Verifier(TrustAnchor);

impl PeerVerifier for Verifier {
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault> {
        let refuse = |error: &dyn std::fmt::Display| Fault::new("certificate", error.to_string());
        let certificate = Certificate::parse(chain).map_err(|error| refuse(&error))?;
        certificate.verify(&self.0, None).map_err(|error| refuse(&error))
    }
}

/// Judges by these words, and nothing else.
pub struct Says<F>(pub F);

impl<F: Fn(&[u8]) -> Result<Certified, Fault> + Send + Sync> PeerVerifier for Says<F> {
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault> {
        (self.0)(chain)
    }
}

/// A stock TLS client that believes everything.
pub struct Stock(TlsStream<TcpStream>);

impl Stock {
    /// Shows these certificates, or none.
    pub async fn connect(
        url: &str,
        shows: Option<(&[Vec<u8>], &SoftwareKey)>,
    ) -> Result<Self, std::io::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything(provider)));
        let config = match shows {
            Some((certificates, key)) => builder.with_client_auth_cert(ders(certificates), der(key)).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(url.trim_start_matches("https://")).await?;
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(Self)
    }

    /// The stream itself.
    pub fn stream(self) -> TlsStream<TcpStream> {
        self.0
    }

    /// What the server showed.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        self.0.get_ref().1.peer_certificates().unwrap().iter().map(|der| der.to_vec()).collect()
    }

    /// Sends a request with an empty body.
    pub async fn send(&mut self, path: &str) -> Result<(), std::io::Error> {
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        self.0.write_all(request.as_bytes()).await?;
        self.0.flush().await
    }

    /// The next answer's status line and body, as they fit into one read or several; an error: the connection ended.
    pub async fn answer(&mut self) -> Result<(String, String), std::io::Error> {
        let mut read = String::new();
        loop {
            let mut window = [0; 4096];
            match self.0.read(&mut window).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                length => read += std::str::from_utf8(&window[..length]).unwrap(),
            }
            let Some((head, body)) = read.split_once("\r\n\r\n") else { continue };
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if body.len() >= length.parse().unwrap() {
                return Ok((head.lines().next().unwrap().to_owned(), body.to_owned()));
            }
        }
    }

    /// A request and its answer.
    pub async fn ask(&mut self, path: &str) -> Result<(String, String), std::io::Error> {
        self.send(path).await?;
        self.answer().await
    }
}

/// Certificates as rustls takes them.
pub fn ders(certificates: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    certificates.iter().map(|certificate| CertificateDer::from(certificate.clone())).collect()
}

/// A key as rustls takes it.
pub fn der(key: &SoftwareKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(key.to_pkcs8_pem().unwrap().as_bytes()).unwrap()
}

#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
