//! An image whose bytes are not what its digest says, or whose file is gone: it is delivered to nobody, its release
//! says so, and as it is not among what is held here, its manufacturer sends it again.

use alloc::string::String;

use trireme_core::role::{Answer, code};
use trireme_core::{Fault, Host, Stamp};

use crate::shards::Say;
use crate::{Broker, Work};

impl Broker {
    /// Whether a job found that the image of its delivery is lost; then that is taken care of. Nothing of the release
    /// was sent, so the gateway's link stays, and it is no failure of the gateway's.
    pub(crate) fn image_is_lost(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        work: Work,
        result: &Result<Answer, Fault>,
    ) -> bool {
        let (Work::Deliver(id) | Work::Trailer(id), Err(fault)) = (work, result) else { return false };
        let transfer = self.links.get(&id).and_then(|link| link.transfer.as_ref());
        let Some(digest) = transfer.map(|transfer| transfer.stored.mark.digest) else { return false };
        // Another delivery may have found it before.
        let gone = fault.code == code::UNKNOWN && host.blob_size(&digest).is_none();
        if fault.code != code::DAMAGED && !gone {
            return false;
        }
        let why: String = fault.detail.chars().take(256).collect();
        self.say(host, Say::Lost { image: digest, why });
        if let Some(link) = self.links.get_mut(&id) {
            // Its session is spent, for its header may be made already.
            link.used = true;
        }
        self.end_transfer(host, now, id);
        true
    }
}
