//! What authority and directory answer over HTTP under TLS, and to whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::sync::Arc;

use serde_json::{Value, json};
use trireme_actor::Trust;
use trireme_core::role::{Certified, Subject, code};
use trireme_core::{Fault, NodeId, RoleKind, formula};
use trireme_crypto::issue;
use trireme_crypto::key::sign_formula;
use trireme_net::http::{self, HttpConfig, Who};
use trireme_net::tls::{PeerVerifier, TlsIdentity};
use trireme_node::Listen;
use trireme_tests::lab::{Certificated, Lab, loopback};

struct Believes(Trust);

impl PeerVerifier for Believes {
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault> {
        let refuse = |error| Fault::new(code::CERTIFICATE, format!("{error}"));
        self.0.verify(chain, None).map(|(certified, _)| certified).map_err(refuse)
    }
}

fn identity(lab: &Lab, keys: &Certificated) -> TlsIdentity {
    let verifier = Arc::new(Believes(lab.trust()));
    TlsIdentity::new(keys.certificate.clone(), keys.signer.clone(), verifier)
}

async fn post(me: &TlsIdentity, role: RoleKind, url: &str, path: &str, body: Value) -> Result<Value, Fault> {
    let url = format!("{url}{path}");
    let body = body.to_string().into_bytes();
    let answer = http::post(me, Who::Certified, &HttpConfig::default(), role, &url, body).await?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_gives_parameters_and_renews_the_certificate_of_who_has_one() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let keys = lab.certify(RoleKind::Gateway, "gw-9", None, &[]);
    let me = identity(&lab, &keys);
    let parameters =
        post(&me, RoleKind::Authority, &centre.authority, "/v1/parameters", json!({})).await.unwrap();
    assert_eq!(parameters["tier_1"]["curve"], "P-256");
    assert_eq!(parameters["tier_2"]["curve"], "P-256");
    let subject = Subject { role: RoleKind::Gateway, id: NodeId::new("gw-9").unwrap() };
    lab.register(&centre).await;
    let request = issue::request(keys.signer.as_ref(), &subject).unwrap();
    let signature = sign_formula(keys.signer.as_ref(), &formula::renew(&request, &keys.certificate)).unwrap();
    let body = json!({
        "request": hex::encode(&request), "certificate": hex::encode(&keys.certificate), "signature": signature,
    });
    let renewed = post(&me, RoleKind::Authority, &centre.authority, "/v1/renew", body).await.unwrap();
    let renewed = hex::decode(renewed["certificate"].as_str().unwrap()).unwrap();
    let (certified, key) = lab.trust().verify(&renewed, None).unwrap();
    assert_eq!(certified.subject, subject);
    assert_eq!(key, keys.signer.public_key());
    assert_ne!(renewed, keys.certificate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_of_this_authority_gets_nothing() {
    let (lab, other) = (Lab::new(), Lab::new());
    let centre = lab.centre().await;
    let stranger = other.certify(RoleKind::Gateway, "gw-9", None, &[]);
    // It believes our authority, and has a certificate of another one.
    let me = identity(&lab, &stranger);
    assert!(post(&me, RoleKind::Authority, &centre.authority, "/v1/parameters", json!({})).await.is_err());
    assert!(post(&me, RoleKind::Directory, &centre.directory, "/v1/brokers-of", json!({})).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_reaches_the_role_on_open_paths_only() {
    let lab = Lab::new();
    let keys = lab.certify(RoleKind::Authority, "ttp", None, &[]);
    let mut authority = lab.role(RoleKind::Authority, keys, json!({}), vec![Listen::Https(loopback())]);
    authority.open = vec!["/v1/renew".into()];
    let node = lab.node("ttp", vec![authority]).await;
    let me = identity(&lab, &lab.certify(RoleKind::Gateway, "gw-9", None, &[]));
    let ask = async |who, path: &str| {
        let url = format!("{}{path}", node.url("authority"));
        http::post(&me, who, &HttpConfig::default(), RoleKind::Authority, &url, b"{}".to_vec()).await
    };
    // The role itself reads the request, and says what is wrong with it.
    let fault = ask(Who::Anonymous, "/v1/renew").await.unwrap_err();
    assert_eq!(fault.code, code::MALFORMED);
    let fault = ask(Who::Anonymous, "/v1/parameters").await.unwrap_err();
    assert_eq!(fault, Fault::new(code::FORBIDDEN, "/v1/parameters needs a certificate; enrol first"));
    assert!(ask(Who::Certified, "/v1/parameters").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_role_is_not_asked() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let me = identity(&lab, &lab.certify(RoleKind::Gateway, "gw-9", None, &[]));
    let fault =
        post(&me, RoleKind::Directory, &centre.authority, "/v1/parameters", json!({})).await.unwrap_err();
    assert_eq!(fault.code, code::CERTIFICATE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_answers_each_role_its_own_question_only() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let gateway = identity(&lab, &lab.certify(RoleKind::Gateway, "gw-9", None, &[]));
    let maker = identity(&lab, &lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
    let of = json!({ "manufacturers": ["acme"] });
    let lists =
        post(&gateway, RoleKind::Directory, &centre.directory, "/v1/brokers-of", of.clone()).await.unwrap();
    assert_eq!(lists["lists"].as_array().map(Vec::len), Some(0));
    assert!(post(&maker, RoleKind::Directory, &centre.directory, "/v1/own-brokers", json!({})).await.is_ok());
    for (me, path, body) in [(&gateway, "/v1/own-brokers", json!({})), (&maker, "/v1/brokers-of", of)] {
        let fault = post(me, RoleKind::Directory, &centre.directory, path, body).await.unwrap_err();
        assert_eq!(fault.code, code::FORBIDDEN, "{path}");
    }
}
