//! The five questions are asked in the right places, and what a policy answers happens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trireme::config::{PoliciesConfig, PolicyConfig, PolicySource, RhaiMode};
use trireme::policies::explain::{self, Filter};
use trireme::policies::{self, workshop};
use trireme_core::message::Verdict;
use trireme_node::RolePlan;
use trireme_node::decisions::{self, Word};
use trireme_tests::binary;
use trireme_tests::lab::{Always, Lab, PATIENCE, Running, image, model};

fn deny(role: &mut RolePlan, hook: &str) {
    role.policies.insert(hook.into(), vec![Arc::new(Always(Verdict::Deny("not on a Sunday".into())))]);
}

/// What came of a release in a network where one hook denies.
struct Denied {
    published: Result<Value, trireme_core::Fault>,
    maker: Running,
    broker: Running,
    gateway: Running,
    _rest: (Running, Running),
    lab: Lab,
}

async fn with_denied(hook: &str) -> Denied {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let md = model("MD-01");
    let mut broker = lab.broker_plan(&centre, "bk-1");
    let mut gateway = lab.gateway_plan(&centre, "gw-1", &json!({}));
    match hook {
        "accept" | "deliver" => deny(&mut broker, hook),
        "install" => deny(&mut gateway, hook),
        _ => {}
    }
    let broker = lab.node("bk-1", vec![broker]).await;
    let gateway = lab.node("gw-1", vec![gateway]).await;
    let brokers = [("bk-1", broker.url("broker"))];
    let mut maker = lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &brokers);
    let config: Value = serde_json::from_slice(&maker.config).unwrap();
    let mut config = config.as_object().unwrap().clone();
    config.insert("publish_timeout_ms".into(), json!(1500));
    maker.config = Value::Object(config).to_string().into_bytes();
    let mut sensor = lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"));
    match hook {
        "publish" => deny(&mut maker, hook),
        "apply" => deny(&mut sensor, hook),
        _ => {}
    }
    let maker = lab.node("acme", vec![maker]).await;
    let sensor = lab.node("sensors", vec![sensor]).await;
    let published = maker.publish("MD-01", "1.3", "digest", &image(50_000, 1)).await;
    Denied { published, maker, broker, gateway, _rest: (centre.node, sensor), lab }
}

