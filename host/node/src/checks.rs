//! No image leaves its store, or is computed over, before its bytes were checked: once in the life of a process, and
//! again when its file is another. However many ask for an image at one moment, one of the node's seats reads it, and
//! the others wait for what it finds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use trireme_actor::StoreError;
use trireme_core::role::code;
use trireme_core::{Digest, Fault};
use trireme_store::BlobReader;

use crate::cell::Cell;

type Waiting = Box<dyn FnOnce(Result<BlobReader, Fault>) + Send>;

/// Who waits for the check of which image.
#[derive(Default)]
pub(crate) struct Checks(Mutex<HashMap<Digest, Vec<Waiting>>>);

impl Checks {
    /// Waits for the image; whether nobody did before.
    fn wait(&self, digest: Digest, then: Waiting) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.entry(digest).or_default();
        waiting.push(then);
        waiting.len() == 1
    }

    fn answer(&self, digest: &Digest, found: &Result<BlobReader, Fault>) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        waiting.into_iter().flatten().for_each(|then| then(found.clone()));
    }
}

/// A check under way; whoever waits for it is answered at the latest when it is dropped.
struct UnderWay {
    checks: Arc<Checks>,
    digest: Digest,
    /// Whoever waits from now on waits for another check.
    answered: bool,
}

impl UnderWay {
    fn new(checks: Arc<Checks>, digest: Digest) -> Self {
        Self { checks, digest, answered: false }
    }

    fn answer(mut self, found: &Result<BlobReader, Fault>) {
        self.answered = true;
        self.checks.answer(&self.digest, found);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.answered {
            let ended = Fault::new(code::INTERNAL, "checking the image ended early");
            self.checks.answer(&self.digest, &Err(ended));
        }
    }
}

/// Gives an image whose bytes are what its name says, at once where that is known, or else from another thread.
///
/// The fault is `damaged` where the bytes are others or gone, and `storage` where the system did not let them be read.
pub(crate) fn checked(
    cell: &Arc<Cell>,
    digest: Digest,
    then: impl FnOnce(Result<BlobReader, Fault>) + Send + 'static,
) {
    if let Some(image) = cell.blobs.known(&digest) {
        return then(Ok(image));
    }
    // So that it does not go while it waits for its turn. Where it is not there, the check says so.
    let held = cell.blobs.hold(&digest).ok();
    let first = cell.checks.wait(
        digest,
        Box::new(move |found| {
            then(found);
            drop(held);
        }),
    );
    if !first {
        return;
    }
    let (under_way, blobs, seats) =
        (UnderWay::new(cell.checks.clone(), digest), cell.blobs.clone(), cell.seats.clone());
    cell.runtime.spawn(async move {
        // The seats are never closed.
        let _seat = seats.acquire_owned().await;
        let job = tokio::task::spawn_blocking(move || {
            let found = blobs.verify(&digest).map_err(|error| of_store(&error));
            under_way.answer(&found);
        });
        // One that ended in a fault has answered when it was dropped.
        let _ = job.await;
    });
}

/// A store's error as a fault: what is damaged can be fetched again, what is full or failed cannot be helped so.
pub(crate) fn of_store(error: &StoreError) -> Fault {
    let code = if matches!(error, StoreError::Damaged(_)) { code::DAMAGED } else { code::STORAGE };
    Fault::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thousand_who_ask_at_once_wait_for_one_check() {
        let checks = Arc::new(Checks::default());
        let (digest, (sender, answers)) = (Digest([7; 32]), mpsc::channel());
        let ask = || {
            let sender = sender.clone();
            checks.wait(digest, Box::new(move |found| sender.send(found.is_ok()).unwrap()))
        };
        let begun: Vec<bool> = (0..1000).map(|_| ask()).collect();
        assert_eq!(begun.iter().filter(|first| **first).count(), 1);
        checks.answer(&digest, &Err(Fault::new(code::DAMAGED, "")));
        assert_eq!(answers.try_iter().count(), 1000);
        assert!(ask(), "who comes later begins another");
        drop(UnderWay::new(checks.clone(), digest));
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [false], "nobody waits for ever");
    }

    #[test]
    fn a_check_that_ended_answers_nobody_who_waits_for_the_next() {
        let checks = Arc::new(Checks::default());
        let (digest, (sender, answers)) = (Digest([7; 32]), mpsc::channel());
        let (again, first) = (checks.clone(), sender.clone());
        // Who is answered asks again at once: the image was damaged, and came anew.
        let ask = move |_| {
            first.send("the first").unwrap();
            assert!(again.wait(digest, Box::new(move |_| sender.send("the second").unwrap())));
        };
        checks.wait(digest, Box::new(ask));
        UnderWay::new(checks.clone(), digest).answer(&Err(Fault::new(code::DAMAGED, "")));
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), ["the first"]);
        UnderWay::new(checks, digest).answer(&Err(Fault::new(code::DAMAGED, "")));
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), ["the second"]);
    }
}
