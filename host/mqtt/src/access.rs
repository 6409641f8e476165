//! Who may publish and subscribe what, of ordinary messages. Releases are none of this: nobody gets at them by a rule.
//!
//! A rule allows or denies. Something is allowed where a rule allows it and no rule denies it; the order of the rules
//! means nothing. A subscription is allowed where one filter of a rule covers its whole filter, and no filter of a
//! rule that denies shares a topic with it.

use crate::topics::{covers, in_namespace, is_filter, matches, overlap};

/// The most rules.
pub const MOST_RULES: usize = 1000;
/// The most filters of a rule.
pub const MOST_FILTERS: usize = 64;
/// The longest filter of a rule, in bytes.
pub const LONGEST_FILTER: usize = 1024;

/// Who a client has proven to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Nobody in particular.
    Anonymous,
    /// A user, by password.
    User(String),
    /// A node, by the certificate of its TLS connection.
    Node {
        /// `gateway`, for example.
        role: String,
        /// Its identifier.
        id: String,
    },
}

impl Principal {
    /// The name that `%u` stands for.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::User(name) => Some(name),
            Self::Node { id, .. } => Some(id),
        }
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => write!(f, "user {name}"),
            Self::Node { role, id } => write!(f, "{role} {id}"),
        }
    }
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every client.
    Anyone,
    /// Clients without user and without certificate.
    Anonymous,
    /// Users whose name fits: `*` stands for any letters.
    User(String),
    /// Nodes of this role, or of any, whose identifier fits.
    Node(Option<String>, String),
}

impl Who {
    /// Reads `anyone`, `anonymous`, `user:alice`, `gateway:gw-*`, `node:*`.
    ///
    /// # Errors
    /// What is expected, in words.
    pub fn parse(text: &str, roles: &[&str]) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "anyone" => Ok(Self::Anyone),
            None if text == "anonymous" => Ok(Self::Anonymous),
            Some((_, "")) => Err(format!("{text:?} names nobody; write {text}* for all")),
            Some(("user", name)) => Ok(Self::User(name.to_owned())),
            Some(("node", id)) => Ok(Self::Node(None, id.to_owned())),
            Some((role, id)) if roles.contains(&role) => Ok(Self::Node(Some(role.to_owned()), id.to_owned())),
            _ => Err(format!(
                "{text:?} is nobody; expected anyone, anonymous, user:NAME, node:ID, or one of {} with :ID, where * \
                 stands for any letters",
                roles.join(", ")
            )),
        }
    }

    fn is(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::Anyone, _) | (Self::Anonymous, Principal::Anonymous) => true,
            (Self::User(pattern), Principal::User(name)) => fits(pattern, name),
            (Self::Node(wanted, pattern), Principal::Node { role, id }) => {
                wanted.as_ref().is_none_or(|wanted| wanted == role) && fits(pattern, id)
            }
            _ => false,
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about: any of these.
    pub who: Vec<Who>,
    /// Filters; `%c` stands for the client identifier, `%u` for the user's name or the node's identifier.
    pub topics: Vec<String>,
    /// Whether it is about publishing.
    pub publish: bool,
    /// Whether it is about subscribing.
    pub subscribe: bool,
    /// Whether it denies.
    pub denies: bool,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// These.
    ///
    /// # Errors
    /// Too many, or a filter that is none, or one below `trireme/`; says which.
    pub fn new(rules: Vec<Rule>) -> Result<Self, String> {
        if rules.len() > MOST_RULES {
            return Err(format!("there are {} rules; at most {MOST_RULES} are allowed", rules.len()));
        }
        for (number, rule) in (1..).zip(&rules) {
            let wrong = |what: String| Err(format!("rule {number}: {what}"));
            if rule.who.is_empty() || rule.topics.is_empty() || !(rule.publish || rule.subscribe) {
                return wrong("it needs who, topics, and one of publish and subscribe".into());
            }
            if rule.topics.len() > MOST_FILTERS {
                return wrong(format!("it has more than {MOST_FILTERS} topics"));
            }
            for filter in &rule.topics {
                if !is_filter(filter) || filter.len() > LONGEST_FILTER {
                    return wrong(format!("{filter:?} is no filter of MQTT"));
                }
                if in_namespace(filter) {
                    return wrong(format!("{filter:?}: nobody is given topics below trireme/ by a rule"));
                }
            }
        }
        Ok(Self(rules))
    }

    /// What these rules mean for one client. `client_id` is what it said it is, where it said anything.
    #[must_use]
    pub fn of(&self, principal: &Principal, client_id: Option<&str>) -> Permits {
        let mut permits = Permits::default();
        for rule in self.0.iter().filter(|rule| rule.who.iter().any(|who| who.is(principal))) {
            for filter in rule.topics.iter().filter_map(|filter| filled(filter, principal, client_id)) {
                let list = if rule.denies { &mut permits.denied } else { &mut permits.allowed };
                list.push(Permit { filter, publish: rule.publish, subscribe: rule.subscribe });
            }
        }
        permits
    }
}

/// What one client may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permits {
    allowed: Vec<Permit>,
    denied: Vec<Permit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Permit {
    filter: String,
    publish: bool,
    subscribe: bool,
}

impl Permits {
    /// Whether it may publish to this valid topic.
    #[must_use]
    pub fn publish(&self, topic: &str) -> bool {
        let hit = |permit: &Permit| permit.publish && matches(&permit.filter, topic);
        self.allowed.iter().any(hit) && !self.denied.iter().any(hit)
    }

