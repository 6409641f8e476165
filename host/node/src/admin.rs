//! The administrator's requests: each goes to the role that its path begins with.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use trireme_actor::{Condition, StoreError};
use trireme_core::role::{Origin, code};
use trireme_core::{Digest, Fault};
use trireme_net::admin::{AdminHandler, AdminRequest, Answered, Reports};
use trireme_net::link::BodySink;
use trireme_net::mqtt::front::Front;
use trireme_store::{Blobs, Database, Held};

use crate::backup::{Archive, blocking};
use crate::body::{IntoStore, Shelf, take};
use crate::cell::Cell;
use crate::policy::Policy;

/// The node's own questions; all others are `/<role>/v1/…`.
const STATUS: &str = "/node/v1/status";
const BACKUP: &str = "/node/v1/backup";
const RESTORE: &str = "/node/v1/restore";

pub(crate) struct Administrator {
    node: String,
    cells: Vec<Arc<Cell>>,
    database: Arc<Database>,
    /// Images that came in and are not handed to their role yet.
    images: Arc<Images>,
    archive: Arc<Archive>,
}

/// By digest; two uploads of one image have a guard each.
type Images = Mutex<HashMap<Digest, Vec<Held>>>;

impl Administrator {
    pub(crate) fn new(
        node: String,
        cells: Vec<Arc<Cell>>,
        database: Arc<Database>,
        restart: watch::Sender<bool>,
    ) -> Self {
        let archive = Arc::new(Archive::new(node.clone(), database.clone(), restart));
        Self { node, cells, database, images: Arc::default(), archive }
    }

    /// The role of a path, and the rest of the path. Names of roles may have slashes: the longest that fits counts.
    fn cell(&self, path: &str) -> Result<(Arc<Cell>, String), Fault> {
        let fits = |cell: &&Arc<Cell>| {
            path.strip_prefix('/')
                .and_then(|path| path.strip_prefix(&cell.name))
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let cell = self.cells.iter().filter(fits).max_by_key(|cell| cell.name.len());
        let missing = || {
            let names: Vec<&str> = self.cells.iter().map(|cell| cell.name.as_str()).take(16).collect();
            let detail = format!("node {} has no role at {path}; it has {}", self.node, names.join(", "));
            Fault::new(code::UNKNOWN, detail)
        };
        let cell = cell.ok_or_else(missing)?;
        let rest = path.get(cell.name.len() + 1..).unwrap_or_default();
        Ok((cell.clone(), rest.to_owned()))
    }

    /// Looks at every image's file, so it takes a thread of its own and not one that messages wait for.
    fn status(&self) -> impl Future<Output = Result<Vec<u8>, Fault>> + Send + use<> {
        let (node, cells, database) = (self.node.clone(), self.cells.clone(), self.database.clone());
        blocking(move || {
            let roles: Vec<_> = cells.iter().map(|cell| role_status(cell)).collect();
            let status = serde_json::json!({
                "node": node,
                "roles": roles,
                "policies": policies_status(&cells),
                "memory_bytes": resident_bytes(),
                "transactions": database.transactions(),
                "damage": database.check().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "set_aside": database.blobs().aside().iter().map(|(digest, bytes)| {
                    serde_json::json!({ "digest": digest, "bytes": bytes })
                }).collect::<Vec<_>>(),
            });
            serde_json::to_vec(&status).map_err(|error| Fault::new(code::INTERNAL, error.to_string()))
        })
    }
}

fn role_status(cell: &Cell) -> serde_json::Value {
    let (condition, why) = condition(cell);
    serde_json::json!({
        "name": cell.name,
        "id": cell.id,
        "condition": condition,
        "why": why,
        "links": cell.flock.all().map(|shard| shard.ports.count()).sum::<usize>(),
        "shards": shards_status(cell),
        "front": cell.front.get().map(front_status),
    })
}

/// The policies of a hook, and a role that asks them.
type Asked<'a> = (&'a Cell, Vec<Arc<dyn Policy>>);

