//! First certificates over the network: a thousand at a time, and everything that can be tried with a token.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail loudly, and says what it measured"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trireme::enrol::{Answer, EnrolError};
use trireme_actor::{Commit, Store};
use trireme_core::RoleKind;
use trireme_core::api::{Enrol, path};
use trireme_core::json as text;
use trireme_core::role::code;
use trireme_crypto::key::{Signer, SoftwareKey};
use trireme_node::Listen;
use trireme_tests::attacker::Party;
use trireme_tests::hierarchy;
use trireme_tests::lab::{Lab, Running, loopback};
use trireme_tests::relay::{Relay, Way};
use trireme_tests::stranger::{self, Impostor, enrol};

/// What the project promises for a thousand nodes.
const PROMISED: Duration = Duration::from_secs(20);
/// Nodes that are enrolled at the same time.
const AT_A_TIME: usize = 16;

async fn authority(lab: &Lab) -> Running {
    let keys = lab.certify(RoleKind::Authority, "ttp", None, &[]);
    let plan = lab.role(RoleKind::Authority, keys, json!({}), vec![Listen::Https(loopback())]);
    lab.node("centre", vec![plan]).await
}

async fn token(authority: &Running, id: &str) -> String {
    stranger::token(authority, json!({ "role": "gateway", "id": id })).await.unwrap()
}

async fn made_token(authority: &Running, id: &str) -> String {
    let wish = json!({ "role": "gateway", "id": id, "make_key": true });
    stranger::token(authority, wish).await.unwrap()
}

fn key() -> SoftwareKey {
    SoftwareKey::generate().unwrap()
}

/// An authority does not tell strangers why; its audit log does.
fn refused(lab: &Lab, answer: Result<Answer, EnrolError>, why: &str) {
    let error = answer.map(|answer| answer.certified.subject.to_string()).unwrap_err();
    assert!(matches!(error, EnrolError::Refused(_)), "{error}");
    let audit = lab.audit("centre");
    assert!(audit.last().unwrap().contains(why), "{why}: {:?}", audit.last());
}

