//! Attacks on trust over real connections: bad certificates at every door, bad revocation lists, renewals by whoever
//! should not, parties that were revoked, strangers that take seats. Afterwards the genuine peer is served.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail loudly, and says what it measured"
)]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tracing_subscriber::util::SubscriberInitExt;
use trireme_core::api::{Renewal, path};
use trireme_core::message::{Response, TIER_1, TIER_2, Talk};
use trireme_core::role::{Subject, code};
use trireme_core::{RoleKind, cbor, formula, json as text};
use trireme_crypto::certificate::{Certificate, RevocationReason, RevokedEntry, chain};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::issue;
use trireme_crypto::key::{SoftwareKey, sign_formula};
use trireme_net::http::{self, HttpConfig, Who};
use trireme_net::tls::TlsIdentity;
use trireme_tests::attacker::forge::{Bad, bad};
use trireme_tests::attacker::{Agreed, Frame, Line, Party};
use trireme_tests::hierarchy::{self, Office};
use trireme_tests::lab::{Centre, DAY_MS, Lab, Running, image, model, now_ms};
use trireme_tests::scene::eventually;
use trireme_tests::stranger::{self, Believer, Impostor};

/// A small network under an intermediate.
struct World {
    lab: Lab,
    centre: Centre,
    broker: Running,
    md: Arc<ModelSecrets>,
    maker: Running,
    gateway: Running,
    _sensor: Running,
}

