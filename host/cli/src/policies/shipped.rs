//! The policies that travel with the binary.

pub use trireme_components::policies::{ShippedPolicy as Shipped, example_question, find, shipped};

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    shipped().iter().map(|shipped| shipped.name)
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
