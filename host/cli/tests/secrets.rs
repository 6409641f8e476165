//! Private keys, secrets of models and audit logs, as a person or a script looks after them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly, also in its helpers"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use trireme_actor::{Commit, Store};

const TRIREME: &str = env!("CARGO_BIN_EXE_trireme");
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A folder with a network in it, and the environment of its commands.
struct Place {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        file
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(TRIREME)
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("TRIREME_NODE")
            .env_remove("TRIREME_PASSPHRASE_FILE")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(arguments)).unwrap()
    }

    fn failed(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Replaces a text of a file, all of it.
    fn change(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.path(name), text.replace(from, to)).unwrap();
    }
}

fn openssl(at: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).current_dir(at).output().unwrap()
}

#[test]
fn a_node_starts_from_encrypted_keys_and_says_what_it_misses() {
    let mut place = Place::new();
    place.done(&["init", "net"]);
    place.secret("net/passphrase", "correct horse\n");
    let (code, told) = place.failed(&["keys", "encrypt", "--config", "net/gw-1.toml"]);
    assert!(code == 1 && told.contains("terminal"), "nobody is there to type it: {told}");

    place.change("net/gw-1.toml", "[node]\n", "[node]\npassphrase_file = \"passphrase\"\n");
    assert!(
        place.done(&["keys", "encrypt", "--config", "net/gw-1.toml"]).contains("now under the passphrase")
    );
    assert!(place.done(&["keys", "encrypt", "--config", "net/gw-1.toml"]).contains("was already"));
    place.done(&["config", "check", "net/gw-1.toml"]);
    let key = "net/keys/gw-1.key";
    let read = ["pkey", "-in", key, "-passin", "file:net/passphrase", "-pubout"];
    let read = openssl(place.folder.path(), &read);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let exported = place.done(&["keys", "export-public", "--config", "net/gw-1.toml"]);
    assert_eq!(exported.as_bytes(), read.stdout);

    place.secret("net/passphrase", "another\n");
    let (code, told) = place.failed(&["config", "check", "net/gw-1.toml"]);
    assert!(code == 78 && told.contains("gw-1.key") && told.contains("net/passphrase"), "{told}");

    place.change("net/gw-1.toml", "passphrase_file = \"passphrase\"\n", "");
    let (code, told) = place.failed(&["config", "check", "net/gw-1.toml"]);
    assert!(code == 78 && told.contains("node.passphrase_file"), "{told}");
    let listed = place.json(&["keys", "list", "--json", "--config", "net/gw-1.toml"]);
    let role = &listed["roles"][0];
    assert_eq!(role["key"]["kept"], "encrypted");
    assert_eq!(role["key"]["fingerprint"], Value::Null, "unknown without the passphrase");
    assert_eq!(role["certificate"]["subject"], "gateway gw-1");

    place.secret("net/passphrase", "correct horse\n");
    place.variables.push(("TRIREME_PASSPHRASE_FILE", place.path("net/passphrase")));
    place.done(&["config", "check", "net/gw-1.toml"]);
    place.done(&["keys", "decrypt", "--config", "net/gw-1.toml"]);
    place.variables.clear();
    place.done(&["config", "check", "net/gw-1.toml"]);
}

#[test]
fn a_list_of_keys_tells_where_they_are_and_when_their_certificates_end() {
    let place = Place::new();
    place.done(&["init", "net"]);
    place.done(&["model", "rotate", "MD-01", "--config", "net/acme.toml"]);
    let listed = place.json(&["keys", "list", "--json", "--config", "net/acme.toml"]);
    assert_eq!(listed["running"], false);
    let role = &listed["roles"][0];
    assert_eq!((&role["role"], &role["key"]["kept"]), (&"manufacturer".into(), &"file".into()));
    assert_eq!(role["key"]["fingerprint"], role["certificate"]["fingerprint"]);
    assert!(role["certificate"]["days_left"].as_u64().is_some_and(|days| days > 0));
    assert_eq!(role["models"].as_array().unwrap().len(), 2);

    let der = place.run(&["keys", "export-public", "--config", "net/acme.toml", "--format", "der"]).stdout;
    fs::write(place.path("public.der"), der).unwrap();
    let sum = Command::new("sha256sum").arg(place.path("public.der")).output().unwrap().stdout;
    let fingerprint = role["key"]["fingerprint"].as_str().unwrap();
    assert!(String::from_utf8(sum).unwrap().starts_with(fingerprint), "{fingerprint}");

    let text = place.done(&["keys", "list", "--config", "net/acme.toml"]);
    for wanted in ["manufacturer acme", "SHA-256", "days left", "generation 2", "does not run"] {
        assert!(text.contains(wanted), "{text}");
    }
    let (code, told) = place.failed(&["keys", "rotate", "--config", "net/acme.toml"]);
    assert!(code == 1 && told.contains("is it running?"), "{told}");
}

