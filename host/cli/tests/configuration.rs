//! A configuration that is wrong is told by file, line and key; one that `init` wrote is right.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly, also in its helpers"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use trireme::config::{self, Problem, SelfTest};
use trireme::init::{Counts, Network};

struct Net {
    _folder: TempDir,
    path: PathBuf,
}

fn net() -> Net {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net");
    Network::of(Counts::SMALL).unwrap().write(&path).unwrap();
    Net { _folder: folder, path }
}

impl Net {
    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Replaces a text of a file, and gives the problems that this made.
    fn change(&self, name: &str, from: &str, to: &str) -> Vec<Problem> {
        let file = self.file(name);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}:\n{text}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let problems = self.problems(name);
        fs::write(&file, text).unwrap();
        problems
    }

    fn problems(&self, name: &str) -> Vec<Problem> {
        match config::load(&self.file(name)) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.0,
        }
    }

    /// The one problem: this key, on the line that has this text, saying this.
    fn one(&self, name: &str, (from, to): (&str, &str), key: &str, says: &str) {
        let text = fs::read_to_string(self.file(name)).unwrap().replacen(from, to, 1);
        // The line of the key itself: what is put before or after it is there to tell its place.
        let word = key.rsplit('.').next().unwrap_or(key);
        let offset = text.find(to).unwrap() + to.find(word).unwrap_or(0);
        let line = text[..offset].matches('\n').count() + 1;
        let problems = self.change(name, from, to);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let problem = &problems[0];
        assert_eq!((problem.file.as_path(), problem.line), (self.file(name).as_path(), line), "{problem}");
        assert_eq!(problem.key, key, "{problem}");
        assert!(problem.what.contains(says), "{problem}");
    }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    config::files(folder).unwrap()
}

#[test]
fn a_network_that_init_wrote_passes_the_check() {
    let net = net();
    let files = names(&net.path);
    assert_eq!(files.len(), 1 + 1 + 1 + 2 + 2, "{files:?}");
    let nodes = config::check(&files).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(nodes.iter().map(|node| node.sensors.len()).sum::<usize>(), 6);
    assert_eq!(nodes.iter().map(|node| node.roles.len()).sum::<usize>(), 6);
}

#[test]
fn the_network_of_the_demo_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let network = Network::of(Counts::DEMO).unwrap();
    let written = network.write(folder.path()).unwrap();
    assert_eq!(written.brokers.len(), 2);
    let nodes = config::check(&names(folder.path())).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(nodes.iter().map(|node| node.sensors.len()).sum::<usize>(), 63);
}

#[test]
fn sensors_that_differ_and_brokers_behind_somebody_are_written_as_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Network::of(Counts::SMALL).unwrap();
    network.sensors[0].self_test = SelfTest::FailsFor("1.3".parse().unwrap());
    network.sensors[2].slot_kb = 64;
    network.sensor_settings.insert("hello_ms".into(), "2000".into());
    network.brokers[0].announced = Some("127.0.0.1:9".parse().unwrap());
    let written = network.write(folder.path()).unwrap();
    let nodes = config::check(&names(folder.path())).unwrap_or_else(|problems| panic!("{problems}"));
    let sensors: Vec<_> = nodes.iter().flat_map(|node| &node.sensors).collect();
    let sensor = |id: &str| *sensors.iter().find(|sensor| sensor.id.as_str() == id).unwrap();
    assert_eq!(sensor("sn-001").self_test, SelfTest::FailsFor("1.3".parse().unwrap()));
    assert_eq!((sensor("sn-003").slot_size, sensor("sn-002").slot_size), (64 << 10, 16 << 20));
    let settings: serde_json::Value = serde_json::from_slice(&sensor("sn-006").settings).unwrap();
    assert_eq!(settings["hello_ms"], 2000);
    assert!(fs::read_to_string(&written.nodes["acme"]).unwrap().contains("mqtt://127.0.0.1:9"));

    network.sensors[1].gateway = trireme_core::NodeId::new("gw-9").unwrap();
    let other = folder.path().join("other");
    assert!(network.write(&other).is_err() && !other.exists());
}

