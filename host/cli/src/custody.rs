//! What a role's custodian needs: where the authority is, and the files of the key and the certificate that it renews.

use std::sync::Arc;

use trireme_actor::{Custody, KeyStore};
use trireme_net::tls::Credentials;

use crate::config::{Care, RoleConfig};
use crate::keystore::{self, FileKeys, IdentityError};
use crate::passphrase::Passphrase;

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
    if let Err(error) = keys.check()
        && config.care.renew
    {
        tracing::warn!(role = %config.role, "the certificate cannot be renewed: {error}");
    }
    let Care { authority, follow, every_ms, renew } = config.care.clone();
    let keys = renew.then(|| Box::new(keys) as Box<dyn KeyStore>);
    let custody = Custody { authority, follow, every_ms, keys };
    Ok((custody, credentials))
}
