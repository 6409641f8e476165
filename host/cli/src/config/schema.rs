//! What a table of the configuration may hold, as data, and the one check of it. The same data makes the commented
//! examples ([`super::example`]).

use std::net::SocketAddr;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use trireme_core::api::BrokerAddress;
use trireme_core::{LabelText, NodeId, RoleKind, Version};
use trireme_net::mqtt::carrier::Carrier;
use trireme_pkcs11::KeyUri;

use super::policies;
use super::source::{Problem, Source};

/// A key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value has to be.
    pub kind: Kind,
    /// What counts where it is absent.
    pub absent: Absent,
    /// Who reads it.
    pub reader: Reader,
    /// What it does, in a line.
    pub doc: &'static str,
}

/// What a value has to be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// A name: letters, digits, dot, underscore, dash, at most 64.
    Name,
    /// The path of a file that is there.
    File,
    /// A private key: the path of a file that is there, or a `pkcs11:` URI.
    Key,
    /// The path of a folder that is there.
    Folder,
    /// A path that need not be there.
    Path,
    /// An address to listen on, like `127.0.0.1:1883`.
    Address,
    /// An address to listen on for MQTT, like the one above or `mqtts://0.0.0.0:8883`.
    Door,
    /// One of those, or a list of them.
    Doors,
    /// An address of a broker: `mqtt://host:port`, or with `mqtts`, `ws`, `wss`.
    Broker,
    /// An address of a service, `<scheme>://host:port`.
    Url(&'static str),
    /// A number between these two.
    Number(u64, u64),
    /// `true` or `false`.
    Flag,
    /// A list of names.
    Names,
    /// A list of texts.
    Texts,
    /// The path of a file that is there, or a list of them.
    FileOrFiles,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A table within this one.
    Table(&'static [Key]),
    /// A list of tables.
    Tables(&'static [Key]),
    /// A list of policies ([`super::policies`]).
    Policies,
    /// `"pass"`, `"fail"` or `{ fail_for = "1.3" }`.
    SelfTest,
    /// A table of names with values of this kind; at most so many.
    Map(&'static Kind, usize),
    /// A whole number, below zero too.
    Integer,
}

/// What counts where a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It has to be there.
    Needed,
    /// Nothing; the example shows this.
    Nothing(&'static str),
    /// This value, as TOML.
    Default(&'static str),
}

/// Who reads a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The node.
    Host,
    /// The role, as part of its configuration.
    Role,
}

/// Checks a table against its keys. `open` lets keys through that are not listed: they are a plugin's own.
pub(crate) fn check(
    source: &Source,
    name: &str,
    table: &Spanned<DeTable<'_>>,
    keys: &[Key],
    open: bool,
    problems: &mut Vec<Problem>,
) {
    check_parts(source, name, (&table.span(), table.get_ref()), keys, open, problems);
}

fn check_parts(
    source: &Source,
    name: &str,
    (span, table): (&Range<usize>, &DeTable<'_>),
    keys: &[Key],
    open: bool,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in table.iter() {
        let path = format!("{name}.{}", key.get_ref());
        match keys.iter().find(|known| known.name == key.get_ref()) {
            Some(known) => check_value(source, &path, known.kind, value, problems),
            None if open => {}
            None => {
                let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
                problems.push(source.problem(&key.span(), path, unknown(key.get_ref(), "key", &names)));
            }
        }
    }
    for key in keys.iter().filter(|key| key.absent == Absent::Needed && find(table, key.name).is_none()) {
        let what = format!("is missing; expected {}: {}", expectation(key.kind), key.doc);
        problems.push(source.problem(span, format!("{name}.{}", key.name), what));
    }
}

/// The value of a key.
pub(crate) fn find<'a, 'i>(table: &'a DeTable<'i>, name: &str) -> Option<&'a Spanned<DeValue<'i>>> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
}

/// Says that a word is not known, what was perhaps meant, and what there is.
pub(crate) fn unknown(word: &str, what: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (distance(word, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 2.max(word.len() / 3) => {
            format!("no such {what}; did you mean {name:?}?")
        }
        _ if known.is_empty() => format!("no such {what}; there is none here"),
        _ => format!("no such {what}; expected one of {}", known.join(", ")),
    }
}

/// How many letters differ (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().take(64).enumerate() {
        let mut corner = above;
        let mut left = above + 1;
        let mut next = vec![left];
        for (wanted, up) in other.iter().zip(row.iter().skip(1)) {
            let cost = usize::from(letter != *wanted);
            left = (corner + cost).min(up + 1).min(left + 1);
            corner = *up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// What a kind wants, in words.
pub(crate) fn expectation(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text".into(),
        Kind::Name => "a name of 1 to 64 letters, digits, dots, underscores or dashes".into(),
        Kind::File => "the path of a file".into(),
        Kind::Key => {
            "the path of a file, or a key in a token as \"pkcs11:token=…;object=…?module-path=…\"".into()
        }
        Kind::Folder => "the path of a folder".into(),
        Kind::Path => "a path".into(),
        Kind::Address => "an address to listen on, like \"127.0.0.1:1883\"".into(),
        Kind::Door => {
            "an address to listen on, like \"127.0.0.1:1883\" or \"mqtts://127.0.0.1:8883\" (mqtt, mqtts, ws, wss)"
                .into()
        }
        Kind::Doors => format!("{}, or a list of them", expectation(Kind::Door)),
        Kind::Broker => "an address like \"mqtt://host:port\" (mqtt, mqtts, ws, wss)".into(),
        Kind::Url(scheme) => format!("an address like \"{scheme}://host:port\""),
        Kind::Number(least, most) => format!("a number from {least} to {most}"),
        Kind::Flag => "true or false".into(),
        Kind::Names => "a list of names".into(),
        Kind::Texts => "a list of texts".into(),
        Kind::FileOrFiles => "the path of a file, or a list of them".into(),
        Kind::Choice(words) => format!("one of {}", words.join(", ")),
        Kind::Table(_) => "a table".into(),
        Kind::Tables(_) => "a list of tables".into(),
        Kind::Policies => "a list of policies".into(),
        Kind::SelfTest => "\"pass\", \"fail\" or { fail_for = \"1.3\" }".into(),
        Kind::Map(of, most) => format!("a table of at most {most} names with {}", expectation(*of)),
        Kind::Integer => "a whole number".into(),
    }
}

fn check_value(
    source: &Source,
    path: &str,
    kind: Kind,
    value: &Spanned<DeValue<'_>>,
    problems: &mut Vec<Problem>,
) {
    let span = value.span();
    match (kind, value.get_ref()) {
        (Kind::Policies, _) => return policies::check(source, path, value, problems),
        (Kind::Table(keys), DeValue::Table(table)) => {
            return check_parts(source, path, (&span, table), keys, false, problems);
        }
        (Kind::Map(of, most), DeValue::Table(table)) => {
            if table.len() > most {
                let what = format!("has {} entries; expected {}", table.len(), expectation(kind));
                problems.push(source.problem(&span, path, what));
            }
            for (key, item) in table.iter() {
                let name = key.get_ref().strip_suffix('*').unwrap_or(key.get_ref());
                let path = format!("{path}.{}", key.get_ref());
                if let Err(why) = LabelText::new(if name.is_empty() { "all" } else { name }) {
                    problems.push(source.problem(&key.span(), path.clone(), why.to_string()));
                }
                check_value(source, &path, *of, item, problems);
            }
            return;
        }
        (Kind::Tables(keys), DeValue::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check_value(source, &format!("{path}[{index}]"), Kind::Table(keys), item, problems);
            }
            return;
        }
        (Kind::Names | Kind::Texts | Kind::FileOrFiles | Kind::Doors, DeValue::Array(items)) => {
            let kind = match kind {
                Kind::Names => Kind::Name,
                Kind::Doors => Kind::Door,
                Kind::Texts => Kind::Text,
                _ => Kind::File,
            };
            for (index, item) in items.iter().enumerate() {
                check_value(source, &format!("{path}[{index}]"), kind, item, problems);
            }
            return;
        }
        _ => {}
    }
    let what = match scalar(source, kind, value.get_ref()) {
        Ok(()) => return,
        Err(Some(what)) => what,
        Err(None) => {
            format!("expected {}, found {}", expectation(kind), found(value.get_ref()))
        }
    };
    problems.push(source.problem(&span, path, what));
}

/// Fine, or what is wrong where there is more to say than "expected … found …".
fn scalar(source: &Source, kind: Kind, value: &DeValue<'_>) -> Result<(), Option<String>> {
    let kind = match (kind, value) {
        (Kind::FileOrFiles, DeValue::String(_)) => Kind::File,
        (Kind::Doors, DeValue::String(_)) => Kind::Door,
        _ => kind,
    };
    let text = || value.as_str().ok_or(None);
    let fine = |fine: bool| if fine { Ok(()) } else { Err(None) };
    match kind {
        Kind::Text => text().map(|_| ()),
        Kind::Path => fine(!text()?.is_empty()),
        Kind::Name => NodeId::new(text()?).map(|_| ()).map_err(|error| Some(error.to_string())),
        Kind::Key if KeyUri::is_uri(text()?) => {
            text()?.parse::<KeyUri>().map(|_| ()).map_err(|error| Some(error.to_string()))
        }
        Kind::File | Kind::Key => {
            let file = source.path(text()?);
            if file.is_file() {
                return Ok(());
            }
            let what = if file.is_dir() { "is a folder" } else { "is not there" };
            Err(Some(format!("expected the path of a file; {} {what}", file.display())))
        }
        Kind::Folder => {
            let folder = source.path(text()?);
            if folder.is_dir() {
                return Ok(());
            }
            Err(Some(format!("expected the path of a folder; {} is none", folder.display())))
        }
        Kind::Address => fine(text()?.parse::<SocketAddr>().is_ok()),
        Kind::Door => fine(door(text()?).is_some()),
        Kind::Broker => fine(BrokerAddress::is_url(text()?)),
        Kind::Url(scheme) => fine(is_url(text()?, scheme)),
        Kind::Number(least, most) => {
            let number = integer(value).ok_or(None)?;
            fine((i128::from(least)..=i128::from(most)).contains(&number))
        }
        Kind::Integer => {
            let number = integer(value).ok_or(None)?;
            fine(i64::try_from(number).is_ok())
        }
        Kind::Flag => fine(value.is_bool()),
        Kind::Choice(words) => fine(words.contains(&text()?)),
        Kind::SelfTest => match value {
            DeValue::Table(table) => {
                let version =
                    find(table, "fail_for").and_then(|value| value.get_ref().as_str()).ok_or(None)?;
                if table.len() != 1 {
                    return Err(None);
                }
                version.parse::<Version>().map(|_| ()).map_err(|error| Some(error.to_string()))
            }
            other => fine(matches!(other.as_str(), Some("pass" | "fail"))),
        },
        Kind::Names
        | Kind::Texts
        | Kind::FileOrFiles
        | Kind::Doors
        | Kind::Table(_)
        | Kind::Policies
        | Kind::Map(..)
        | Kind::Tables(_) => Err(None),
    }
}

/// Where MQTT is listened for, and what carries it: TCP, where nothing is said.
pub(crate) fn door(text: &str) -> Option<(Carrier, SocketAddr)> {
    let (carrier, address) = match text.contains("://") {
        true => Carrier::parse(text)?,
        false => (Carrier::Mqtt, text),
    };
    Some((carrier, address.parse().ok()?))
}

fn is_url(text: &str, scheme: &str) -> bool {
    let rest = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let parts = rest.and_then(|rest| rest.trim_end_matches('/').rsplit_once(':'));
    parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_graphic())
    })
}

/// A whole number; `None` for anything else.
pub(crate) fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        other => format!("a value of type {}", other.type_str()),
    }
}

/// A value as JSON, for a role.
pub(crate) fn to_json(value: &DeValue<'_>) -> serde_json::Value {
    use serde_json::Value;
    match value {
        DeValue::String(text) => Value::String(text.as_ref().to_owned()),
        DeValue::Integer(_) => match integer(value) {
            Some(number) => u64::try_from(number)
                .map(Value::from)
                .or_else(|_| i64::try_from(number).map(Value::from))
                .unwrap_or(Value::Null),
            None => Value::Null,
        },
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| to_json(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Object(
            table.iter().map(|(key, value)| (key.get_ref().to_string(), to_json(value.get_ref()))).collect(),
        ),
    }
}

/// The table in which a role stands; a sensor's is a list.
#[must_use]
pub fn table_of(role: RoleKind) -> &'static str {
    role.as_str()
}
