//! The authority's table of the configuration.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use trireme_core::role::{Subject, code};
use trireme_core::{Fault, ModelName, NodeId, RoleKind, TopicName};

use crate::DAY_MS;

/// The most models of a manufacturer: more fit no certificate.
pub(crate) const MOST_MODELS: usize = 256;
/// The longest life of a certificate, in days.
pub(crate) const LONGEST_DAYS: u32 = 3650;

/// What an administrator of an authority can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a certificate is valid, in days: 1 to 3650, 90 where nothing is said.
    pub certificate_days: u32,
    /// How long a revocation list is valid, in days: 1 to 90, 7 where nothing is said. A node that did not hear of a
    /// newer one by then trusts nobody any more.
    pub list_days: u32,
    /// How often lists are signed anew, in hours: 24 where nothing is said, and less than half of `list_days`.
    pub list_every_hours: u32,
    /// What manufacturers are certified for. Where any is listed, a manufacturer that is not renews nothing.
    pub register: Vec<Entry>,
    /// The most questions for news that are held open: up to 16384, 4096 where nothing is said.
    pub waiting: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { certificate_days: 90, list_days: 7, list_every_hours: 24, register: Vec::new(), waiting: 4096 }
    }
}

/// One node of the configuration's register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its role.
    pub role: RoleKind,
    /// Its identifier.
    pub id: NodeId,
    /// A manufacturer's topic.
    #[serde(default)]
    pub topic: Option<TopicName>,
    /// A manufacturer's models.
    #[serde(default)]
    pub models: Vec<ModelName>,
}

impl Config {
    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let wrong = |detail: String| Err(Fault::new(code::CONFIGURATION, detail));
        if !(1..=LONGEST_DAYS).contains(&self.certificate_days) {
            return wrong(format!("certificate_days is a number from 1 to {LONGEST_DAYS}"));
        }
        if !(1..=90).contains(&self.list_days) {
            return wrong("list_days is a number from 1 to 90".into());
        }
        // Half of its life is left to bring a list to those who were cut off.
        if self.list_every_hours == 0 || self.list_every_hours > self.list_days * 12 {
            return wrong("list_every_hours is at least 1 and at most half of list_days".into());
        }
        if self.waiting > 16384 {
            return wrong("waiting is at most 16384".into());
        }
        self.check_register()
    }

    /// A model and a topic belong to exactly one manufacturer (5.3).
    fn check_register(&self) -> Result<(), Fault> {
        let mut owners: BTreeMap<(&str, &str), &NodeId> = BTreeMap::new();
        for entry in &self.register {
            scope(entry.role, entry.topic.as_ref(), &entry.models).map_err(|fault| {
                let detail = format!("the register's {} {}: {}", entry.role, entry.id, fault.detail);
                Fault::new(code::CONFIGURATION, detail)
            })?;
            let topic = entry.topic.iter().map(|topic| ("topic", topic.as_str()));
            for name in topic.chain(entry.models.iter().map(|model| ("model", model.as_str()))) {
                if let Some(owner) = owners.insert(name, &entry.id).filter(|owner| **owner != entry.id) {
                    let (kind, name) = name;
                    let detail = format!(
                        "the register gives {kind} {name} to {owner} and to {}; a {kind} belongs to exactly one \
                         manufacturer",
                        entry.id
                    );
                    return Err(Fault::new(code::CONFIGURATION, detail));
                }
            }
        }
        Ok(())
    }

    /// What the configuration says of a node.
    pub(crate) fn entry(&self, subject: &Subject) -> Option<&Entry> {
        self.register.iter().find(|entry| entry.role == subject.role && entry.id == subject.id)
    }

    /// Refuses a manufacturer that was taken out of a configuration that lists others.
    pub(crate) fn listed(&self, subject: &Subject) -> Result<(), Fault> {
        let listed = self.register.iter().any(|entry| entry.role == RoleKind::Manufacturer);
        let others = subject.role == RoleKind::Manufacturer && listed;
        if others && self.entry(subject).is_none() {
            let detail =
                format!("{subject} is not in the register of the authority's configuration; add it there");
            return Err(Fault::new(code::UNKNOWN, detail));
        }
        Ok(())
    }

    pub(crate) fn certificate_ms(&self) -> u64 {
        u64::from(self.certificate_days) * DAY_MS
    }

    pub(crate) fn list_ms(&self) -> u64 {
        u64::from(self.list_days) * DAY_MS
    }

    pub(crate) fn list_every_ms(&self) -> u64 {
        u64::from(self.list_every_hours) * DAY_MS / 24
    }
}

/// Whether a role may be certified for this: a manufacturer for a topic and models, others for neither.
pub(crate) fn scope(role: RoleKind, topic: Option<&TopicName>, models: &[ModelName]) -> Result<(), Fault> {
    let some = topic.is_some() && !models.is_empty();
    let none = topic.is_none() && models.is_empty();
    match role {
        RoleKind::Manufacturer if !some => {
            Err(Fault::new(code::MALFORMED, "a manufacturer is certified for a topic and at least one model"))
        }
        RoleKind::Manufacturer if models.len() > MOST_MODELS => {
            Err(Fault::new(code::LIMIT, format!("at most {MOST_MODELS} models fit a certificate")))
        }
        RoleKind::Manufacturer => Ok(()),
        _ if none => Ok(()),
        _ => Err(Fault::new(code::MALFORMED, format!("a {role} has neither topic nor models"))),
    }
}
