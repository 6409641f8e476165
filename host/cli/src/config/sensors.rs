//! Sensors of a file: one by its bundle, or all of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use trireme_core::model::Setting;
use trireme_core::{RoleKind, SensorId};
use zeroize::Zeroizing;

use super::read::Section;
use super::source::{Problem, Source};
use super::{Code, ModelSource, SelfTest, SensorConfig, roles};
use crate::provisioning;

/// The most sensors of one table.
const MOST_SENSORS: usize = 10_000;

/// The sensors of one `[[sensor]]`. `data` is the node's: where secrets are that were imported before.
pub(super) fn read(section: &Section<'_, '_>, data: &Path, problems: &mut Vec<Problem>) -> Vec<SensorConfig> {
    let plugin = section.plugin(problems);
    let sources = match (section.path("bundle"), section.path("bundles")) {
        (Some(bundle), None) => vec![(bundle, code(section, problems))],
        (None, Some(folder)) => {
            for key in ["code", "code_file"] {
                if section.text(key).is_some() {
                    problems.push(
                        section.problem(key, "is for one bundle; in a folder each has its <name>.code"),
                    );
                }
            }
            folder_of_bundles(section, &folder, problems)
        }
        (Some(_), Some(_)) => {
            problems.push(section.problem("bundles", "and bundle exclude each other; keep one of them"));
            Vec::new()
        }
        (None, None) => {
            let what = "is missing; expected bundle = \"<sensor>.bundle\", or bundles = \"<folder>\"";
            problems.push(section.problem("bundle", what));
            Vec::new()
        }
    };
    let key = if section.text("bundle").is_some() { "bundle" } else { "bundles" };
    let mut sensors = Vec::new();
    for (bundle, code) in sources {
        let Some(id) = provisioning::sensor_of(&bundle) else {
            let what = format!("expected a file <sensor>.bundle, not {}", bundle.display());
            problems.push(section.problem(key, what));
            continue;
        };
        if let Err(error) = provisioning::check(data, &id, &bundle, code.as_ref()) {
            problems.push(section.problem(key, error.to_string()));
        }
        sensors.push(SensorConfig {
            id,
            bundle,
            code,
            model: model(section, problems),
            model_settings: model_settings(section),
            slot_size: section.number("slot_kb").unwrap_or(16_384).saturating_mul(1024),
            slot_address: section.number("slot_address").unwrap_or_default(),
            self_test: self_test(section),
            plugin: plugin.clone(),
            settings: section.settings(roles::keys(RoleKind::Sensor)),
        });
    }
    sensors
}

/// No sensor twice in one file.
pub(super) fn distinct(source: &Source, sensors: &[SensorConfig], problems: &mut Vec<Problem>) {
    let mut seen: BTreeSet<&SensorId> = BTreeSet::new();
    for sensor in sensors {
        if !seen.insert(&sensor.id) {
            let what = format!("{} is configured twice; a sensor is one device", sensor.id);
            problems.push(source.problem(&(0..0), "sensor", what));
        }
    }
}

fn code(section: &Section<'_, '_>, problems: &mut Vec<Problem>) -> Option<Code> {
    match (section.text("code"), section.path("code_file")) {
        (Some(_), Some(_)) => {
            problems.push(section.problem("code_file", "and code exclude each other; keep one of them"));
            None
        }
        (Some(text), None) => Some(Code::Text(Zeroizing::new(text.to_owned()))),
        (None, Some(file)) => Some(Code::File(file)),
        (None, None) => None,
    }
}

/// Bundles of a folder, used or not, by name.
fn folder_of_bundles(
    section: &Section<'_, '_>,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<(PathBuf, Option<Code>)> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(section.problem("bundles", format!("{}: {error}", folder.display())));
            return Vec::new();
        }
    };
    let mut found = BTreeMap::new();
    for entry in entries.filter_map(Result::ok) {
        let bundle = provisioning::unused_name(&entry.path());
        if bundle.extension().is_none_or(|extension| extension != "bundle") {
            continue;
        }
        let code = Code::File(bundle.with_extension("code"));
        found.insert(bundle, Some(code));
        if found.len() > MOST_SENSORS {
            let what = format!("has more than {MOST_SENSORS} bundles; spread them over several nodes");
            problems.push(section.problem("bundles", what));
            return Vec::new();
        }
    }
    if found.is_empty() {
        let what = format!("{} has no *.bundle; make them with `trireme model provision`", folder.display());
        problems.push(section.problem("bundles", what));
    }
    found.into_iter().collect()
}

fn model(section: &Section<'_, '_>, problems: &mut Vec<Problem>) -> ModelSource {
    let name = section.text("model").unwrap_or("raw");
    if Path::new(name).extension().is_none_or(|extension| extension != "wasm") {
        return ModelSource::Shipped(name.to_owned());
    }
    let file = section.source.path(name);
    if !file.is_file() {
        problems.push(
            section.problem("model", format!("expected a component's file; {} is not there", file.display())),
        );
    }
    ModelSource::File(file)
}

fn model_settings(section: &Section<'_, '_>) -> Vec<Setting> {
    let table = section.json("model_settings");
    let settings = table.as_ref().and_then(|table| table.as_object()).into_iter().flatten();
    settings.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn self_test(section: &Section<'_, '_>) -> SelfTest {
    let wanted = section.json("self_test").unwrap_or_default();
    let version = wanted.get("fail_for").and_then(|version| version.as_str()?.parse().ok());
    match (wanted.as_str(), version) {
        (_, Some(version)) => SelfTest::FailsFor(version),
        (Some("fail"), None) => SelfTest::Fails,
        _ => SelfTest::Passes,
    }
}
