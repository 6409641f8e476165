//! The program as a person or a script uses it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly, also in its helpers"
)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use trireme::init::{Counts, Network};
use trireme_actor::{Commit, Store};
use trireme_store::Database;

const TRIREME: &str = env!("CARGO_BIN_EXE_trireme");

fn trireme(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(TRIREME)
        .args(arguments)
        .current_dir(folder)
        .env_remove("TRIREME_NODE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = trireme(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code, and what it says on standard error.
fn failed(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = trireme(folder, arguments);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done(at, &["init", "net"]);
    assert!(done(at, &["config", "check", "net"]).contains("fine"));
    let file = at.join("net/bk-1.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[broker]\n", "[broker]\nretain = true\n")).unwrap();
    let line = text.lines().position(|line| line == "[broker]").unwrap() + 2;
    for arguments in [&["config", "check", "net"][..], &["run", "net"], &["run", "net/bk-1.toml"]] {
        let (code, told) = failed(at, arguments);
        assert_eq!(code, 78, "{told}");
        assert!(told.contains(&format!("net/bk-1.toml:{line}: broker.retain: no such key")), "{told}");
    }
}

#[test]
fn an_authority_certifies_a_request_and_openssl_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done(at, &["authority", "init", "root", "--name", "ttp"]);
    done(at, &["request", "--role", "gateway", "--id", "gw-9", "--out", "node"]);
    let issue =
        ["authority", "issue", "root", "--request", "node/gw-9.csr", "--role", "gateway", "--id", "gw-9"];
    done(at, &issue);
    let verified = Command::new("openssl")
        .args(["verify", "-CAfile", "root/authority.pem", "node/gw-9.pem"])
        .current_dir(at)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    assert!(done(at, &["authority", "list", "root"]).contains("gw-9"));
    let (code, told) = failed(at, &issue);
    assert!(code == 1 && told.contains("exists already"), "{told}");
}

#[test]
fn a_one_time_code_is_shown_once_and_kept_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done(at, &["model", "add", "--model", "MD-01"]);
    let provision = [
        "model",
        "provision",
        "--model",
        "MD-01",
        "--sensor",
        "sn-1",
        "--manufacturer",
        "acme",
        "--version",
        "1.0",
        "--out",
        "bundles",
    ];
    let told = done(at, &provision);
    assert!(
        told.lines().any(|line| line.contains("shown this once") && line.matches('-').count() >= 6),
        "{told}"
    );
    assert!(at.join("bundles/sn-1.bundle").exists() && !at.join("bundles/sn-1.code").exists());
    let (code, told) = failed(at, &provision);
    assert!(code == 1 && told.contains("exists already"), "{told}");
}

#[test]
fn commands_without_a_node_say_how_to_name_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (code, told) = failed(at, &["status"]);
    assert!(code == 1 && told.contains("--node FILE"), "{told}");
    done(at, &["init", "net"]);
    let (code, told) = failed(at, &["status"]);
    assert!(code == 1 && told.contains("is it running?"), "{told}");
    assert_eq!(failed(at, &["publish", "image"]).0, 64);
    assert_eq!(failed(at, &["init", "net"]).0, 1);
}

