//! What a configuration names, read without opening any of it: commands that look after keys also have to work where a
//! key does not open, or a certificate has run out.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use trireme_core::RoleKind;

use super::schema::find;
use super::source::{Problems, Source};
use super::{Named, NamedRole, roles};
use crate::keys::Place;

pub(super) fn read(source: &Source) -> Result<Named, Problems> {
    let document = DeTable::parse(&source.text).map_err(|error| {
        Problems(vec![source.problem(&error.span().unwrap_or(0..0), "", error.message().trim())])
    })?;
    let document = document.get_ref();
    let table = |name: &str| find(document, name)?.get_ref().as_table();
    let missing =
        |key: &str| Problems(vec![source.problem(&(0..0), key, "is missing; this is no node's file")]);
    let node = table("node").ok_or_else(|| missing("node"))?;
    let data = text(node, "data").map(|text| source.path(text)).ok_or_else(|| missing("node.data"))?;
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for role in roles::ROLES.iter().copied().filter(|role| *role != RoleKind::Sensor) {
        let Some(section) = table(role.as_str()) else { continue };
        let mut place = |key: &str, text: &str| {
            let span = find(section, key).map_or(0..0, toml::Spanned::span);
            Place::parse(text, &source.path(""))
                .map_err(|error| {
                    problems.push(source.problem(&span, format!("{role}.{key}"), error.to_string()))
                })
                .ok()
        };
        let Some(key) = text(section, "key").and_then(|text| place("key", text)) else {
            // Said by `config check` where it is missing.
            continue;
        };
        let issuing = find(section, "issuing_key").map(|value| match value.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(|item| item.get_ref().as_str()).collect(),
            one => one.as_str().into_iter().collect::<Vec<_>>(),
        });
        // What is retired still signs lists.
        let retired = find(section, "retired").and_then(|value| value.get_ref().as_array());
        let retired = retired.into_iter().flatten().filter_map(|one| text(one.get_ref().as_table()?, "key"));
        found.push(NamedRole {
            role,
            key,
            certificate: source.path(text(section, "certificate").unwrap_or_default()),
            issuing: issuing
                .unwrap_or_default()
                .into_iter()
                .chain(retired)
                .filter_map(|text| place("issuing_key", text))
                .collect(),
            models: text(section, "models")
                .filter(|_| role == RoleKind::Manufacturer)
                .map(|text| source.path(text)),
        });
    }
    Problems(problems).none()?;
    let trust = table("trust").and_then(|trust| find(trust, "authority"));
    let trust = match trust.map(|value| value.get_ref()) {
        Some(DeValue::Array(items)) => items.iter().filter_map(|item| item.get_ref().as_str()).collect(),
        Some(one) => one.as_str().into_iter().collect::<Vec<_>>(),
        None => Vec::new(),
    };
    Ok(Named {
        file: source.file.clone(),
        name: text(node, "name").map(str::to_owned),
        trust: trust.into_iter().map(|text| source.path(text)).collect(),
        admin: text(node, "admin").map_or_else(|| data.join("admin.sock"), |text| source.path(text)),
        passphrase_file: text(node, "passphrase_file").map(|text| source.path(text)),
        data,
        roles: found,
    })
}

fn text<'a>(table: &'a DeTable<'_>, key: &str) -> Option<&'a str> {
    find(table, key)?.get_ref().as_str().filter(|text| !Path::new(text).as_os_str().is_empty())
}