impl Denied {
    /// Waits until a node's audit log or status says this.
    async fn says(&self, node: &Running, name: &str, role: &str, what: &str) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let status =
                node.ask(&format!("/{role}/v1/status"), json!({})).await.unwrap_or_default().to_string();
            let audit = self.lab.audit(name).join("\n");
            if status.contains(what) || audit.contains(what) {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{name} says nothing of {what:?}: {status}\n{audit}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn releases_at(node: &Running, role: &str) -> usize {
        let status = node.ask(&format!("/{role}/v1/status"), json!({})).await.unwrap();
        status["releases"].as_array().map_or(0, Vec::len)
    }

    async fn sensor_runs(&self) -> String {
        let status = self.gateway.ask("/gateway/v1/status", json!({})).await.unwrap();
        status["sensors"][0]["running"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_the_policy_denies_reaches_no_broker() {
    let network = with_denied("publish").await;
    let text = format!("{:?}", network.published);
    assert!(text.contains("not on a Sunday"), "{text}");
    assert_eq!(Denied::releases_at(&network.broker, "broker").await, 0);
    assert!(network.maker.release("MD-01", "1.3").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_the_brokers_policy_denies_is_not_kept() {
    let network = with_denied("accept").await;
    network.says(&network.broker, "bk-1", "broker", "not on a Sunday").await;
    assert_eq!(Denied::releases_at(&network.broker, "broker").await, 0);
    assert_eq!(network.lab.spooled("bk-1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_the_policy_denies_reaches_no_gateway() {
    let network = with_denied("deliver").await;
    assert!(network.published.is_ok());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(Denied::releases_at(&network.broker, "broker").await, 1);
    assert_eq!(Denied::releases_at(&network.gateway, "gateway").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_that_the_gateways_policy_denies_is_not_offered() {
    let network = with_denied("install").await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while Denied::releases_at(&network.gateway, "gateway").await == 0 {
        assert!(std::time::Instant::now() < deadline, "the release does not reach the gateway");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(network.sensor_runs().await, "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_has_the_last_word() {
    let network = with_denied("apply").await;
    network.maker.sensors_report("MD-01", "1.3", "refused-policy", 1).await;
    assert_eq!(network.sensor_runs().await, "1.0");
}

/// A network whose gateway asks scripts before it updates its one sensor, which runs 1.0; 1.3 is published.
struct Scripted {
    lab: Lab,
    scripts: PathBuf,
    gateway: Running,
    maker: Running,
    _rest: (Running, Running, Running),
}

impl Scripted {
    async fn new(rhai: RhaiMode, scripts: &[(&str, &str)]) -> Self {
        let lab = Lab::new();
        let folder = lab.path("scripts");
        std::fs::create_dir(&folder).unwrap();
        let config = |(name, text): &(&str, &str)| {
            let file = folder.join(format!("{name}.rhai"));
            std::fs::write(&file, text).unwrap();
            let source = PolicySource::File(file);
            PolicyConfig { name: (*name).into(), source, settings: "{}".into(), line: 0 }
        };
        let install = scripts.iter().map(config).collect();
        let config = PoliciesConfig { hooks: [("install".to_owned(), install)].into(), rhai };
        let centre = lab.centre().await;
        let md = model("MD-01");
        let broker = lab.node("bk-1", vec![lab.broker_plan(&centre, "bk-1")]).await;
        let mut gateway = lab.gateway_plan(&centre, "gw-1", &json!({ "denied_ms": 1000 }));
        gateway.policies = policies::load(&config, None);
        let gateway = lab.node("gw-1", vec![gateway]).await;
        let brokers = [("bk-1", broker.url("broker"))];
        let maker = lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &brokers);
        let maker = lab.node("acme", vec![maker]).await;
        let sensor = lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"));
        let sensor = lab.node("sensors", vec![sensor]).await;
        maker.publish("MD-01", "1.3", "digest", &image(50_000, 1)).await.unwrap();
        Self { scripts: folder, gateway, maker, _rest: (centre.node, broker, sensor), lab }
    }

    /// As an administrator does it: the whole file in one step.
    fn write(&self, name: &str, text: &str) {
        let file = self.scripts.join(format!("{name}.rhai"));
        std::fs::write(file.with_extension("new"), text).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }

    async fn audit_says(&self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let audit = self.lab.audit("gw-1");
            if let Some(line) = audit.iter().find(|line| line.contains(what)) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "nothing of {what:?} in {audit:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn installs(&self) {
        self.maker.sensors_report("MD-01", "1.3", "installed", 1).await;
    }

    fn decisions(&self) -> Vec<decisions::Entry> {
        let filter = Filter { sensor: Some("sn-1".into()), ..Filter::default() };
        explain::find(&self.lab.path("gw-1"), &filter, 100).unwrap().entries
    }

    fn explained(&self, entry: &decisions::Entry) -> String {
        explain::text(entry, |opinion| decisions::script(&self.lab.path("gw-1"), &opinion.digest))
    }

    async fn policies(&self) -> Value {
        let status = self.gateway.ask("/node/v1/status", json!({})).await.unwrap();
        status["policies"].clone()
    }
}

const LATER: &str =
    "fn install(question) {\n    wait(\"1s\", `not yet, it runs ${question.subject.running}`)\n}\n";
const YES: &str = "fn install(question) { allow() }";

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_replaced_while_the_node_runs_and_a_broken_file_in_between_changes_nothing() {
    let network = Scripted::new(RhaiMode::Sandboxed, &[("gate", LATER)]).await;
    let line = network.audit_says("policy install: wait").await;
    let (first, last) = (workshop::digest(LATER.as_bytes(), "{}"), workshop::digest(YES.as_bytes(), "{}"));
    assert!(line.contains(&format!("gate wait line 2 {first}")), "{line}");
    network.audit_says(&format!("version {first} is in force")).await;

    network.write("gate", "fn install(question) { allow( }");
    network.audit_says(&format!("version {first} stays in force")).await;
    let status = network.policies().await;
    assert!(status[0]["policies"][0]["problem"].as_str().unwrap().contains("line 1"), "{status}");
    assert_eq!(status[0]["policies"][0]["digest"], first.to_string());

    network.write("gate", YES);
    network.audit_says(&format!("version {first} is replaced by {last}")).await;
    network.installs().await;
    let found = network.decisions();
    let verdicts: Vec<Word> = found.iter().map(|entry| entry.verdict).collect();
    assert_eq!(verdicts, [Word::Wait, Word::Allow], "repeats are counted");
    assert!(found[1].again >= 1, "{found:?}");
    let told = network.explained(&found[0]);
    for wanted in [
        "asked by gateway gw-1: wait 1s: not yet, it runs 1.0",
        "sensor sn-1",
        "2 |     wait(\"1s\"",
        &first.short(),
    ] {
        assert!(told.contains(wanted), "{wanted:?} is not in\n{told}");
    }
    assert!(network.explained(&found[1]).contains("1 | fn install(question) { allow() }"));
    let status = network.policies().await;
    let policy = &status[0]["policies"][0];
    assert_eq!((&policy["allow"], &policy["problem"], &policy["deny"]), (&json!(1), &Value::Null, &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiled_policy_answers_for_the_hook_that_it_serves() {
    let lab = Lab::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies/size-limit/size-limit.wasm");
    let settings = json!({ "most": 40_000 }).to_string();
    let policy =
        PolicyConfig { name: "size-limit".into(), source: PolicySource::File(file), settings, line: 0 };
    let config =
        PoliciesConfig { hooks: [("accept".to_owned(), vec![policy])].into(), rhai: RhaiMode::Sandboxed };
    let centre = lab.centre().await;
    let md = model("MD-01");
    let mut broker = lab.broker_plan(&centre, "bk-1");
    broker.policies = policies::load(&config, None);
    let broker = lab.node("bk-1", vec![broker]).await;
    let brokers = [("bk-1", broker.url("broker"))];
    let mut maker = lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &brokers);
    let mut plan: Value = serde_json::from_slice(&maker.config).unwrap();
    plan["publish_timeout_ms"] = json!(1500);
    maker.config = plan.to_string().into_bytes();
    let maker = lab.node("acme", vec![maker]).await;

    let _refused = maker.publish("MD-01", "1.3", "digest", &image(40_001, 1)).await;
    let audit = lab.audit("bk-1").join("\n");
    assert!(audit.contains("policy accept: deny") && audit.contains("size-limit deny"), "{audit}");
    assert_eq!(Denied::releases_at(&broker, "broker").await, 0);
    maker.publish("MD-01", "1.4", "digest", &image(40_000, 2)).await.unwrap();
    assert_eq!(Denied::releases_at(&broker, "broker").await, 1);
    assert!(lab.audit("bk-1").join("\n").contains("size-limit allow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_scripts_the_strictest_counts_and_all_are_told_natively_as_well() {
    let no = "fn install(question) { deny(\"not on a Sunday\") }";
    let network = Scripted::new(RhaiMode::Native, &[("gate", LATER), ("sunday", no), ("yes", YES)]).await;
    let line = network.audit_says("policy install: deny, acme MD-01 1.3").await;
    assert!(
        line.contains("gate wait line 2")
            && line.contains("sunday deny line 1")
            && line.contains("yes allow"),
        "{line}"
    );
    let told = network.explained(&network.decisions()[0]);
    assert!(
        told.contains("1 of 3 policies denied, and a denial wins; the reason is that of sunday"),
        "{told}"
    );
    network.write("sunday", YES);
    network.audit_says("policy install: wait").await;
    network.write("gate", YES);
    network.installs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_loops_or_cannot_be_loaded_denies_and_the_node_goes_on() {
    for rhai in [RhaiMode::Sandboxed, RhaiMode::Native] {
        let network = Scripted::new(rhai, &[("gate", "fn install(question) { loop {} }")]).await;
        network.audit_says("gate deny (failed)").await;
        assert!(network.decisions()[0].reason.contains("counts as no"), "{:?}", network.decisions());
        assert!(network.policies().await[0]["policies"][0]["failed"].as_u64() > Some(0));
        network.write("gate", YES);
        network.installs().await;
    }
    let network = Scripted::new(RhaiMode::Sandboxed, &[("gate", "fn install(question) {")]).await;
    network.audit_says("policy gate: cannot be asked, and denies").await;
    network.audit_says("policy install: deny").await;
    network.write("gate", YES);
    network.installs().await;
}

/// Runs `trireme` in a folder.
fn trireme(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary::trireme()).args(arguments).current_dir(folder).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code(), text)
}

#[test]
fn a_configuration_is_checked_with_its_policies_and_every_mistake_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(trireme(folder, &["init", "net"]).0, Some(0));
    let config = folder.join("net/gw-1.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let check = |policies: &str| {
        std::fs::write(&config, format!("{text}\n[policies]\n{policies}\n")).unwrap();
        trireme(folder, &["config", "check", "net/gw-1.toml"])
    };
    std::fs::write(folder.join("net/night.rhai"), LATER).unwrap();
    std::fs::write(folder.join("net/broken.rhai"), "fn install(question) {\n    allow(\n}").unwrap();
    let fine =
        r#"install = ["night.rhai", "shipped:battery-and-link", { shipped = "quiet-hours", settings = {} }]"#;
    assert_eq!(check(fine).0, Some(0), "{}", check(fine).1);
    for (policies, wanted) in [
        (r#"install = ["broken.rhai"]"#, "policies.install[0]: "),
        (r#"install = ["broken.rhai"]"#, "line 3"),
        (r#"install = ["night.rhai", "day.rhai"]"#, "policies.install[1]: "),
        (r#"install = ["night.txt"]"#, "expected a script (.rhai) or a component (.wasm)"),
        (r#"install = ["shipped:quiet-hour"]"#, "did you mean \"quiet-hours\"?"),
        (r#"install = [{ file = "night.rhai", setings = {} }]"#, "did you mean \"settings\"?"),
        (r#"install = [{ shipped = "battery-and-link", settings = { batery = 40 } }]"#, "batery"),
        (r#"install = [{ settings = {} }]"#, "names no policy"),
        (r#"install = [{ file = "night.rhai", shipped = "canary" }]"#, "which of them"),
        (r#"install = "night.rhai""#, "expected a list"),
        (r#"rhai = "fast""#, "expected one of sandboxed, native"),
        (r#"deliver = ["night.rhai"]"#, "is asked by a broker"),
    ] {
        let (code, told) = check(policies);
        assert!(
            code == Some(78) && told.contains(wanted) && told.contains("gw-1.toml:"),
            "{policies}: {told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_explained_on_the_command_line_while_the_node_is_down() {
    let network = Scripted::new(RhaiMode::Sandboxed, &[("gate", LATER)]).await;
    network.audit_says("policy install: wait").await;
    let data = network.lab.path("gw-1").display().to_string();
    let Scripted { gateway, lab, .. } = network;
    gateway.node.shutdown().await;
    let explain = |more: &[&str]| {
        let arguments = [&["policy", "explain", "--data", &data], more].concat();
        trireme(&lab.path(""), &arguments)
    };
    let (code, told) = explain(&["--sensor", "sn-1", "--release", "1.3", "--hook", "install", "--last", "1"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("2 |     wait(\"1s\", `not yet"), "{told}");
    let (_, json) = explain(&["--gateway", "gw-1", "--json"]);
    let json: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&json["verdict"], &json["policies"][0]["line"]), (&json!("wait"), &json!(2)));
    let (code, told) = explain(&["--sensor", "sn-2"]);
    assert!(code == Some(1) && told.contains("no such decision"), "{told}");
}
