//! What a role asked for, once its transaction is committed: the world carries it out.

use trireme_core::formula::ImageFormula;
use trireme_core::role::{Check, Fault, JobKey, Reception, RequestId, Then, TimerId};
use trireme_core::{Digest, LinkId, NodeId, RoleKind, Version};

/// One thing to do.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each is the call of `Host` of the same name")]
pub enum Command {
    Connect { address: String, link: LinkId },
    Close { link: LinkId, reason: String },
    Adopt { link: LinkId, peer: NodeId },
    Send { link: LinkId, kind: String, payload: Vec<u8> },
    Broadcast { kind: String, payload: Vec<u8> },
    Subscribe { link: LinkId, filter: String },
    Unsubscribe { link: LinkId, filter: String },
    Arm { timer: TimerId, ms: u64 },
    Disarm { timer: TimerId },
    Receive { link: LinkId, reception: Reception<'static>, then: Then },
    Compute { key: JobKey, formula: ImageFormula<'static>, image: Digest, then: Then },
    Deliver { link: LinkId, header: Vec<u8>, blob: Option<Digest>, trailer: Vec<u8>, then: Then },
    Ask { questions: usize, then: Then },
    Request { role: RoleKind, url: String, body: Vec<u8>, then: Then },
    Install { blob: Digest, version: Version, then: Then },
    Reboot,
    SelfTest { then: Then },
    Confirm { then: Then },
    Revert { then: Then },
    Reply { to: RequestId, result: Result<Vec<u8>, Fault> },
}

/// A reception that outlives the handler that asked for it.
#[must_use]
pub fn owned(reception: Reception<'_>) -> Reception<'static> {
    Reception {
        size: reception.size,
        digest: reception.digest,
        trailer: reception.trailer,
        checks: reception
            .checks
            .into_iter()
            .map(|check| Check {
                key: check.key,
                formula: check.formula.into_owned(),
                expected: check.expected,
            })
            .collect(),
    }
}