#[test]
fn init_leaves_a_folder_alone_that_is_not_empty() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "x").unwrap();
    let refused = Network::of(Counts::SMALL).unwrap().write(folder.path()).unwrap_err();
    assert!(refused.to_string().contains("is not empty"), "{refused}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn every_secret_that_init_writes_is_its_owners_alone() {
    let net = net();
    let mut seen = 0;
    let mut folders = vec![net.path.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if ["key", "secrets", "bundle", "code"].contains(&extension.as_str()) {
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 2 + 6 + 1 + 6 + 6);
}

#[test]
fn openssl_verifies_the_certificate_of_every_node() {
    let net = net();
    for entry in fs::read_dir(net.file("certificates")).unwrap() {
        let file = entry.unwrap().path();
        let verified = Command::new("openssl")
            .args(["verify", "-CAfile"])
            .arg(net.file("authority.pem"))
            .arg("-untrusted")
            .arg(&file)
            .arg(&file)
            .output()
            .unwrap();
        assert!(
            verified.status.success(),
            "{}: {}",
            file.display(),
            String::from_utf8_lossy(&verified.stderr)
        );
    }
}

#[test]
fn an_unknown_key_is_told_with_what_was_perhaps_meant() {
    let net = net();
    let problems = net.change("bk-1.toml", "listen = ", "lisen = ");
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["broker.lisen", "broker.listen"], "the one that is there, and the one that is missing");
    assert!(problems[0].what.contains("did you mean \"listen\""));
    net.one("gw-1.toml", ("idle_ms = ", "idel_ms = "), "gateway.idel_ms", "did you mean \"idle_ms\"");
    net.one("bk-1.toml", ("[trust]", "[node.more]\n[trust]"), "node.more", "no such key");
    net.one("bk-1.toml", ("[broker]", "[brokker]\n[broker]"), "brokker", "did you mean \"broker\"");
}

#[test]
fn a_broker_listens_on_several_addresses_and_keeps_its_access_rules_in_a_file_of_their_own() {
    let net = net();
    let text = fs::read_to_string(net.file("bk-1.toml")).unwrap();
    let listen = text.lines().find(|line| line.starts_with("listen = ")).unwrap().to_owned();
    let several =
        "listen = [\"127.0.0.1:1\", \"mqtts://127.0.0.1:2\", \"ws://[::1]:3\", \"wss://0.0.0.0:4\"]";
    assert!(net.change("bk-1.toml", &listen, several).is_empty());
    for wrong in ["http://127.0.0.1:1", "mqtts://host:1", "mqtts://127.0.0.1", "wss://127.0.0.1:1/mqtt", ""] {
        let problems = net.change("bk-1.toml", &listen, &format!("listen = [\"127.0.0.1:1\", \"{wrong}\"]"));
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["broker.listen[1]"], "{wrong}");
    }
    let access = format!("{listen}\naccess = \"access.toml\"");
    let missing = net.change("bk-1.toml", &listen, &access);
    assert!(missing[0].key == "broker.access" && missing[0].what.contains("is not there"), "{missing:?}");
    let rule = |who: &str| format!("[[rule]]\nwho = \"{who}\"\ntopics = \"a/#\"\nallow = [\"publish\"]\n");
    fs::write(net.file("access.toml"), rule("gateway:*")).unwrap();
    assert!(net.change("bk-1.toml", &listen, &access).is_empty());
    fs::write(net.file("access.toml"), rule("gateway")).unwrap();
    let wrong = net.change("bk-1.toml", &listen, &access);
    assert!(
        wrong[0].key == "broker.access" && wrong[0].what.contains("rule 1: \"gateway\" is nobody"),
        "{wrong:?}"
    );
}