/// A running network, ended also when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_network_runs_publishes_and_ends_together() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done(at, &["init", "net"]);
    if trireme_components::find("role-manufacturer").is_none() {
        let (code, told) = failed(at, &["run", "net/acme.toml"]);
        assert!(code == 78 && told.contains("cargo xtask build"), "{told}");
        return;
    }
    let log = fs::File::create(at.join("log")).unwrap();
    let running = Command::new(TRIREME)
        .args(["run", "net"])
        .current_dir(at)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut running = Running(running);
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait = |what: &str| {
        assert!(Instant::now() < deadline, "{what}\n{}", fs::read_to_string(at.join("log")).unwrap());
        std::thread::sleep(Duration::from_millis(100));
    };
    while !trireme(at, &["status"]).status.success() {
        wait("the manufacturer does not answer");
    }
    fs::write(at.join("image"), vec![7; 100_000]).unwrap();
    let publish = ["publish", "--model", "MD-01", "--version", "1.1", "image"];
    while trireme(at, &publish).status.code() != Some(0) {
        wait("the release does not reach its broker");
    }
    fs::write(at.join("other"), vec![8; 100_000]).unwrap();
    let other = ["publish", "--model", "MD-01", "--version", "1.1", "other"];
    assert_eq!(failed(at, &other).0, 2, "the same version with other bytes");
    loop {
        let status: serde_json::Value = serde_json::from_str(&done(at, &["status", "--json"])).unwrap();
        let sensors = status["releases"][0]["sensors"].as_array().cloned().unwrap_or_default();
        if sensors.iter().filter(|sensor| sensor["outcome"] == "installed").count() == 6 {
            break;
        }
        wait(&status.to_string());
    }
    let sockets = |name: &str| at.join("net/data").join(name).join("admin.sock").exists();
    assert!(sockets("acme") && sockets("bk-1"));
    let id = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(running.0.wait().unwrap().success());
    assert!(!sockets("acme") && !sockets("bk-1"), "every node took its socket away");
}

#[test]
fn a_new_key_whose_switch_was_cut_off_is_taken_by_the_node_that_starts() {
    let folder = tempfile::tempdir().unwrap();
    let counts = Counts { brokers: 2, ..Counts::SMALL };
    let net = folder.path().join("net");
    Network::of(counts).unwrap().write(&net).unwrap();
    // The key was put in place, the certificate not yet.
    fs::copy(net.join("keys/bk-2.key"), net.join("keys/bk-1.key")).unwrap();
    let certificate = net.join("certificates/bk-1.pem");
    fs::copy(net.join("certificates/bk-2.pem"), net.join("certificates/bk-1.pem.enrol")).unwrap();
    let (code, error) = failed(folder.path(), &["config", "check", "net/bk-1.toml"]);
    assert!(code == 78 && error.contains("broker.key"), "{error}");
    // Standard input has ended, so it stops as soon as it runs.
    let run = trireme(folder.path(), &["run", "net/bk-1.toml", "--leash"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(fs::read(&certificate).unwrap(), fs::read(net.join("certificates/bk-2.pem")).unwrap());
    assert!(!net.join("certificates/bk-1.pem.enrol").exists());
    done(folder.path(), &["config", "check", "net/bk-1.toml"]);
}

#[test]
fn damage_of_an_audit_log_is_told_with_its_backup_and_its_restore() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // So many entries that the first ones are in the file alone.
    let mut broker = Database::open(&data).unwrap().namespace("broker");
    for _ in 0..2 {
        let audit = (1..=600).map(|number| format!("release {number} stored")).collect();
        broker.commit(Commit { audit, ..Commit::default() }).unwrap();
    }
    drop(broker);
    let log = data.join("audit.log");
    let whole = fs::read_to_string(&log).unwrap();
    fs::write(&log, whole.replacen("release 3 ", "nothing 3 ", 1)).unwrap();
    let told = "audit log was damaged already";
    assert!(done(folder.path(), &["backup", "--data", "data", "monday"]).contains(told));
    let checked = done(folder.path(), &["restore", "--check", "monday"]);
    assert!(checked.contains(told) && checked.contains("line 3 "), "{checked}");
    let restored = done(folder.path(), &["restore", "--data", "other", "--json", "monday"]);
    let restored: serde_json::Value = serde_json::from_str(&restored).unwrap();
    assert!(restored["manifest"]["audit_damage"].as_str().unwrap().contains("entries 4 to 1200 hold"));
    fs::write(folder.path().join("node.toml"), "[node]\nname = \"bk-1\"\ndata = \"other\"\n").unwrap();
    let (code, error) = failed(folder.path(), &["audit", "verify", "--config", "node.toml"]);
    assert!(code == 1 && error.contains("line 3 ") && error.contains("entries 4 to 1201"), "{error}");
}
