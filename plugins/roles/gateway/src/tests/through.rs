//! Intermediate versions: what leads to a release is offered first, and only to those that need it.

use trireme_core::rollout::{Order, Plan, Rollout};
use trireme_core::through;

use super::*;

const OLD: &[u8] = b"one point nine";
const NEW: &[u8] = b"two";
const STEP: Token = Token([19; 32]);

/// 2.0 by way of 1.9, and the latter.
fn manifest_2(bench: &mut Bench, sequence: u64) -> (Manifest, Image) {
    let digest = bench.broker.blob(OLD);
    let tokens = vec![GenerationToken { generation: 1, token: STEP }];
    let image = Image { version: version("1.9"), size: OLD.len() as u64, digest, tokens };
    let extensions = through::extension(core::slice::from_ref(&image)).into_iter().collect();
    (Manifest { extensions, ..bench.manifest("2.0", NEW, sequence) }, image)
}

/// The release arrives, and then what leads to it.
fn arrived(bench: &mut Bench) {
    let (manifest, image) = manifest_2(bench, 1);
    assert_eq!(bench.deliver(&manifest, Suite::Digest, NEW, 0).0, Ack::STORED);
    assert_eq!(bench.deliver_image(&manifest, &image, Suite::Digest, OLD, 0).0, Ack::STORED);
}

fn held(bench: &Bench) -> Vec<String> {
    bench.gateway.releases.held(|_| true).iter().map(|held| held.version.to_string()).collect()
}

#[test]
fn a_sensor_below_it_is_offered_the_intermediate_version_and_then_the_release() {
    let mut bench = Bench::agreed("");
    arrived(&mut bench);
    assert_eq!(held(&bench), ["2.0", "1.9"]);
    let offer = bench.offer("1.0").unwrap();
    assert_eq!((offer.version, offer.token), (version("1.9"), STEP));
    let digest = bench.host.blob(OLD);
    let gateway = NodeId::new("gw-1").unwrap();
    let f = formula::f(Suite::Digest, &gateway, &STEP, version("1.9"));
    assert_eq!(offer.checksum, bench.host.hash(&f.with_digest(OLD.len() as u64, &digest).unwrap()));
    let acts = bench.lan(WANT, &Want { version: version("1.9") });
    let sent = |act: &Act| matches!(act, Act::Deliver { link: SN, blob: Some(blob), .. } if *blob == digest);
    assert!(acts.iter().any(sent));
    let acts = bench.receipt("1.9", Outcome::Installed, 1);
    let Some(Act::Ask(_, _, then)) = acts.iter().find(|act| matches!(act, Act::Ask(..))) else {
        panic!("nobody was asked about 2.0");
    };
    let acts = bench.handle(Event::Done(*then, allow())).unwrap();
    let offer: Offer = cbor::decode(&super::sent(&acts, OFFER).unwrap(), 4096).unwrap();
    assert_eq!((offer.version, offer.token), (version("2.0"), TOKEN));
}

#[test]
fn a_sensor_that_is_past_it_is_offered_the_release_at_once() {
    let mut bench = Bench::agreed("");
    arrived(&mut bench);
    let offer = bench.offer("1.9.1").unwrap();
    assert_eq!((offer.version, offer.token), (version("2.0"), TOKEN));
}

#[test]
fn until_its_image_is_here_nobody_below_it_is_offered_anything() {
    let mut bench = Bench::agreed("");
    let (manifest, image) = manifest_2(&mut bench, 1);
    bench.deliver(&manifest, Suite::Digest, NEW, 0);
    assert_eq!(bench.offer("1.0"), None);
    let (_, acts) = bench.deliver_image(&manifest, &image, Suite::Digest, OLD, 0);
    let announced = |act: &Act| matches!(act, Act::Broadcast(_, kind, _) if kind == ANNOUNCE);
    assert!(acts.iter().any(announced));
    assert!(bench.offer("1.0").is_some());
}