#[test]
fn a_key_in_a_token_is_made_requested_for_certified_and_configured() {
    if !Path::new(SOFTHSM).exists() {
        return;
    }
    let mut place = Place::new();
    place.done(&["init", "net"]);
    fs::create_dir(place.path("tokens")).unwrap();
    let tokens = format!("directories.tokendir = {}\nlog.level = ERROR\n", place.path("tokens").display());
    place.secret("softhsm2.conf", &tokens);
    place.variables.push(("SOFTHSM2_CONF", place.path("softhsm2.conf")));
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "hall", "--so-pin", "officer", "--pin", "1234"])
        .env("SOFTHSM2_CONF", place.path("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    place.secret("net/pin", "1234\n");
    let uri = |pin: &str| format!("pkcs11:token=hall;object=gw-9?module-path={SOFTHSM}&pin-source={pin}");

    let told = place.done(&["keys", "generate", &uri("net/pin")]);
    assert!(told.contains("public key SHA-256"), "{told}");
    let (code, told) = place.failed(&["keys", "generate", &uri("net/pin")]);
    assert!(code == 1 && told.contains("gw-9"), "nothing is overwritten: {told}");
    let pin = uri("net/pin");
    place.done(&["request", "--role", "gateway", "--id", "gw-1", "--out", "node", "--key", &pin]);
    assert!(!place.path("node/gw-1.key").exists());
    assert!(openssl(&place.path("node"), &["req", "-verify", "-noout", "-in", "gw-1.csr"]).status.success());
    let issue = ["authority", "issue", "net/root", "--request", "node/gw-1.csr", "--role", "gateway", "--id"];
    place.done(&[&issue[..], &["gw-1", "--out", "node/gw-1.pem"]].concat());

    place.change("net/gw-1.toml", "\"keys/gw-1.key\"", &format!("\"{}\"", uri("pin")));
    place.change("net/gw-1.toml", "\"certificates/gw-1.pem\"", "\"../node/gw-1.pem\"");
    place.done(&["config", "check", "net/gw-1.toml"]);
    let listed = place.json(&["keys", "list", "--json", "--config", "net/gw-1.toml"]);
    let role = &listed["roles"][0];
    assert_eq!((&role["key"]["kept"], &role["problems"]), (&"token".into(), &Value::Array(Vec::new())));
    assert_eq!(role["key"]["fingerprint"], role["certificate"]["fingerprint"]);
    let (code, told) = place.failed(&["keys", "encrypt", "--config", "net/gw-1.toml", "--role", "gateway"]);
    assert!(code == 1 && told.contains("protects it by itself"), "{told}");

    place.secret("net/pin", "4321\n");
    let (code, told) = place.failed(&["config", "check", "net/gw-1.toml"]);
    assert!(code == 78 && told.contains("gateway.key") && told.contains("pin"), "{told}");
}

#[test]
fn generations_of_a_model_are_rotated_retired_and_listed() {
    let place = Place::new();
    place.done(&["init", "net"]);
    let at = ["--config", "net/acme.toml"];
    let with = |arguments: &[&'static str]| [arguments, &at[..]].concat();
    let told = place.done(&with(&["model", "rotate", "MD-01"]));
    assert!(told.contains("trireme refresh MD-01") && told.contains("Restart the manufacturer"), "{told}");
    let (code, told) = place.failed(&with(&["model", "rotate", "MD-01"]));
    assert!(code == 1 && told.contains("trireme model retire MD-01 1"), "{told}");
    assert!(place.done(&with(&["model", "retire", "MD-01", "1"])).contains(".secrets.retired"));
    place.done(&with(&["model", "rotate", "MD-01"]));
    let listed = place.done(&with(&["model", "list", "--json"]));
    let states: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<_> = states
        .iter()
        .map(|one| (one["generation"].as_u64().unwrap(), one["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [(1, "retired"), (2, "in use"), (3, "newest")]);
    place.done(&["config", "check", "net"]);
}

#[test]
fn an_audit_log_is_checked_from_the_command_line() {
    let place = Place::new();
    place.done(&["init", "net"]);
    let database = trireme_store::Options::default().reserve(0).open(place.path("net/data/bk-1")).unwrap();
    let mut broker = database.namespace("broker");
    for entry in ["release 1.1 stored", "release 1.2 stored"] {
        broker.commit(Commit { audit: vec![entry.into()], ..Commit::default() }).unwrap();
    }
    // The node runs: its database is open.
    let verify = ["audit", "verify", "--config", "net/bk-1.toml", "--json"];
    let report = place.json(&verify);
    assert_eq!((&report["entries"], &report["last"]["entry"]), (&2.into(), &"release 1.2 stored".into()));
    let head = report["head"].as_str().unwrap().to_owned();
    let shown = place.done(&["audit", "show", "--data", "net/data/bk-1", "--grep", "1.2"]);
    assert!(shown.contains("release 1.2 stored") && !shown.contains("1.1"), "{shown}");
    assert!(place.done(&[&verify[..4], &["--head", &head]].concat()).contains("entry 2; 0 came after it"));

    let log = place.path("net/data/bk-1/audit.log");
    let whole = fs::read_to_string(&log).unwrap();
    fs::write(&log, whole.split_inclusive('\n').take(1).collect::<String>()).unwrap();
    place.done(&verify);
    let (code, told) = place.failed(&[&verify[..4], &["--head", &head]].concat());
    assert!(code == 1 && told.contains("cut off"), "{told}");
    fs::write(&log, whole.replace("1.1 stored", "1.1 st0red")).unwrap();
    let (code, told) = place.failed(&verify);
    assert!(code == 1 && told.contains("line 1 "), "{told}");
    drop(database);
}