#[test]
fn the_limits_of_a_brokers_front_are_keys_of_its_table() {
    let net = net();
    let limits = || config::load(&net.file("bk-1.toml")).unwrap().roles[0].doors.limits;
    assert_eq!((limits().connections, limits().half_open), (20_000, 64));
    let wrong = ("[broker]\n", "[broker]\nconnections = 0\n");
    net.one("bk-1.toml", wrong, "broker.connections", "a number from 1 to 1000000");
    let wrong = ("[broker]\n", "[broker]\nretained_bytes = \"much\"\n");
    net.one("bk-1.toml", wrong, "broker.retained_bytes", "a number");
    let text = fs::read_to_string(net.file("bk-1.toml")).unwrap();
    let keys = "connections = 9\nconnections_per_address = 8\nhalf_open_per_address = 7\ntopics = 6\n\
                retained_bytes = 5\nsessions = 4\nbytes_per_filter = 65536\nclient_queue_bytes = 600000\n\
                front_pushes_per_address = 3\nfront_pushes_in_all = 2";
    fs::write(net.file("bk-1.toml"), text.replacen("[broker]\n", &format!("[broker]\n{keys}\n"), 1)).unwrap();
    let set = limits();
    assert_eq!((set.connections, set.connections_of_one, set.half_open, set.names), (9, 8, 7, 6));
    assert_eq!((set.retained, set.sessions, set.per_filter, set.queue), (5, 4, 65_536, 600_000));
    assert_eq!((set.pushes_of_one, set.pushes_in_all), (3, 2));
}

#[test]
fn a_value_of_another_kind_is_told_with_what_was_expected() {
    let net = net();
    let listen = fs::read_to_string(net.file("bk-1.toml")).unwrap();
    let listen = listen.lines().find(|line| line.starts_with("listen")).unwrap().to_owned();
    net.one("bk-1.toml", (&listen, "listen = \"here\""), "broker.listen", "expected an address to listen on");
    net.one("gw-1.toml", ("idle_ms = 10000", "idle_ms = \"soon\""), "gateway.idle_ms", "expected a number");
    net.one("gw-1.toml", ("idle_ms = 10000", "idle_ms = 0"), "gateway.idle_ms", "expected a number from 1");
    net.one(
        "gw-1.toml",
        ("idle_ms = 10000", "stay_connected = 1"),
        "gateway.stay_connected",
        "true or false",
    );
    net.one("bk-1.toml", ("name = \"bk-1\"", "name = \"bk 1\""), "node.name", "");
    let self_test = ("self_test = \"pass\"", "self_test = { fail_for = \"01.3\" }");
    net.one("sensors-gw-1.toml", self_test, "sensor[0].self_test", "");
}

#[test]
fn toml_that_does_not_parse_is_told_with_its_line() {
    let net = net();
    let problems = net.change("bk-1.toml", "[broker]", "[broker");
    assert!(problems.iter().any(|problem| problem.line > 1), "{problems:?}");
}

