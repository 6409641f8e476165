//! The binary as its users meet it: a network written, run, published to, looked at, ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use trireme_tests::binary;
use trireme_tests::lab::image;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network as `trireme init` writes it, in a folder of its own.
struct Written {
    dir: TempDir,
}

/// `trireme run` over that folder. Ended by SIGTERM, like any service.
struct Supervised {
    child: Child,
    log: PathBuf,
}

impl Written {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let written = Self { dir };
        let output = written.trireme(&["init", "net"]);
        assert!(output.status.success(), "{}", text(&output));
        written
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `trireme` in the folder that holds `net`.
    fn trireme(&self, arguments: &[&str]) -> Output {
        Command::new(binary::trireme()).args(arguments).current_dir(self.dir.path()).output().unwrap()
    }

    fn run(&self) -> Supervised {
        let log = self.path("run.log");
        let file = std::fs::File::create(&log).unwrap();
        let child = Command::new(binary::trireme())
            .args(["run", "net"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn();
        Supervised { child: child.unwrap(), log }
    }

    /// Publishes once the manufacturer is up.
    fn publish(&self, version: &str, image: &[u8]) -> Output {
        std::fs::write(self.path("image.bin"), image).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let arguments = ["publish", "--model", "MD-01", "--version", version, "image.bin"];
            let output = self.trireme(&arguments);
            if output.status.success() || Instant::now() > deadline {
                return output;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn status(&self) -> Option<Value> {
        let output = self.trireme(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until six sensors report that they run this version.
    fn until_installed(&self, version: &str, run: &Supervised) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            let text = status.as_ref().map(Value::to_string).unwrap_or_default();
            let current = text.contains(&format!("\"version\":\"{version}\""));
            if current && text.matches("\"outcome\":\"installed\"").count() >= 6 {
                return;
            }
            assert!(Instant::now() < deadline, "{version} is not installed: {text}\n{}", run.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Supervised {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGTERM, and the end of all nodes.
    fn end(mut self, folder: &Path) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "`trireme run` does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(running_in(folder), Vec::<String>::new(), "processes were left behind");
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Only where a test failed: the nodes notice that their supervisor is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Command lines of processes that name this folder.
fn running_in(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&folder) && line.contains("trireme")).collect()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_network_is_written_run_published_to_and_ended() {
    let network = Written::new();
    assert!(network.trireme(&["config", "check", "net"]).status.success());
    let run = network.run();
    let published = network.publish("1.3", &image(200_000, 3));
    assert!(published.status.success(), "{}\n{}", text(&published), run.log());
    network.until_installed("1.3", &run);
    // The same version with other bytes is refused, and scripts can tell.
    std::fs::write(network.path("image.bin"), image(200_000, 4)).unwrap();
    let again = network.trireme(&["publish", "--model", "MD-01", "--version", "1.3", "image.bin"]);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again));
    run.end(network.dir.path());
}

#[test]
fn what_was_acknowledged_survives_the_end_of_all_nodes() {
    let network = Written::new();
    let run = network.run();
    assert!(network.publish("1.3", &image(50_000, 3)).status.success());
    network.until_installed("1.3", &run);
    run.end(network.dir.path());
    let run = network.run();
    network.until_installed("1.3", &run);
    assert!(network.publish("1.4", &image(60_000, 5)).status.success(), "{}", run.log());
    network.until_installed("1.4", &run);
    run.end(network.dir.path());
}

#[test]
fn a_role_is_replaced_by_a_component_of_the_configuration() {
    let network = Written::new();
    let file = network.path("net").join("bk-1.toml");
    let plugin = format!("[broker]\nplugin = {:?}\n", binary::component("role-broker"));
    let with_plugin = std::fs::read_to_string(&file).unwrap().replacen("[broker]\n", &plugin, 1);
    assert!(with_plugin.contains("plugin = \"/"), "{with_plugin}");
    std::fs::write(&file, with_plugin).unwrap();
    let run = network.run();
    assert!(network.publish("1.3", &image(50_000, 3)).status.success(), "{}", run.log());
    network.until_installed("1.3", &run);
    assert!(
        run.log().contains("role-broker.wasm"),
        "the log does not say which component runs:\n{}",
        run.log()
    );
    run.end(network.dir.path());
}

#[test]
fn ordinary_mqtt_clients_talk_on_the_brokers_port_while_a_release_passes() {
    let network = Written::new();
    let run = network.run();
    assert!(network.publish("1.3", &image(3_000, 1)).status.success(), "{}", run.log());
    let text_of = std::fs::read_to_string(network.path("net").join("bk-1.toml")).unwrap();
    let listen = text_of.lines().find_map(|line| line.strip_prefix("listen = \"127.0.0.1:")).unwrap();
    let port: String = listen.chars().take_while(char::is_ascii_digit).collect();
    let subscriber = Command::new("mosquitto_sub")
        .args(["-p", &port, "-t", "weather/#", "-C", "20", "-W", "30"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub is installed");
    std::thread::sleep(Duration::from_millis(500));
    let publisher = std::thread::spawn(move || {
        for number in 0..20 {
            let message = format!("{number} degrees");
            let mut command = Command::new("mosquitto_pub");
            let status =
                command.args(["-p", &port, "-t", "weather/today", "-q", "1", "-m", &message]).status();
            assert!(status.unwrap().success());
        }
    });
    assert!(network.publish("1.4", &image(8 << 20, 2)).status.success(), "{}", run.log());
    publisher.join().unwrap();
    let heard = subscriber.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&heard.stdout).lines().count(), 20);
    network.until_installed("1.4", &run);
    run.end(network.dir.path());
}

#[test]
fn openssl_verifies_the_certificate_of_a_node() {
    let network = Written::new();
    let verify = Command::new("openssl")
        .args(["verify", "-x509_strict", "-CAfile", "authority.pem"])
        // The node's certificate, and in the same file that of the intermediate which issued it.
        .args(["-untrusted", "certificates/bk-1.pem", "certificates/bk-1.pem"])
        .current_dir(network.path("net"))
        .output()
        .expect("openssl is installed");
    assert!(verify.status.success(), "{}", text(&verify));
}
