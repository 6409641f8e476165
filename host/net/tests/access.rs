//! Who may ask what: callers with a certificate, callers without, callers that leave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::soon;
use common::ttp::{Authority, Says, Stock};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use trireme_core::{Fault, RoleKind};
use trireme_net::http::{
    self, Access, Handler, HttpConfig, HttpRequest, HttpServer, Who, post, post_anonymous,
};
use trireme_net::tls::TlsIdentity;

/// Answers with path and caller.
fn who_asks() -> Handler {
    Arc::new(|HttpRequest { path, caller, .. }| {
        let caller = caller.map_or("nobody".into(), |caller| caller.to_string());
        Box::pin(async move { Ok(format!("{path} {caller}").into_bytes()) })
    })
}

async fn server(
    identity: TlsIdentity,
    open: &[&str],
    config: HttpConfig,
    handler: Handler,
) -> (HttpServer, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let access = Access { open: open.iter().map(|&path| path.to_owned()).collect() };
    let server = http::serve(listener, identity, access, config, handler).unwrap();
    let url = format!("https://{}", server.local_addr());
    (server, url)
}

async fn ask(me: &TlsIdentity, who: Who, url: &str) -> Result<String, Fault> {
    let config = HttpConfig::default();
    let asked = post(me, who, &config, RoleKind::Authority, url, b"{}".to_vec());
    soon(asked).await.map(|answer| String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn open_paths_are_for_everyone_and_the_others_for_certified_callers() {
    let ttp = Authority::new();
    let authority = ttp.node(RoleKind::Authority, "ttp", &ttp);
    let (_server, url) = server(authority, &["/v1/enrol"], HttpConfig::default(), who_asks()).await;
    let me = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let (open, closed) = (format!("{url}/v1/enrol"), format!("{url}/v1/parameters"));

    assert_eq!(ask(&me, Who::Certified, &open).await.unwrap(), "/v1/enrol gateway gw-1");
    assert_eq!(ask(&me, Who::Certified, &closed).await.unwrap(), "/v1/parameters gateway gw-1");
    assert_eq!(ask(&me, Who::Anonymous, &open).await.unwrap(), "/v1/enrol nobody");
    let fault = ask(&me, Who::Anonymous, &closed).await.unwrap_err();
    assert_eq!(fault, Fault::new("forbidden", "/v1/parameters needs a certificate; enrol first"));
    for near in ["/v1/enrol/", "/v1/enro", "/V1/enrol", "/v1/%65nrol", "//v1/enrol", "/"] {
        let fault = ask(&me, Who::Anonymous, &format!("{url}{near}")).await.unwrap_err();
        assert_eq!(fault.code, "forbidden", "{near}");
    }
}

#[tokio::test]
async fn who_has_no_identity_yet_still_knows_whom_it_asks() {
    let (ttp, other) = (Authority::new(), Authority::new());
    let authority = ttp.node(RoleKind::Authority, "ttp", &ttp);
    let (_server, url) = server(authority, &["/v1/enrol"], HttpConfig::default(), who_asks()).await;
    let url = format!("{url}/v1/enrol");
    let ask = async |believes: &Authority, role| {
        soon(post_anonymous(believes.verifier(), &HttpConfig::default(), role, &url, vec![])).await
    };
    assert_eq!(ask(&ttp, RoleKind::Authority).await.unwrap(), b"/v1/enrol nobody");
    assert_eq!(ask(&other, RoleKind::Authority).await.unwrap_err().code, "certificate");
    assert_eq!(ask(&ttp, RoleKind::Directory).await.unwrap_err().code, "certificate");
}

#[tokio::test]
async fn without_open_paths_no_stranger_comes_in() {
    let ttp = Authority::new();
    let authority = ttp.node(RoleKind::Authority, "ttp", &ttp);
    let (_server, url) = server(authority, &[], HttpConfig::default(), who_asks()).await;
    let me = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    assert!(ask(&me, Who::Certified, &url).await.is_ok());
    assert_eq!(ask(&me, Who::Anonymous, &url).await.unwrap_err().code, "network");
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_worse_than_none() {
    let (ttp, other) = (Authority::new(), Authority::new());
    let authority = ttp.node(RoleKind::Authority, "ttp", &ttp);
    let (_server, url) = server(authority, &["/v1/enrol"], HttpConfig::default(), who_asks()).await;
    let impostor = other.node(RoleKind::Gateway, "gw-1", &ttp);
    let url = format!("{url}/v1/enrol");
    assert_eq!(ask(&impostor, Who::Certified, &url).await.unwrap_err().code, "network");
    assert_eq!(ask(&impostor, Who::Anonymous, &url).await.unwrap(), "/v1/enrol nobody");
}

#[tokio::test]
async fn a_certificate_that_is_revoked_meanwhile_is_refused_at_the_next_request() {
    let ttp = Authority::new();
    let (leaf, key) = ttp.certify(RoleKind::Authority, "ttp");
    let (revoked, real) = (Arc::new(AtomicBool::new(false)), ttp.verifier());
    let is_revoked = revoked.clone();
    let verifier = Says(move |chain: &[u8]| match is_revoked.load(Ordering::SeqCst) {
        true => Err(Fault::new("certificate", "it is revoked")),
        false => real.verify(chain),
    });
    let authority = TlsIdentity::new(leaf, key, Arc::new(verifier));
    let (_server, url) = server(authority, &[], HttpConfig::default(), who_asks()).await;
    let (leaf, key) = ttp.certify(RoleKind::Gateway, "gw-1");
    let mut client = soon(Stock::connect(&url, Some((&[leaf], &key)))).await.unwrap();
    assert_eq!(soon(client.ask("/x")).await.unwrap().1, "/x gateway gw-1");
    revoked.store(true, Ordering::SeqCst);
    let (status, body) = soon(client.ask("/x")).await.unwrap();
    assert!(status.contains("403") && body.contains("certificate"), "{status} {body}");
}

/// Strangers get two connections under this configuration; after them there is room for who is certified.
async fn a_crowd_of_strangers(config: HttpConfig) {
    let ttp = Authority::new();
    let authority = ttp.node(RoleKind::Authority, "ttp", &ttp);
    let (_server, url) = server(authority, &["/v1/trust"], config, who_asks()).await;
    let me = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut stranger = soon(Stock::connect(&url, None)).await.unwrap();
        assert_eq!(soon(stranger.ask("/v1/trust")).await.unwrap().1, "/v1/trust nobody");
        inside.push(stranger);
    }
    for _ in 0..3 {
        if let Ok(mut outside) = soon(Stock::connect(&url, None)).await {
            assert!(soon(outside.ask("/v1/trust")).await.is_err());
        }
    }
    assert_eq!(ask(&me, Who::Certified, &format!("{url}/x")).await.unwrap(), "/x gateway gw-1");
    // Those who are inside are still served, and a seat that is given up is free again.
    assert!(soon(inside[1].ask("/v1/trust")).await.is_ok());
    drop(inside.pop());
    soon(async {
        while ask(&me, Who::Anonymous, &format!("{url}/v1/trust")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn strangers_take_at_most_half_of_all_connections() {
    a_crowd_of_strangers(HttpConfig { connections: 4, ..HttpConfig::default() }).await;
}

#[tokio::test]
async fn strangers_of_one_address_take_at_most_half_of_its_connections() {
    a_crowd_of_strangers(HttpConfig { connections_of_one: 4, ..HttpConfig::default() }).await;
}

/// Holds requests to `/hold` open for good; tells when one begins (true), and when it is dropped (false).
fn holds() -> (Handler, UnboundedReceiver<bool>) {
    struct Held(tokio::sync::mpsc::UnboundedSender<bool>);
    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.send(false);
        }
    }
    let (tell, told) = unbounded_channel();
    let handler: Handler = Arc::new(move |request| {
        let tell = tell.clone();
        Box::pin(async move {
            if request.path == "/hold" {
                tell.send(true).unwrap();
                let _held = Held(tell);
                std::future::pending::<()>().await;
            }
            Ok(b"here".to_vec())
        })
    });
    (handler, told)
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_seat_and_what_was_done_for_it() {
    let ttp = Authority::new();
    // One seat: whoever comes next needs the one of who left.
    let config = HttpConfig { connections: 1, ..HttpConfig::default() };
    let (handler, mut told) = holds();
    let (_server, url) = server(ttp.node(RoleKind::Authority, "ttp", &ttp), &[], config, handler).await;
    let me = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let (leaver, hold) = (me.clone(), format!("{url}/hold"));
    let asking = tokio::spawn(async move { ask(&leaver, Who::Certified, &hold).await });
    assert_eq!(soon(told.recv()).await, Some(true));
    assert!(ask(&me, Who::Certified, &url).await.is_err());
    asking.abort();
    // Long before the server's own limit of 30 seconds.
    assert_eq!(soon(told.recv()).await, Some(false));
    soon(async {
        while ask(&me, Who::Certified, &url).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_may_be_held_open_for_longer_than_everything_but_its_own_limit() {
    // Polls of 20 seconds fit.
    let usual = HttpConfig::default();
    assert!(usual.request >= Duration::from_secs(25) && usual.connection >= 2 * usual.request);
    let ttp = Authority::new();
    let handler: Handler = Arc::new(|_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            Ok(b"news".to_vec())
        })
    });
    let config = HttpConfig { opening: Duration::from_secs(1), ..usual };
    let (_server, url) =
        server(ttp.node(RoleKind::Authority, "ttp", &ttp), &["/poll"], config, handler).await;
    let me = ttp.node(RoleKind::Gateway, "gw-1", &ttp);
    let poll = format!("{url}/poll");
    let (certified, anonymous) =
        tokio::join!(ask(&me, Who::Certified, &poll), ask(&me, Who::Anonymous, &poll));
    assert_eq!((certified.unwrap(), anonymous.unwrap()), ("news".to_owned(), "news".to_owned()));
}
