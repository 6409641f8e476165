//! `trireme keys list`: each key of a node, where it is, what it is certified for, and when that ends. Works without
//! the passphrase and while the node is stopped; a node that runs is asked how its certificate is.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use trireme_core::api::{IdentityQuestion, IdentityStatus, path};
use trireme_core::{Fault, ModelName, RoleKind};
use trireme_crypto::key::Signer;

use crate::admin;
use crate::config::{Named, NamedRole};
use crate::dates;
use crate::keys::{self, Place};
use crate::keystore;
use crate::models;
use crate::passphrase::Passphrase;
use crate::table::Table;

/// All keys of a node.
#[derive(Debug, Clone, Serialize)]
pub struct Inventory {
    /// Its configuration.
    pub file: String,
    /// Whether it answered.
    pub running: bool,
    /// Its roles.
    pub roles: Vec<RoleKeys>,
}

/// The keys of a role.
#[derive(Debug, Clone, Serialize)]
pub struct RoleKeys {
    /// Which.
    pub role: RoleKind,
    /// Its key.
    pub key: KeyLine,
    /// Its certificate, where it can be read.
    pub certificate: Option<CertificateLine>,
    /// A key that waits for its certificate.
    pub next: Option<String>,
    /// Authority: what it issues with.
    pub issuing: Vec<KeyLine>,
    /// Manufacturer: generations of its models' secrets.
    pub models: Vec<ModelLine>,
    /// What the running node says.
    pub status: Option<IdentityStatus>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// A key.
#[derive(Debug, Clone, Serialize)]
pub struct KeyLine {
    /// Its file or URI.
    pub place: String,
    /// `file`, `encrypted` or `token`.
    pub kept: String,
    /// SHA-256 of its public key, in hexadecimal, where that can be known.
    pub fingerprint: Option<String>,
}

/// A certificate.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateLine {
    /// Its file.
    pub file: String,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// `<role> <id>`.
    pub subject: String,
    /// SHA-256 of the public key that it is for, in hexadecimal.
    pub fingerprint: String,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
    /// Whole days from now; none where it has run out.
    pub days_left: Option<u64>,
}

/// A generation of a model's secrets.
#[derive(Debug, Clone, Serialize)]
pub struct ModelLine {
    /// The model.
    pub model: ModelName,
    /// The generation.
    pub generation: u32,
    /// Whether it was retired.
    pub retired: bool,
    /// Its file.
    pub file: String,
}

/// Looks at all of them. Keys under a passphrase are opened only where that is in a file.
#[must_use]
pub fn take(named: &Named, now_ms: u64) -> Inventory {
    let passphrase = Passphrase::of_node(named.passphrase_file.clone());
    let roles = named.roles.iter().map(|role| of_role(role, &passphrase, now_ms)).collect();
    Inventory { file: named.file.display().to_string(), running: false, roles }
}

/// Asks the node, where it runs, how each certificate is.
pub async fn ask(inventory: &mut Inventory, socket: &Path) {
    for role in &mut inventory.roles {
        match identity(socket, role.role.as_str(), &IdentityQuestion::default()).await {
            Ok(status) => (role.status, inventory.running) = (Some(status), true),
            Err(fault) if socket.exists() => role.problems.push(format!("the node does not say: {fault}")),
            // It does not run.
            Err(_) => {}
        }
    }
}

/// What a role's custodian says.
///
/// # Errors
/// The node's fault.
pub async fn identity(
    socket: &Path,
    role: &str,
    question: &IdentityQuestion,
) -> Result<IdentityStatus, Fault> {
    admin::question(socket, &format!("/{role}{}", path::IDENTITY), json!(question)).await
}

