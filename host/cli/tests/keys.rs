//! The table of keys says what the roles' own configurations say: the same names, the same kinds, the same defaults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, also in its helpers")]

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde_json::{Map, Value, json};
use trireme::config::roles;
use trireme::config::schema::{Absent, Key, Kind, Reader};
use trireme_core::RoleKind;

/// The role's keys that have a default, as the role gets them.
fn defaults(role: RoleKind) -> Value {
    let own = roles::keys(role).iter().filter(|key| key.reader == Reader::Role);
    let value = |key: &Key| match key.absent {
        Absent::Default(text) => Some((key.name.to_owned(), serde_json::from_str(text).unwrap())),
        _ => None,
    };
    Value::Object(own.filter_map(value).collect::<Map<_, _>>())
}

/// All keys of the role, each with some value of its kind.
fn all(role: RoleKind) -> Value {
    let own = roles::keys(role).iter().filter(|key| key.reader == Reader::Role);
    Value::Object(own.map(|key| (key.name.to_owned(), some(key.kind))).collect())
}

fn some(kind: Kind) -> Value {
    match kind {
        Kind::Text | Kind::Name => "a".into(),
        Kind::Url(scheme) => format!("{scheme}://127.0.0.1:1").into(),
        Kind::Broker => "mqtts://127.0.0.1:1".into(),
        Kind::Number(least, _) => least.max(1).into(),
        Kind::Flag => true.into(),
        Kind::Integer => (-1).into(),
        Kind::Map(of, _) => json!({ "a": some(*of) }),
        Kind::Names => vec!["a"].into(),
        Kind::Choice(words) => words.iter().next().copied().unwrap().into(),
        Kind::Tables(keys) => Value::Array(vec![some(Kind::Table(keys))]),
        Kind::Table(keys) => {
            Value::Object(keys.iter().map(|key| (key.name.into(), some(key.kind))).collect())
        }
        other => panic!("no role reads a {other:?}"),
    }
}

/// The fields of a configuration, read off its Debug form.
fn fields(config: &impl Debug) -> BTreeSet<String> {
    let text = format!("{config:#?}");
    let field = |line: &str| {
        let rest = line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', '}', ']', ')']))?;
        Some(rest.split_once(':')?.0.to_owned())
    };
    text.lines().filter_map(field).collect()
}

fn agree<C: Debug + serde::de::DeserializeOwned>(role: RoleKind) {
    let empty: C = serde_json::from_str("{}").unwrap();
    let told: C = serde_json::from_value(defaults(role)).unwrap_or_else(|error| panic!("{role}: {error}"));
    assert_eq!(format!("{told:?}"), format!("{empty:?}"), "{role}: the defaults differ");
    serde_json::from_value::<C>(all(role)).unwrap_or_else(|error| panic!("{role}: {error}"));
    let known = roles::keys(role).iter().filter(|key| key.reader == Reader::Role);
    let known: BTreeSet<String> = known.map(|key| key.name.to_owned()).collect();
    assert_eq!(known, fields(&empty), "{role}: the keys differ");
}

#[test]
fn every_role_has_the_keys_and_defaults_that_its_table_says() {
    agree::<trireme_role_authority::Config>(RoleKind::Authority);
    agree::<trireme_role_directory::Config>(RoleKind::Directory);
    agree::<trireme_role_manufacturer::Config>(RoleKind::Manufacturer);
    agree::<trireme_role_broker::Config>(RoleKind::Broker);
    agree::<trireme_role_gateway::Config>(RoleKind::Gateway);
    agree::<trireme_role_sensor::Config>(RoleKind::Sensor);
}