impl World {
    async fn new() -> Self {
        let lab = Lab::with_intermediate();
        let centre = lab.centre().await;
        let broker = lab.broker(&centre, "bk-1").await;
        let md = model("MD-01");
        let models = std::slice::from_ref(&md);
        let maker = lab.manufacturer(&centre, "acme", models, &[("bk-1", broker.url("broker"))]).await;
        let gateway = lab.gateway(&centre, "gw-1").await;
        let sensor = lab.node("sn-1", vec![lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"))]).await;
        let world = Self { lab, centre, broker, md, maker, gateway, _sensor: sensor };
        world.serves("1.1").await;
        world
    }

    /// A release goes all the way: nobody is locked out.
    async fn serves(&self, version: &str) {
        let bytes = image(20_000, version.len() as u64 + u64::from(version.as_bytes()[2]));
        self.maker.publish_detached("MD-01", version, "digest", &bytes).await.unwrap();
        self.maker.sensors_report("MD-01", version, "installed", 1).await;
    }

    /// A manufacturer with a session at the broker.
    async fn speaker(&self, name: &str) -> (Line, Agreed) {
        let party = Party::certified(&self.lab, RoleKind::Manufacturer, name);
        let mut line = Line::mqtt(self.broker.address("broker"), name).await;
        let agreed = party.agree(&mut line, TIER_1).await.unwrap();
        (line, agreed)
    }

    async fn revoke(&self, role: &str, id: &str, serial: &[u8]) -> u64 {
        let body = json!({ "role": role, "id": id, "serials": [hex::encode(serial)] });
        let revoked = self.centre.node.ask("/authority/v1/revoke", body).await.unwrap();
        revoked["lists"][0]["number"].as_u64().unwrap()
    }
}

async fn audited(lab: &Lab, node: &str, after: usize, words: &[&str]) {
    eventually(&format!("the log of {node} says {words:?}"), || async {
        let lines = lab.audit(node);
        lines[after..].iter().any(|line| words.iter().all(|word| line.contains(word)))
    })
    .await;
}

async fn knows(node: &Running, role: &str, number: u64) -> bool {
    let status = node.ask(&format!("/{role}/v1/identity"), json!({})).await.unwrap();
    status["items"].as_array().unwrap().iter().any(|item| item["number"] == number)
}

/// Waits until a role has its time and its lists.
async fn ready(node: &Running, role: &str) {
    eventually("lists were fetched", || async {
        let status = node.ask(&format!("/{role}/v1/identity"), json!({})).await.unwrap();
        status["renews_ms"].is_u64() && status["fetched_ms_ago"].is_u64()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bad_certificate_passes_at_tier_1_and_the_log_says_what_is_wrong_with_each() {
    let world = World::new().await;
    ready(&world.broker, "broker").await;
    for Bad { what, party, why } in bad(&world.lab, RoleKind::Manufacturer, "acme") {
        let seen = world.lab.audit("bk-1").len();
        let mut line = Line::mqtt(world.broker.address("broker"), "impostor").await;
        assert!(matches!(party.agree(&mut line, TIER_1).await, Err(None)), "{what} is answered");
        audited(&world.lab, "bk-1", seen, &["message \\\"push\\\"", why]).await;
        let said = world.lab.audit("bk-1").pop().unwrap();
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
    // The right certificate of the wrong role.
    let seen = world.lab.audit("bk-1").len();
    let mut line = Line::mqtt(world.broker.address("broker"), "impostor").await;
    let gateway = Party::certified(&world.lab, RoleKind::Gateway, "acme");
    assert!(matches!(gateway.agree(&mut line, TIER_1).await, Err(None)));
    audited(&world.lab, "bk-1", seen, &["forbidden", "gateway acme"]).await;
    world.serves("1.2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bad_certificate_passes_at_tier_2_and_the_log_says_what_is_wrong_with_each() {
    let world = World::new().await;
    ready(&world.broker, "broker").await;
    for Bad { what, party, why } in bad(&world.lab, RoleKind::Gateway, "gw-5") {
        let seen = world.lab.audit("bk-1").len();
        let mut line = Line::mqtt(world.broker.address("broker"), "gw-5").await;
        line.subscribe("trireme/fw/acme/MD-01").await;
        let Frame::Push(push) = line.until(|frame| matches!(frame, Frame::Push(_))).await else { panic!() };
        let (_, response) = party.answer(&push);
        line.send(&Frame::Response(cbor::encode(&Response::Agreement(response)))).await;
        assert_eq!(line.rest().await, [], "{what}");
        audited(&world.lab, "bk-1", seen, &["message \\\"response\\\"", why]).await;
    }
    world.serves("1.2").await;
}

/// What this process logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn said(&self, after: usize, why: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()[after..]).contains(why)
    }
}

// On one thread, so that all of it is logged here.
#[tokio::test]
async fn no_bad_certificate_passes_over_tls_on_either_side_and_the_log_says_what_is_wrong_with_each() {
    let log = Log::default();
    let writes = log.clone();
    let logs = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writes.clone()).finish();
    let _logging = logs.set_default();
    let world = World::new().await;
    let url = format!("{}{}", world.centre.authority, path::PARAMETERS);
    let verifier = Arc::new(Believer(world.lab.trust()));
    for Bad { what, party, why } in bad(&world.lab, RoleKind::Broker, "bk-9") {
        if party.certificate.is_empty() {
            continue;
        }
        let begun = log.0.lock().unwrap().len();
        let identity = TlsIdentity::new(party.certificate.clone(), party.signer.clone(), verifier.clone());
        let config = HttpConfig::default();
        let asked = http::post(&identity, Who::Certified, &config, RoleKind::Authority, &url, b"{}".to_vec());
        let fault = asked.await.expect_err(what);
        // What is no chain at all is not even sent.
        if !fault.detail.contains("our own certificate is unusable") {
            let what = format!("{what} ({fault}): the log says {why:?}");
            eventually(&what, || async { log.said(begun, why) }).await;
        }
    }
    // The other way round: somebody at the authority's address.
    for Bad { what, party, why } in bad(&world.lab, RoleKind::Authority, "ttp") {
        if party.certificate.is_empty() || chain::split(&party.certificate).is_err() {
            continue;
        }
        if ["expired on", "is valid only from 2040"].contains(&why) {
            // Dates are not judged before the time is known, and this is who tells it: see the tests of time.
            continue;
        }
        let impostor = Impostor::new(&party, &world.lab.trust(), &[], Vec::new()).await;
        let fault = stranger::ask(&world.lab.trust(), &impostor.url, path::TRUST, b"{}").await.unwrap_err();
        assert!(fault.code == code::CERTIFICATE && fault.detail.contains(why), "{what}: {fault}");
        assert!(impostor.heard().is_empty(), "{what}");
    }
    world.serves("1.2").await;
    let fine = Party::certified(&world.lab, RoleKind::Broker, "bk-9");
    let identity = TlsIdentity::new(fine.certificate.clone(), fine.signer.clone(), verifier);
    let config = HttpConfig::default();
    http::post(&identity, Who::Certified, &config, RoleKind::Authority, &url, b"{}".to_vec()).await.unwrap();
}

/// A list of this number and date; with so many entries.
fn list(office: &Office, number: u64, made_ms: u64, entries: usize) -> Vec<u8> {
    let entry = |at: usize| RevokedEntry {
        serial: [&[0x40; 12][..], &(at as u32).to_be_bytes()].concat(),
        at_ms: made_ms,
        reason: RevocationReason::Unspecified,
    };
    let entries: Vec<_> = (0..entries).map(entry).collect();
    let (key, certificate) = (office.key.as_ref(), &office.certificate);
    let next = made_ms + 7 * DAY_MS;
    let mut list = issue::revocation_list(key, certificate, number, &entries, made_ms, next).unwrap();
    list.extend_from_slice(&office.chain);
    list
}

/// Lists that must not count, and what an administrator reads.
fn bad_lists(lab: &Lab) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let now = now_ms();
    let office = &lab.issuing;
    let genuine = list(office, now / 1000, now, 3);
    let length = genuine.len() - office.chain.len();
    let mut unsigned = genuine.clone();
    unsigned[length - 1] ^= 1;
    let evil = lab.certify(RoleKind::Manufacturer, "evil", Some("evil"), &["MD-66"]);
    let leaf = chain::split(&evil.certificate).unwrap().remove(0);
    let leaf =
        Office { key: evil.signer, certificate: Certificate::parse(&leaf).unwrap(), chain: evil.certificate };
    let day = 86_400;
    vec![
        ("old", list(office, 7, 1_700_000_000_000, 0), "is known already"),
        ("unsigned", unsigned, "does not verify"),
        ("signed by a node", list(&leaf, now / 1000, now, 1), "is no authority"),
        ("of another authority", list(&Lab::with_intermediate().issuing, now / 1000, now, 1), ""),
        ("with a number ahead of its date", list(office, now / 1000 + day, now, 0), "far ahead of its date"),
        ("from the future", list(office, now / 1000 + day, now + DAY_MS, 0), "which is not yet"),
        ("no list at all", vec![0x30, 0x82, 0xff, 0xff], ""),
        ("huge", vec![0x30; 47 * 1024], ""),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_lists_at_the_broker_are_refused_and_a_genuine_newer_one_is_still_learned() {
    let world = World::new().await;
    ready(&world.broker, "broker").await;
    let before = world.broker.ask("/broker/v1/identity", json!({})).await.unwrap()["items"].clone();
    for (what, list, why) in bad_lists(&world.lab) {
        let seen = world.lab.audit("bk-1").len();
        let (mut line, mut agreed) = world.speaker("evil").await;
        line.send(&agreed.seal(&Talk::Trust(list))).await;
        audited(&world.lab, "bk-1", seen, &["manufacturer evil", "is refused", why]).await;
        let after = world.broker.ask("/broker/v1/identity", json!({})).await.unwrap()["items"].clone();
        assert_eq!(after, before, "{what}");
    }
    // Thousands of them end the link, and the log stays short.
    let seen = world.lab.audit("bk-1").len();
    let (mut line, mut agreed) = world.speaker("evil").await;
    for number in 0..2000_u64 {
        let old = list(&world.lab.root, number, 1_700_000_000_000, 0);
        if !line.send(&agreed.seal(&Talk::Trust([&old[..20], &number.to_be_bytes()].concat()))).await {
            break;
        }
    }
    drop(line.rest().await);
    audited(&world.lab, "bk-1", seen, &["nothing but bad lists"]).await;
    // A line for each list of each link, if all were written: thousands.
    let lines = world.lab.audit("bk-1").len() - seen;
    assert!(lines < 200, "{lines} lines");
    // Claims to know lists of the far future keep nothing from anybody else.
    let claim = before
        .as_array()
        .unwrap()
        .iter()
        .map(|item| serde_json::from_value(json!({ "id": item["id"], "number": u64::MAX })).unwrap());
    let (mut line, mut agreed) = world.speaker("evil").await;
    line.send(&agreed.seal(&Talk::TrustKnown(claim.collect()))).await;
    let nobody = world.lab.certify(RoleKind::Gateway, "gw-9", None, &[]);
    let number = world.revoke("gateway", "gw-9", &hierarchy::serial_of(&nobody.certificate)).await;
    for (node, role) in [(&world.broker, "broker"), (&world.gateway, "gateway")] {
        eventually("the genuine list is learned", || knows(node, role, number)).await;
    }
    world.serves("1.2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_lists_of_a_rogue_broker_are_refused_and_a_genuine_newer_one_is_still_learned() {
    let lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let md = model("MD-01");
    let _maker = lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", url)]).await;
    let gateway = lab.gateway(&centre, "gw-1").await;
    let _sensor = lab.node("sn-1", vec![lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"))]).await;
    let rogue = Party::certified(&lab, RoleKind::Broker, "bk-1");
    let caught = async || loop {
        let mut line = Line::serve(&listener).await;
        // The gateway subscribes; the manufacturer would say PUSH.
        if matches!(line.within(Duration::from_secs(2)).await, Some(Frame::Plain(bytes)) if bytes[0] == 0x82)
        {
            let agreed = rogue.agree(&mut line, TIER_2).await.unwrap();
            return (line, agreed);
        }
    };
    ready(&gateway, "gateway").await;
    for (_, list, why) in bad_lists(&lab) {
        let seen = lab.audit("gw-1").len();
        let (mut line, mut agreed) = caught().await;
        line.send(&agreed.seal(&Talk::Trust(list))).await;
        audited(&lab, "gw-1", seen, &["broker bk-1", "is refused", why]).await;
    }
    let (mut line, mut agreed) = caught().await;
    let number = now_ms() / 1000 + 60;
    line.send(&agreed.seal(&Talk::Trust(list(&lab.issuing, number, now_ms(), 1)))).await;
    eventually("the genuine one is learned", || knows(&gateway, "gateway", number)).await;
}

fn renewal(party: &Party, certificate: &[u8]) -> Vec<u8> {
    let next = SoftwareKey::generate().unwrap();
    let subject = Subject { role: RoleKind::Gateway, id: party.id.clone() };
    let request = issue::request(&next, &subject).unwrap();
    let signature = sign_formula(party.signer.as_ref(), &formula::renew(&request, certificate)).unwrap();
    let (request, certificate) = (text::hexed(&request), text::hexed(certificate));
    text::write(&Renewal { request, certificate, signature })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_renews_what_is_not_its_own_or_does_not_count_any_more() {
    let lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    let (trust, url) = (lab.trust(), centre.authority.clone());
    let renew = async |body: &[u8]| stranger::ask(&trust, &url, path::RENEW, body).await;
    let victim = Party::certified(&lab, RoleKind::Gateway, "gw-1");
    let thief = Party::certified(&lab, RoleKind::Gateway, "gw-2");
    lab.register(&centre).await;
    let said = |why: &str| {
        let lines = lab.audit("centre");
        let last = lines.iter().rfind(|line| line.contains("refused to renew")).unwrap();
        assert!(last.contains(why), "{why}: {last}");
    };
    let fault = renew(&renewal(&thief, &victim.certificate)).await.unwrap_err();
    assert_eq!(fault.detail, "refused", "strangers learn no more");
    said("gateway gw-1 does not verify");
    // A body that was recorded certifies the same key again, which the thief does not have; and not for ever.
    let body = renewal(&victim, &victim.certificate);
    let mut given = 0;
    while given < 40 && renew(&body).await.is_ok() {
        given += 1;
    }
    assert_eq!(given, 15, "with the first, sixteen certificates of one node count at a time");
    // Who is revoked, has run out, is another's or has another role.
    let revoke = json!({ "role": "gateway", "id": "gw-1", "serials": [hex::encode(hierarchy::serial_of(&victim.certificate))] });
    centre.node.ask("/authority/v1/revoke", revoke).await.unwrap();
    renew(&renewal(&victim, &victim.certificate)).await.unwrap_err();
    said("is revoked");
    renew(&body).await.unwrap_err();
    said("is revoked");
    let late =
        Party::new("gw-3", &lab.certify_until(RoleKind::Gateway, "gw-3", None, &[], now_ms() - 60_000));
    renew(&renewal(&late, &late.certificate)).await.unwrap_err();
    said("expired");
    let other = Party::certified(&Lab::with_intermediate(), RoleKind::Gateway, "gw-4");
    renew(&renewal(&other, &other.certificate)).await.unwrap_err();
    said("gateway gw-4: the signature does not verify");
    let authority = Party::certified(&lab, RoleKind::Authority, "ttp");
    renew(&renewal(&authority, &authority.certificate)).await.unwrap_err();
    said("cannot renew a certificate here");
    assert!(renew(b"{}").await.is_err() && renew(&vec![b'['; 200_000]).await.is_err());
    renew(&renewal(&thief, &thief.certificate)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_revoked_manufacturer_left_with_a_broker_reaches_nobody_any_more() {
    let mut world = World::new().await;
    let identity = world.maker.ask("/manufacturer/v1/identity", json!({})).await.unwrap();
    let serial = hex::decode(identity["serial"].as_str().unwrap()).unwrap();
    let number = world.revoke("manufacturer", "acme", &serial).await;
    eventually("the broker knows", || knows(&world.broker, "broker", number)).await;
    // Also not after a restart, from what the disk holds.
    let address = world.broker.address("broker");
    world.broker.node.shutdown().await;
    let mut plan = world.lab.broker_plan(&world.centre, "bk-1");
    plan.listen = vec![trireme_node::Listen::Mqtt(trireme_net::mqtt::carrier::Carrier::Mqtt, address)];
    world.broker = world.lab.node("bk-1", vec![plan]).await;
    let late = world.lab.gateway(&world.centre, "gw-late").await;
    let sensor = world.lab.sensor("sn-late", "acme", &world.md, &late.url("gateway"));
    let sensor = world.lab.node("sn-late", vec![sensor]).await;
    eventually("the new gateway knows", || knows(&late, "gateway", number)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sensor.status("sensor/sn-late").await["running"], "1.0");
    assert_eq!(late.status("gateway").await["releases"].as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certified_broker_that_was_revoked_gets_and_gives_nothing_any_more() {
    let world = World::new().await;
    let identity = world.broker.ask("/broker/v1/identity", json!({})).await.unwrap();
    let serial = hex::decode(identity["serial"].as_str().unwrap()).unwrap();
    let number = world.revoke("broker", "bk-1", &serial).await;
    for (node, role) in [(&world.gateway, "gateway"), (&world.maker, "manufacturer")] {
        node.ask(&format!("/{role}/v1/identity"), json!({ "fetch": true })).await.unwrap();
        eventually("it knows", || knows(node, role, number)).await;
    }
    let bytes = image(20_000, 9);
    world.maker.publish_detached("MD-01", "6.6", "digest", &bytes).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let release = world.maker.release("MD-01", "6.6").await.unwrap();
    assert_ne!(release.brokers[0].stage, "stored", "{release:?}");
    eventually("the gateway says why", || async {
        let status = world.gateway.status("gateway").await;
        let broker = &status["brokers"][0];
        broker["agreed"] != true && world.lab.audit("gw-1").iter().any(|line| line.contains("revoked"))
    })
    .await;
    assert_eq!(world.gateway.status("gateway").await["releases"][0]["version"], "1.1");
}

/// Connects onwards from as many addresses as a crowd has.
async fn crowd(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0_u32.. {
            let Ok((mut from, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4().unwrap();
                let own = Ipv4Addr::from(0x7f01_0000 + number / 16);
                socket.bind(SocketAddr::from((own, 0))).unwrap();
                let Ok(mut to) = socket.connect(to).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_hundred_strangers_that_hold_questions_open_keep_no_broker_from_its_lists() {
    let world = World::new().await;
    ready(&world.broker, "broker").await;
    let url = format!("https://{}", crowd(world.centre.node.address("authority")).await);
    let have = world.broker.ask("/broker/v1/identity", json!({})).await.unwrap()["items"].clone();
    let body = text::write(&json!({ "have": have, "wait_ms": 20_000 }));
    let mut strangers = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let (trust, url, body) = (world.lab.trust(), url.clone(), body.clone());
        strangers.spawn(async move {
            loop {
                let asked = Instant::now();
                let _ = stranger::ask(&trust, &url, path::TRUST, &body).await;
                if asked.elapsed() < Duration::from_millis(200) {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
    }
    eventually("the strangers sit", || async {
        let status = world.centre.node.ask("/authority/v1/status", json!({})).await.unwrap();
        status["waiting"].as_u64() > Some(300)
    })
    .await;
    let status = world.centre.node.ask("/authority/v1/status", json!({})).await.unwrap();
    let most = &status["waiting"];
    // A broker that starts now finds a seat, and a running one hears at once.
    let second = world.lab.broker(&world.centre, "bk-2").await;
    ready(&second, "broker").await;
    let nobody = world.lab.certify(RoleKind::Gateway, "gw-9", None, &[]);
    let began = Instant::now();
    let number = world.revoke("gateway", "gw-9", &hierarchy::serial_of(&nobody.certificate)).await;
    for broker in [&world.broker, &second] {
        eventually("the broker knows", || knows(broker, "broker", number)).await;
    }
    let took = began.elapsed();
    println!("measured: with {most} questions held open, brokers know of a revocation after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    strangers.shutdown().await;
}
