//! Makes a small store, as `fixtures/schema-<n>` has one of each schema: `cargo run --example fixture -- FOLDER`. A
//! fixture that was committed is never made anew: it stands for what an earlier version wrote.

use std::collections::BTreeMap;

use sha2::Digest as _;
use trireme_actor::{Commit, Store};
use trireme_core::Digest;
use trireme_store::Options;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let database = Options::default().reserve(0).clock(|| "2026-01-02T03:04:05Z".into()).open(folder)?;
    let image = b"an image";
    let mut writer = database.blobs().writer(image.len() as u64)?;
    writer.write(image)?;
    let held = writer.finish(Digest(sha2::Sha256::digest(image).into()))?;
    database.namespace("broker").commit(Commit {
        puts: BTreeMap::from([("release/acme/MD-01".into(), Some(b"1.1".to_vec()))]),
        pins: BTreeMap::from([(held.digest(), Some(held.size()))]),
        audit: vec!["release acme/MD-01 1.1 is kept".into(), "gw-1 answers".into()],
    })?;
    Ok(())
}
