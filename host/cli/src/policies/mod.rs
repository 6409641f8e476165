//! Policies of a node: where they come from, how they are run, and what they decided.
//!
//! | module | what it does |
//! |---|---|
//! | [`workshop`] | from bytes and settings to something that decides: components, scripts in a component, native scripts |
//! | [`kept`] | a policy that a node asks: several instances of it, replaced when its file changes |
//! | [`shipped`] | those that travel with the binary |
//! | [`cases`], [`template`] | what a policy has to answer; one to begin with |
//! | [`explain`] | from the log of decisions to words |

mod asked;
pub mod cases;
pub mod explain;
pub mod kept;
pub mod shipped;
pub mod template;
pub mod workshop;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use trireme_node::Policy;

use crate::config::{NodeConfig, PoliciesConfig, PolicyConfig, Problem};
use kept::Kept;
use workshop::Workshop;

/// The policies of each hook, in their order.
pub type Policies = BTreeMap<String, Vec<Arc<dyn Policy>>>;

/// Loads the policies of a node. What stands in several hooks with the same settings is one policy. One that cannot be
/// loaded is logged, and denies until its file is mended.
#[must_use]
pub fn load(config: &PoliciesConfig, cache: Option<&Path>) -> Policies {
    let workshop = Arc::new(Workshop::new(config.rhai, cache));
    let mut kept: BTreeMap<&str, Arc<Kept>> = BTreeMap::new();
    let mut policies = Policies::new();
    for (hook, entries) in &config.hooks {
        for entry in entries {
            let policy = kept.entry(&entry.name).or_insert_with(|| {
                Arc::new(Kept::open(entry, hooks_of(config, &entry.name), workshop.clone()))
            });
            policies.entry(hook.clone()).or_default().push(policy.clone());
        }
    }
    policies
}

fn hooks_of(config: &PoliciesConfig, name: &str) -> Vec<String> {
    let names = |entries: &[PolicyConfig]| entries.iter().any(|entry| entry.name == name);
    config.hooks.iter().filter(|(_, entries)| names(entries)).map(|(hook, _)| hook.clone()).collect()
}

/// What is wrong with the policies of a node, for its configuration's author.
#[must_use]
pub fn problems(config: &NodeConfig) -> Vec<Problem> {
    let workshop = Workshop::new(config.policies.rhai, None);
    let mut problems = Vec::new();
    for (hook, entries) in &config.policies.hooks {
        for (index, entry) in entries.iter().enumerate() {
            let made = workshop.make(entry, std::slice::from_ref(hook));
            problems.extend(made.err().map(|error| Problem {
                file: config.file.clone(),
                line: entry.line,
                key: format!("policies.{hook}[{index}]"),
                what: format!("{}: {error}", entry.source),
            }));
        }
    }
    problems
}
