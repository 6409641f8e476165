//! `[policies]`: which policies are asked at each hook.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use trireme_core::RoleKind;

use super::read::Section;
use super::schema::{self, Absent, Key, Kind, Reader, find};
use super::source::{Problem, Source};
use crate::policies::shipped;

/// Hooks, with the role that asks.
pub const HOOKS: &[(&str, RoleKind)] = &[
    ("publish", RoleKind::Manufacturer),
    ("accept", RoleKind::Broker),
    ("deliver", RoleKind::Broker),
    ("install", RoleKind::Gateway),
    ("apply", RoleKind::Sensor),
];

/// The keys of the table.
pub const KEYS: &[Key] = &[
    hook(
        "publish",
        "[{ shipped = \"canary\", settings = { soak = \"2h\" } }]",
        "manufacturer: may this release go to this broker, may this wave of a rollout begin",
    ),
    hook("accept", "[\"accept.rhai\"]", "broker: is this release of this manufacturer acceptable"),
    hook("deliver", "[\"shipped:maintenance-window\"]", "broker: may this gateway get this release now"),
    hook(
        "install",
        "[\"night.rhai\", { shipped = \"battery-and-link\", settings = { battery = 40 } }, \"custom.wasm\"]",
        "gateway: may this sensor be updated now",
    ),
    hook("apply", "[\"shipped:battery-and-link\"]", "sensor: the device's last word"),
    Key {
        name: "rhai",
        kind: Kind::Choice(&["sandboxed", "native"]),
        absent: Absent::Default("\"sandboxed\""),
        reader: Reader::Host,
        doc: "how scripts are run: in a component with bounds, or by the interpreter within the node",
    },
];

const fn hook(name: &'static str, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Kind::Policies, absent: Absent::Nothing(example), reader: Reader::Host, doc }
}

/// Before the name of a shipped policy.
const SHIPPED: &str = "shipped:";
/// What an entry may be, in words.
const EXPECTED: &str = "a policy: \"file.rhai\", \"file.wasm\", \"shipped:NAME\", or { file = \"…\", settings = { … } } with `shipped` in place of `file`";

/// The policies of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoliciesConfig {
    /// By hook, in the order in which they are asked.
    pub hooks: BTreeMap<String, Vec<PolicyConfig>>,
    /// How scripts are run.
    pub rhai: RhaiMode,
}

/// A policy of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Its name: of its file, or that of the shipped one; with a number where another has the same.
    pub name: String,
    /// Where it comes from.
    pub source: PolicySource,
    /// What is configured for it: a JSON object.
    pub settings: String,
    /// The line of the configuration.
    pub line: usize,
}

/// Where a policy comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicySource {
    /// A script or a component.
    File(PathBuf),
    /// One that travels with the binary.
    Shipped(String),
}

impl std::fmt::Display for PolicySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Shipped(name) => write!(f, "{SHIPPED}{name}"),
        }
    }
}

impl PolicySource {
    /// Whether it is a script, and not a component.
    #[must_use]
    pub fn is_script(&self) -> bool {
        match self {
            Self::File(file) => has_extension(file, "rhai"),
            Self::Shipped(_) => true,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::File(file) => file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            Self::Shipped(name) => name.clone(),
        }
    }

    fn read(source: &Source, text: &str) -> Self {
        match text.strip_prefix(SHIPPED) {
            Some(name) => Self::Shipped(name.into()),
            None => Self::File(source.path(text)),
        }
    }
}

/// How scripts are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RhaiMode {
    /// In a component, with its bounds on memory and work.
    #[default]
    Sandboxed,
    /// By the interpreter within this process.
    Native,
}

fn has_extension(file: &Path, wanted: &str) -> bool {
    file.extension().is_some_and(|extension| extension == wanted)
}

/// Checks a hook's list. Whether files are there and can be loaded is told by `trireme config check`, and does not keep
/// a node from starting.
pub(super) fn check(source: &Source, path: &str, value: &Spanned<DeValue<'_>>, problems: &mut Vec<Problem>) {
    let DeValue::Array(items) = value.get_ref() else {
        problems.push(source.problem(&value.span(), path, format!("expected a list; each is {EXPECTED}")));
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if let Err((key, what)) = check_entry(source, &path, item, problems) {
            let key = if key.is_empty() { path } else { format!("{path}.{key}") };
            problems.push(source.problem(&item.span(), key, what));
        }
    }
}

