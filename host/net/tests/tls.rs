//! Requests over mutual TLS, with real certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::soon;
use common::ttp::{Authority, Says, Stock, der, ders};
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trireme_core::{Fault, RoleKind};
use trireme_crypto::certificate::{Certificate, TrustAnchor};
use trireme_crypto::key::SoftwareKey;
use trireme_net::http::{self, Access, Handler, HttpConfig, HttpServer, LARGEST_BODY, Who, post};
use trireme_net::tls::{Credentials, PeerVerifier, TlsIdentity};

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
                path => {
                    let caller = request.caller.unwrap().to_string();
                    Ok([path.as_bytes(), caller.as_bytes(), &request.body].concat())
                }
            }
        })
    })
}

async fn server(identity: TlsIdentity, config: HttpConfig) -> (HttpServer, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = http::serve(listener, identity, Access::default(), config, echo()).unwrap();
    let url = format!("https://{}", server.local_addr());
    (server, url)
}

fn brief() -> HttpConfig {
    let config = HttpConfig::default();
    HttpConfig { opening: Duration::from_millis(500), request: Duration::from_millis(500), ..config }
}

async fn ask(identity: &TlsIdentity, url: &str, body: &[u8]) -> Result<Vec<u8>, Fault> {
    soon(post(identity, Who::Certified, &HttpConfig::default(), RoleKind::Directory, url, body.to_vec()))
        .await
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
    let key = Arc::new(SoftwareKey::generate().unwrap());
    let thief = TlsIdentity { own: Credentials::new(real.own.chain(), key), ..real.clone() };
    let gateway = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let (_server, url) = server(thief.clone(), HttpConfig::default()).await;
    assert_eq!(ask(&gateway, &url, b"{}").await.unwrap_err().code, "network");
    let (_server, url) = server(real, HttpConfig::default()).await;
    assert_eq!(ask(&thief, &url, b"{}").await.unwrap_err().code, "network");
}