#[test]
fn a_missing_key_or_table_is_told() {
    let net = net();
    let problems = net.change("bk-1.toml", "key = ", "# key = ");
    assert!(problems.iter().any(|p| p.key == "broker.key" && p.what.contains("is missing")), "{problems:?}");
    let problems = net.change("bk-1.toml", "[trust]", "[policies]");
    assert!(problems.iter().any(|p| p.key == "policies.authority"), "{problems:?}");
    fs::write(net.file("empty.toml"), "[node]\nname = \"a\"\ndata = \"d\"\n").unwrap();
    assert!(net.problems("empty.toml")[0].what.contains("has no role"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let net = net();
    let file = ("certificates/bk-1.pem", "certificates/bk-9.pem");
    net.one("bk-1.toml", file, "broker.certificate", "bk-9.pem is not there");
    net.one(
        "acme.toml",
        ("models/acme", "models/borea"),
        "manufacturer.models",
        "expected the path of a folder",
    );
}

#[test]
fn a_certificate_has_to_be_for_the_role_the_id_the_key_and_this_authority() {
    let net = net();
    let problems = net.change("bk-1.toml", "certificates/bk-1.pem", "certificates/gw-1.pem");
    assert!(
        problems.iter().any(|p| p.key == "broker.certificate" && p.what.contains("of a broker")),
        "{problems:?}"
    );
    assert!(
        problems.iter().any(|p| p.key == "broker.key" && p.what.contains("is not the key")),
        "{problems:?}"
    );
    net.one("bk-1.toml", ("[broker]\n", "[broker]\nid = \"bk-2\"\n"), "broker.id", "is for");
    let other = self::net();
    fs::copy(other.file("authority.pem"), net.file("other.pem")).unwrap();
    let problems = net.change("bk-1.toml", "\"authority.pem\"", "\"other.pem\"");
    assert!(problems.iter().any(|p| p.key == "broker.certificate" && p.what.contains("under the authority")));
    fs::write(net.file("certificates/bk-1.pem"), "no certificate").unwrap();
    assert!(net.problems("bk-1.toml")[0].what.contains("BEGIN CERTIFICATE"));
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let net = net();
    fs::set_permissions(net.file("keys/bk-1.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let problems = net.problems("bk-1.toml");
    assert!(problems[0].key == "broker.key" && problems[0].what.contains("chmod 600"), "{problems:?}");
}

#[test]
fn a_bundle_without_its_code_is_told_with_its_file() {
    let net = net();
    let node = config::load(&net.file("sensors-gw-1.toml")).unwrap();
    fs::remove_file(node.sensors[0].bundle.with_extension("code")).unwrap();
    let problems = net.problems("sensors-gw-1.toml");
    assert_eq!(problems[0].key, "sensor[0].bundles");
    assert!(problems[0].what.contains(".code"), "{problems:?}");
}

#[test]
fn two_nodes_with_one_address_or_identity_are_told() {
    let net = net();
    let text = fs::read_to_string(net.file("bk-1.toml")).unwrap();
    fs::write(net.file("twin.toml"), text.replace("name = \"bk-1\"", "name = \"twin\"")).unwrap();
    let Err(problems) = config::check(&names(&net.path)) else { panic!("two nodes with one identity") };
    let keys: Vec<&str> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["node.data", "node.admin", "broker.certificate", "broker.key", "broker.listen"]);
    assert!(problems.0[0].what.contains("bk-1.toml"));
}

#[test]
fn two_roles_with_one_key_are_told() {
    let net = net();
    let file = net.file("bk-1.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    let line = text.lines().count() + 3;
    text.push_str("[gateway]\ncertificate = \"certificates/gw-1.pem\"\nkey = \"./keys/../keys/bk-1.key\"\n");
    text.push_str("lan = \"127.0.0.1:0\"\ndirectory = \"https://127.0.0.1:1\"\n");
    fs::write(&file, text).unwrap();
    let problems = net.problems("bk-1.toml");
    let shared = problems.iter().find(|problem| problem.what.contains("is also the key of [broker]"));
    let shared = shared.unwrap_or_else(|| panic!("{problems:?}"));
    assert_eq!((shared.key.as_str(), shared.line), ("gateway.key", line));
}

#[test]
fn keys_of_a_plugin_are_its_own_and_those_of_a_shipped_role_are_checked() {
    let net = net();
    fs::write(net.file("mine.wasm"), "").unwrap();
    let plugin = "[broker]\nplugin = \"mine.wasm\"\nmine = { a = 1 }\n";
    assert_eq!(net.change("bk-1.toml", "[broker]\n", plugin), []);
    let problems = net.change("bk-1.toml", "[broker]\n", "[broker]\nmine = 1\n");
    assert_eq!((problems.len(), problems[0].key.as_str()), (1, "broker.mine"));
}

#[test]
fn a_role_gets_its_own_keys_as_json_and_not_those_of_the_host() {
    let net = net();
    let node = config::load(&net.file("gw-1.toml")).unwrap();
    let settings: serde_json::Value = serde_json::from_slice(&node.roles[0].settings).unwrap();
    assert_eq!(settings["idle_ms"], 10_000);
    assert!(settings["directory"].as_str().unwrap().starts_with("https://127.0.0.1:"));
    for host in ["certificate", "key", "lan", "plugin"] {
        assert!(settings.get(host).is_none(), "{host}");
    }
}

#[test]
fn a_node_without_a_certificate_is_told_to_enrol_and_nothing_else() {
    let net = net();
    for file in ["certificates/bk-1.pem", "keys/bk-1.key", "authority.pem"] {
        fs::remove_file(net.file(file)).unwrap();
    }
    let problems = net.problems("bk-1.toml");
    assert_eq!((problems.len(), problems[0].key.as_str()), (1, "broker.certificate"), "{problems:?}");
    assert!(problems[0].what.contains("enrol first: `trireme enrol --config "), "{problems:?}");
    let node = config::enrolment_of(&net.file("bk-1.toml"), None).unwrap();
    assert_eq!(
        (node.certificate, node.trust),
        (net.file("certificates/bk-1.pem"), vec![net.file("authority.pem")])
    );
    assert!(node.authority.unwrap().starts_with("https://"));
}

#[test]
fn a_node_can_believe_several_roots() {
    let (net, other) = (net(), net());
    fs::copy(other.file("authority.pem"), net.file("second.pem")).unwrap();
    let both = "authority = [\"second.pem\", \"authority.pem\"]";
    assert_eq!(net.change("bk-1.toml", "authority = \"authority.pem\"", both), []);
    let gone = net.change(
        "bk-1.toml",
        "authority = \"authority.pem\"",
        "authority = [\"authority.pem\", \"third.pem\"]",
    );
    assert!(
        gone[0].key == "trust.authority[1]" && gone[0].what.contains("third.pem is not there"),
        "{gone:?}"
    );
    let none = net.change("bk-1.toml", "authority = \"authority.pem\"", "authority = []");
    assert!(none[0].key == "trust.authority" && none[0].what.contains("names no file"), "{none:?}");
}

#[test]
fn an_authority_issues_with_what_belongs_together_and_stands_under_its_root() {
    let (net, other) = (net(), net());
    let key = ("issuing_key = \"issuing/issuing.key\"", "issuing_key = \"keys/bk-1.key\"");
    net.one("authority.toml", key, "authority.issuing_key", "is not the key of");
    for file in ["issuing.key", "issuing.pem"] {
        fs::copy(other.file(&format!("issuing/{file}")), net.file(&format!("other-{file}"))).unwrap();
    }
    fs::copy(other.file("root/authority.pem"), net.file("foreign.pem")).unwrap();
    fs::copy(other.file("root/authority.key"), net.file("foreign.key")).unwrap();
    let retired = |key: &str, certificate: &str| {
        let text = format!("retired = [{{ key = \"{key}\", certificate = \"{certificate}\" }}]\nissued = ");
        net.change("authority.toml", "issued = ", &text)
    };
    assert_eq!(retired("root/authority.key", "root/authority.pem"), []);
    for (key, certificate) in [("foreign.key", "foreign.pem"), ("other-issuing.key", "other-issuing.pem")] {
        let problems = retired(key, certificate);
        assert!(problems[0].key == "authority.retired", "{problems:?}");
        assert!(problems[0].what.contains("under a root of [trust]"), "{problems:?}");
    }
}

#[test]
fn a_role_is_looked_after_as_its_table_says() {
    let net = net();
    let care = |name: &str| config::load(&net.file(name)).unwrap().roles.remove(0).care;
    let (gateway, broker, manufacturer) = (care("gw-1.toml"), care("bk-1.toml"), care("acme.toml"));
    assert!(!gateway.follow && broker.follow && manufacturer.follow, "gateways are many");
    assert!(gateway.renew && gateway.every_ms == 60_000 && gateway.authority == broker.authority);
    assert!(broker.authority.is_some_and(|authority| authority.starts_with("https://")));
    let file = net.file("gw-1.toml");
    let text = fs::read_to_string(&file).unwrap();
    let told = "[gateway]\nrenew = false\nfollow_lists = true\nlists_every_s = 5\n";
    fs::write(&file, text.replacen("[gateway]\n", told, 1)).unwrap();
    let told = care("gw-1.toml");
    assert!(told.follow && !told.renew && told.every_ms == 5000);
    let settings = config::load(&file).unwrap().roles.remove(0).settings;
    assert!(!String::from_utf8(settings).unwrap().contains("renew"), "the role does not read these");
}
