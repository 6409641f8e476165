//! Commented configurations, made from the tables of keys.

use std::fmt::Write as _;

use trireme_core::RoleKind;

use super::roles;
use super::schema::{Absent, Key, Kind, Reader, expectation};

/// The values that are set in an example, as TOML, by key.
pub type Values<'a> = &'a [(&'a str, String)];

/// A whole file with every key of this role, as a person would start from.
#[must_use]
pub fn full(role: RoleKind) -> String {
    let mut text = String::new();
    let id = |name: &str| format!("\"{name}\"");
    section(&mut text, "[node]", roles::NODE, &[("name", id("my-node")), ("data", id("data"))], true);
    if role != RoleKind::Sensor {
        section(&mut text, "[trust]", roles::TRUST, &[("authority", id("authority.pem"))], true);
    }
    let values: Vec<(&str, String)> = roles::keys(role)
        .iter()
        .filter(|key| key.absent == Absent::Needed || (role == RoleKind::Sensor && key.name == "bundle"))
        .map(|key| (key.name, sample(key)))
        .collect();
    section(&mut text, &heading(role), roles::keys(role), &values, true);
    let hooks: Vec<&str> =
        roles::HOOKS.iter().filter(|(_, asker)| *asker == role).map(|(hook, _)| *hook).collect();
    let keys: Vec<Key> = roles::POLICIES
        .iter()
        .filter(|key| hooks.contains(&key.name) || key.name == "rhai")
        .copied()
        .collect();
    if !hooks.is_empty() {
        section(&mut text, "[policies]", &keys, &[], true);
    }
    text
}

/// `[broker]`, `[[sensor]]`.
#[must_use]
pub fn heading(role: RoleKind) -> String {
    match role {
        RoleKind::Sensor => "[[sensor]]".into(),
        other => format!("[{other}]"),
    }
}

/// The key with a role's own address.
#[must_use]
pub fn listen_key(role: RoleKind) -> &'static str {
    if role == RoleKind::Gateway { "lan" } else { "listen" }
}

/// Writes a table: the given values set, the others as comments with their defaults. Where not `complete`, the
/// host's keys that were not set are left out.
pub fn section(text: &mut String, heading: &str, keys: &[Key], values: Values<'_>, complete: bool) {
    let set_named = |wanted: &str| values.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let set = |key: &Key| set_named(key.name);
    // Writing to a String does not fail.
    let _ = writeln!(text, "{heading}");
    for key in keys {
        if let Some(value) = set(key) {
            let _ = writeln!(text, "# {}\n{} = {value}", comment(key), key.name);
        }
    }
    let absent = keys.iter().filter(|key| set(key).is_none() && (complete || key.reader == Reader::Role));
    for key in absent {
        let value = match key.absent {
            // What is shown is what counts: it lies in the data folder.
            _ if key.name == "admin" && set_named("data").is_some() => {
                let data = set_named("data").map_or("", |data| data.trim_matches('"'));
                format!("\"{data}/admin.sock\"")
            }
            Absent::Default(value) | Absent::Nothing(value) => value.to_owned(),
            Absent::Needed => sample(key),
        };
        let _ = writeln!(text, "# {}\n# {} = {value}", comment(key), key.name);
    }
    text.push('\n');
}

fn comment(key: &Key) -> String {
    let mut doc = key.doc.to_owned();
    if let Some(first) = doc.get(..1).map(str::to_uppercase) {
        doc.replace_range(..1, &first);
    }
    match key.kind {
        Kind::Number(..) if key.name.ends_with("_ms") => format!("{doc} (milliseconds)"),
        Kind::Number(..) => format!("{doc} ({})", expectation(key.kind)),
        _ => doc,
    }
}

fn sample(key: &Key) -> String {
    match (key.name, key.kind) {
        (name @ ("certificate" | "key"), _) => {
            format!("\"my-node.{}\"", if name == "key" { "key" } else { "pem" })
        }
        (_, Kind::Address | Kind::Doors) => "\"127.0.0.1:1883\"".into(),
        (_, Kind::Url(scheme)) => format!("\"{scheme}://127.0.0.1:8443\""),
        (name, Kind::Folder | Kind::Path | Kind::File | Kind::FileOrFiles | Kind::Key) => match name {
            "bundle" => "\"sn-001.bundle\"".into(),
            _ => format!("\"{name}\""),
        },
        (_, Kind::Tables(_)) => "[{ id = \"bk-1\", url = \"mqtt://127.0.0.1:1883\" }]".into(),
        _ => "\"my-node\"".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_names_every_key_and_is_toml_also_with_its_comments_taken_off() {
        for role in roles::ROLES {
            let text = full(*role);
            toml::de::DeTable::parse(&text).unwrap();
            let uncommented: String = text
                .lines()
                .map(|line| match line.strip_prefix("# ") {
                    Some(rest) if rest.split(' ').nth(1) == Some("=") => format!("{rest}\n"),
                    _ => format!("{line}\n"),
                })
                .collect();
            toml::de::DeTable::parse(&uncommented).unwrap_or_else(|error| panic!("{role}: {error}"));
            for key in roles::keys(*role) {
                assert!(uncommented.contains(&format!("\n{} = ", key.name)), "{role}: {}", key.name);
            }
        }
    }
}
