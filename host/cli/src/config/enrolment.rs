//! What a configuration says of a node that has no certificate yet; and of an authority's register. Only this much is
//! read: the rest refers to files that are not there.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};
use trireme_core::{NodeId, RoleKind};

use super::roles;
use super::schema::find;
use super::source::{Problem, Problems, Source};
use crate::keys::Place;

/// A node that is to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The node's name.
    pub name: NodeId,
    /// Its role.
    pub role: RoleKind,
    /// Its identifier, where the configuration has it.
    pub id: Option<NodeId>,
    /// The authority's service, where the configuration has it.
    pub authority: Option<String>,
    /// Where its key goes, or is.
    pub key: Place,
    /// The file with the passphrase of its keys.
    pub passphrase_file: Option<PathBuf>,
    /// Where its certificate goes.
    pub certificate: PathBuf,
    /// Where the roots are that it believes.
    pub trust: Vec<PathBuf>,
}

/// The role that is meant: as named, else the only one that has a certificate.
pub(super) fn read(source: &Source, wanted: Option<RoleKind>) -> Result<Enrolment, Problems> {
    let document = parse(source)?;
    let document = document.get_ref();
    let problem = |key: &str, what: String| {
        Problems(vec![Problem { file: source.file.clone(), line: 0, key: key.into(), what }])
    };
    let table = |name: &str| find(document, name).and_then(|value| value.get_ref().as_table());
    let text = |name: &str, key: &str| Some(find(table(name)?, key)?.get_ref().as_str()?.to_owned());
    let needed = |name: &str, key: &str| {
        text(name, key).ok_or_else(|| problem(&format!("{name}.{key}"), "is missing; expected a text".into()))
    };
    let named = |name: &str, key: &str, text: String| {
        NodeId::new(text).map_err(|error| problem(&format!("{name}.{key}"), error.to_string()))
    };

    let enrolled = |role: &RoleKind| !matches!(role, RoleKind::Authority | RoleKind::Sensor);
    let there = roles::ROLES.iter().copied().filter(enrolled).filter(|role| table(role.as_str()).is_some());
    let there: Vec<RoleKind> = there.filter(|role| wanted.is_none_or(|wanted| wanted == *role)).collect();
    let role = match there.as_slice() {
        [one] => *one,
        [] => {
            let wanted = wanted.map_or_else(|| "role that is enrolled".to_owned(), |role| role.to_string());
            return Err(problem("", format!("has no {wanted}")));
        }
        more => {
            let names: Vec<&str> = more.iter().map(|role| role.as_str()).collect();
            let what = format!("has several roles; enrol each: add --role {}", names.join(" or --role "));
            return Err(problem("", what));
        }
    };
    let table_name = role.as_str();
    let trust = table("trust").and_then(|trust| find(trust, "authority"));
    let trust: Vec<PathBuf> = match trust.map(|value| value.get_ref()) {
        Some(DeValue::String(one)) => vec![source.path(one)],
        Some(DeValue::Array(several)) => {
            several.iter().filter_map(|one| one.get_ref().as_str()).map(|one| source.path(one)).collect()
        }
        _ => Vec::new(),
    };
    if trust.is_empty() {
        let what = "is missing; expected where the authority's root certificate goes".into();
        return Err(problem("trust.authority", what));
    }
    let id = text(table_name, "id").map(|id| named(table_name, "id", id)).transpose()?;
    Ok(Enrolment {
        name: named("node", "name", needed("node", "name")?)?,
        role,
        id,
        authority: text(table_name, "authority"),
        key: Place::parse(&needed(table_name, "key")?, &source.path(""))
            .map_err(|error| problem(&format!("{table_name}.key"), error.to_string()))?,
        passphrase_file: text("node", "passphrase_file").map(|file| source.path(&file)),
        certificate: source.path(&needed(table_name, "certificate")?),
        trust,
    })
}

/// The register of the folder whose key an authority issues with.
pub(super) fn register(source: &Source) -> Result<Option<PathBuf>, Problems> {
    let document = parse(source)?;
    let table = find(document.get_ref(), "authority").and_then(|value| value.get_ref().as_table());
    let issued = table.and_then(|table| find(table, "issued")?.get_ref().as_str());
    Ok(issued.map(|file| source.path(file)))
}

fn parse(source: &Source) -> Result<toml::Spanned<DeTable<'_>>, Problems> {
    DeTable::parse(&source.text).map_err(|error| {
        Problems(vec![source.problem(&error.span().unwrap_or(0..0), "", error.message().trim())])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { file: "folder/node.toml".into(), text: text.into() }
    }

    const NODE: &str = "[node]\nname = \"n\"\ndata = \"d\"\n[trust]\nauthority = [\"a.pem\", \"b.pem\"]\n";
    const BROKER: &str = "[broker]\nkey = \"k\"\ncertificate = \"c\"\nauthority = \"https://h:1\"\n";

    #[test]
    fn the_only_role_is_enrolled_and_of_several_the_named_one() {
        let one = read(&source(&format!("{NODE}{BROKER}")), None).unwrap();
        assert_eq!((one.role, one.name.as_str(), one.id), (RoleKind::Broker, "n", None));
        assert_eq!(one.authority.as_deref(), Some("https://h:1"));
        assert_eq!(one.trust, [PathBuf::from("folder/a.pem"), PathBuf::from("folder/b.pem")]);
        assert_eq!((one.key, one.certificate), (Place::File("folder/k".into()), "folder/c".into()));

        let two = format!("{NODE}{BROKER}[gateway]\nid = \"gw-1\"\nkey = \"k2\"\ncertificate = \"c2\"\n");
        let several = read(&source(&two), None).unwrap_err().to_string();
        assert!(several.contains("--role broker or --role gateway"), "{several}");
        let gateway = read(&source(&two), Some(RoleKind::Gateway)).unwrap();
        assert_eq!(gateway.id.map(|id| id.to_string()).as_deref(), Some("gw-1"));
    }

    #[test]
    fn what_an_enrolment_needs_and_is_missing_is_told_by_its_key() {
        let without = |text: &str| format!("{NODE}{BROKER}").replace(text, "");
        for (line, key) in [
            ("key = \"k\"\n", "broker.key"),
            ("certificate = \"c\"\n", "broker.certificate"),
            ("[trust]\nauthority = [\"a.pem\", \"b.pem\"]\n", "trust.authority"),
            ("name = \"n\"\n", "node.name"),
        ] {
            let problems = read(&source(&without(line)), None).unwrap_err();
            assert_eq!(problems.0.first().unwrap().key, key);
        }
        assert!(read(&source(NODE), None).unwrap_err().to_string().contains("no role"));
    }
}
