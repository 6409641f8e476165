//! What a role's custodian needs: where the authority is, and the files of the key and the certificate that it renews.

use std::sync::Arc;

use serde::Deserialize;
use trireme_actor::Custody;
use trireme_core::RoleKind;
use trireme_net::tls::Credentials;

use crate::config::RoleConfig;
use crate::keystore::{self, FileKeys, IdentityError};
use crate::passphrase::Passphrase;

/// What the custodian reads of a role's own settings.
#[derive(Deserialize, Default)]
struct Settings {
    #[serde(default)]
    authority: Option<String>,
}

/// The custody of a role, and what its TLS shows, which the custodian switches. Finishes a renewal that was cut off.
///
/// # Errors
/// [`IdentityError`].
pub(crate) fn of(
    config: &RoleConfig,
    passphrase: &Passphrase,
) -> Result<(Custody, Credentials), IdentityError> {
    let files = &config.files;
    keystore::repair(&files.key, &files.certificate, files.state)?;
    let credentials = Credentials::new(config.chain.clone(), Arc::clone(&config.key));
    let keys = FileKeys::new(
        files.key.clone(),
        files.certificate.clone(),
        passphrase.clone(),
        Arc::clone(&config.key),
        credentials.clone(),
    );
    if let Err(error) = keys.check() {
        tracing::warn!(role = %config.role, "the certificate cannot be renewed: {error}");
    }
    // A role with settings of its own need not have these.
    let Settings { authority } = serde_json::from_slice(&config.settings).unwrap_or_default();
    let custody = Custody {
        authority: authority.filter(|_| config.role != RoleKind::Authority),
        // Gateways are many; they hear of news from their brokers.
        follow: config.role != RoleKind::Gateway,
        every_ms: Custody::EVERY_MS,
        keys: Some(Box::new(keys)),
    };
    Ok((custody, credentials))
}
