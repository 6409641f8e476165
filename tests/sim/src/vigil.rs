//! What must hold of certificates and revocation lists, whoever crashed when: none runs out in use, numbers only rise,
//! and what a stolen key signed is handed on by nobody who knows.

use std::collections::{BTreeMap, BTreeSet};

use trireme_actor::Trust;
use trireme_core::Digest;
use trireme_core::role::code;

use crate::custody::Drawer;
use crate::party::BEGINNING_MS;

/// A transfer that began before its gateway knew may end after it; no later than so.
const UNDER_WAY_MS: u64 = 10 * 60 * 1000;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Vigil {
    /// The certificate of an attacker, once there is one.
    pub rogue: Option<Vec<u8>>,
    /// Images that the attacker signed for.
    pub rogue_images: BTreeSet<Digest>,
    /// Since when a party knows that the attacker's certificate does not count; milliseconds since the beginning.
    pub refuses: BTreeMap<String, u64>,
    /// The attacker's images that were installed: where, and when.
    pub fooled: Vec<(String, u64)>,
    /// Certificates that were renewed: of whom, when, until when.
    pub renewals: Vec<(String, u64, u64)>,
    /// Revocation lists that were learned, counted once a party and number.
    pub lists: u64,
    /// Invariants that do not hold.
    pub broken: Vec<String>,
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    life: u64,
    epoch: u64,
    switches: u64,
    numbers: BTreeMap<Digest, u64>,
}

/// A party at a moment.
pub struct Witness<'a> {
    /// Its name.
    pub name: &'a str,
    /// Counts its starts.
    pub life: u64,
    /// Whom it trusts.
    pub trust: &'a Trust,
    /// Its key store.
    pub keys: &'a Drawer,
}

impl Vigil {
    /// Whether the attacker signed for this image.
    #[must_use]
    pub fn is_rogue(&self, image: &Digest) -> bool {
        self.rogue_images.contains(image)
    }

    /// Judges a party after a step.
    pub fn look(&mut self, party: &Witness<'_>, now_ms: u64) {
        let Witness { name, life, trust, keys } = *party;
        let unix_ms = BEGINNING_MS + now_ms;
        if unix_ms > keys.until_ms.saturating_add(999) {
            self.broken.push(format!("{name}: its certificate ran out and is still in use"));
        }
        let seen = self.seen.entry(name.into()).or_default();
        if seen.switches != keys.switches {
            seen.switches = keys.switches;
            self.renewals.push((name.into(), now_ms, keys.until_ms));
        }
        let epoch = trust.epoch();
        if (seen.life, seen.epoch) == (life, epoch) {
            return;
        }
        (seen.life, seen.epoch) = (life, epoch);
        for item in trust.items() {
            let known = seen.numbers.entry(item.id).or_insert(0);
            if item.number < *known {
                let id = item.id.short();
                self.broken.push(format!("{name}: list {known} of {id} was followed by {}", item.number));
            }
            self.lists += u64::from(item.number > *known);
            *known = item.number;
        }
        let refuses = self.rogue.as_ref().is_some_and(|rogue| {
            trust
                .verify(rogue, Some(unix_ms))
                .is_err_and(|error| trireme_core::Fault::from(error).code == code::REVOKED)
        });
        match (refuses, self.refuses.contains_key(name)) {
            (true, false) => {
                self.refuses.insert(name.into(), now_ms);
            }
            (false, true) => self.broken.push(format!("{name}: trusts the attacker again")),
            _ => {}
        }
    }

    /// A gateway hands an image to a sensor.
    pub fn hands_on(&mut self, gateway: &str, image: &Digest) {
        if self.is_rogue(image) && self.refuses.contains_key(gateway) {
            self.broken
                .push(format!("{gateway}: hands on {}, whose signer it knows as revoked", image.short()));
        }
    }

    /// A sensor is about to write an image; its configuration names its gateway.
    pub fn installs(&mut self, sensor: &str, config: &str, image: &Digest, now_ms: u64) {
        if !self.is_rogue(image) {
            return;
        }
        self.fooled.push((sensor.into(), now_ms));
        let gateway = config.split("lan://").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or("");
        if self.refuses.get(gateway).is_some_and(|since| now_ms > since + UNDER_WAY_MS) {
            self.broken
                .push(format!("{sensor}: installs {}, which {gateway} knew as revoked", image.short()));
        }
    }
}
