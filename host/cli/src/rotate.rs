//! `trireme keys rotate`: a new key and certificate for a running node's roles, now.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use trireme_core::Fault;
use trireme_core::api::{IdentityQuestion, IdentityStatus};
use trireme_core::role::code;

use crate::inventory::identity;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// Why a role has no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The node's word.
    #[error("{role}: {fault}")]
    Refused {
        /// Which role.
        role: String,
        /// Why.
        fault: Fault,
    },
    /// Not in time.
    #[error(
        "{role}: no new certificate after {} s; the node goes on trying{}",
        waited.as_secs(),
        if alarms.is_empty() { String::new() } else { format!(": {}", alarms.join("; ")) }
    )]
    Late {
        /// Which role.
        role: String,
        /// How long was waited.
        waited: Duration,
        /// What the node says of it.
        alarms: Vec<String>,
    },
}

/// A role with a new certificate.
#[derive(Debug, Clone, Serialize)]
pub struct Rotated {
    /// `<role> <id>`.
    pub subject: String,
    /// The serial number before, in hexadecimal.
    pub before: String,
    /// The serial number now.
    pub serial: String,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
}

/// Has a role's certificate renewed, and waits until that is done.
///
/// # Errors
/// [`RotateError`].
pub async fn rotate(socket: &Path, role: &str, patience: Duration) -> Result<Rotated, RotateError> {
    let refused = |fault| RotateError::Refused { role: role.into(), fault };
    let before = identity(socket, role, &IdentityQuestion::default()).await.map_err(refused)?;
    let renew = IdentityQuestion { renew: true, fetch: false };
    let mut status = identity(socket, role, &renew).await.map_err(refused)?;
    let begun = Instant::now();
    loop {
        if status.serial != before.serial {
            let IdentityStatus { subject, serial, not_after_ms, .. } = status;
            return Ok(Rotated { subject, before: before.serial, serial, not_after_ms });
        }
        if begun.elapsed() >= patience {
            return Err(RotateError::Late { role: role.into(), waited: patience, alarms: status.alarms });
        }
        tokio::time::sleep(EVERY).await;
        status = match identity(socket, role, &IdentityQuestion::default()).await {
            Ok(status) => status,
            // The node is started anew, perhaps.
            Err(fault) if fault.code == code::NETWORK => continue,
            Err(fault) => return Err(refused(fault)),
        };
    }
}