fn of_role(role: &NamedRole, passphrase: &Passphrase, now_ms: u64) -> RoleKeys {
    let mut problems = Vec::new();
    let (key, public) = of_key(&role.key, passphrase, &mut problems);
    let certificate = keystore::certificate_of(&role.certificate);
    let certificate = certificate.map_err(|error| problems.push(error.to_string())).ok();
    if let (Some((_, certificate)), Some(public)) = (&certificate, &public)
        && certificate.public_key() != *public
    {
        let next = keystore::pending(&role.key);
        problems.push(match next {
            Some(next) => {
                format!("the certificate is for {}; the node's next start finishes that", next.display())
            }
            None => "the certificate is for another key".into(),
        });
    }
    let models = role.models.as_ref().map(|store| models::load_all(store));
    let models = models.and_then(|models| models.map_err(|error| problems.push(error.to_string())).ok());
    let issuing = role.issuing.iter().map(|place| of_key(place, passphrase, &mut problems).0).collect();
    RoleKeys {
        role: role.role,
        key,
        certificate: certificate.map(|(_, certificate)| CertificateLine {
            file: role.certificate.display().to_string(),
            serial: hex::encode(certificate.serial()),
            subject: certificate
                .owner()
                .map_or_else(|_| certificate.subject(), |owner| owner.subject.to_string()),
            fingerprint: keys::fingerprint(&certificate.public_key()).to_string(),
            not_before_ms: certificate.not_before_ms(),
            not_after_ms: certificate.not_after_ms(),
            days_left: dates::days_left(now_ms, certificate.not_after_ms()),
        }),
        next: keystore::pending(&role.key).map(|file| file.display().to_string()),
        issuing,
        models: models
            .unwrap_or_default()
            .into_iter()
            .map(|stored| ModelLine {
                model: stored.secrets.model().clone(),
                generation: stored.secrets.generation(),
                retired: stored.retired,
                file: stored.file.display().to_string(),
            })
            .collect(),
        status: None,
        problems,
    }
}

fn of_key(
    place: &Place,
    passphrase: &Passphrase,
    problems: &mut Vec<String>,
) -> (KeyLine, Option<trireme_crypto::key::PublicKey>) {
    let kept = match place {
        Place::Token(_) => "token",
        Place::File(file) => match keys::is_encrypted(file) {
            Ok(true) => "encrypted",
            Ok(false) | Err(_) => "file",
        },
    };
    let public = if kept == "encrypted" && !passphrase.is_stored() {
        None
    } else {
        let opened = keys::open_at(place, passphrase).map_err(|error| problems.push(error.to_string()));
        opened.ok().map(|key| Signer::public_key(key.as_ref()))
    };
    let fingerprint = public.as_ref().map(|public| keys::fingerprint(public).to_string());
    (KeyLine { place: place.to_string(), kept: kept.into(), fingerprint }, public)
}

/// For people.
#[must_use]
pub fn text(inventory: &Inventory, now_ms: u64) -> String {
    let mut text = String::new();
    for role in &inventory.roles {
        let subject =
            role.certificate.as_ref().map_or_else(|| role.role.to_string(), |one| one.subject.clone());
        // Writing to a String does not fail.
        let _ = writeln!(text, "{subject}");
        let mut table = Table::default();
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("key", format!("{} ({})", role.key.place, kept(&role.key.kept)));
        if let Some(fingerprint) = &role.key.fingerprint {
            row("public key", format!("SHA-256 {fingerprint}"));
        }
        if let Some(certificate) = &role.certificate {
            row("certificate", format!("{}, serial {}", certificate.file, certificate.serial));
            if role.key.fingerprint.is_none() {
                row("for public key", format!("SHA-256 {}", certificate.fingerprint));
            }
            let (from, until) = (dates::day(certificate.not_before_ms), dates::day(certificate.not_after_ms));
            row("valid", format!("{from} to {until}, {}", dates::left(now_ms, certificate.not_after_ms)));
        }
        if let Some(status) = &role.status {
            row("renewal", renewal(status));
            status.alarms.iter().for_each(|alarm| row("ALARM", alarm.clone()));
        }
        if let Some(next) = &role.next {
            row("next key", format!("{next}; it waits for its certificate"));
        }
        for key in &role.issuing {
            row("issues with", format!("{} ({})", key.place, kept(&key.kept)));
        }
        for ModelLine { model, generation, retired, file } in &role.models {
            let state = if *retired { ", retired" } else { "" };
            row("model", format!("{model} generation {generation}{state}: {file}"));
        }
        role.problems.iter().for_each(|problem| row("PROBLEM", problem.clone()));
        let _ = writeln!(text, "{table}");
    }
    if !inventory.running {
        text.push_str("the node does not run: what it says of renewals is not here\n");
    }
    text
}

/// When a certificate is renewed.
pub(crate) fn renewal(status: &IdentityStatus) -> String {
    match status.renews_ms {
        Some(at) => format!("by itself from {} on", dates::day(at)),
        None => "not by itself".into(),
    }
}

fn kept(how: &str) -> &str {
    match how {
        "encrypted" => "under a passphrase",
        "token" => "in a token",
        other => other,
    }
}
