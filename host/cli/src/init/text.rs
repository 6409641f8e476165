//! The configurations of a network, commented.

use std::collections::BTreeSet;

use trireme_core::{NodeId, RoleKind};

use super::{Broker, Gateway, Manufacturer, Network, Sensor, Settings, Written};
use crate::config::SelfTest;
use crate::config::example::{heading, section};
use crate::config::roles;

/// Name and text of each node's file.
pub(super) fn files(network: &Network, written: &Written) -> Vec<(String, String)> {
    let mut files = vec![("authority".to_owned(), authority(network, written))];
    files.extend(
        network.manufacturers.iter().map(|one| (one.id.to_string(), manufacturer(network, written, one))),
    );
    files.extend(network.brokers.iter().map(|one| (one.id.to_string(), broker(written, one))));
    files.extend(network.gateways.iter().map(|one| (one.id.to_string(), gateway(written, one))));
    for gateway in &network.gateways {
        let sensors: Vec<&Sensor> = network.sensors.iter().filter(|one| one.gateway == gateway.id).collect();
        if !sensors.is_empty() {
            files.push((
                format!("sensors-{}", gateway.id),
                self::sensors(written, gateway, &sensors, &network.sensor_settings),
            ));
        }
    }
    files
}

/// Where a sensor's bundle is: sensors of one gateway that are configured alike share a folder.
pub(super) fn bundle_folder(sensor: &Sensor) -> String {
    let kind = match sensor.self_test {
        SelfTest::Passes => String::new(),
        SelfTest::Fails => "-fail".into(),
        SelfTest::FailsFor(version) => format!("-fail-{version}"),
    };
    format!("bundles/{}-{}k{kind}", sensor.gateway, sensor.slot_kb)
}

fn authority(network: &Network, written: &Written) -> String {
    let mut text =
        begin("The authority (TTPKGC) and the directory (BDS): one node with two roles.", "authority");
    let register: Vec<String> = network
        .manufacturers
        .iter()
        .map(|Manufacturer { id, topic, models, .. }| {
            let models = list(models.iter().map(|model| quoted(model.as_str())));
            format!("{{ role = \"manufacturer\", id = \"{id}\", topic = \"{topic}\", models = {models} }}")
        })
        .collect();
    let mut values = identity("authority");
    values.push(("listen", quoted(&written.authority.to_string())));
    values.push(("issuing_key", quoted("issuing/issuing.key")));
    values.push(("issuing_certificate", quoted("issuing/issuing.pem")));
    values.push(("issued", quoted("issuing/register.jsonl")));
    values.push(("register", list(register)));
    role(&mut text, RoleKind::Authority, values, &Settings::new());
    let mut values = identity("directory");
    values.push(("listen", quoted(&written.directory.to_string())));
    values.push(("authority", https(written.authority)));
    role(&mut text, RoleKind::Directory, values, &Settings::new());
    text
}

fn manufacturer(network: &Network, written: &Written, one: &Manufacturer) -> String {
    let mut text = begin("A manufacturer (MF): publishes releases to its brokers.", one.id.as_str());
    let brokers =
        network.brokers.iter().filter(|broker| one.brokers.is_empty() || one.brokers.contains(&broker.id));
    let brokers = brokers.filter_map(|Broker { id, announced, .. }| {
        let address = announced.as_ref().or_else(|| written.brokers.get(id))?;
        Some(format!("{{ id = \"{id}\", url = \"mqtt://{address}\" }}"))
    });
    let mut values = identity(one.id.as_str());
    values.push(("models", quoted(&format!("models/{}", one.id))));
    values.push(("directory", https(written.directory)));
    values.push(("authority", https(written.authority)));
    values.push(("brokers", list(brokers)));
    role(&mut text, RoleKind::Manufacturer, values, &one.settings);
    text
}

fn broker(written: &Written, one: &Broker) -> String {
    let mut text = begin("A broker (BK): keeps releases and hands them to gateways.", one.id.as_str());
    let mut values = identity(one.id.as_str());
    if let Some(listen) = written.brokers.get(&one.id) {
        values.push(("listen", quoted(&listen.to_string())));
    }
    values.push(("authority", https(written.authority)));
    role(&mut text, RoleKind::Broker, values, &one.settings);
    text
}

fn gateway(written: &Written, one: &Gateway) -> String {
    let mut text =
        begin("A gateway (GW): gets releases from brokers, and offers them to its sensors.", one.id.as_str());
    let mut values = identity(one.id.as_str());
    if let Some(lan) = lan(written, &one.id) {
        values.push(("lan", quoted(&lan)));
    }
    values.push(("directory", https(written.directory)));
    values.push(("authority", https(written.authority)));
    role(&mut text, RoleKind::Gateway, values, &one.settings);
    text
}

fn sensors(written: &Written, gateway: &Gateway, sensors: &[&Sensor], settings: &Settings) -> String {
    let name = format!("sensors-{}", gateway.id);
    let doc =
        format!("The sensors (SN) behind {}, emulated. They know no authority: HMAC alone.", gateway.id);
    let mut text = header(&doc, &name);
    let mut done = BTreeSet::new();
    for sensor in sensors {
        let folder = bundle_folder(sensor);
        if !done.insert(folder.clone()) {
            continue;
        }
        let mut values = vec![("bundles", quoted(&folder)), ("slot_kb", sensor.slot_kb.to_string())];
        values.push((
            "self_test",
            match sensor.self_test {
                SelfTest::Passes => quoted("pass"),
                SelfTest::Fails => quoted("fail"),
                SelfTest::FailsFor(version) => format!("{{ fail_for = \"{version}\" }}"),
            },
        ));
        if let Some(lan) = lan(written, &gateway.id) {
            values.push(("gateway", quoted(&format!("lan://{lan}"))));
        }
        role(&mut text, RoleKind::Sensor, values, settings);
    }
    text
}

fn begin(doc: &str, name: &str) -> String {
    let mut text = header(doc, name);
    section(&mut text, "[trust]", roles::TRUST, &[("authority", quoted("authority.pem"))], false);
    text
}

fn header(doc: &str, name: &str) -> String {
    let mut text = format!(
        "# {doc}\n# Paths start at this file's folder. What is commented out shows the default.\n\
         # Check a change with `trireme config check`.\n\n"
    );
    let node = [("name", quoted(name)), ("data", quoted(&format!("data/{name}")))];
    section(&mut text, "[node]", roles::NODE, &node, true);
    text
}

fn role<'a>(text: &mut String, role: RoleKind, mut values: Vec<(&'a str, String)>, settings: &'a Settings) {
    values.extend(settings.iter().map(|(key, value)| (key.as_str(), value.clone())));
    section(text, &heading(role), roles::keys(role), &values, false);
}

fn identity(id: &str) -> Vec<(&'static str, String)> {
    vec![
        ("certificate", quoted(&format!("certificates/{id}.pem"))),
        ("key", quoted(&format!("keys/{id}.key"))),
    ]
}

fn lan(written: &Written, gateway: &NodeId) -> Option<String> {
    written.gateways.get(gateway).map(ToString::to_string)
}

fn https(address: std::net::SocketAddr) -> String {
    quoted(&format!("https://{address}"))
}

/// Names, addresses and paths here need no escapes.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    match items.as_slice() {
        [] => "[]".into(),
        [one] => format!("[{one}]"),
        _ => format!("[\n    {},\n]", items.join(",\n    ")),
    }
}
