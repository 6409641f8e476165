//! Revocation lists and link certificates on tier 1: a visit tells the broker what is known here and takes what the
//! broker knows, at any time of the session. A visit takes no longer for it.

use alloc::vec::Vec;

use trireme_core::exchange::Exchange;
use trireme_core::message::Talk;
use trireme_core::trust::Budget;
use trireme_core::{Fault, Host, LinkId, Stamp};

use crate::Manufacturer;

impl Manufacturer {
    /// The session is agreed: it is the visit's from now on, and its first message says what is known here.
    pub(crate) fn greet(
        &mut self,
        host: &mut dyn Host,
        link: LinkId,
        mut session: Exchange,
    ) -> Result<Exchange, Fault> {
        if let Some(visit) = self.visits.get_mut(&link) {
            visit.relay.greet(host, link, &mut session)?;
            visit.session = Some(session.clone());
        }
        Ok(session)
    }

    /// What the broker says of trust. What it lacks goes to it.
    pub(crate) fn trust_heard(
        &mut self,
        host: &mut dyn Host,
        link: LinkId,
        talk: &Talk,
    ) -> Result<(), Fault> {
        let Some(visit) = self.visits.get_mut(&link) else { return Ok(()) };
        let Some(session) = &mut visit.session else { return Ok(()) };
        visit.relay.hear(host, &visit.broker, talk)?;
        let items = host.trust_items();
        visit.relay.pass_on(host, link, session, &items, &mut Budget::default())
    }

    /// News go to all brokers that are being visited; the others hear at their next visit.
    pub(crate) fn pass_trust_on(&mut self, host: &mut dyn Host, now: Stamp) {
        let items = host.trust_items();
        let mut budget = Budget::default();
        let mut broken = Vec::new();
        for (link, visit) in &mut self.visits {
            let Some(session) = &mut visit.session else { continue };
            if let Err(fault) = visit.relay.pass_on(host, *link, session, &items, &mut budget) {
                broken.push((*link, fault));
            }
        }
        for (link, fault) in broken {
            self.give_up(host, now, link, &fault.detail);
        }
    }
}
