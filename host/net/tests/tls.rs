//! Requests over mutual TLS, with real certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use trireme_core::role::{Certified, Subject};
use trireme_core::{Fault, NodeId, RoleKind, TopicName};
use trireme_crypto::certificate::{Certificate, TrustAnchor};
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;
use trireme_net::http::{self, Handler, HttpConfig, HttpServer, LARGEST_BODY, post};
use trireme_net::tls::{PeerVerifier, TlsIdentity};

const YEAR_2000: u64 = 946_684_800_000;
const YEAR_2100: u64 = 4_102_444_800_000;

struct Authority {
    key: SoftwareKey,
    root: Certificate,
}

struct Verifier(TrustAnchor);

impl PeerVerifier for Verifier {
    fn verify(&self, der: &[u8]) -> Result<Certified, Fault> {
        let refuse = |error: &dyn std::fmt::Display| Fault::new("certificate", error.to_string());
        let certificate = Certificate::parse(der).map_err(|error| refuse(&error))?;
        certificate.verify(&self.0, None).map_err(|error| refuse(&error))
    }
}

impl Authority {
    fn new() -> Self {
        let key = SoftwareKey::generate().unwrap();
        let name = NodeId::new("root").unwrap();
        let root = issue::root(&key, &name, YEAR_2000, YEAR_2100, [1; 16]).unwrap();
        Self { key, root: Certificate::parse(&root).unwrap() }
    }

    /// A node of this authority, which believes in another one's certificates.
    fn node(&self, role: RoleKind, id: &str, believes: &Authority) -> TlsIdentity {
        let key = SoftwareKey::generate().unwrap();
        let subject = Subject { role, id: NodeId::new(id).unwrap() };
        let request = issue::parse_request(&issue::request(&key, &subject).unwrap()).unwrap();
        let topic = (role == RoleKind::Manufacturer).then(|| TopicName::new("acme").unwrap());
        let certified = Certified { subject, topic, models: vec![], not_after_ms: YEAR_2100 };
        let certificate =
            issue::certify(&self.key, &self.root, &request, &certified, YEAR_2000, YEAR_2100, [2; 16])
                .unwrap();
        let anchor = TrustAnchor::from_certificate(believes.root.der()).unwrap();
        TlsIdentity { certificate, signer: Arc::new(key), verifier: Arc::new(Verifier(anchor)) }
    }
}

/// Answers with the path, the caller and the body, but for paths that name a fault.
fn echo() -> Handler {
    Arc::new(|request| {
        Box::pin(async move {
            let secret = "the private key is in /etc/trireme";
            match request.path.as_str() {
                "/authentication" => Err(Fault::new("authentication", secret)),
                "/internal" => Err(Fault::new("internal", secret)),
                "/unknown" => Err(Fault::new("unknown", "no such topic")),
                "/slow" => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    Ok(vec![])
                }
                "/large" => Ok(vec![b'x'; LARGEST_BODY + 1]),
                path => Ok([path.as_bytes(), request.caller.to_string().as_bytes(), &request.body].concat()),
            }
        })
    })
}

async fn server(identity: TlsIdentity, config: HttpConfig) -> (HttpServer, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = http::serve(listener, identity, config, echo()).unwrap();
    let url = format!("https://{}", server.local_addr());
    (server, url)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), what).await.expect("it takes too long")
}

fn brief() -> HttpConfig {
    let config = HttpConfig::default();
    HttpConfig { opening: Duration::from_millis(500), request: Duration::from_millis(500), ..config }
}

async fn ask(identity: &TlsIdentity, url: &str, body: &[u8]) -> Result<Vec<u8>, Fault> {
    soon(post(identity, &HttpConfig::default(), RoleKind::Directory, url, body.to_vec())).await
}

#[tokio::test]
async fn a_certified_caller_is_named_and_answered() {
    let ttp = Authority::new();
    let (_server, url) = server(ttp.node(RoleKind::Directory, "bds", &ttp), HttpConfig::default()).await;
    let gateway = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let answer = ask(&gateway, &format!("{url}/v1/brokers"), b"{}").await;
    assert_eq!(String::from_utf8(answer.unwrap()).unwrap(), "/v1/brokersgateway gw-1{}");
    let manufacturer = ttp.node(RoleKind::Manufacturer, "acme", &ttp);
    let large = vec![b'1'; LARGEST_BODY - 18];
    let answer = ask(&manufacturer, &format!("{url}/"), &large).await.unwrap();
    assert_eq!((&answer[..18], answer.len()), (&b"/manufacturer acme"[..], LARGEST_BODY));
}

