//! Images that are lost: here, or at a broker that had stored them.

use alloc::format;
use alloc::vec::Vec;

use trireme_core::exchange::{MOST_HELD, speaks_of};
use trireme_core::message::Held;
use trireme_core::{Fault, Host, LinkId, ModelName, NodeId, Stamp};

use crate::Manufacturer;
use crate::record::{Reach, Release, Through, newest, reached, reached_key};

impl Manufacturer {
    /// A broker that stored a release and does not list it any more has lost it, with its image or with all its state:
    /// it is owed to that broker again. One that has something newer of the model knows better than we do.
    pub(crate) fn believe_what_it_holds(&mut self, host: &mut dyn Host, link: LinkId, held: &[Held]) {
        let Some(broker) = self.visits.get(&link).map(|visit| visit.broker.clone()) else { return };
        let models = self.me.as_ref().map(|me| me.models.clone()).unwrap_or_default();
        let has = |release: &Release| {
            let named = |held: &Held| held.model == release.model && held.version >= release.version;
            let newer = |held: &Held| held.model == release.model && held.version > release.version;
            // A long list may end in the middle of a model.
            let whole = held.len() < MOST_HELD && !held.iter().any(newer);
            let through = |one: &Through| {
                held.iter().any(|held| held.model == release.model && held.digest == one.digest)
            };
            let all = !whole || release.through_now().iter().all(through);
            (held.iter().any(named) && all) || !speaks_of(held, &release.model)
        };
        let stored = |host: &dyn Host, release: &Release| {
            reached(host, release, &broker).is_some_and(|reached| reached.stage == "stored")
        };
        let newest_of = |model: &ModelName| newest(&*host, model);
        let releases: Vec<Release> = models.iter().filter_map(newest_of).collect();
        let mut lost = false;
        for release in releases.iter().filter(|release| !release.withdrawn() && !has(release)) {
            if !stored(&*host, release) {
                continue;
            }
            let Release { model, version, .. } = release;
            host.audit(&format!(
                "{broker} has lost {model} {version}, which it had stored: it is sent again"
            ));
            host.delete(&reached_key(model, *version, &broker));
            lost = true;
        }
        if lost {
            self.owe_all(host);
        }
    }

    /// A broker that stored a newer manifest of a release than it has now went back to an older state: what is newest
    /// is owed to it again.
    pub(crate) fn believe_its_manifest(&mut self, host: &mut dyn Host, broker: &NodeId, reach: &Reach) {
        let newest = newest(host, &reach.model).filter(|release| release.version == reach.version);
        let Some(release) = newest.filter(|release| reach.sequence < release.manifest_sequence()) else {
            return;
        };
        if reached(host, &release, broker).is_some_and(|reached| reached.stage == "stored") {
            let Release { model, version, sequence, .. } = &release;
            host.audit(&format!(
                "{broker} has manifest {} of {model} {version}, and had stored {sequence}: it is sent again",
                reach.sequence
            ));
            host.delete(&reached_key(model, *version, broker));
            self.owe_all(host);
        }
    }

    /// The image of a release is damaged or gone here: it is not needed any more, and has to be handed in again.
    pub(crate) fn image_is_lost(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        release: &Release,
        fault: &Fault,
    ) {
        let Release { model, version, digest, .. } = release;
        host.audit(&format!("the image {} of {model} {version} is lost: {fault}", digest.short()));
        host.unpin(digest);
        self.without_image(host, now, link, release);
    }

    /// The broker needs an image that is lost here.
    pub(crate) fn without_image(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, release: &Release) {
        let Some(visit) = self.visits.get(&link) else { return };
        let (broker, own) = (visit.broker.clone(), visit.release.clone());
        let own = own.unwrap_or_else(|| release.clone());
        let detail = match release.version {
            version if version != own.version => format!(
                "the image of {version}, which leads to it, is not here any more; publish it again with \
                 `--through {version}=<the same file>`"
            ),
            _ => "its image is not here any more; publish the same file again".into(),
        };
        self.settle_errand(host, &broker, &own, "refused", &detail);
        self.leave(host, now, link, &detail);
    }
}
