//! What a plugin may do. Comes from the host's own tables or the configuration, never from the plugin.

use std::collections::BTreeSet;

use trireme_core::role::code;
use trireme_core::{Fault, RoleKind};

/// The grants of one role.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Labels that it may sign or MAC under.
    pub labels: BTreeSet<String>,
    /// Roles whose servers it may ask.
    pub requests: BTreeSet<RoleKind>,
    /// Kinds of links it may open: `mqtt` (whatever carries it), `lan`.
    pub links: BTreeSet<String>,
    /// Hooks it may ask.
    pub hooks: BTreeSet<String>,
    /// Whether it may have certificates issued.
    pub certify: bool,
    /// Whether it is a sensor with a secure element and slots.
    pub element: bool,
}

impl Grants {
    pub(crate) fn label(&self, label: &str) -> Result<(), Fault> {
        Self::allow(self.labels.contains(label), || format!("signing or a MAC under the label {label:?}"))
    }

    pub(crate) fn request(&self, role: RoleKind) -> Result<(), Fault> {
        Self::allow(self.requests.contains(&role), || format!("asking the {role}"))
    }

    pub(crate) fn link(&self, address: &str) -> Result<(), Fault> {
        // What carries MQTT is for whoever configures the address.
        let kind = match address.split(':').next().unwrap_or_default() {
            "mqtts" | "ws" | "wss" => "mqtt",
            kind => kind,
        };
        Self::allow(self.links.contains(kind), || format!("opening a link to {address:?}"))
    }

    pub(crate) fn hook(&self, hook: &str) -> Result<(), Fault> {
        Self::allow(self.hooks.contains(hook), || format!("asking the policies of {hook:?}"))
    }

    pub(crate) fn certify(&self) -> Result<(), Fault> {
        Self::allow(self.certify, || "issuing certificates".into())
    }

    pub(crate) fn element(&self) -> Result<(), Fault> {
        Self::allow(self.element, || "the secure element and the slots of a sensor".into())
    }

    fn allow(granted: bool, what: impl FnOnce() -> String) -> Result<(), Fault> {
        let refuse = || Fault::new(code::NOT_GRANTED, format!("this plugin was not granted {}", what()));
        granted.then_some(()).ok_or_else(refuse)
    }
}