fn secret(token: &str) -> &str {
    token.split('.').nth(1).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_are_enrolled_sixteen_at_a_time() {
    let lab = Lab::with_intermediate();
    let authority = Arc::new(authority(&lab).await);
    let (url, next) = (authority.url("authority"), Arc::new(AtomicUsize::new(0)));
    let trust = lab.trust();
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (authority, url, next, trust) = (authority.clone(), url.clone(), next.clone(), trust.clone());
        running.spawn(async move {
            let mut makes = Duration::ZERO;
            while let number @ 0..1000 = next.fetch_add(1, Ordering::Relaxed) {
                let (id, key, begun) = (format!("gw-{number}"), key(), Instant::now());
                let token = token(&authority, &id).await;
                makes += begun.elapsed();
                let answer = enrol(&url, &token, &id, Some(&key)).await.unwrap();
                let (certified, certified_key) = trust.verify(&answer.chain, None).unwrap();
                assert_eq!((certified.subject.id.as_str(), certified_key), (id.as_str(), key.public_key()));
            }
            makes
        });
    }
    let mut makes = Duration::ZERO;
    while let Some(done) = running.join_next().await {
        makes += done.unwrap();
    }
    let took = began.elapsed();
    println!(
        "measured: 1000 nodes enrolled in {took:?}, {AT_A_TIME} at a time (promised: {PROMISED:?}); of {:?} for one, \
         {:?} were for its token",
        took * AT_A_TIME as u32 / 1000,
        makes / 1000
    );
    let status = authority.ask("/authority/v1/status", json!({})).await.unwrap();
    assert_eq!(status["tokens_open"], 0, "{status}");
    // Generous, for whatever machine this runs on.
    assert!(took < 3 * PROMISED, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_counts_once_in_its_time_for_its_node_and_until_it_is_withdrawn() {
    let lab = Lab::with_intermediate();
    let authority = authority(&lab).await;
    let url = authority.url("authority");

    let used = token(&authority, "gw-1").await;
    let own = key();
    let first = enrol(&url, &used, "gw-1", Some(&own)).await.unwrap();
    let again = enrol(&url, &used, "gw-1", Some(&own)).await.unwrap();
    assert_eq!(again.chain, first.chain, "the same key gets the same certificate");
    refused(&lab, enrol(&url, &used, "gw-1", Some(&key())).await, "ALARM");

    // Whatever the request calls itself, the certificate is for whom the token is, and its holder sees that.
    let others = token(&authority, "gw-2").await;
    let error = enrol(&url, &others, "gw-3", Some(&own)).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("gateway gw-2 and not for gateway gw-3"), "{error}");

    let withdrawn = token(&authority, "gw-4").await;
    let id = withdrawn.split('.').next().unwrap();
    authority.ask("/authority/v1/token/withdraw", json!({ "token": id })).await.unwrap();
    refused(&lab, enrol(&url, &withdrawn, "gw-4", Some(&key())).await, "is withdrawn");

    // With or without a key of its own, as the token says.
    let mismatched = token(&authority, "gw-5").await;
    refused(&lab, enrol(&url, &mismatched, "gw-5", None).await, "came without a request");
    let mismatched = made_token(&authority, "gw-6").await;
    refused(&lab, enrol(&url, &mismatched, "gw-6", Some(&key())).await, "came with a request");
    let fault = stranger::token(&authority, json!({ "role": "authority", "id": "ttp-2" })).await;
    assert_eq!(fault.unwrap_err().code, code::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_expired_is_refused_and_so_is_the_answer_to_one_that_was_used() {
    let lab = Lab::with_intermediate();
    let running = authority(&lab).await;
    let (fresh, used) = (token(&running, "gw-1").await, token(&running, "gw-2").await);
    let own = key();
    enrol(&running.url("authority"), &used, "gw-2", Some(&own)).await.unwrap();
    running.node.shutdown().await;
    drop(running.socket);
    {
        // As if their time had passed: the shortest life of a token is a minute.
        let database = trireme_store::Database::open(lab.path("centre")).unwrap();
        let mut state = database.namespace("authority");
        let mut commit = Commit::default();
        for (name, bytes) in state.load().unwrap() {
            if name.starts_with("token/") {
                let mut record: Value = serde_json::from_slice(&bytes).unwrap();
                record["expires_ms"] = json!(1_700_000_000_000_u64);
                commit.puts.insert(name, Some(serde_json::to_vec(&record).unwrap()));
            }
        }
        assert_eq!(commit.puts.len(), 2);
        state.commit(commit).unwrap();
    }
    let running = authority(&lab).await;
    let url = running.url("authority");
    refused(&lab, enrol(&url, &fresh, "gw-1", Some(&key())).await, "has expired");
    refused(&lab, enrol(&url, &used, "gw-2", Some(&own)).await, "has expired");
    enrol(&url, &token(&running, "gw-1").await, "gw-1", Some(&key())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_secrets_loses_the_token_and_no_other() {
    let lab = Lab::with_intermediate();
    let authority = authority(&lab).await;
    let url = authority.url("authority");
    let (guessed, other) = (token(&authority, "gw-1").await, token(&authority, "gw-2").await);
    let trust = lab.trust();
    for guess in 0..10 {
        let wrong = format!("{}.{guess:032x}", guessed.split('.').next().unwrap());
        let body = text::write(&Enrol { token: wrong, request: Some("30".into()) });
        let fault = stranger::ask(&trust, &url, path::ENROL, &body).await.unwrap_err();
        assert_eq!(fault.code, code::FORBIDDEN, "{fault}");
    }
    assert!(lab.audit("centre").last().unwrap().contains("ALARM"), "{:?}", lab.audit("centre").last());
    refused(&lab, enrol(&url, &guessed, "gw-1", Some(&key())).await, "is withdrawn");

    // A flood of guesses at tokens that do not exist is answered, counted, and keeps nobody from enrolling.
    let lines = lab.audit("centre").len();
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..200_u32 {
        let (trust, url) = (trust.clone(), url.clone());
        guesses.spawn(async move {
            let wrong = format!("{guess:08x}.{guess:032x}");
            let body = text::write(&Enrol { token: wrong, request: Some("30".into()) });
            stranger::ask(&trust, &url, path::ENROL, &body).await.unwrap_err();
        });
    }
    let served = Instant::now();
    let mut answer = enrol(&url, &other, "gw-2", Some(&key())).await;
    while answer.as_ref().is_err_and(|error| !matches!(error, EnrolError::Refused(_))) {
        // All seats of strangers are taken for a moment.
        assert!(served.elapsed() < Duration::from_secs(20));
        answer = enrol(&url, &other, "gw-2", Some(&key())).await;
    }
    answer.unwrap();
    println!("measured: enrolled in {:?} while 200 guesses came in", served.elapsed());
    guesses.join_all().await;
    assert!(lab.audit("centre").len() - lines <= 80, "refusals fill the audit log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_first_contact_a_stranger_gets_to_see_neither_secret_nor_request() {
    let lab = Lab::with_intermediate();
    let authority = authority(&lab).await;
    let token = token(&authority, "gw-1").await;
    let foreign = Lab::with_intermediate();
    let party = Party::certified(&foreign, RoleKind::Authority, "ttp");
    let (own_root, right_root) = (foreign.root.certificate.der(), lab.root.certificate.der());
    // Its own root; the right one, which anybody can fetch; and the right root with a certificate of the right
    // authority whose key it does not have, or of a node that is no authority.
    let broker = Party::certified(&lab, RoleKind::Broker, "bk-1");
    let keyless = Party::certified(&lab, RoleKind::Authority, "ttp").without_key();
    for (party, roots, why) in [
        (&party, vec![own_root], "of the root"),
        (&party, vec![own_root, right_root], ""),
        (&broker, vec![right_root], ""),
        (&keyless, vec![right_root], ""),
    ] {
        let impostor =
            Impostor::new(party, &lab.trust(), &roots, b"{\"items\":[],\"more\":false}".to_vec()).await;
        let error = enrol(&impostor.url, &token, "gw-1", Some(&key())).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        for (path, body) in impostor.heard() {
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(path != path::ENROL && !body.contains(secret(&token)), "{path}: {body}");
        }
    }
    // The token is as good as before.
    enrol(&authority.url("authority"), &token, "gw-1", Some(&key())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_on_the_way_is_given_again() {
    let lab = Lab::with_intermediate();
    let authority = authority(&lab).await;
    let mut relay = Relay::bind().await.unwrap();
    let url = format!("https://{}", relay.address());
    // Spoils what comes back on each second connection (the first asks for the roots) once so many bytes went there.
    let (spoil, there) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
    let (spoils, went) = (spoil.clone(), there.clone());
    relay.forward(
        authority.address("authority"),
        Box::new(move |passing| {
            if passing.connection % 2 == 0 {
                return;
            }
            if passing.way == Way::There {
                went.store(passing.before + passing.bytes.len() as u64, Ordering::Relaxed);
            } else if went.load(Ordering::Relaxed) >= spoils.load(Ordering::Relaxed) {
                passing.bytes.fill(0);
            }
        }),
    );
    enrol(&url, &token(&authority, "gw-0").await, "gw-0", Some(&key())).await.unwrap();
    // Requests differ by some bytes, by the lengths of their signatures.
    spoil.store(there.swap(0, Ordering::Relaxed) - 16, Ordering::Relaxed);
    let (token, own) = (token(&authority, "gw-1").await, key());
    let error = enrol(&url, &token, "gw-1", Some(&own)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, EnrolError::Authority { .. }), "{error}");
    assert!(
        lab.audit("centre").last().unwrap().contains("enrolled gateway gw-1"),
        "it was lost on its way back"
    );
    spoil.store(u64::MAX, Ordering::Relaxed);
    let answer = enrol(&url, &token, "gw-1", Some(&own)).await.unwrap();
    assert_eq!(answer.certified.subject.id.as_str(), "gw-1");
    let enrolled = lab.audit("centre").iter().filter(|line| line.contains("enrolled gateway gw-1")).count();
    assert_eq!(enrolled, 1, "one certificate, given twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_authority_makes_is_handed_over_once_and_kept_nowhere() {
    let lab = Lab::with_intermediate();
    let authority = authority(&lab).await;
    let url = authority.url("authority");
    let token = made_token(&authority, "gw-1").await;
    let answer = enrol(&url, &token, "gw-1", None).await.unwrap();
    let made = answer.key.unwrap();
    assert_eq!(lab.trust().verify(&answer.chain, None).unwrap().1, made.public_key());
    refused(&lab, enrol(&url, &token, "gw-1", None).await, "ALARM");
    authority.node.shutdown().await;
    let database = trireme_store::Database::open(lab.path("centre")).unwrap();
    let secret = made.to_pkcs8_pem().unwrap();
    let der = secret.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    for (name, value) in database.namespace("authority").load().unwrap() {
        let value = String::from_utf8_lossy(&value).into_owned();
        assert!(!value.contains(&der[40..80]) && !value.contains("ENCRYPTED"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_comes_back_with_a_new_token_and_a_new_key_alone() {
    let lab = Lab::with_intermediate();
    let authority = authority(&lab).await;
    let url = authority.url("authority");
    let (used, waiting) = (token(&authority, "gw-1").await, token(&authority, "gw-1").await);
    let stolen = key();
    let first = enrol(&url, &used, "gw-1", Some(&stolen)).await.unwrap();
    let order = json!({ "role": "gateway", "id": "gw-1", "reason": "key-compromise" });
    authority.ask("/authority/v1/revoke", order).await.unwrap();
    refused(&lab, enrol(&url, &used, "gw-1", Some(&stolen)).await, "is revoked");
    refused(&lab, enrol(&url, &waiting, "gw-1", Some(&key())).await, "is withdrawn");
    let fresh = token(&authority, "gw-1").await;
    let error = enrol(&url, &fresh, "gw-1", Some(&stolen)).await.map(|_| ()).unwrap_err();
    assert!(lab.audit("centre").last().unwrap().contains("compromised"), "{error}");
    let again = enrol(&url, &fresh, "gw-1", Some(&key())).await.unwrap();
    assert_ne!(hierarchy::serial_of(&again.chain), hierarchy::serial_of(&first.chain));
    let items = lab.trust_after(&[&list_of(&lab, &url).await]);
    assert!(items.verify(&again.chain, None).is_ok());
    assert!(items.verify(&first.chain, None).is_err_and(|error| error.to_string().contains("revoked")));
}

/// The authority's newest list, as anyone gets it.
async fn list_of(lab: &Lab, url: &str) -> Vec<u8> {
    let answer = stranger::ask(&lab.trust(), url, path::TRUST, b"{\"have\":[],\"wait_ms\":0}").await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    hex::decode(answer["items"].as_array().unwrap().last().unwrap().as_str().unwrap()).unwrap()
}
