//! What the administrator is told of a role's certificate and lists.

use trireme_core::api::{IdentityQuestion, IdentityStatus, path};
use trireme_core::role::{Origin, Request, code};
use trireme_core::{Fault, json};

use super::Custodian;
use crate::actor::Context;
use crate::effect::Effect;
use crate::handler::Transaction;
use crate::issuing;

impl Custodian {
    /// Whether this request is the custodian's to answer.
    pub(crate) fn answers(&self, request: &Request) -> bool {
        request.path == path::IDENTITY && self.custody.is_some()
    }

    /// The answer.
    pub(crate) fn request(&mut self, context: &mut Context, now_ms: u64, request: &Request) -> Transaction {
        let mut tx = Transaction::default();
        let result = self.told(context, now_ms, request, &mut tx);
        tx.effects.push(Effect::Reply { to: request.id, result });
        tx
    }

    fn told(
        &mut self,
        context: &mut Context,
        now_ms: u64,
        request: &Request,
        tx: &mut Transaction,
    ) -> Result<Vec<u8>, Fault> {
        if request.origin != Origin::Admin {
            return Err(Fault::new(code::FORBIDDEN, "a node's identity is for its administrator"));
        }
        let question: IdentityQuestion = json::read(&request.body, "the question")?;
        if question.renew {
            if self.custody.as_ref().is_none_or(|custody| custody.keys.is_none()) {
                let text =
                    "this node cannot make its own next key: rotate it where it is kept, and enrol again";
                return Err(Fault::new(code::CONFIGURATION, text));
            }
            if context.time.at(now_ms).is_none() {
                return Err(Fault::new(code::TIME, "the time is not proven yet, so nothing is renewed"));
            }
            tx.commit.audit.push("the administrator asks for a new key and certificate".into());
            self.renewal.force();
        }
        if question.fetch {
            self.lists.fetch_now(now_ms);
        }
        if question.renew || question.fetch {
            let more = self.tick(context, now_ms);
            tx.absorb(more);
        }
        Ok(json::write(&self.status(context, now_ms)))
    }

    fn status(&self, context: &Context, now_ms: u64) -> IdentityStatus {
        let identity = &context.keys.identity;
        let serial = issuing::first(&identity.certificate).ok();
        let (from, until) = self.renewal.validity().unwrap_or_default();
        let renews = self.custody.as_ref().is_some_and(|custody| custody.keys.is_some());
        IdentityStatus {
            subject: identity.subject.to_string(),
            serial: serial.map(|certificate| hex::encode(certificate.serial())).unwrap_or_default(),
            not_before_ms: from,
            not_after_ms: until,
            renews_ms: self.renewal.renews_ms().filter(|_| renews),
            alarms: self.alarms.values().cloned().collect(),
            fetched_ms_ago: self.lists.fetched_ms.map(|at| now_ms.saturating_sub(at)),
            items: context.keys.trust.as_ref().map(crate::Trust::items).unwrap_or_default(),
        }
    }
}