#[tokio::test]
async fn who_has_no_certificate_or_speaks_no_tls_is_closed() {
    let ttp = Authority::new();
    let (server, url) = server(ttp.node(RoleKind::Directory, "bds", &ttp), brief()).await;
    // With TLS 1.3 the client learns of the refusal when it first reads.
    if let Ok(mut stock) = soon(Stock::connect(&url, None)).await {
        assert!(soon(stock.ask("/")).await.is_err());
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

/// A network whose certificates are issued by a branch of its authority, so that chains have two certificates.
struct Branch(Authority);

impl Branch {
    fn chain(&self, role: RoleKind, id: &str) -> (Vec<u8>, Arc<SoftwareKey>) {
        let (leaf, key) = self.0.certify(role, id);
        ([&leaf, self.0.root.der()].concat(), key)
    }

    /// Believes chains that end with the branch, which issued their leaf.
    fn verifier(&self) -> Arc<dyn PeerVerifier> {
        let branch = self.0.root.der().to_vec();
        let anchor = TrustAnchor::from_certificate(&branch).unwrap();
        Arc::new(Says(move |chain: &[u8]| {
            let leaf = chain.strip_suffix(&branch[..]).filter(|leaf| !leaf.is_empty());
            let leaf = leaf.ok_or_else(|| Fault::new("certificate", "the branch is not in the chain"))?;
            let refuse = |error| Fault::new("certificate", format!("{error}"));
            Certificate::parse(leaf).and_then(|leaf| leaf.verify(&anchor, None)).map_err(refuse)
        }))
    }

    fn node(&self, role: RoleKind, id: &str) -> TlsIdentity {
        let (chain, key) = self.chain(role, id);
        TlsIdentity::new(chain, key, self.verifier())
    }

    /// One that forgets to say who issued its certificate.
    fn forgetful(&self, role: RoleKind, id: &str) -> TlsIdentity {
        let (leaf, key) = self.0.certify(role, id);
        TlsIdentity::new(leaf, key, self.verifier())
    }
}

#[tokio::test]
async fn chains_are_shown_and_judged_as_a_whole_on_both_sides() {
    let branch = Branch(Authority::new());
    let gateway = branch.node(RoleKind::Gateway, "gw-1");
    let (_server, url) = server(branch.node(RoleKind::Directory, "bds"), HttpConfig::default()).await;
    assert_eq!(ask(&gateway, &format!("{url}/x"), b"").await.unwrap(), b"/xgateway gw-1");
    let forgetful = branch.forgetful(RoleKind::Gateway, "gw-1");
    assert_eq!(ask(&forgetful, &url, b"").await.unwrap_err().code, "network");
    let (_server, url) = server(branch.forgetful(RoleKind::Directory, "bds"), HttpConfig::default()).await;
    let fault = ask(&gateway, &url, b"").await.unwrap_err();
    assert_eq!(fault, Fault::new("certificate", "the branch is not in the chain"));
}

#[tokio::test]
async fn a_chain_of_more_than_four_is_refused_before_it_is_judged() {
    let ttp = Authority::new();
    let (leaf, key) = ttp.certify(RoleKind::Directory, "bds");
    let certificates = |count: usize| {
        let mut chain = vec![ttp.root.der().to_vec(); count];
        chain[0].clone_from(&leaf);
        chain
    };
    let judged = Arc::new(AtomicUsize::new(0));
    let (count, anchor) = (judged.clone(), TrustAnchor::from_certificate(ttp.root.der()).unwrap());
    let length = leaf.len();
    let verifier: Arc<dyn PeerVerifier> = Arc::new(Says(move |chain: &[u8]| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Certificate::parse(&chain[..length]).unwrap().verify(&anchor, None).unwrap())
    }));
    let me = TlsIdentity::new(leaf.clone(), key.clone(), verifier);

    // Shown by a client.
    let (_server, url) = server(me.clone(), HttpConfig::default()).await;
    let mut four = soon(Stock::connect(&url, Some((&certificates(4), &key)))).await.unwrap();
    assert_eq!(soon(four.ask("/x")).await.unwrap().1, "/xdirectory bds");
    let before = judged.load(Ordering::SeqCst);
    assert!(before > 0);
    if let Ok(mut five) = soon(Stock::connect(&url, Some((&certificates(5), &key)))).await {
        assert!(soon(five.ask("/x")).await.is_err());
    }
    // Shown by a server.
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(ders(&certificates(5)), der(&key))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_err());
    });
    let fault = ask(&me, &url, b"").await.unwrap_err();
    assert_eq!((fault.code.as_ref(), fault.detail.contains("at most 4")), ("certificate", true), "{fault}");
    assert_eq!(judged.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn new_credentials_count_from_the_next_connection_on() {
    let branch = Branch(Authority::new());
    let directory = branch.node(RoleKind::Directory, "bds");
    let (_server, url) = server(directory.clone(), HttpConfig::default()).await;
    let (leaf, key) = branch.0.certify(RoleKind::Gateway, "gw-1");
    let shows = vec![leaf, branch.0.root.der().to_vec()];
    let connect = async || soon(Stock::connect(&url, Some((&shows, &key)))).await.unwrap();

    let mut open = connect().await;
    assert_eq!(open.certificates().concat(), directory.own.chain());
    assert_eq!(soon(open.ask("/x")).await.unwrap().1, "/xgateway gw-1");
    let (chain, new_key) = branch.chain(RoleKind::Directory, "bds");
    directory.own.switch(chain.clone(), new_key);
    assert_eq!(soon(open.ask("/y")).await.unwrap().1, "/ygateway gw-1");
    assert_eq!(connect().await.certificates().concat(), chain);

    // The same for who asks, and for all clones.
    let gateway = branch.node(RoleKind::Gateway, "gw-1");
    let clone = gateway.own.clone();
    assert_eq!(ask(&gateway, &format!("{url}/x"), b"").await.unwrap(), b"/xgateway gw-1");
    let (chain, key) = branch.chain(RoleKind::Gateway, "gw-2");
    clone.switch(chain.clone(), key);
    assert_eq!(ask(&gateway, &format!("{url}/x"), b"").await.unwrap(), b"/xgateway gw-2");
    assert_eq!(gateway.own.chain(), chain);
}

#[tokio::test]
async fn credentials_that_are_no_chain_are_named_at_once() {
    let ttp = Authority::new();
    let broken = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let mut chain = broken.own.chain();
    chain.pop();
    broken.own.switch(chain, Arc::new(SoftwareKey::generate().unwrap()));
    let fault = ask(&broken, "https://127.0.0.1:1/x", b"").await.unwrap_err();
    assert_eq!((fault.code.as_ref(), fault.detail.contains("our own")), ("certificate", true), "{fault}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(http::serve(listener, broken, Access::default(), HttpConfig::default(), echo()).is_err());
}