/// The key that is wrong, and what.
type Wrong = (&'static str, String);

fn check_entry(
    source: &Source,
    path: &str,
    item: &Spanned<DeValue<'_>>,
    problems: &mut Vec<Problem>,
) -> Result<(), Wrong> {
    let table = match item.get_ref() {
        DeValue::String(text) => return check_origin("", &PolicySource::read(source, text)),
        DeValue::Table(table) => table,
        _ => return Err(("", format!("expected {EXPECTED}"))),
    };
    for (key, _) in table.iter() {
        let known = ["file", "shipped", "settings"];
        if !known.contains(&key.get_ref().as_ref()) {
            let what = schema::unknown(key.get_ref(), "key", &known);
            problems.push(source.problem(&key.span(), format!("{path}.{}", key.get_ref()), what));
        }
    }
    if find(table, "settings").is_some_and(|settings| settings.get_ref().as_table().is_none()) {
        return Err(("settings", "expected a table, like { battery = 40 }".into()));
    }
    match (text(table, "file")?, text(table, "shipped")?) {
        (Some(file), None) => check_origin("file", &PolicySource::File(source.path(file))),
        (None, Some(name)) => check_origin("shipped", &PolicySource::Shipped(name.into())),
        (Some(_), Some(_)) => Err(("", "has both `file` and `shipped`; which of them?".into())),
        (None, None) => Err(("", format!("names no policy; expected {EXPECTED}"))),
    }
}

fn text<'a>(table: &'a DeTable<'_>, key: &'static str) -> Result<Option<&'a str>, Wrong> {
    match find(table, key).map(|value| value.get_ref().as_str()) {
        Some(Some(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err((key, "expected a text".into())),
        None => Ok(None),
    }
}

fn check_origin(key: &'static str, origin: &PolicySource) -> Result<(), Wrong> {
    match origin {
        PolicySource::File(file) if has_extension(file, "rhai") || has_extension(file, "wasm") => Ok(()),
        PolicySource::File(file) => {
            let what = format!(
                "expected a script (.rhai) or a component (.wasm), found {:?}",
                file.display().to_string()
            );
            Err((key, what))
        }
        PolicySource::Shipped(name) if shipped::find(name).is_some() => Ok(()),
        PolicySource::Shipped(name) => {
            let names: Vec<&str> = shipped::names().collect();
            Err((key, schema::unknown(name, "shipped policy", &names)))
        }
    }
}

/// Reads what was checked before.
pub(super) fn read(
    section: &Section<'_, '_>,
    sections: &[Section<'_, '_>],
    problems: &mut Vec<Problem>,
) -> PoliciesConfig {
    let rhai = match section.text("rhai") {
        Some("native") => RhaiMode::Native,
        _ => RhaiMode::Sandboxed,
    };
    let mut config = PoliciesConfig { hooks: BTreeMap::new(), rhai };
    let mut names = Names::default();
    for (hook, role) in HOOKS {
        let Some(DeValue::Array(items)) = find(section.table, hook).map(Spanned::get_ref) else { continue };
        if !sections.iter().any(|section| section.is_of(*role)) {
            let what = format!("is asked by a {role}, and this node has none");
            problems.push(section.problem(hook, what));
        }
        let policies = items.iter().filter_map(|item| policy(section.source, item, &mut names)).collect();
        config.hooks.insert((*hook).to_owned(), policies);
    }
    config
}

fn policy(source: &Source, item: &Spanned<DeValue<'_>>, names: &mut Names) -> Option<PolicyConfig> {
    let (origin, settings) = match item.get_ref() {
        DeValue::String(text) => (PolicySource::read(source, text), None),
        DeValue::Table(table) => {
            let text = |key: &str| find(table, key).and_then(|value| value.get_ref().as_str());
            let file = text("file").map(|file| PolicySource::File(source.path(file)));
            let shipped = || text("shipped").map(|name| PolicySource::Shipped(name.into()));
            (file.or_else(shipped)?, find(table, "settings").map(|value| schema::to_json(value.get_ref())))
        }
        _ => return None,
    };
    let settings = settings.map_or_else(|| "{}".to_owned(), |settings| settings.to_string());
    let name = names.of(&origin, &settings);
    Some(PolicyConfig { name, source: origin, settings, line: source.line(item.span().start) })
}

/// Two policies never have one name, and one has the same in all hooks.
#[derive(Default)]
struct Names(Vec<(PolicySource, String, String)>);

impl Names {
    fn of(&mut self, origin: &PolicySource, settings: &str) -> String {
        if let Some((.., name)) = self.0.iter().find(|(one, with, _)| one == origin && with == settings) {
            return name.clone();
        }
        let taken = |name: &String| self.0.iter().any(|(.., one)| one == name);
        let base = origin.name();
        let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
        let name =
            std::iter::once(base.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(base.clone());
        self.0.push((origin.clone(), settings.into(), name.clone()));
        name
    }
}
