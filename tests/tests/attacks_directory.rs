//! A directory that lies, and impostors of it: it is asked for brokers, and believed nothing that it cannot show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::net::TcpListener;
use trireme_actor::Trust;
use trireme_core::api::{BrokerAddress, BrokerLists, SignedBrokers};
use trireme_core::role::{Certified, code};
use trireme_core::{Fault, NodeId, RoleKind, Signature, TopicName};
use trireme_net::http::{self, Access, HttpConfig, HttpServer};
use trireme_net::tls::{PeerVerifier, TlsIdentity};
use trireme_tests::attacker::Party;
use trireme_tests::lab::{Centre, Lab, image, model};
use trireme_tests::scene::eventually;

/// A directory that answers whatever it was told to.
struct Liar {
    lists: Arc<Mutex<Vec<SignedBrokers>>>,
    url: String,
    _server: HttpServer,
}

impl Liar {
    /// Under this certificate.
    async fn new(lab: &Lab, keys: &Party) -> Self {
        let verifier = Arc::new(Anybody(lab.trust()));
        let identity = TlsIdentity::new(keys.certificate.clone(), keys.signer.clone(), verifier);
        let lists: Arc<Mutex<Vec<SignedBrokers>>> = Arc::default();
        let told = lists.clone();
        let handler: http::Handler = Arc::new(move |_| {
            let lists = told.lock().unwrap().clone();
            Box::pin(async move { Ok(serde_json::to_vec(&BrokerLists { lists }).unwrap()) })
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            http::serve(listener, identity, Access::default(), HttpConfig::default(), handler).unwrap();
        let url = format!("https://{}", server.local_addr());
        Self { lists, url, _server: server }
    }

    fn says(&self, lists: &[SignedBrokers]) {
        *self.lists.lock().unwrap() = lists.to_vec();
    }
}

struct Anybody(Trust);

impl PeerVerifier for Anybody {
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault> {
        let verified = self.0.verify(chain, None);
        verified
            .map(|(certified, _)| certified)
            .map_err(|error| Fault::new(code::CERTIFICATE, error.to_string()))
    }
}

fn list(maker: &Party, url: &str, sequence: u64) -> SignedBrokers {
    let mut list = SignedBrokers {
        manufacturer: maker.id.clone(),
        topic: TopicName::new(maker.id.as_str()).unwrap(),
        brokers: vec![BrokerAddress { id: NodeId::new("bk-1").unwrap(), url: url.into() }],
        sequence,
        issued_ms: 0,
        expires_ms: 0,
        signature: Signature([0; 64]),
        certificate: hex::encode(&maker.certificate),
    };
    list.signature = maker.sign(&list.formula());
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_takes_no_list_but_its_manufacturers_own_newest() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let liar = Liar::new(&lab, &Party::certified(&lab, RoleKind::Directory, "bds")).await;
    let broker = lab.broker(&centre, "bk-1").await;
    let md = model("MD-01");
    let url = broker.url("broker");
    let maker = lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", url.clone())]).await;
    let believer = Centre { node: centre.node, authority: centre.authority, directory: liar.url.clone() };
    let gateway = lab.gateway_with(&believer, "gw-1", &json!({ "directory_ms": 100 })).await;
    let sensor = lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"));
    let _sensors = lab.node("sensors", vec![sensor]).await;

    let acme = Party::new("acme", &lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
    let evil = Party::certified(&lab, RoleKind::Manufacturer, "evil");
    let elsewhere = "mqtt://127.0.0.1:9";
    let of_another = list(&evil.named("acme"), elsewhere, 1);
    let mut altered = list(&acme, &url, 1);
    altered.brokers[0].url = elsewhere.into();
    let mut of_another_topic = list(&acme, &url, 1);
    of_another_topic.topic = TopicName::new("evil").unwrap();
    of_another_topic.signature = acme.sign(&of_another_topic.formula());
    let unsigned = SignedBrokers { signature: Signature([0; 64]), ..list(&acme, elsewhere, 1) };
    let mut expired = list(&acme, elsewhere, 1);
    expired.expires_ms = 1;
    expired.signature = acme.sign(&expired.formula());
    let no_certificate = SignedBrokers { certificate: String::new(), ..list(&acme, elsewhere, 1) };
    let broken = SignedBrokers { certificate: "3082".into(), ..list(&acme, elsewhere, 1) };

    let alarms = || async { gateway.status("gateway").await["alarms"].to_string() };
    for (what, lie, why) in [
        ("another manufacturer's signature", of_another, "forbidden"),
        ("an altered address", altered, "authentication"),
        ("another topic", of_another_topic, "forbidden"),
        ("no signature", unsigned, "authentication"),
        ("expired", expired, "expired"),
        ("no certificate", no_certificate, "acme is refused"),
        ("a certificate cut short", broken, "certificate"),
        ("another scheme", list(&acme, "http://127.0.0.1:9", 1), "malformed"),
    ] {
        let before = lab.audit("gw-1").len();
        liar.says(&[lie]);
        eventually(what, || async { lab.audit("gw-1")[before..].iter().any(|line| line.contains(why)) })
            .await;
        assert_eq!(gateway.status("gateway").await["brokers"].to_string(), "[]", "{what}");
    }
    // One that nobody asked for.
    liar.says(&[list(&evil, elsewhere, 1), list(&acme, &url, 5)]);
    eventually("the gateway agrees with the broker", || async {
        gateway.status("gateway").await["brokers"][0]["agreed"] == true
    })
    .await;
    assert_eq!(gateway.status("gateway").await["brokers"].as_array().unwrap().len(), 1);
    // Older, and another under the same number: what was taken stays.
    for (lie, why) in
        [(list(&acme, elsewhere, 4), "number 4"), (list(&acme, elsewhere, 5), "two lists of number 5")]
    {
        liar.says(&[lie]);
        eventually(why, || async { alarms().await.contains(why) }).await;
        assert_eq!(gateway.status("gateway").await["brokers"][0]["urls"][0], url);
    }
    maker.publish_detached("MD-01", "1.1", "digest", &image(20_000, 1)).await.unwrap();
    maker.sensors_report("MD-01", "1.1", "installed", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manufacturer_visits_no_broker_that_it_has_not_listed_itself() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let liar = Liar::new(&lab, &Party::certified(&lab, RoleKind::Directory, "bds")).await;
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("mqtt://{}", stranger.local_addr().unwrap());
    let keys = lab.certify(RoleKind::Manufacturer, "evil", Some("acme"), &["MD-01"]);
    let mut unsigned = list(&Party::new("acme", &keys), &elsewhere, 1_000);
    liar.says(&[unsigned.clone()]);
    let believer = Centre { node: centre.node, authority: centre.authority, directory: liar.url.clone() };
    let maker = lab
        .manufacturer(&believer, "acme", &[model("MD-01")], &[("bk-1", "mqtt://127.0.0.1:9".into())])
        .await;
    maker.publish_detached("MD-01", "1.1", "digest", &image(20_000, 1)).await.unwrap();
    let audited = |why: &'static str| {
        let lab = &lab;
        move || async move {
            lab.audit("acme")
                .iter()
                .any(|line| line.contains("list of brokers is not taken") && line.contains(why))
        }
    };
    eventually("a list of another", audited("authentication")).await;
    unsigned.signature = Signature([0; 64]);
    liar.says(&[unsigned]);
    eventually("no list of ours", audited("is signed by")).await;
    liar.says(&[]);
    eventually("no list at all", audited("no list of ours")).await;
    let visited = tokio::time::timeout(std::time::Duration::from_millis(300), stranger.accept()).await;
    assert!(visited.is_err(), "the manufacturer went where the directory sent it");
    assert_eq!(maker.release("MD-01", "1.1").await.unwrap().brokers[0].stage, "asking");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_an_impostor_of_the_directory() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let (mut authority, mut last) = (Some(centre.node), None);
    for (number, impostor) in [
        Party::certified(&Lab::new(), RoleKind::Directory, "bds"),
        Party::certified(&lab, RoleKind::Directory, "bds").without_key(),
        Party::certified(&lab, RoleKind::Broker, "bds"),
    ]
    .into_iter()
    .enumerate()
    {
        let liar = Liar::new(&lab, &impostor).await;
        let believer = Centre {
            node: authority.take().unwrap(),
            authority: centre.authority.clone(),
            directory: liar.url.clone(),
        };
        let name = format!("gw-{number}");
        let gateway = lab.gateway(&believer, &name).await;
        let sensor = lab.sensor(&format!("sn-{number}"), "acme", &model("MD-01"), &gateway.url("gateway"));
        let _sensor = lab.node(&format!("sensors-{number}"), vec![sensor]).await;
        eventually("the gateway says why it has no brokers", || async {
            let why = gateway.status("gateway").await["directory"].as_str().unwrap_or_default().to_owned();
            ["certificate", "TLS"].iter().any(|word| why.contains(word))
        })
        .await;
        assert_eq!(gateway.status("gateway").await["brokers"].to_string(), "[]");
        authority = Some(believer.node);
        last = Some(gateway);
    }
    assert!(last.is_some());
}
