//! `trireme status`: a manufacturer's releases and how far they are; any other node's roles.

mod policies;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use trireme_core::Fault;
use trireme_core::api::{
    BrokerStatus, IdentityQuestion, IdentityStatus, ReleaseStatus, Releases, SensorStatus,
};

use crate::admin;
use crate::authority;
use crate::dates;
use crate::inventory;
use crate::table::{Table, bytes};

const NODE: &str = "/node/v1/status";
const MANUFACTURER: &str = "manufacturer";
/// An answer below this size was not cut.
const SURELY_WHOLE: usize = 32 * 1024;
/// The most answers of which a model's sensors are put together.
const MOST_PAGES: usize = 1000;
/// Sensors that are not installed, in a table; the rest is counted.
const SHOWN_SENSORS: usize = 20;
/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The most roles of a node whose own status is shown.
const SHOWN_ROLES: usize = 16;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The node's word.
    #[error("{0}")]
    Node(#[from] Fault),
    /// It cannot be shown.
    #[error("{0}")]
    Output(#[from] std::io::Error),
}

/// What is shown, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// As JSON: one document.
    pub json: bool,
    /// Again and again.
    pub watch: bool,
    /// Every sensor, not only those that are not installed.
    pub all: bool,
}

/// Shows the status of the node at this socket; with `watch` until interrupted.
///
/// # Errors
/// [`StatusError`]. A watch goes on while the node is away.
pub async fn status(socket: &Path, options: Options) -> Result<(), StatusError> {
    let clear = options.watch && !options.json && std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let text = match look(socket, options).await {
            Err(fault) if options.watch => format!("{fault}\n"),
            other => other?,
        };
        let mut out = std::io::stdout();
        if clear {
            // Home, the text, and what was below it goes.
            write!(out, "\u{1b}[H\u{1b}[2J{text}")?;
        } else if text != last {
            write!(out, "{text}")?;
        }
        out.flush()?;
        if !options.watch {
            return Ok(());
        }
        last = text;
        tokio::time::sleep(EVERY).await;
    }
}

/// What the node says of itself.
#[derive(Debug, Deserialize)]
struct NodeStatus {
    node: String,
    roles: Vec<RoleStatus>,
    #[serde(default)]
    memory_bytes: u64,
    #[serde(default)]
    damage: Vec<String>,
    #[serde(default)]
    policies: Vec<policies::HookStatus>,
}

#[derive(Debug, Deserialize)]
struct RoleStatus {
    name: String,
    id: String,
    condition: String,
    #[serde(default)]
    why: Option<Value>,
    #[serde(default)]
    links: u64,
    #[serde(default)]
    shards: Vec<ShardStatus>,
    #[serde(default)]
    front: Option<FrontStatus>,
}

/// One of the instances that a role runs as.
#[derive(Debug, Deserialize)]
struct ShardStatus {
    number: u32,
    condition: String,
    #[serde(default)]
    why: Option<Value>,
}

/// What a broker's clients were refused, by reason, since it started.
#[derive(Debug, Deserialize)]
struct FrontStatus {
    #[serde(default)]
    refused: BTreeMap<String, u64>,
    #[serde(default)]
    access_problem: Option<String>,
}

async fn look(socket: &Path, options: Options) -> Result<String, Fault> {
    let node = admin::ask(socket, NODE, json!({}), None, |_| {}).await?;
    let status: NodeStatus = admin::question(socket, NODE, json!({})).await?;
    let running = |role: &&RoleStatus| role.condition == "running";
    let mut roles = BTreeMap::new();
    let mut identities = BTreeMap::new();
    let mut releases = None;
    for role in status.roles.iter().filter(running).take(SHOWN_ROLES) {
        // A sensor has none, and an older node does not know the question.
        if let Ok(known) = inventory::identity(socket, &role.name, &IdentityQuestion::default()).await {
            identities.insert(role.name.clone(), known);
        }
        if role.name == MANUFACTURER {
            releases = Some(manufacturer(socket).await?);
        } else {
            let path = format!("/{}/v1/status", role.name);
            roles.insert(role.name.clone(), admin::ask(socket, &path, json!({}), None, |_| {}).await?);
        }
    }
    if options.json {
        let mut document = json!({ "node": node, "roles": roles, "identities": identities });
        if let (Some(document), Some(releases)) = (document.as_object_mut(), releases) {
            document.insert("releases".into(), serde_json::to_value(releases.releases).unwrap_or_default());
        }
        return Ok(format!("{document}\n"));
    }
    let mut text = node_text(&status);
    text.push_str(&shards_text(&status.roles));
    text.push_str(&refusals_text(&status.roles));
    text.push_str(&policies::text(&status.policies));
    // Where the clock is of no use, dates are shown and nothing is judged by them.
    let now = authority::now_ms().ok();
    text.push_str(&identities_text(&identities, now));
    text.push_str(&needs_text(&roles));
    if let Some(releases) = &releases {
        text.push_str(&releases_text(releases, options.all, now));
    }
    text.push_str(&roles_text(&roles));
    Ok(text)
}