/// The policies of each hook. All roles of a kind have the same in a node; tests may do otherwise.
fn policies_status(cells: &[Arc<Cell>]) -> Vec<serde_json::Value> {
    let mut hooks: BTreeMap<&str, Asked<'_>> = BTreeMap::new();
    for cell in cells {
        for (hook, policies) in &cell.policies {
            let (_, known) = hooks.entry(hook).or_insert_with(|| (cell, Vec::new()));
            for policy in policies {
                if !known.iter().any(|one| one.name() == policy.name()) {
                    known.push(policy.clone());
                }
            }
        }
    }
    let status = hooks.into_iter().map(|(hook, (cell, policies))| {
        serde_json::json!({ "hook": hook, "policies": cell.desk.status(hook, &policies) })
    });
    status.collect()
}

fn condition(cell: &Cell) -> (&'static str, Option<Fault>) {
    match cell.condition() {
        Condition::Running => ("running", None),
        Condition::Stopped => ("stopped", None),
        Condition::Waiting { fault, .. } => ("waiting", Some(fault)),
        Condition::Quarantined(fault) => ("quarantined", Some(fault)),
    }
}

/// How each shard of a role is, the main one first; nothing of a role in one piece.
fn shards_status(cell: &Cell) -> Vec<serde_json::Value> {
    let shards = cell.flock.all().filter(|_| cell.flock.count() > 1);
    let status = shards.map(|shard| {
        let (condition, why) = condition(&shard);
        serde_json::json!({
            "number": shard.shard,
            "condition": condition,
            "why": why,
            "links": shard.ports.count(),
        })
    });
    status.collect()
}

/// A broker's clients, and what was refused to whom: counted since it started.
fn front_status(front: &Front) -> serde_json::Value {
    let refused: serde_json::Map<String, serde_json::Value> =
        front.refusals().into_iter().map(|(why, count)| (why.name().to_owned(), count.into())).collect();
    serde_json::json!({
        "connections": front.connections(),
        "refused": refused,
        "access_problem": front.access_problem(),
    })
}

/// Resident memory of this process, in bytes; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let pages = || std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok();
    pages().unwrap_or(0) * 4096
}

impl AdminHandler for Administrator {
    fn image(&self, path: &str, size: u64) -> Result<Box<dyn BodySink>, Fault> {
        let (cell, _) = self.cell(path)?;
        let blobs: &Blobs = &cell.blobs;
        let full = |error: StoreError| Fault::new(code::STORAGE, error.to_string());
        let (inner, shelf) = IntoStore::new(blobs, size).map_err(full)?;
        Ok(Box::new(Upload { inner: Box::new(inner), shelf, images: self.images.clone() }))
    }

    fn handle(&self, request: AdminRequest, reports: Reports) -> Answered {
        if request.path == STATUS {
            return Box::pin(self.status());
        }
        match request.path.as_str() {
            BACKUP => return Box::pin(self.archive.clone().back_up(request.body, reports)),
            RESTORE => return Box::pin(self.archive.clone().restore(request.body, reports)),
            _ => {}
        }
        let cell = self.cell(&request.path);
        let image = request.image.map(|(digest, _)| {
            let missing = || Fault::new(code::INTERNAL, "the image is gone");
            take_one(&self.images, digest).ok_or_else(missing)
        });
        Box::pin(async move {
            let (cell, path) = cell?;
            cell.ask(Origin::Admin, None, path, request.body, image.transpose()?, Some(reports)).await
        })
    }
}

fn take_one(images: &Images, digest: Digest) -> Option<Held> {
    let mut images = images.lock().unwrap_or_else(PoisonError::into_inner);
    let Entry::Occupied(mut entry) = images.entry(digest) else { return None };
    let held = entry.get_mut().pop();
    if entry.get().is_empty() {
        entry.remove();
    }
    held
}

/// An image on its way in; its guard is kept until the request is handed over.
struct Upload {
    inner: Box<IntoStore>,
    shelf: Shelf,
    images: Arc<Images>,
}

impl BodySink for Upload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>, digest: Digest) -> Result<(), StoreError> {
        let Self { inner, shelf, images } = *self;
        inner.finish(digest)?;
        if let Some(held) = take(&shelf) {
            images.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_default().push(held);
        }
        Ok(())
    }
}
