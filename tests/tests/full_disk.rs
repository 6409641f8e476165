//! A broker whose file system is full, really: a small one of its own. It refuses what is new, serves what it has, and
//! goes on by itself when there is room again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use trireme_tests::lab::{Lab, image, model};
use trireme_tests::scene::eventually;

const MIB: usize = 1 << 20;

/// A file system of so many MiB at a path, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, mib: usize) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(path.into()))
    }

    fn free(&self) -> usize {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        usize::try_from(stat.f_bavail * stat.f_frsize).unwrap()
    }

    /// Writes until so many bytes are left.
    fn fill(&self, left: usize) -> PathBuf {
        let path = self.0.join("other-peoples-files");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        while self.free() > left {
            let step = (self.free() - left).min(64 * 1024);
            if file.write_all(&vec![7; step]).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_on_a_full_disk_serves_what_it_has_and_takes_what_is_new_when_there_is_room() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let Some(small) = Small::mount(&lab.path("bk-1"), 64) else {
        println!("a file system cannot be mounted here: the store's own tests have to do");
        return;
    };
    let broker = lab.broker_with(&centre, "bk-1", 8 * MIB as u64).await;
    let md = model("MD-01");
    let brokers = [("bk-1", broker.url("broker"))];
    let mut plan = lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &brokers);
    let mut config: Value = serde_json::from_slice(&plan.config).unwrap();
    config["retry_most_ms"] = 2000.into();
    plan.config = config.to_string().into_bytes();
    let maker = lab.node("acme", vec![plan]).await;
    maker.publish("MD-01", "1.1", "digest", &image(MIB / 2, 1)).await.unwrap();

    // Below what images leave free: what is new is refused, with a reason, before a byte of it comes.
    let others = small.fill(6 * MIB);
    maker.publish_detached("MD-01", "1.2", "digest", &image(MIB / 2, 2)).await.unwrap();
    eventually("the manufacturer knows why", || async {
        maker
            .release("MD-01", "1.2")
            .await
            .is_some_and(|release| release.brokers[0].detail.contains("storage"))
    })
    .await;
    assert!(lab.audit("bk-1").iter().any(|line| line.contains("1.2") && line.contains("stay in reserve")));
    assert_eq!(lab.spooled("bk-1"), 0);
    let gateway = lab.gateway(&centre, "gw-1").await;
    let sensor = lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"));
    let first = lab.node("sensors-1", vec![sensor]).await;
    maker.sensors_report("MD-01", "1.1", "installed", 1).await;

    // To the last byte: commits go on in the room that was set aside, so another gateway is served all the same.
    small.fill(0);
    let gateway_2 = lab.gateway(&centre, "gw-2").await;
    let sensor = lab.sensor("sn-2", "acme", &md, &gateway_2.url("gateway"));
    let second = lab.node("sensors-2", vec![sensor]).await;
    maker.sensors_report("MD-01", "1.1", "installed", 2).await;

    fs::remove_file(others).unwrap();
    maker.sensors_report("MD-01", "1.2", "installed", 2).await;
    assert!(trireme::audit::verify(&lab.path("bk-1/audit.log"), None).is_ok());
    for node in [broker, gateway, gateway_2, first, second] {
        node.node.shutdown().await;
    }
}