/// All releases of the manufacturer at this socket.
///
/// # Errors
/// The node's fault.
pub async fn releases(socket: &Path) -> Result<Releases, Fault> {
    manufacturer(socket).await
}

/// A manufacturer's releases. A large fleet comes in several answers, model by model.
async fn manufacturer(socket: &Path) -> Result<Releases, Fault> {
    let path = format!("/{MANUFACTURER}/v1/status");
    let whole = admin::ask(socket, &path, json!({}), None, |_| {}).await?;
    let size = whole.to_string().len();
    let mut all: Releases = admin::question(socket, &path, json!({})).await?;
    if size < SURELY_WHOLE {
        return Ok(all);
    }
    let mut models: Vec<_> = all.releases.iter().map(|release| release.model.clone()).collect();
    models.dedup();
    all.releases.clear();
    for model in models {
        let mut question = json!({ "model": model });
        let mut releases: Vec<ReleaseStatus> = Vec::new();
        for _ in 0..MOST_PAGES {
            let page: Releases = admin::question(socket, &path, question).await?;
            let Some(last) = page.releases.first().and_then(|newest| newest.sensors.last()) else {
                if releases.is_empty() {
                    releases = page.releases;
                }
                break;
            };
            question = json!({ "model": model, "sensors_after": last.id });
            merge(&mut releases, page.releases);
        }
        all.releases.append(&mut releases);
    }
    Ok(all)
}

fn merge(known: &mut Vec<ReleaseStatus>, page: Vec<ReleaseStatus>) {
    for mut release in page {
        match known.iter_mut().find(|one| one.version == release.version && one.model == release.model) {
            Some(one) => one.sensors.append(&mut release.sensors),
            None => known.push(release),
        }
    }
}

fn node_text(status: &NodeStatus) -> String {
    let mut text = format!("node {}, {} resident\n", status.node, bytes(status.memory_bytes));
    for damage in &status.damage {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  damaged: {damage}");
    }
    let mut table = Table::new(&["role", "id", "condition", "links", "why"]);
    for role in status.roles.iter().take(SHOWN_ROLES) {
        let why = role.why.as_ref().map(scalar).unwrap_or_default();
        table.row([role.name.clone(), role.id.clone(), role.condition.clone(), role.links.to_string(), why]);
    }
    text.push_str(&table.to_string());
    if status.roles.len() > SHOWN_ROLES {
        let _ = writeln!(text, "  … and {} more", status.roles.len() - SHOWN_ROLES);
    }
    text
}

/// Shards that do not run while their role does.
fn shards_text(roles: &[RoleStatus]) -> String {
    let mut text = String::new();
    for role in roles.iter().filter(|role| role.condition == "running").take(SHOWN_ROLES) {
        for shard in role.shards.iter().filter(|shard| shard.condition != "running") {
            let why = shard.why.as_ref().map(scalar).unwrap_or_default();
            text.push_str(&line(&format!(
                "shard {} of {} is {}: {why}",
                shard.number, role.name, shard.condition
            )));
        }
    }
    text
}

/// What brokers refused, if they did, and rules that do not count.
fn refusals_text(roles: &[RoleStatus]) -> String {
    let mut text = String::new();
    for role in roles.iter().take(SHOWN_ROLES) {
        let Some(front) = &role.front else { continue };
        if !front.refused.is_empty() {
            let counts: Vec<String> =
                front.refused.iter().map(|(why, count)| format!("{count} {why}")).collect();
            text.push_str(&line(&format!("{} refused since it started: {}", role.name, counts.join(", "))));
        }
        if let Some(problem) = &front.access_problem {
            text.push_str(&line(&format!("ALARM {}: the access rules in force stay: {problem}", role.name)));
        }
    }
    text
}

