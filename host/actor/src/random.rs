//! Randomness for roles: the system's, or a seeded one for simulations.

use trireme_core::Formula;

/// Where random bytes come from.
pub(crate) enum Random {
    System,
    /// SHA-256 over seed and counter: enough to repeat a simulation, no secret.
    Seeded {
        seed: u64,
        counter: u64,
    },
}

impl Random {
    pub(crate) fn system() -> Self {
        Self::System
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Seeded { seed, counter: 0 }
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        match self {
            Self::System => {
                let mut bytes = vec![0; length];
                // A system without randomness cannot run a node at all; an empty answer makes every use of it fail.
                if getrandom::fill(&mut bytes).is_err() {
                    bytes.clear();
                }
                bytes
            }
            Self::Seeded { seed, counter } => {
                let mut bytes = Vec::with_capacity(length + 32);
                while bytes.len() < length {
                    *counter += 1;
                    let formula = Formula::new("simulation", [(*seed).into(), (*counter).into()]);
                    bytes.extend_from_slice(trireme_crypto::hash(&formula).as_bytes());
                }
                bytes.truncate(length);
                bytes
            }
        }
    }
}
