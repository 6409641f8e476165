//! A sensor's hardware: two slots, a boot loader, and the cells of its secure element that last. It survives every
//! crash, and has no opinion on what it runs: the invariants have.

use std::collections::BTreeSet;

use trireme_core::{Digest, Version};

/// An image in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The version that it was installed as.
    pub version: Version,
    /// SHA-256 of the image; none for the one of the factory.
    pub digest: Option<Digest>,
}

/// Flash, boot loader and floor.
#[derive(Debug, Clone)]
pub struct Device {
    /// The slot that runs.
    pub running: Slot,
    /// Whether it runs on trial.
    pub trial: bool,
    /// What was given up at the last boot.
    pub reverted: Option<Version>,
    /// Never goes down.
    pub floor: Version,
    /// How often a version was confirmed: a version twice is an install twice.
    pub confirmed: Vec<Version>,
    /// Versions whose images fail their test.
    pub faulty: BTreeSet<Version>,
    spare: Option<Slot>,
    next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Same,
    Trial,
    Back,
}

impl Device {
    /// As it ships.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self {
            running: Slot { version, digest: None },
            trial: false,
            reverted: None,
            floor: version,
            confirmed: Vec::new(),
            faulty: BTreeSet::new(),
            spare: None,
            next: Next::Same,
        }
    }

    /// The model wrote an image to the spare slot and marked it for a trial.
    pub fn install(&mut self, version: Version, digest: Digest) {
        self.spare = Some(Slot { version, digest: Some(digest) });
        self.next = Next::Trial;
    }

    /// Power went while the model wrote.
    pub fn tear(&mut self) {
        if !self.trial {
            self.spare = None;
            self.next = Next::Same;
        }
    }

    /// Whether the running image works.
    #[must_use]
    pub fn passes(&self) -> bool {
        !self.faulty.contains(&self.running.version)
    }

    /// The image on trial stays, and the floor rises: one step. Anything else is left as it is.
    pub fn confirm(&mut self) -> bool {
        if !self.trial {
            return false;
        }
        self.trial = false;
        self.next = Next::Same;
        self.floor = self.floor.max(self.running.version);
        self.confirmed.push(self.running.version);
        true
    }

    /// The image on trial goes at the next boot.
    pub fn revert(&mut self) -> bool {
        if self.trial {
            self.next = Next::Back;
        }
        self.trial
    }

    /// The boot loader: an image on trial that was not confirmed before this boot is given up.
    pub fn boot(&mut self) {
        self.reverted = None;
        if self.trial {
            if let Some(old) = self.spare.take() {
                self.reverted = Some(self.running.version);
                self.running = old;
            }
            self.trial = false;
        } else if self.next == Next::Trial
            && let Some(new) = self.spare.take()
        {
            self.spare = Some(core::mem::replace(&mut self.running, new));
            self.trial = true;
        }
        self.next = Next::Same;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Version = Version::new([2, 0, 0, 0]);
    const OLD: Version = Version::new([1, 0, 0, 0]);

    #[test]
    fn a_trial_that_is_not_confirmed_goes_at_the_next_boot_and_leaves_the_floor() {
        let mut device = Device::new(OLD);
        device.install(NEW, Digest([1; 32]));
        device.boot();
        assert_eq!((device.running.version, device.trial, device.floor), (NEW, true, OLD));
        device.boot();
        assert_eq!((device.running.version, device.reverted, device.floor), (OLD, Some(NEW), OLD));
        device.boot();
        assert_eq!(device.reverted, None);
    }

    #[test]
    fn a_confirmed_image_stays_and_raises_the_floor() {
        let mut device = Device::new(OLD);
        device.install(NEW, Digest([1; 32]));
        device.boot();
        assert!(device.confirm() && !device.confirm());
        device.boot();
        assert_eq!((device.running.version, device.floor, device.confirmed.len()), (NEW, NEW, 1));
    }
}
