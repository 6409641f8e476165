//! From a file's tables to what they refer to.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use trireme_actor::Custody;
use trireme_core::{NodeId, RoleKind};
use trireme_crypto::certificate::TrustAnchor;
use trireme_net::mqtt::access::AccessSource;
use trireme_net::mqtt::carrier::Carrier;
use trireme_node::DoorPlan;

use super::access::AccessFiles;
use super::schema::{self, Key, Reader, find};
use super::source::{Problem, Problems, Source};
use super::{Care, NodeConfig, PluginConfig, RoleConfig, front, identity, issuing, policies, roles, sensors};
use crate::models;
use crate::passphrase::Passphrase;

/// One table of a file.
pub(super) struct Section<'a, 'i> {
    pub(super) source: &'a Source,
    /// `broker`, `sensor[2]`.
    pub(super) name: String,
    pub(super) span: Range<usize>,
    pub(super) table: &'a DeTable<'i>,
}

impl<'a, 'i> Section<'a, 'i> {
    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        find(self.table, key)
    }

    /// Whether it is this role's table.
    pub(super) fn is_of(&self, role: RoleKind) -> bool {
        role_of(&self.name) == Some(role)
    }

    pub(super) fn json(&self, key: &str) -> Option<Value> {
        self.value(key).map(|value| schema::to_json(value.get_ref()))
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.value(key)?.get_ref().as_str()
    }

    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(|text| self.source.path(text))
    }

    /// Of one path, or of a list of them.
    pub(super) fn paths(&self, key: &str) -> Vec<PathBuf> {
        match self.json(key) {
            Some(Value::String(one)) => vec![self.source.path(&one)],
            Some(Value::Array(several)) => {
                several.iter().filter_map(Value::as_str).map(|one| self.source.path(one)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.value(key)?.get_ref().as_bool()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.value(key).and_then(|value| schema::integer(value.get_ref())?.try_into().ok())
    }

    /// Of one text, or of a list of them.
    fn texts(&self, key: &str) -> Vec<String> {
        match self.json(key) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => {
                several.into_iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn doors(&self, key: &str) -> Vec<(Carrier, SocketAddr)> {
        self.texts(key).iter().filter_map(|text| schema::door(text)).collect()
    }

    fn address(&self, key: &str) -> Option<SocketAddr> {
        self.text(key)?.parse().ok()
    }

    /// A problem with a key's value; at the table where the key is absent.
    pub(super) fn problem(&self, key: &str, what: impl Into<String>) -> Problem {
        let span = self.value(key).map_or_else(|| self.span.clone(), Spanned::span);
        self.source.problem(&span, format!("{}.{key}", self.name), what)
    }

    /// What the role itself reads, as JSON: the keys that are the role's by the table, and with a plugin all that
    /// are not the host's.
    pub(super) fn settings(&self, keys: &[Key]) -> Vec<u8> {
        let own = |name: &str| {
            keys.iter().find(|key| key.name == name).is_none_or(|key| key.reader == Reader::Role)
        };
        let settings: Map<String, Value> = self
            .table
            .iter()
            .filter(|(key, _)| own(key.get_ref()))
            .map(|(key, value)| (key.get_ref().to_string(), schema::to_json(value.get_ref())))
            .collect();
        Value::Object(settings).to_string().into_bytes()
    }

    pub(super) fn plugin(&self, problems: &mut Vec<Problem>) -> PluginConfig {
        let file = self.path("plugin");
        let grants = self.json("grants").and_then(|grants| {
            serde_json::from_value(grants)
                .map_err(|error| problems.push(self.problem("grants", error.to_string())))
                .ok()
        });
        if grants.is_some() && file.is_none() {
            problems.push(
                self.problem("grants", "are for a plugin: name its file in `plugin`, or leave them out"),
            );
        }
        PluginConfig { file, grants }
    }
}

/// Reads the whole file.
pub(super) fn node(source: &Source) -> Result<NodeConfig, Problems> {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    if !errors.is_empty() {
        let place = |error: &toml::de::Error| error.span().unwrap_or(0..0);
        let problems =
            errors.iter().map(|error| source.problem(&place(error), "", error.message().trim())).collect();
        return Err(Problems(problems));
    }
    let sections = sections(source, document.get_ref())?;
    let mut problems = Vec::new();
    let node = read(source, &sections, &mut problems);
    match node {
        Some(node) if problems.is_empty() => Ok(node),
        _ => Err(Problems(problems)),
    }
}

/// The administrator's socket, and whether there is a manufacturer.
pub(super) fn socket(source: &Source) -> Result<(PathBuf, bool), Problems> {
    let document = DeTable::parse(&source.text).map_err(|error| {
        Problems(vec![source.problem(&error.span().unwrap_or(0..0), "", error.message().trim())])
    })?;
    let path = |key: &str| {
        let node = find(document.get_ref(), "node")?.get_ref().as_table()?;
        find(node, key)?.get_ref().as_str().map(|text| source.path(text))
    };
    let socket = path("admin").or_else(|| Some(path("data")?.join("admin.sock")));
    let missing =
        || Problems(vec![source.problem(&(0..0), "node.data", "is missing; this is no node's file")]);
    Ok((socket.ok_or_else(missing)?, find(document.get_ref(), "manufacturer").is_some()))
}

/// The tables, each with the keys and kinds of values that it may have.
fn sections<'a, 'i>(source: &'a Source, document: &'a DeTable<'i>) -> Result<Vec<Section<'a, 'i>>, Problems> {
    let mut problems = Vec::new();
    let mut sections = Vec::new();
    for (key, value) in document.iter() {
        let name = key.get_ref().as_ref();
        match (name, value.get_ref()) {
            ("sensor", DeValue::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let name = format!("sensor[{index}]");
                    match item.get_ref() {
                        DeValue::Table(table) => {
                            sections.push(Section { source, name, span: item.span(), table });
                        }
                        _ => {
                            problems.push(source.problem(&item.span(), name, "expected a table: [[sensor]]"))
                        }
                    }
                }
            }
            ("sensor", _) => {
                let what = "sensors are a list: write [[sensor]], with two brackets";
                problems.push(source.problem(&key.span(), "sensor", what));
            }
            (name, DeValue::Table(table)) if roles::TABLES.contains(&name) => {
                sections.push(Section { source, name: name.into(), span: key.span(), table });
            }
            (name, _) if roles::TABLES.contains(&name) => {
                problems.push(source.problem(&key.span(), name, format!("expected a table: [{name}]")));
            }
            (name, _) => {
                let what = schema::unknown(name, "table", roles::TABLES);
                problems.push(source.problem(&key.span(), name, what));
            }
        }
    }
    if !sections.iter().any(|section| section.name == "node") {
        problems.push(source.problem(
            &(0..0),
            "node",
            "is missing; every file has a table [node] with name and data",
        ));
    }
    Problems(sections.iter().filter_map(not_enrolled).collect()).none()?;
    for section in &sections {
        let keys = keys_of(&section.name);
        let open = find(section.table, "plugin").is_some();
        let table = Spanned::new(section.span.clone(), section.table.clone());
        schema::check(source, &section.name, &table, keys, open, &mut problems);
    }
    Problems(problems).none()?;
    Ok(sections)
}

/// A role whose certificate is not there yet: that alone is told, not what else is missing with it.
fn not_enrolled(section: &Section<'_, '_>) -> Option<Problem> {
    let role = role_of(&section.name).filter(|role| *role != RoleKind::Sensor)?;
    let certificate = section.path("certificate").filter(|file| !file.exists())?;
    let file = section.source.file.display();
    let how = match role {
        RoleKind::Authority => {
            "certify it first: `trireme request`, then `trireme authority issue`".to_owned()
        }
        _ => format!("enrol first: `trireme enrol --config {file} --token TOKEN`"),
    };
    Some(section.problem("certificate", format!("{} is not there; {how}", certificate.display())))
}

fn keys_of(section: &str) -> &'static [Key] {
    match section {
        "node" => roles::NODE,
        "trust" => roles::TRUST,
        "policies" => roles::POLICIES,
        other => role_of(other).map_or(&[], roles::keys),
    }
}

/// The time of a round; none where there are to be none.
fn scrub_days(days: Option<u64>) -> Option<Duration> {
    let days = days.unwrap_or(30);
    (days > 0).then(|| Duration::from_secs(days.saturating_mul(86_400)))
}

fn role_of(section: &str) -> Option<RoleKind> {
    section.split('[').next()?.parse().ok()
}

fn read(source: &Source, sections: &[Section<'_, '_>], problems: &mut Vec<Problem>) -> Option<NodeConfig> {
    let named = |name: &str| sections.iter().find(|section| section.name == name);
    let node = named("node")?;
    let data = node.path("data")?;
    let trust = trust(source, sections, problems);
    let mut config = NodeConfig {
        file: source.file.clone(),
        name: NodeId::new(node.text("name")?).ok()?,
        admin: node.path("admin").unwrap_or_else(|| data.join("admin.sock")),
        workers: node.number("workers").and_then(|workers| workers.try_into().ok()),
        disk_reserve: node.number("disk_reserve_mb").unwrap_or(64).saturating_mul(1024 * 1024),
        scrub: scrub_days(node.number("scrub_days")),
        log: node.text("log").unwrap_or("info").to_owned(),
        passphrase: Passphrase::of_node(node.path("passphrase_file")),
        trust,
        roles: Vec::new(),
        sensors: Vec::new(),
        policies: named("policies")
            .map(|section| policies::read(section, sections, problems))
            .unwrap_or_default(),
        data,
    };
    if let Err(error) = crate::logging::filter(&config.log) {
        problems.push(node.problem("log", format!("expected a level or a filter: {error}")));
    }
    // A Unix socket's path has at most 107 bytes.
    if config.admin.as_os_str().len() > 107 {
        let what =
            format!("{} is too long for a Unix socket; set admin to a shorter path", config.admin.display());
        problems.push(node.problem("admin", what));
    }
    for section in sections {
        match role_of(&section.name) {
            Some(RoleKind::Sensor) => {
                sensors::read(section, &config.data, problems)
                    .into_iter()
                    .for_each(|sensor| config.sensors.push(sensor));
            }
            Some(role) if !config.trust.is_empty() => {
                let believed = identity::Believed::new(&config.trust, &config.data);
                config.roles.extend(certified_role(section, role, &believed, &config.passphrase, problems));
            }
            Some(_) | None => {}
        }
    }
    sensors::distinct(source, &config.sensors, problems);
    identity::distinct_keys(sections, problems);
    if !sections.iter().any(|section| role_of(&section.name).is_some()) {
        let names: Vec<String> = roles::ROLES.iter().map(ToString::to_string).collect();
        let what = format!("the file has no role; add a table for one of {}", names.join(", "));
        problems.push(source.problem(&(0..0), "", what));
    }
    Some(config)
}

/// The authority's roots; needed as soon as there is a certified role.
fn trust(source: &Source, sections: &[Section<'_, '_>], problems: &mut Vec<Problem>) -> Vec<TrustAnchor> {
    let certified =
        |section: &&Section<'_, '_>| role_of(&section.name).is_some_and(|role| role != RoleKind::Sensor);
    let Some(section) = sections.iter().find(|section| section.name == "trust") else {
        if let Some(role) = sections.iter().find(certified) {
            let what = format!(
                "is missing; a {} needs a table [trust] with authority = \"authority.pem\"",
                role.name
            );
            problems.push(source.problem(&role.span, "trust.authority", what));
        }
        return Vec::new();
    };
    let mut roots = Vec::new();
    for file in section.paths("authority") {
        match identity::anchor(&file) {
            Ok(root) => roots.push(root),
            Err(what) => problems.push(section.problem("authority", what)),
        }
    }
    if roots.is_empty() && problems.is_empty() {
        problems.push(section.problem("authority", "names no file; whom does this node believe?"));
    }
    roots
}

fn certified_role(
    section: &Section<'_, '_>,
    role: RoleKind,
    believed: &identity::Believed<'_>,
    passphrase: &Passphrase,
    problems: &mut Vec<Problem>,
) -> Option<RoleConfig> {
    let identity = identity::read(section, role, believed, passphrase, problems);
    let plugin = section.plugin(problems);
    let issuers = match role {
        RoleKind::Authority => issuing::read(section, believed, passphrase, problems),
        _ => Vec::new(),
    };
    let models = match (role, section.path("models")) {
        (RoleKind::Manufacturer, Some(folder)) => models::load_all(&folder)
            .map_err(|error| problems.push(section.problem("models", error.to_string())))
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let identity = identity?;
    let (retired, models): (Vec<_>, Vec<_>) = models.into_iter().partition(|stored| stored.retired);
    let secrets = |stored: Vec<models::Stored>| stored.into_iter().map(|stored| stored.secrets).collect();
    Some(RoleConfig {
        role,
        certificate: identity.certificate,
        certified: identity.certified,
        key: identity.key,
        chain: identity.chain,
        files: identity.files,
        listen: section
            .address("listen")
            .or_else(|| section.address("lan"))
            .filter(|_| role != RoleKind::Broker),
        mqtt: if role == RoleKind::Broker { section.doors("listen") } else { Vec::new() },
        doors: if role == RoleKind::Broker { doors(section, problems) } else { DoorPlan::default() },
        shards: section.number("shards").and_then(|shards| shards.try_into().ok()),
        plugin,
        settings: section.settings(roles::keys(role)),
        care: care(section, role),
        issuers,
        issued: section.path("issued").filter(|_| role == RoleKind::Authority),
        models: secrets(models),
        retired: secrets(retired),
    })
}

/// How a role's certificate and what it trusts are looked after.
fn care(section: &Section<'_, '_>, role: RoleKind) -> Care {
    // The authority is where lists come from, and renews by its own key.
    let authority = section.text("authority").filter(|_| role != RoleKind::Authority);
    Care {
        authority: authority.map(str::to_owned),
        follow: section.flag("follow_lists").unwrap_or(role != RoleKind::Gateway),
        every_ms: section.number("lists_every_s").map_or(Custody::EVERY_MS, |seconds| seconds * 1000),
        renew: section.flag("renew").unwrap_or(true),
    }
}

/// Who may come in at a broker.
fn doors(section: &Section<'_, '_>, problems: &mut Vec<Problem>) -> DoorPlan {
    let access = section.path("access").map(AccessFiles::new);
    if let Some(Err(what)) = access.as_ref().map(AccessSource::load) {
        problems.push(section.problem("access", what));
    }
    DoorPlan {
        without_certificate: section.flag("without_certificate").unwrap_or(false),
        origins: section.texts("origins"),
        access: access.map(|files| Arc::new(files) as Arc<dyn AccessSource>),
        limits: front::read(section),
    }
}