#[test]
fn it_is_taken_only_for_the_release_that_names_it_under_whichever_manifest() {
    let mut bench = Bench::agreed("");
    let (first, image) = manifest_2(&mut bench, 1);
    assert_eq!(bench.deliver_image(&first, &image, Suite::Digest, OLD, 0).0, code::VERSION);
    let (second, _) = manifest_2(&mut bench, 2);
    bench.deliver(&second, Suite::Digest, NEW, 0);
    // A broker that has not heard of the second one yet brings the same image.
    assert_eq!(bench.deliver_image(&first, &image, Suite::Digest, OLD, 0).0, Ack::STORED);
    assert_eq!(held(&bench), ["2.0", "1.9"]);
}

#[test]
fn what_was_the_newest_release_and_leads_to_the_next_one_stays_and_goes_with_it() {
    let mut bench = Bench::agreed("");
    assert_eq!(bench.release("1.9", OLD, 1), Ack::STORED);
    let (manifest, image) = manifest_2(&mut bench, 2);
    bench.deliver(&manifest, Suite::Digest, NEW, 0);
    assert_eq!(held(&bench), ["2.0", "1.9"]);
    assert_eq!(bench.offer("1.0").unwrap().version, version("1.9"));
    let withdrawn = Manifest { withdrawn: true, ..bench.manifest("2.0", NEW, 3) };
    bench.deliver(&withdrawn, Suite::Digest, b"", NEW.len() as u64);
    assert!(held(&bench).is_empty() && !bench.host.pins.contains(&image.digest));
    assert_eq!(bench.offer("1.0"), None);
}

#[test]
fn it_goes_to_those_whom_the_order_of_its_release_admits() {
    let mut bench = Bench::agreed("");
    let (mut manifest, image) = manifest_2(&mut bench, 1);
    let plan: Plan = json::read(br#"{"waves":["100%"]}"#, "the plan").unwrap();
    let mut rollout = Rollout::new(plan, None);
    let release = |order: Order, manifest: &mut Manifest, sequence| {
        manifest.extensions.retain(|extension| extension.name != "order");
        manifest.extensions.push(order.extension());
        manifest.sequence = sequence;
    };
    release(rollout.order(), &mut manifest, 1);
    bench.deliver(&manifest, Suite::Digest, NEW, 0);
    bench.deliver_image(&manifest, &image, Suite::Digest, OLD, 0);
    assert_eq!(bench.offer("1.0"), None, "no wave has begun");
    rollout.begin(1, None);
    release(rollout.order(), &mut manifest, 2);
    bench.deliver(&manifest, Suite::Digest, b"", NEW.len() as u64);
    assert_eq!(bench.offer("1.0").unwrap().version, version("1.9"));
}

#[test]
fn a_sensor_that_gives_it_up_too_often_is_offered_it_no_more() {
    let mut bench = Bench::agreed(",\"retry_reverted_times\":1,\"stay_connected\":true");
    arrived(&mut bench);
    for counter in 1..=2 {
        assert!(bench.offer("1.0").is_some(), "{counter}");
        bench.receipt("1.9", Outcome::Reverted, counter);
        bench.host.now.monotonic_ms += 100_000_000;
    }
    assert_eq!(bench.offer("1.0"), None);
}

#[test]
fn a_lost_image_of_it_comes_again_and_all_outlives_a_restart() {
    let mut bench = Bench::agreed("");
    arrived(&mut bench);
    let Bench { host, gateway, .. } = &mut bench;
    let digest = host.blob(OLD);
    assert_eq!(gateway.releases.lose(host, &digest, "test").len(), 1);
    assert_eq!((held(&bench), bench.offer("1.0")), (vec!["2.0".into()], None));
    let (manifest, image) = manifest_2(&mut bench, 1);
    bench.deliver_image(&manifest, &image, Suite::Digest, OLD, 0);
    bench.host.start(&mut bench.gateway, r#"{"directory":"https://bds"}"#).unwrap();
    assert_eq!(held(&bench), ["2.0", "1.9"]);
}
