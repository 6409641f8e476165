//! The policies that travel inside the binary, each with the cases that say what it answers.

/// A policy in rhai.
#[derive(Debug, Clone, Copy)]
pub struct ShippedPolicy {
    /// `canary`
    pub name: &'static str,
    /// The script.
    pub source: &'static str,
    /// Its cases, TOML.
    pub cases: &'static str,
}

/// All of them, in the order of their names.
pub fn shipped() -> &'static [ShippedPolicy] {
    &SHIPPED
}

/// The policy of that name.
pub fn find(name: &str) -> Option<&'static ShippedPolicy> {
    shipped().iter().find(|policy| policy.name == name)
}

/// A question of that hook as a role could ask it, JSON; what a case says is laid over it.
pub fn example_question(hook: &str) -> Option<&'static str> {
    EXAMPLES.iter().find(|(name, _)| *name == hook).map(|(_, question)| *question)
}

macro_rules! policies {
    ($($name:literal),*) => {
        [$(ShippedPolicy {
            name: $name,
            source: include_str!(concat!("../../../policies/", $name, ".rhai")),
            cases: include_str!(concat!("../../../policies/", $name, ".cases.toml")),
        }),*]
    };
}

static SHIPPED: [ShippedPolicy; 9] = policies![
    "approval",
    "battery-and-link",
    "canary",
    "emergency-override",
    "maintenance-window",
    "pin-and-hold",
    "quiet-hours",
    "rate-and-lan",
    "version-path"
];

static EXAMPLES: [(&str, &str); 5] = [
    ("publish", include_str!("../../../policies/questions/publish.json")),
    ("accept", include_str!("../../../policies/questions/accept.json")),
    ("deliver", include_str!("../../../policies/questions/deliver.json")),
    ("install", include_str!("../../../policies/questions/install.json")),
    ("apply", include_str!("../../../policies/questions/apply.json")),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_policy_of_the_folder_is_shipped() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let scripts: BTreeSet<String> = files
            .filter(|file| file.extension().is_some_and(|extension| extension == "rhai"))
            .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let names: Vec<&str> = shipped().iter().map(|policy| policy.name).collect();
        assert_eq!(scripts.iter().map(String::as_str).collect::<Vec<_>>(), names);
        assert!(find("canary").is_some() && find("nothing").is_none());
        assert!(example_question("install").is_some() && example_question("instal").is_none());
    }
}
