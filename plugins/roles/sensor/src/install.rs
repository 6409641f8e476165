//! Installing: write, restart, test, keep or give up. What is under way survives every restart in `pending`; what
//! really runs is asked of the secure element and the boot loader, never remembered.

use alloc::format;
use alloc::string::ToString;

use serde::{Deserialize, Serialize};
use trireme_core::message::Outcome;
use trireme_core::role::{Answer, Fault, Running, code};
use trireme_core::{Digest, Host, NodeId, Version};

use super::{SETTLE, Sensor, Stage};

const PENDING: &str = "pending";

/// How often a verified image is written, or an image that passed is kept, before it is given up.
const MOST_ATTEMPTS: u32 = 3;

/// A release that passed all checks, on its way to be the one that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pending {
    /// `ID_GW` of the offer.
    pub(crate) gateway: NodeId,
    /// `V`.
    pub(crate) version: Version,
    /// Bytes of the image.
    pub(crate) size: u64,
    /// Its digest, zeros where an offer was refused before it could be known.
    pub(crate) digest: Digest,
    /// Whether the model has written it and the restart is due.
    written: bool,
    /// How often writing it was begun.
    attempts: u32,
}

impl Pending {
    pub(crate) fn new(gateway: NodeId, version: Version, size: u64, digest: Digest) -> Self {
        Self { gateway, version, size, digest, written: false, attempts: 0 }
    }

    fn store(&self, host: &mut dyn Host) -> Result<(), Fault> {
        let json = serde_json::to_vec(self).map_err(|e| Fault::new(code::INTERNAL, e.to_string()))?;
        host.put(PENDING, json);
        Ok(())
    }

    fn load(host: &dyn Host) -> Result<Option<Self>, Fault> {
        let parse = |json: alloc::vec::Vec<u8>| {
            serde_json::from_slice(&json).map_err(|e| Fault::new(code::INTERNAL, format!("pending: {e}")))
        };
        host.get(PENDING).map(parse).transpose()
    }
}

impl Sensor {
    /// After every start: what runs says how far an installation has come.
    pub(crate) fn boot(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        let running = host.running()?;
        if running.trial {
            let then = self.next();
            // It was written and boots, even where the power went before that was noted.
            if let Some(pending) = Pending::load(host)?.filter(|pending| pending.version == running.version) {
                Pending { written: true, ..pending }.store(host)?;
            }
            host.arm(SETTLE, self.config.self_test_timeout_ms);
            host.self_test(then);
            self.stage = Stage::Testing(then);
            return Ok(());
        }
        match Pending::load(host)? {
            None => self.join(host),
            Some(pending) => self.take_up(host, &running, pending),
        }
    }

    fn take_up(&mut self, host: &mut dyn Host, running: &Running, pending: Pending) -> Result<(), Fault> {
        if running.version == pending.version {
            // Kept just before the power went, or a model without trial boots.
            self.finish(host, &pending, Outcome::Installed)?;
            return self.join(host);
        }
        if running.version > pending.version || running.floor >= pending.version {
            drop_image(host, &pending);
            return self.join(host);
        }
        if pending.written && running.reverted == Some(pending.version) {
            self.finish(host, &pending, Outcome::Reverted)?;
            return self.join(host);
        }
        // The power went before the image was whole or marked for boot: it is verified and here, so write it again.
        self.join(host)?;
        self.install(host, pending)
    }

    /// All checks passed.
    pub(crate) fn install(&mut self, host: &mut dyn Host, pending: Pending) -> Result<(), Fault> {
        if pending.attempts >= MOST_ATTEMPTS {
            return self.refuse_image(host, &pending);
        }
        let pending = Pending { attempts: pending.attempts + 1, written: false, ..pending };
        pending.store(host)?;
        let then = self.next();
        host.install(&pending.digest, pending.version, then);
        self.stage = Stage::Installing(pending, then);
        Ok(())
    }

    pub(crate) fn installed(
        &mut self,
        host: &mut dyn Host,
        pending: Pending,
        outcome: Result<Answer, Fault>,
    ) -> Result<(), Fault> {
        match outcome {
            Ok(_) => {
                Pending { written: true, ..pending }.store(host)?;
                self.restart(host);
                Ok(())
            }
            Err(fault) => {
                host.audit(&format!("{} could not be installed: {fault}", pending.version));
                self.refuse_image(host, &pending)
            }
        }
    }

    fn refuse_image(&mut self, host: &mut dyn Host, pending: &Pending) -> Result<(), Fault> {
        self.owe_refusal(host, pending, Outcome::RefusedImage)?;
        drop_image(host, pending);
        self.rest(host, None);
        Ok(())
    }

    pub(crate) fn tested(
        &mut self,
        host: &mut dyn Host,
        outcome: Result<Answer, Fault>,
    ) -> Result<(), Fault> {
        match outcome {
            Ok(_) => self.keep(host, 0),
            Err(fault) => {
                host.audit(&format!("the image on trial failed its test: {fault}"));
                self.give_up(host);
            }
        }
        Ok(())
    }

    /// The floor rises with this, in one step.
    fn keep(&mut self, host: &mut dyn Host, failures: u32) {
        let then = self.next();
        host.arm(SETTLE, self.config.self_test_timeout_ms);
        host.confirm(then);
        self.stage = Stage::Confirming(then, failures);
    }

    pub(crate) fn confirmed(
        &mut self,
        host: &mut dyn Host,
        failures: u32,
        outcome: Result<Answer, Fault>,
    ) -> Result<(), Fault> {
        if let Err(fault) = outcome {
            host.audit(&format!("the image on trial could not be kept: {fault}"));
            if failures + 1 < MOST_ATTEMPTS {
                self.keep(host, failures + 1)
            } else {
                self.give_up(host)
            }
            return Ok(());
        }
        host.disarm(SETTLE);
        if let Some(pending) = Pending::load(host)? {
            self.finish(host, &pending, Outcome::Installed)?;
        }
        self.join(host)
    }

    fn give_up(&mut self, host: &mut dyn Host) {
        let then = self.next();
        host.arm(SETTLE, self.config.self_test_timeout_ms);
        host.revert(then);
        self.stage = Stage::Reverting(then);
    }

    pub(crate) fn given_up(
        &mut self,
        host: &mut dyn Host,
        outcome: Result<Answer, Fault>,
    ) -> Result<(), Fault> {
        if let Err(fault) = outcome {
            host.audit(&format!("giving up the image on trial failed, the restart does it: {fault}"));
        }
        self.restart(host);
        Ok(())
    }

    /// A test, a confirmation or a reversal took too long. One that may yet be confirmed is not reverted: its floor
    /// could rise above what would run then. The boot loader knows which it was.
    pub(crate) fn settle_deadline(&mut self, host: &mut dyn Host) {
        match self.stage {
            Stage::Testing(_) => {
                host.audit("the image on trial did not pass in time");
                self.give_up(host);
            }
            Stage::Confirming(..) | Stage::Reverting(_) => self.restart(host),
            _ => {}
        }
    }

    fn restart(&mut self, host: &mut dyn Host) {
        host.disarm(SETTLE);
        host.reboot();
        self.stage = Stage::Restarting;
    }

    fn finish(&mut self, host: &mut dyn Host, pending: &Pending, outcome: Outcome) -> Result<(), Fault> {
        host.audit(&format!("{}: {outcome}", pending.version));
        self.owe(host, pending, outcome)?;
        drop_image(host, pending);
        Ok(())
    }
}

fn drop_image(host: &mut dyn Host, pending: &Pending) {
    host.unpin(&pending.digest);
    host.delete(PENDING);
}
