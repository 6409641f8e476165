//! The policies that travel with the binary.

/// A script.
#[derive(Debug, Clone, Copy)]
pub struct Shipped {
    /// `canary`
    pub name: &'static str,
    /// Its text.
    pub source: &'static str,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(Shipped { name: $name, source: include_str!(concat!("../../../../policies/", $name, ".rhai")) }),*]
    };
}

const ALL: &[Shipped] = shipped!(
    "approval",
    "battery-and-link",
    "canary",
    "emergency-override",
    "maintenance-window",
    "pin-and-hold",
    "quiet-hours",
    "rate-and-lan",
    "version-path",
);

/// The policy of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Shipped> {
    ALL.iter().find(|shipped| shipped.name == name)
}

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|shipped| shipped.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_of_the_folder_is_shipped() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<String> = files
            .filter(|file| file.extension().is_some_and(|extension| extension == "rhai"))
            .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        found.sort();
        assert_eq!(found, names().collect::<Vec<_>>());
    }
}
