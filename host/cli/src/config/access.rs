//! The file that says who may publish and subscribe which ordinary messages.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use trireme_core::RoleKind;
use trireme_mqtt::access::{Rule, Rules, Who};
use trireme_net::mqtt::access::{Access, AccessSource};

use crate::files;
use crate::users;

/// The most bytes of the file.
pub const LARGEST: u64 = 1024 * 1024;

/// That file, and the one with the users, if it names one.
pub struct AccessFiles {
    file: PathBuf,
    /// As the file named it last.
    users: Mutex<Option<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    users: Option<PathBuf>,
    #[serde(default = "yes")]
    anonymous: bool,
    #[serde(default)]
    rule: Vec<TextRule>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextRule {
    who: OneOrMore,
    topics: OneOrMore,
    allow: Option<Vec<What>>,
    deny: Option<Vec<What>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<OneOrMore> for Vec<String> {
    fn from(value: OneOrMore) -> Self {
        match value {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(more) => more,
        }
    }
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum What {
    Publish,
    Subscribe,
}

impl AccessFiles {
    /// The file; it names the other.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self { file, users: Mutex::default() }
    }
}

impl AccessSource for AccessFiles {
    fn stamp(&self) -> String {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stamp = |file: &Path| {
            std::fs::metadata(file)
                .map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.mode()))
                .ok()
        };
        format!("{:?} {:?}", stamp(&self.file), users.as_deref().and_then(stamp))
    }

    fn load(&self) -> Result<Access, String> {
        let shown = self.file.display();
        let text = files::read_text(&self.file, LARGEST).map_err(|error| error.to_string())?;
        let Text { users, anonymous, rule } =
            toml::from_str(&text).map_err(|error| format!("{shown}: {}", error.to_string().trim()))?;
        let users = users.map(|users| self.file.parent().unwrap_or(Path::new("")).join(users));
        // Watched from now on, also where it cannot be read yet.
        *self.users.lock().unwrap_or_else(PoisonError::into_inner) = users.clone();
        let rules = (1..)
            .zip(rule)
            .map(|(number, rule)| read(rule).map_err(|what| format!("{shown}: rule {number}: {what}")));
        let rules: Vec<Rule> = rules.collect::<Result<_, String>>()?;
        let rules = Rules::new(rules).map_err(|what| format!("{shown}: {what}"))?;
        let users = users.map(|file| users::read(&file)).transpose().map_err(|error| error.to_string())?;
        Ok(Access { rules: Some(rules), users, no_strangers: !anonymous })
    }
}

fn read(rule: TextRule) -> Result<Rule, String> {
    let TextRule { who, topics, allow, deny } = rule;
    let (what, denies) = match (allow, deny) {
        (Some(what), None) => (what, false),
        (None, Some(what)) => (what, true),
        _ => return Err("write either allow or deny, with \"publish\", \"subscribe\" or both".into()),
    };
    let roles: Vec<&str> = super::roles::ROLES
        .iter()
        .filter(|role| **role != RoleKind::Sensor)
        .map(|role| role.as_str())
        .collect();
    let who: Vec<Who> =
        Vec::from(who).iter().map(|who| Who::parse(who, &roles)).collect::<Result<_, String>>()?;
    Ok(Rule {
        who,
        topics: topics.into(),
        publish: what.contains(&What::Publish),
        subscribe: what.contains(&What::Subscribe),
        denies,
    })
}

#[cfg(test)]
mod tests {
    use trireme_mqtt::access::Principal;

    use super::*;

    fn load(text: &str) -> Result<Access, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.toml");
        std::fs::write(&file, text).unwrap();
        users::put(&folder.path().join("users"), "alice", &users::line("alice", b"x").unwrap()).unwrap();
        AccessFiles::new(file).load()
    }

    #[test]
    fn a_file_with_rules_and_users_is_read() {
        let access = load(
            "users = \"users\"\nanonymous = false\n\
             [[rule]]\nwho = \"user:*\"\ntopics = [\"users/%u/#\"]\nallow = [\"publish\", \"subscribe\"]\n\
             [[rule]]\nwho = [\"gateway:*\", \"anonymous\"]\ntopics = \"public/#\"\nallow = [\"subscribe\"]\n",
        )
        .unwrap();
        assert!(access.no_strangers && access.users.is_some());
        let alice = access.rules.unwrap().of(&Principal::User("alice".into()), None);
        assert!(alice.publish("users/alice/x") && !alice.subscribe("public/#"));
    }

    #[test]
    fn a_file_without_a_rule_allows_nothing() {
        let access = load("").unwrap();
        assert!(!access.no_strangers && access.users.is_none());
        assert!(!access.rules.unwrap().of(&Principal::Anonymous, None).publish("a"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let rule = |text: &str| {
            format!("[[rule]]\nwho = \"anyone\"\ntopics = \"a\"\nallow = []\n[[rule]]\n{text}\n")
        };
        for (text, why) in [
            ("ruel = []".to_owned(), "line 1"),
            ("[[rule]]\nwho = \"anyone\"\ntopics = \"a\"".into(), "rule 1: write either allow or deny"),
            (rule("who = \"anyone\"\ntopics = \"a\"\nallow = []\ndeny = []"), "rule 2: write either"),
            (rule("who = \"nobody\"\ntopics = \"a\"\nallow = [\"publish\"]"), "rule 2: \"nobody\" is nobody"),
            (
                "[[rule]]\nwho = \"anyone\"\ntopics = \"a/#/b\"\nallow = [\"publish\"]".into(),
                "rule 1: \"a/#/b\"",
            ),
            ("[[rule]]\nwho = \"anyone\"\ntopics = \"a\"\nallow = [\"read\"]".into(), "line 4"),
            ("users = \"nowhere\"".into(), "nowhere"),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
