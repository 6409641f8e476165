//! What a world needs in which time passes by the month: certificates are shown and judged, timers fire late where
//! nothing happens, parties are set up anew.

use trireme_core::Event;
use trireme_core::role::{Fault, Origin, Request, code};

use super::{Ask, Asker, Site, World};
use crate::net::Place;
use crate::party::{Party, lock};
use crate::vigil::Witness;

/// So long after something happened to a party its timers fire to the millisecond.
const AWAKE_MS: u64 = 2_000;

impl World {
    /// How late the next timer of a party may fire: no later than nothing but timers happened to it so far, and no
    /// later than [`World::latest_ms`].
    ///
    /// Broker and gateway look around every second; a year of that would be hundreds of millions of events in which
    /// nothing happens. A role arms a timer for "not before", and has to bear that it comes late: its machine may have
    /// been busy or suspended. So each run with late timers is one that could happen. What comes from outside wakes a
    /// party at once, and with it the timers that are overdue: a deadline is late only while nobody waits for it.
    pub(super) fn lateness(&self, site: &Site) -> u64 {
        let quiet = self.now_ms.saturating_sub(site.stirred_ms);
        if quiet < AWAKE_MS { 0 } else { quiet.min(self.latest_ms) }
    }

    /// Mutual TLS, as far as certificates go: between parties that have some of their own each judges the other's by
    /// what it knows at this moment.
    pub(super) fn shake_hands(&self, ask: &Ask) -> Result<(), Fault> {
        let (Some(server), Some(client)) = (self.sites.get(ask.to), self.sites.get(ask.from)) else {
            return Ok(());
        };
        if server.keys.lasting.is_none() || client.keys.lasting.is_none() {
            return Ok(());
        }
        let refused = |of: &str, fault: Fault| {
            Fault::new(code::NETWORK, format!("the certificate of {of} is refused: {}", fault.detail))
        };
        self.judge(client, server).map_err(|fault| refused("the server", fault))?;
        match &ask.caller {
            Some(_) => self.judge(server, client).map_err(|fault| refused("the client", fault)),
            None => Ok(()),
        }
    }

    /// What one party thinks of another's present certificate.
    fn judge(&self, judge: &Site, of: &Site) -> Result<(), Fault> {
        let Some(party) = &judge.party else { return Ok(()) };
        let certificate = lock(&of.disk).keys.as_ref().map(|keys| keys.certificate.clone());
        let now = party.proven_ms(self.now_ms.saturating_sub(judge.booted_ms));
        let certified = party.trust().verify(&certificate.unwrap_or_default(), now)?;
        if certified.0.subject != of.keys.subject {
            return Err(Fault::new(code::CERTIFICATE, format!("it is of {}", certified.0.subject)));
        }
        Ok(())
    }

    /// Whether a certificate counts for a party that runs, at the time that it is.
    #[must_use]
    pub fn counts_for(&self, place: Place, certificate: &[u8]) -> Option<Result<(), Fault>> {
        let site = self.sites.get(place)?;
        let now = crate::party::BEGINNING_MS + self.now_ms;
        let party = site.party.as_ref()?;
        Some(party.trust().verify(certificate, Some(now)).map(|_| ()).map_err(Fault::from))
    }

    /// The invariants of trust, after every step of a party.
    pub(super) fn look_at_trust(&mut self, place: Place) {
        let Some(site) = self.sites.get(place) else { return };
        let (Some(party), true, false) = (&site.party, site.keys.lasting.is_some(), site.lost) else {
            return;
        };
        let disk = lock(&site.disk);
        let Some(keys) = &disk.keys else { return };
        let witness = Witness { name: &site.name, life: site.life, trust: party.trust(), keys };
        self.facts.vigil.look(&witness, self.now_ms);
        self.facts.broken.append(&mut self.facts.vigil.broken);
    }

    /// A request over the network from somebody who has no certificate; the answer comes into [`World::answers`].
    pub fn knock(&mut self, place: Place, number: u64, path: &str, body: Vec<u8>) {
        let Some(site) = self.sites.get_mut(place) else { return };
        if site.party.is_none() {
            return;
        }
        site.next_request += 1;
        let id = site.next_request;
        site.asked.insert(id, Asker::Admin(number));
        let origin = Origin::Network;
        let request = Request { id, origin, caller: None, path: path.into(), body, blob: None };
        self.event(place, Event::Request(request));
    }

    /// From its next start on a party has this configuration.
    pub fn reconfigure(&mut self, place: Place, config: String) {
        if let Some(site) = self.sites.get_mut(place) {
            site.config = config;
        }
    }

    /// A party is in strange hands from now on; it goes on as before.
    pub fn lose(&mut self, place: Place) {
        if let Some(site) = self.sites.get_mut(place) {
            site.lost = true;
        }
    }

    /// Whether it is.
    #[must_use]
    pub fn is_lost(&self, place: Place) -> bool {
        self.sites.get(place).is_some_and(|site| site.lost)
    }

    /// The running party.
    #[must_use]
    pub fn party(&self, place: Place) -> Option<&Party> {
        self.sites.get(place)?.party.as_ref()
    }
}