/// Each role's certificate in a line, and what needs a person.
fn identities_text(identities: &BTreeMap<String, IdentityStatus>, now_ms: Option<u64>) -> String {
    if identities.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["role", "certificate valid until", "renewed", "lists fetched"]);
    for (role, status) in identities {
        let left = now_ms.map(|now| format!(", {}", dates::left(now, status.not_after_ms)));
        let fetched = status.fetched_ms_ago.map(|ago| format!("{} s ago", ago / 1000));
        table.row([
            role.clone(),
            format!("{}{}", dates::day(status.not_after_ms), left.unwrap_or_default()),
            inventory::renewal(status),
            fetched.unwrap_or_else(|| "-".into()),
        ]);
    }
    let mut text = table.to_string();
    for (role, status) in identities {
        for alarm in &status.alarms {
            text.push_str(&line(&format!("ALARM {role}: {alarm}")));
        }
    }
    text
}

/// Sensors of a gateway that wait for a Token which no release carries.
fn needs_text(roles: &BTreeMap<String, Value>) -> String {
    let sensors = roles.values().filter_map(|role| role.get("sensors")?.as_array()).flatten();
    let needs: Vec<&str> = sensors.filter_map(|sensor| sensor.get("needs")?.as_str()).collect();
    let mut text: String =
        needs.iter().take(SHOWN_SENSORS).map(|need| line(&format!("ALARM {need}"))).collect();
    if let Some(more) = needs.len().checked_sub(SHOWN_SENSORS).filter(|more| *more > 0) {
        text.push_str(&line(&format!("… and {more} more such sensors")));
    }
    text
}

/// A line in which nothing moves the cursor.
fn line(text: &str) -> String {
    let mut line = Table::default();
    line.row([text.to_owned()]);
    line.to_string()
}

fn releases_text(releases: &Releases, all: bool, now_ms: Option<u64>) -> String {
    let mut text = String::new();
    if releases.releases.is_empty() {
        text.push_str("\nnothing is published yet; `trireme publish --model MD --version V IMAGE`\n");
    }
    for release in &releases.releases {
        let ReleaseStatus { model, version, suite, size, digest, brokers, sensors, .. } = release;
        let _ =
            writeln!(text, "\n{model} {version}  suite {suite}  {}  image {}", bytes(*size), digest.short());
        let mut table = Table::new(&["broker", "stage", "gateways holding", "pending", "detail"]);
        for BrokerStatus { id, stage, detail, pending, holding } in brokers {
            table.row([id.to_string(), stage.clone(), names(holding), names(pending), detail.clone()]);
        }
        text.push_str(&terms(release, now_ms));
        text.push_str(&table.to_string());
        let _ = writeln!(text, "  sensors: {}", counts(release));
        let shown: Vec<&SensorStatus> =
            sensors.iter().filter(|sensor| all || sensor.outcome != "installed").collect();
        if shown.is_empty() {
            continue;
        }
        let most = if all { usize::MAX } else { SHOWN_SENSORS };
        let mut table = Table::new(&["sensor", "gateway", "outcome", "receipt"]);
        for sensor in shown.iter().take(most) {
            let receipt = match (sensor.counter, sensor.authenticated) {
                (0, _) => "none".into(),
                (counter, true) => format!("#{counter}"),
                (counter, false) => format!("#{counter}, not authenticated"),
            };
            table.row([sensor.id.to_string(), sensor.gateway.to_string(), word(release, sensor), receipt]);
        }
        text.push_str(&table.to_string());
        if shown.len() > most {
            let _ = writeln!(text, "  … and {} more; --all shows them", shown.len() - most);
        }
    }
    text
}