    /// Whether it may subscribe to this valid filter.
    #[must_use]
    pub fn subscribe(&self, filter: &str) -> bool {
        self.allowed.iter().any(|permit| permit.subscribe && covers(&permit.filter, filter))
            && !self.denied.iter().any(|permit| permit.subscribe && overlap(&permit.filter, filter))
    }

    /// Whether a message of this valid topic may reach it.
    #[must_use]
    pub fn receive(&self, topic: &str) -> bool {
        let hit = |permit: &Permit| permit.subscribe && matches(&permit.filter, topic);
        self.allowed.iter().any(hit) && !self.denied.iter().any(hit)
    }
}

/// A filter with names filled in; `None`: there is no such name, so it is about nothing. No name that could change what
/// the filter says is filled in.
fn filled(filter: &str, principal: &Principal, client_id: Option<&str>) -> Option<String> {
    let mut filled = filter.to_owned();
    for (sign, name) in [("%c", client_id), ("%u", principal.name())] {
        if filter.contains(sign) {
            let name =
                name.filter(|name| !name.is_empty() && !name.contains(['+', '#', '/', '$', '%', '\0']))?;
            filled = filled.replace(sign, name);
        }
    }
    is_filter(&filled).then_some(filled)
}

/// Whether a name fits a pattern, in which `*` stands for any letters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = name.get(at + part.len()..).unwrap_or_default();
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: &[&str] = &["gateway", "manufacturer"];

    fn rule(who: &str, topics: &[&str], what: &str) -> Rule {
        Rule {
            who: vec![Who::parse(who, ROLES).unwrap()],
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            publish: what.contains('p'),
            subscribe: what.contains('s'),
            denies: what.contains('!'),
        }
    }

    fn rules(rules: &[Rule]) -> Rules {
        Rules::new(rules.to_vec()).unwrap()
    }

    fn user(name: &str) -> Principal {
        Principal::User(name.into())
    }

    fn node(role: &str, id: &str) -> Principal {
        Principal::Node { role: role.into(), id: id.into() }
    }

    #[test]
    fn a_rule_is_about_whom_it_names() {
        for (who, principal, expected) in [
            ("anyone", Principal::Anonymous, true),
            ("anyone", user("a"), true),
            ("anonymous", Principal::Anonymous, true),
            ("anonymous", user("a"), false),
            ("user:a", user("a"), true),
            ("user:a", user("ab"), false),
            ("user:*", user("ab"), true),
            ("user:*", node("gateway", "ab"), false),
            ("user:*", Principal::Anonymous, false),
            ("gateway:gw-*", node("gateway", "gw-1"), true),
            ("gateway:gw-*", node("manufacturer", "gw-1"), false),
            ("node:*-1", node("manufacturer", "gw-1"), true),
            ("node:a*b*c", node("gateway", "aXbYc"), true),
            ("node:a*b*c", node("gateway", "aXYc"), false),
            ("node:ab*ba", node("gateway", "aba"), false),
        ] {
            assert_eq!(Who::parse(who, ROLES).unwrap().is(&principal), expected, "{who} {principal}");
        }
        for nobody in ["", "alice", "user:", "gw:1", "sensor:1"] {
            assert!(Who::parse(nobody, ROLES).is_err(), "{nobody}");
        }
    }

    #[test]
    fn what_no_rule_allows_is_denied_and_a_rule_that_denies_wins() {
        let rules = rules(&[
            rule("user:*", &["secret/#"], "!ps"),
            rule("user:*", &["#"], "ps"),
            rule("anonymous", &["public/#"], "s"),
        ]);
        let (user, stranger) = (rules.of(&user("a"), None), rules.of(&Principal::Anonymous, None));
        assert!(user.publish("x") && user.subscribe("x/#") && user.receive("x"));
        assert!(!user.publish("secret/x") && !user.subscribe("secret/x") && !user.receive("secret"));
        assert!(!user.subscribe("#"), "the secret is part of it");
        assert!(!user.subscribe("+/x"), "the secret is part of it");
        assert!(stranger.subscribe("public/+") && stranger.receive("public/a"));
        assert!(!stranger.subscribe("#") && !stranger.publish("public/a"));
    }

    #[test]
    fn names_are_filled_in_and_none_of_them_can_widen_a_rule() {
        let rules = rules(&[
            rule("user:*", &["users/%u/#"], "ps"),
            rule("anyone", &["devices/%c/state"], "p"),
            rule("node:*", &["nodes/%u"], "p"),
        ]);
        let alice = rules.of(&user("alice"), Some("lamp"));
        assert!(alice.publish("users/alice/x") && !alice.publish("users/bob/x"));
        assert!(alice.publish("devices/lamp/state") && !alice.publish("devices/%c/state"));
        assert!(rules.of(&node("gateway", "gw-1"), None).publish("nodes/gw-1"));
        for name in ["+", "#", "a/b", "", "%u", "$x"] {
            let permits = rules.of(&user(name), Some(name));
            assert_eq!(permits, Permits::default(), "{name}");
        }
        assert_eq!(rules.of(&Principal::Anonymous, None), Permits::default());
    }

    #[test]
    fn rules_that_say_nothing_or_too_much_are_named() {
        for (wrong, why) in [
            (rule("anyone", &["a/#/b"], "p"), "rule 1: \"a/#/b\" is no filter"),
            (rule("anyone", &["trireme/fw/a/b"], "s"), "below trireme/"),
            (rule("anyone", &["a"], ""), "one of publish and subscribe"),
            (rule("anyone", &[], "p"), "needs who, topics"),
        ] {
            let error = Rules::new(vec![wrong]).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(Rules::new(vec![rule("anyone", &["a"], "p"); MOST_RULES + 1]).is_err());
    }
}
