//! The end: what every party did, and whether it is as it should be.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use trireme_core::api::ReleaseStatus;

use crate::script::{LATE, RELEASES, Stage, UNLUCKY, VERSION};
use crate::show::print;

/// The most memory that an idle node may have, in bytes.
const MEMORY: u64 = 60 << 20;

/// What was found, and what of it is wrong.
#[derive(Default)]
struct Findings {
    rows: Vec<[String; 3]>,
    wrong: Vec<String>,
}

impl Findings {
    fn row(&mut self, party: impl Into<String>, what: impl Into<String>, memory: Option<u64>) {
        let memory = memory.map(|bytes| format!("{} MiB", bytes >> 20)).unwrap_or_default();
        self.rows.push([party.into(), what.into(), memory]);
    }

    fn must(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.wrong.push(what.into());
        }
    }
}

pub(crate) async fn report(stage: &Stage, releases: &[ReleaseStatus]) -> Result<(), String> {
    let mut findings = Findings::default();
    manufacturers(stage, releases, &mut findings);
    for broker in ["bk-1", "bk-2"] {
        self::broker(stage, broker, &mut findings).await;
    }
    for gateway in ["gw-1", "gw-2", LATE] {
        self::gateway(stage, gateway, &mut findings).await;
    }
    sensors(stage, releases, &mut findings);
    attacker(stage, &mut findings);
    let nodes = ["authority", "acme", "borea", "bk-1", "bk-2", "gw-1", "gw-2", LATE];
    for node in nodes {
        let memory = stage.processes.memory(node).unwrap_or(0);
        findings.must((1..=MEMORY).contains(&memory), format!("{node} has {} MiB of memory", memory >> 20));
    }
    table(&findings.rows);
    if findings.wrong.is_empty() {
        print(&format!("\nall as it should be, in {:.1} s", stage.show.seconds()));
        return Ok(());
    }
    Err(format!("not as it should be:\n  {}", findings.wrong.join("\n  ")))
}

fn manufacturers(stage: &Stage, releases: &[ReleaseStatus], findings: &mut Findings) {
    for release in &RELEASES {
        let name = format!("{} {VERSION}", release.model);
        let found = releases.iter().find(|status| status.model.as_str() == release.model);
        let Some(status) = found else {
            findings.must(false, format!("{} knows nothing of {name}", release.manufacturer));
            continue;
        };
        let stored =
            status.brokers.iter().filter(|broker| broker.stage == "stored" || broker.stage == "held").count();
        let authentic = status.sensors.iter().filter(|sensor| sensor.authenticated).count();
        let what = format!(
            "published {name} ({}, {} bytes, suite {}): {stored} brokers hold it, {authentic} authenticated receipts",
            release.file, status.size, release.suite
        );
        findings.row(
            format!("manufacturer {}", release.manufacturer),
            what,
            stage.processes.memory(release.manufacturer),
        );
        findings.must(stored == 2, format!("{name} is held by {stored} brokers, not by 2"));
        findings
            .must(authentic == status.sensors.len(), format!("{name} has receipts that nobody can check"));
    }
}

async fn broker(stage: &Stage, name: &str, findings: &mut Findings) {
    let status = stage.processes.ask(name, "/broker/v1/status", json!({})).await.unwrap_or_default();
    let releases = list(&status, "releases");
    let holding: u64 = releases.iter().filter_map(|release| release["holding_count"].as_u64()).sum();
    let audit = stage.processes.audit(name);
    let refused = audit.lines().filter(|line| line.contains("is dropped")).count();
    let fate = match name {
        "bk-1" => "killed in mid-delivery, restarted".to_owned(),
        _ => format!("refused {refused} altered release"),
    };
    let what = format!("keeps {} releases, {holding} acknowledgements of gateways; {fate}", releases.len());
    findings.row(format!("broker {name}"), what, stage.processes.memory(name));
    findings.must(releases.len() == 3, format!("{name} keeps {} releases, not 3", releases.len()));
    findings.must((name == "bk-2") == (refused > 0), format!("{name} refused {refused} releases"));
}

async fn gateway(stage: &Stage, name: &str, findings: &mut Findings) {
    let status = stage.processes.ask(name, "/gateway/v1/status", json!({})).await.unwrap_or_default();
    let (releases, sensors) = (list(&status, "releases"), list(&status, "sensors"));
    let current = sensors.iter().filter(|sensor| sensor["running"] == VERSION).count();
    let behind = stage.network.sensors.iter().filter(|sensor| sensor.gateway.as_str() == name).count();
    let unlucky = usize::from(
        stage
            .network
            .sensors
            .iter()
            .any(|sensor| sensor.gateway.as_str() == name && sensor.id.as_str() == UNLUCKY),
    );
    let late = if name == LATE { "; came late" } else { "" };
    let what = format!(
        "verified {} releases; {current} of its {} sensors run {VERSION}{late}",
        releases.len(),
        sensors.len()
    );
    findings.row(format!("gateway {name}"), what, stage.processes.memory(name));
    findings.must(releases.len() == 3, format!("{name} has {} releases, not 3", releases.len()));
    findings.must(sensors.len() == behind, format!("{name} knows {} sensors, not {behind}", sensors.len()));
    findings.must(current == behind - unlucky, format!("{current} sensors behind {name} run {VERSION}"));
}

fn sensors(stage: &Stage, releases: &[ReleaseStatus], findings: &mut Findings) {
    let reports = || releases.iter().flat_map(|release| &release.sensors);
    let count = |outcome: &str| reports().filter(|sensor| sensor.outcome == outcome).count();
    let (installed, reverted, all) = (count("installed"), count("reverted"), stage.network.sensors.len());
    let what =
        format!("{installed} installed {VERSION}, {reverted} tried it and went back to 1.0 ({UNLUCKY})");
    let memory: u64 = ["gw-1", "gw-2", LATE]
        .iter()
        .filter_map(|gateway| stage.processes.memory(&format!("sensors-{gateway}")))
        .sum();
    findings.row(format!("{all} sensors"), what, Some(memory));
    findings.must(installed == all - 1, format!("{installed} of {all} sensors installed"));
    let went_back = reports().find(|sensor| sensor.outcome == "reverted").map(|sensor| sensor.id.to_string());
    findings.must(went_back.as_deref() == Some(UNLUCKY), format!("{went_back:?} went back, not {UNLUCKY}"));
}

fn attacker(stage: &Stage, findings: &mut Findings) {
    let altered = stage.altered.load(Ordering::SeqCst);
    let what = if altered { "altered one release; nobody took it" } else { "did nothing" };
    findings.row("somebody in the path", what, None);
    findings.must(altered, "the attacker found nothing to alter");
}

fn list(status: &Value, key: &str) -> Vec<Value> {
    status.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn table(rows: &[[String; 3]]) {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    print("");
    for [party, what, memory] in rows {
        print(&format!("  {party:first$}  {what:second$}  {memory:>8}"));
    }
}
