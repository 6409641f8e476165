//! Joining, and 5.6.5.1 step 1: the gateway names a model, a sensor of it answers with `ID_SN` and `V_C`.

use alloc::format;

use trireme_core::message::{HELLO, STATUS, lan};
use trireme_core::role::{FIRST_HOST_LINK, Fault, LinkId, LinkInfo, Running};
use trireme_core::{Host, cbor};

use super::{HELLO_AGAIN, RECONNECT, Sensor, Stage};

/// The link to the configured gateway.
const GATEWAY: LinkId = 1;

/// The most links that others may hold open.
const MOST_LINKS: usize = 8;

impl Sensor {
    /// The image that runs is kept: the sensor joins.
    pub(crate) fn join(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.settled = true;
        self.stage = Stage::Idle;
        self.connect(host);
        self.hello_again(host)?;
        self.send_owed(host);
        Ok(())
    }

    pub(crate) fn connect(&mut self, host: &mut dyn Host) {
        if let Some(gateway) = &self.config.gateway
            && !self.calling
        {
            host.connect(gateway, GATEWAY);
            self.calling = true;
        }
    }

    /// Ends a link whose peer does not keep to the protocol, or keeps us waiting.
    pub(crate) fn drop_link(&mut self, host: &mut dyn Host, link: LinkId, reason: &str) {
        host.close(link, reason);
        self.closed(host, link);
    }

    pub(crate) fn opened(&mut self, host: &mut dyn Host, link: LinkId, info: &LinkInfo) -> Result<(), Fault> {
        if info.kind != "lan" {
            host.close(link, &format!("a sensor takes lan links, this one is {}", info.kind));
            return Ok(());
        }
        let others = self.links.iter().filter(|link| **link >= FIRST_HOST_LINK).count();
        if link >= FIRST_HOST_LINK && others >= MOST_LINKS {
            host.close(link, "too many links");
            return Ok(());
        }
        self.links.insert(link);
        // An image on trial may yet be given up: its version is not ours to tell.
        if self.settled {
            host.send(link, HELLO, cbor::encode(&self.hello(host)?));
            self.send_owed(host);
        }
        Ok(())
    }

    /// A link is gone; hearing of it twice changes nothing.
    pub(crate) fn closed(&mut self, host: &mut dyn Host, link: LinkId) {
        self.links.remove(&link);
        if link == GATEWAY && core::mem::take(&mut self.calling) {
            let pause = self.reconnect.next(self.config.reconnect_ms, self.config.longest_pause_ms);
            host.arm(RECONNECT, pause);
        }
        self.link_lost(host, link);
    }

    pub(crate) fn announced(
        &mut self,
        host: &mut dyn Host,
        link: LinkId,
        announce: &lan::Announce,
    ) -> Result<(), Fault> {
        self.reconnect.reset();
        let running = host.running()?;
        if self.settled && announce.model == running.model {
            let status = self.status_of(running);
            host.send(link, STATUS, cbor::encode(&status));
        }
        Ok(())
    }

    pub(crate) fn hello_again(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        if self.settled {
            let hello = cbor::encode(&self.hello(host)?);
            self.tell_all(host, HELLO, &hello);
            host.arm(HELLO_AGAIN, self.config.hello_ms);
        }
        Ok(())
    }

    /// Asks the gateways for what they have: the answer to an announcement, unasked.
    pub(crate) fn ask_for_offers(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        if self.settled && matches!(self.stage, Stage::Idle) {
            self.hello_again(host)?;
            let running = host.running()?;
            let status = self.status_of(running);
            self.tell_all(host, STATUS, &cbor::encode(&status));
        }
        Ok(())
    }

    /// `ID_SN, V_C`, and the device's condition.
    pub(crate) fn status_of(&self, running: Running) -> lan::Status {
        let facts = (!self.facts.is_empty()).then(|| self.facts.clone());
        lan::Status { sensor: running.sensor, running: running.version, facts }
    }

    /// `hello(ID_SN, ID_MF, MD_L, V_C, generation)`: so the gateway knows its manufacturers and models.
    fn hello(&self, host: &dyn Host) -> Result<lan::Hello, Fault> {
        let running = host.running()?;
        let labels = &self.config.labels;
        Ok(lan::Hello {
            sensor: running.sensor,
            manufacturer: running.manufacturer,
            model: running.model,
            running: running.version,
            generation: running.generation,
            labels: (!labels.is_empty()).then(|| labels.clone()),
            facts: (!self.facts.is_empty()).then(|| self.facts.clone()),
        })
    }
}
