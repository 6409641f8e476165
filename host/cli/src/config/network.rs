//! What the files of one machine have to agree on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::source::{Problem, Problems};
use super::{NodeConfig, identity, load};

/// Loads all of them, and checks that no two claim the same address, identity, state or socket.
///
/// # Errors
/// The problems of all files.
pub fn check(files: &[PathBuf]) -> Result<Vec<NodeConfig>, Problems> {
    let mut problems = Vec::new();
    let mut nodes = Vec::new();
    for file in files {
        match load(file) {
            Ok(node) => nodes.push(node),
            Err(found) => problems.extend(found.0),
        }
    }
    let mut claims = Claims { by: BTreeMap::new(), problems };
    for node in &nodes {
        claims.claim(node, "node.name", &format!("the name {}", node.name));
        claims.claim(node, "node.data", &format!("the folder {}", node.data.display()));
        claims.claim(node, "node.admin", &format!("the socket {}", node.admin.display()));
        for role in &node.roles {
            let key = format!("{}.certificate", role.role);
            claims.claim(node, &key, &format!("the identity {}", role.certified.subject));
            let place = identity::resolved(role.files.key.clone());
            claims.claim(node, &format!("{}.key", role.role), &format!("the key {place}"));
            let mqtt = role.mqtt.iter().map(|(_, address)| *address);
            for listen in role.listen.into_iter().chain(mqtt).filter(|listen| listen.port() != 0) {
                let key = format!("{}.{}", role.role, super::example::listen_key(role.role));
                claims.claim(node, &key, &format!("the address {listen}"));
            }
        }
        for sensor in &node.sensors {
            claims.claim(node, "sensor", &format!("the sensor {}", sensor.id));
        }
    }
    Problems(claims.problems).none()?;
    Ok(nodes)
}

struct Claims<'a> {
    by: BTreeMap<String, &'a Path>,
    problems: Vec<Problem>,
}

impl<'a> Claims<'a> {
    fn claim(&mut self, node: &'a NodeConfig, key: &str, what: &str) {
        let Some(first) = self.by.insert(what.to_owned(), &node.file) else { return };
        let what = format!("{what} is also in {}; only one of them can have it", first.display());
        self.problems.push(Problem { file: node.file.clone(), line: 0, key: key.to_owned(), what });
    }
}