#[tokio::test]
async fn faults_arrive_without_what_strangers_need_not_know() {
    let ttp = Authority::new();
    let (_server, url) = server(ttp.node(RoleKind::Directory, "bds", &ttp), brief()).await;
    let gateway = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let fault = async |path: &str| ask(&gateway, &format!("{url}{path}"), b"{}").await.unwrap_err();
    assert_eq!(fault("/unknown").await, Fault::new("unknown", "no such topic"));
    assert_eq!(fault("/authentication").await, Fault::new("authentication", "refused"));
    let internal = fault("/internal").await;
    assert_eq!((internal.code.as_ref(), internal.detail.contains("etc")), ("internal", false));
    assert_eq!(fault("/slow").await.code, "network");
    assert_eq!(fault("/large").await.code, "limit");
    let large = vec![b'1'; LARGEST_BODY + 1];
    assert_eq!(ask(&gateway, &url, &large).await.unwrap_err().code, "limit");
}

#[tokio::test]
async fn a_server_of_another_role_is_not_asked() {
    let ttp = Authority::new();
    let (_server, url) = server(ttp.node(RoleKind::Broker, "evil", &ttp), HttpConfig::default()).await;
    let fault = ask(&ttp.node(RoleKind::Gateway, "gw-1", &ttp), &url, b"secret").await.unwrap_err();
    assert_eq!(fault.code, "certificate");
    assert!(fault.detail.contains("broker evil"), "{fault}");
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_on_both_sides() {
    let (ttp, other) = (Authority::new(), Authority::new());
    // The server is the other authority's.
    let (_server, url) = server(other.node(RoleKind::Directory, "bds", &ttp), HttpConfig::default()).await;
    let fault = ask(&ttp.node(RoleKind::Gateway, "gw-1", &ttp), &url, b"{}").await.unwrap_err();
    assert_eq!(fault.code, "certificate");
    // The client is the other authority's; it only learns that the connection failed.
    let (_server, url) = server(ttp.node(RoleKind::Directory, "bds", &ttp), HttpConfig::default()).await;
    let fault = ask(&other.node(RoleKind::Gateway, "gw-1", &ttp), &url, b"{}").await.unwrap_err();
    assert_eq!(fault.code, "network");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let ttp = Authority::new();
    let real = ttp.node(RoleKind::Directory, "bds", &ttp);
    let thief = TlsIdentity { signer: Arc::new(SoftwareKey::generate().unwrap()), ..real.clone() };
    let gateway = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let (_server, url) = server(thief.clone(), HttpConfig::default()).await;
    assert_eq!(ask(&gateway, &url, b"{}").await.unwrap_err().code, "network");
    let (_server, url) = server(real, HttpConfig::default()).await;
    assert_eq!(ask(&thief, &url, b"{}").await.unwrap_err().code, "network");
}

#[tokio::test]
async fn who_has_no_certificate_or_speaks_no_tls_is_closed() {
    let ttp = Authority::new();
    let (server, _) = server(ttp.node(RoleKind::Directory, "bds", &ttp), brief()).await;
    // A stock TLS client without a certificate.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(provider)))
        .with_no_client_auth();
    let stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    // With TLS 1.3 the client learns of the refusal when it first reads.
    if let Ok(mut stream) = soon(connector.connect(name, stream)).await {
        let _ = stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        let mut answer = Vec::new();
        assert!(soon(stream.read_to_end(&mut answer)).await.is_err() && answer.is_empty());
    }
    let mut plain = TcpStream::connect(server.local_addr()).await.unwrap();
    plain.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let mut silent = TcpStream::connect(server.local_addr()).await.unwrap();
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn urls_that_are_none_of_ours_are_refused() {
    let ttp = Authority::new();
    let gateway = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    for url in ["http://127.0.0.1/x", "127.0.0.1", "https://", "mqtt://a:1", "https://a b/"] {
        assert_eq!(ask(&gateway, url, b"{}").await.unwrap_err().code, "configuration", "{url}");
    }
    assert_eq!(ask(&gateway, "https://127.0.0.1:1/x", b"{}").await.unwrap_err().code, "network");
}

/// Believes everything.
#[derive(Debug)]
struct Anything(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