/// Which manifest it is, how long it counts, and for whom it has Tokens.
fn terms(release: &ReleaseStatus, now_ms: Option<u64>) -> String {
    let mut parts = Vec::new();
    if release.sequence > 0 {
        parts.push(format!("manifest {}", release.sequence));
    }
    parts.push(match release.expires_ms {
        0 => "does not expire".into(),
        at => match now_ms {
            Some(now) if now > at => format!("EXPIRED on {}: `trireme refresh`", dates::day(at)),
            Some(now) => format!("expires on {}, {}", dates::day(at), dates::left(now, at)),
            None => format!("expires on {}", dates::day(at)),
        },
    });
    if release.withdrawn {
        parts.push("WITHDRAWN".into());
    }
    if !release.through.is_empty() {
        let through: Vec<String> = release.through.iter().map(ToString::to_string).collect();
        parts.push(format!("by way of {}", through.join(" and ")));
    }
    if let Some(rollout) = &release.rollout {
        parts.push(format!("rollout {rollout}"));
    }
    match release.generations.as_slice() {
        [] => {}
        [one] => parts.push(format!("Token for generation {one}")),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            parts.push(format!("Tokens for generations {}", names.join(" and ")));
        }
    }
    line(&parts.join("  "))
}

/// A sensor's outcome; where none came because its gateway does not have the release yet, that is what it is.
fn word(release: &ReleaseStatus, sensor: &SensorStatus) -> String {
    let waits = release.brokers.iter().any(|broker| broker.pending.contains(&sensor.gateway));
    let holds = release.brokers.iter().any(|broker| broker.holding.contains(&sensor.gateway));
    if sensor.outcome == "unknown" && waits && !holds { "pending".into() } else { sensor.outcome.clone() }
}

/// `4 installed, 1 refused-token, 2 unknown, of 7`.
fn counts(release: &ReleaseStatus) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for sensor in &release.sensors {
        let mut outcome = word(release, sensor);
        if !sensor.authenticated && sensor.counter > 0 {
            outcome.push_str(" (not authenticated)");
        }
        *counts.entry(outcome).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    match release.sensors.len() {
        0 => "none known yet".into(),
        all => format!("{}, of {all}", parts.join(", ")),
    }
}

/// Roles of one kind that say nothing but single values, like sensors, are rows of one table.
fn roles_text(roles: &BTreeMap<String, Value>) -> String {
    let flat = |value: &Value| {
        value
            .as_object()
            .is_some_and(|fields| fields.values().all(|field| !field.is_array() && !field.is_object()))
    };
    let mut text = String::new();
    let mut tables: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (name, role) in roles {
        match name.split_once('/') {
            Some((kind, _)) if flat(role) => tables.entry(kind).or_default().push(role.clone()),
            _ => text.push_str(&role_text(name, role)),
        }
    }
    for (kind, rows) in tables {
        // Writing to a String does not fail.
        let _ = write!(text, "\n{kind}\n{}", objects(&rows));
    }
    text
}

/// Whatever a role says: single values in lines, lists of objects as tables.
fn role_text(name: &str, status: &Value) -> String {
    let mut text = format!("\n{name}\n");
    let Some(fields) = status.as_object() else { return text };
    for (key, value) in fields {
        match value.as_array() {
            Some(items) if items.iter().any(Value::is_object) => {
                let _ = writeln!(text, "  {key}:");
                text.push_str(&objects(items));
            }
            Some(items) if items.is_empty() => {
                let _ = writeln!(text, "  {key}: none");
            }
            _ => {
                let mut line = Table::default();
                line.row([format!("{key}: {}", scalar(value))]);
                text.push_str(&line.to_string());
            }
        }
    }
    text
}

fn objects(items: &[Value]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for key in items.iter().filter_map(Value::as_object).flat_map(|object| object.keys()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    // Who it is about comes first.
    columns.sort_by_key(|column| !["id", "sensor", "model", "version"].contains(column));
    let mut table = Table::new(&columns);
    for item in items {
        table.row(columns.iter().map(|column| item.get(*column).map(scalar).unwrap_or_default()));
    }
    table.to_string()
}

fn scalar(value: &Value) -> String {
    /// Digests and the like: enough to recognise them.
    const LONGEST: usize = 48;
    let text = match value {
        Value::Null => return "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| format!("{key} {}", scalar(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{}…", text.get(..end.min(8)).unwrap_or_default())
        }
        _ => text,
    }
}

fn names(ids: &[trireme_core::NodeId]) -> String {
    match ids.len() {
        0 => "-".into(),
        1..=6 => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        count => format!("{count} gateways"),
    }
}

#[cfg(test)]
mod tests;
