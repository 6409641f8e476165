//! Where things are: asked from cargo, not guessed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{command, error::Error};

/// The workspace as cargo sees it.
pub(crate) struct Workspace {
    /// The folder with the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// The target folder, wherever the configuration puts it.
    pub(crate) target: PathBuf,
    /// Roles, models and the interpreter of policies, by name.
    pub(crate) plugins: Vec<Plugin>,
    /// Optimised build of the host's binaries.
    pub(crate) release: bool,
}

/// A crate that becomes a component.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plugin {
    /// `trireme-role-gateway`
    pub(crate) package: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
}

impl Workspace {
    /// Asks cargo about the workspace that this program belongs to.
    pub(crate) fn find() -> Result<Self, Error> {
        let mut cargo = command::clean(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let answer = command::output(cargo.args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: Value =
            serde_json::from_str(&answer).map_err(|error| Error::Metadata(error.to_string()))?;
        let root = folder(&metadata, "workspace_root")?;
        let plugins = plugins(&metadata, &root);
        Ok(Self { target: folder(&metadata, "target_directory")?, root, plugins, release: false })
    }

    /// The same workspace, its binaries optimised or not.
    pub(crate) fn with_profile(self, release: bool) -> Self {
        Self { release, ..self }
    }

    /// Where the components are kept; `host/components` looks there too.
    pub(crate) fn components(&self) -> PathBuf {
        self.target.join("components")
    }

    /// A place for what only this program needs to remember.
    pub(crate) fn notes(&self) -> PathBuf {
        self.target.join("xtask")
    }

    /// A binary of the host, built by `cargo build --workspace --bin`.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join(if self.release { "release" } else { "debug" }).join(name)
    }
}

impl Plugin {
    /// `role-gateway`: the name of its files in target/components.
    pub(crate) fn name(&self) -> &str {
        self.package.strip_prefix("trireme-").unwrap_or(&self.package)
    }

    /// `trireme_role_gateway.wasm`: the name cargo gives the module.
    pub(crate) fn module(&self) -> String {
        format!("{}.wasm", self.package.replace('-', "_"))
    }
}

fn folder(metadata: &Value, field: &str) -> Result<PathBuf, Error> {
    let text = metadata.get(field).and_then(Value::as_str);
    text.map(PathBuf::from).ok_or_else(|| Error::Metadata(format!("no field {field}")))
}

fn plugins(metadata: &Value, root: &Path) -> Vec<Plugin> {
    let scripts = root.join("plugins/policy-rhai");
    let homes = [root.join("plugins/roles"), root.join("plugins/models")];
    let packages = metadata.get("packages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut plugins: Vec<_> = packages
        .iter()
        .filter_map(|package| {
            let folder = Path::new(package.get("manifest_path")?.as_str()?).parent()?;
            let name = package.get("name")?.as_str()?;
            let is_plugin = homes.iter().any(|home| folder.parent() == Some(home)) || folder == scripts;
            is_plugin.then(|| Plugin { package: name.to_owned(), folder: folder.to_owned() })
        })
        .collect();
    plugins.sort_by(|a, b| a.package.cmp(&b.package));
    plugins
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_roles_models_and_the_interpreter_of_policies_are_plugins() {
        let metadata = json!({ "packages": [
            { "name": "trireme-role-gateway", "manifest_path": "/t/plugins/roles/gateway/Cargo.toml" },
            { "name": "trireme-model-raw", "manifest_path": "/t/plugins/models/raw/Cargo.toml" },
            { "name": "trireme-policy-rhai", "manifest_path": "/t/plugins/policy-rhai/Cargo.toml" },
            { "name": "trireme-core", "manifest_path": "/t/plugins/core/Cargo.toml" },
            { "name": "xtask", "manifest_path": "/t/xtask/Cargo.toml" },
        ]});
        let found = plugins(&metadata, Path::new("/t"));
        let names: Vec<_> = found.iter().map(Plugin::name).collect();
        assert_eq!(names, ["model-raw", "policy-rhai", "role-gateway"]);
        assert_eq!(found[2].module(), "trireme_role_gateway.wasm");
    }
}
