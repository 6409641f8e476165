//! `trireme keys`, `trireme request`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use trireme_core::RoleKind;
use trireme_core::role::Subject;
use trireme_crypto::key::Signer;
use trireme_pkcs11::TokenKey;

use super::args::Request;
use super::{Failure, exit, runtime, say};
use crate::admin::NODE_VARIABLE;
use crate::authority::{self, AuthorityError};
use crate::config::{self, Named, NamedRole};
use crate::dates;
use crate::files::{self, FileError};
use crate::inventory;
use crate::keys::{self, Place};
use crate::keystore;
use crate::passphrase::{Passphrase, SETTING};
use crate::rotate;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Show each key of a node: where it is, what it is certified for, when that ends
    List(List),
    /// A new key and certificate for a running node, now
    Rotate(Rotate),
    /// Write a public key
    ExportPublic(ExportPublic),
    /// Put key files under a passphrase
    Encrypt(Protect),
    /// Take the passphrase off key files
    Decrypt(Protect),
    /// Make a key: in a token, or in a file
    Generate(Generate),
}

/// Which node.
#[derive(Debug, Args)]
struct Of {
    /// The node's configuration; $TRIREME_NODE, where nothing is said
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no passphrase, and works while the node is stopped; a running one is asked when it renews, and for alarms.

  trireme keys list --config net/acme.toml")]
pub(super) struct List {
    #[command(flatten)]
    of: Of,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The authority certifies the new key for what the old one was certified for; links stay open. A key in a token stays, and
gets a new certificate: for a new key there, `trireme keys generate`, then enrol anew.

  trireme keys rotate --config net/gw-1.toml")]
pub(super) struct Rotate {
    #[command(flatten)]
    of: Of,
    /// Only this role
    #[arg(long)]
    role: Option<RoleKind>,
    /// Seconds to wait for the new certificate
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
    /// As JSON, a line for each role
    #[arg(long)]
    json: bool,
}

/// How a public key is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Text.
    Pem,
    /// Bytes.
    Der,
}

#[derive(Debug, Args)]
#[command(after_help = "\
SubjectPublicKeyInfo, as `openssl pkey -pubout` writes it.

  trireme keys export-public --config net/acme.toml
  trireme keys export-public --key root/authority.key --format der > root.der")]
pub(super) struct ExportPublic {
    #[command(flatten)]
    of: Of,
    /// Of this role, where the node has several
    #[arg(long)]
    role: Option<RoleKind>,
    /// Of this key instead
    #[arg(long, value_name = "FILE|URI", conflicts_with_all = ["config", "role"])]
    key: Option<String>,
    /// How it is written
    #[arg(long, value_enum, default_value = "pem")]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The passphrase is that of [node] passphrase_file, or of $TRIREME_PASSPHRASE_FILE; it is asked for where neither is
named. A node needs one of them to start. Files have the one form or the other at any moment.

  trireme keys encrypt --config net/acme.toml
  trireme keys encrypt root/authority.key")]
pub(super) struct Protect {
    /// Key files, instead of those of a node
    #[arg(value_name = "FILE", conflicts_with_all = ["config", "role"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    of: Of,
    /// Only of this role
    #[arg(long)]
    role: Option<RoleKind>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A key in a token is made there and cannot leave it.

  trireme keys generate 'pkcs11:token=hall;object=gw-1?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=pin'
  trireme keys generate gw-1.key --encrypt")]
pub(super) struct Generate {
    /// Where: a pkcs11: URI, or a new file
    #[arg(value_name = "URI|FILE")]
    place: String,
    /// Encrypt the file; the passphrase comes from $TRIREME_PASSPHRASE_FILE, or is asked for
    #[arg(long)]
    encrypt: bool,
}

pub(super) fn perform(command: KeysCommand) -> Result<u8, Failure> {
    match command {
        KeysCommand::List(args) => list(&args),
        KeysCommand::Rotate(args) => rotate(&args),
        KeysCommand::ExportPublic(args) => export_public(&args),
        KeysCommand::Encrypt(args) => encrypt(&args),
        KeysCommand::Decrypt(args) => decrypt(&args),
        KeysCommand::Generate(args) => generate(&args),
    }
}

/// `trireme request`.
pub(super) fn request(args: &Request) -> Result<u8, Failure> {
    let subject = Subject { role: args.role, id: args.id.clone() };
    if subject.role == RoleKind::Sensor {
        return Err(AuthorityError::Sensor.into());
    }
    files::make_folder(&args.out)?;
    let file = args.out.join(format!("{}.csr", subject.id));
    if file.exists() {
        return Err(FileError::Exists(file).into());
    }
    let told = if let Some(text) = &args.key {
        let key = keys::open(text, &Passphrase::of_person(None))?;
        keys::request(key.as_ref(), &subject, &file)?;
        String::new()
    } else {
        let place = args.out.join(format!("{}.key", subject.id));
        let key = keys::generate(&place, &of_new(args.encrypt))?;
        keys::request(&key, &subject, &file)?;
        format!("{}: the private key; it stays here\n", place.display())
    };
    say(&format!("{told}{}: give this to the authority\n", file.display()))
}

fn list(args: &List) -> Result<u8, Failure> {
    let named = args.of.read()?;
    let now = authority::now_ms()?;
    let mut inventory = inventory::take(&named, now);
    runtime()?.block_on(inventory::ask(&mut inventory, &named.admin));
    if args.json {
        return say(&format!("{}\n", serde_json::to_string(&inventory)?));
    }
    say(&inventory::text(&inventory, now))
}

fn rotate(args: &Rotate) -> Result<u8, Failure> {
    let named = args.of.read()?;
    let runtime = runtime()?;
    for role in of_role(&named, args.role)? {
        let patience = Duration::from_secs(args.wait);
        let done = runtime.block_on(rotate::rotate(&named.admin, role.role.as_str(), patience))?;
        if args.json {
            say(&format!("{}\n", serde_json::to_string(&done)?))?;
            continue;
        }
        let what = match &role.key {
            Place::File(_) => "a new key and a new certificate",
            Place::Token(_) => "a new certificate; its key stays in its token",
        };
        say(&format!(
            "{}: {what}, serial {} (before: {}), valid until {}\n",
            done.subject,
            done.serial,
            done.before,
            dates::day(done.not_after_ms)
        ))?;
    }
    Ok(exit::OK)
}

fn export_public(args: &ExportPublic) -> Result<u8, Failure> {
    let (place, passphrase) = match &args.key {
        Some(text) => (Place::parse(text, Path::new(""))?, Passphrase::of_person(None)),
        None => {
            let named = args.of.read()?;
            let roles = of_role(&named, args.role)?;
            let [role] = roles.as_slice() else {
                let names: Vec<&str> = roles.iter().map(|role| role.role.as_str()).collect();
                let text = format!("the node has several roles; say which with --role: {}", names.join(", "));
                return Err(Failure { text, code: exit::USAGE });
            };
            (role.key.clone(), Passphrase::of_person(named.passphrase_file.clone()))
        }
    };
    let public = keys::open_at(&place, &passphrase)?.public_key();
    match args.format {
        Format::Pem => say(&keys::public_pem(&public)),
        Format::Der => {
            std::io::stdout().write_all(&keys::public_der(&public))?;
            Ok(exit::OK)
        }
    }
}

fn encrypt(args: &Protect) -> Result<u8, Failure> {
    let (places, passphrase) = protected(args)?;
    for place in &places {
        let told =
            if keys::encrypt(place, &passphrase)? { "now under the passphrase" } else { "was already" };
        say(&format!("{place}: {told}\n"))?;
    }
    if args.files.is_empty() {
        let hint = if passphrase.is_stored() {
            "A running node goes on with the keys that it has; from its next start new ones are encrypted as well.\n"
                .to_owned()
        } else {
            format!(
                "The node does not start without it: keep it in a file (mode 0600) that {SETTING} names.\n"
            )
        };
        say(&hint)?;
    }
    Ok(exit::OK)
}

fn decrypt(args: &Protect) -> Result<u8, Failure> {
    let (places, passphrase) = protected(args)?;
    for place in &places {
        let told = if keys::decrypt(place, &passphrase)? { "without a passphrase now" } else { "had none" };
        say(&format!("{place}: {told}\n"))?;
    }
    if args.files.is_empty() && passphrase.is_stored() {
        say(&format!("New keys are encrypted for as long as {SETTING} or its variable is set.\n"))?;
    }
    Ok(exit::OK)
}

/// The key files that are meant, those that wait for a certificate too. Tokens are passed over where no role is named.
fn protected(args: &Protect) -> Result<(Vec<Place>, Passphrase), Failure> {
    if !args.files.is_empty() {
        let places = args.files.iter().map(|file| Place::File(file.clone())).collect();
        return Ok((places, Passphrase::of_person(None)));
    }
    let named = args.of.read()?;
    let mut places: Vec<Place> = Vec::new();
    for role in of_role(&named, args.role)? {
        let next = keystore::pending(&role.key).map(Place::File);
        for place in std::iter::once(role.key.clone()).chain(next).chain(role.issuing.iter().cloned()) {
            let wanted = matches!(place, Place::File(_)) || args.role.is_some();
            if wanted && !places.contains(&place) {
                places.push(place);
            }
        }
    }
    Ok((places, Passphrase::of_person(named.passphrase_file)))
}

fn generate(args: &Generate) -> Result<u8, Failure> {
    let place = Place::parse(&args.place, Path::new(""))?;
    let public = match &place {
        Place::Token(_) if args.encrypt => {
            let text = "a token protects its keys by itself; --encrypt is for files".into();
            return Err(Failure { text, code: exit::USAGE });
        }
        Place::Token(uri) => TokenKey::generate(uri)?.public_key(),
        Place::File(file) => keys::generate(file, &of_new(args.encrypt))?.public_key(),
    };
    say(&format!("{place}: a new key\npublic key SHA-256 {}\n", keys::fingerprint(&public)))
}

/// The passphrase of a new key: where one is named, keys are encrypted without being asked to.
pub(super) fn of_new(encrypt: bool) -> Passphrase {
    if encrypt { Passphrase::of_person(None) } else { Passphrase::of_node(None) }
}

fn of_role(named: &Named, wanted: Option<RoleKind>) -> Result<Vec<NamedRole>, Failure> {
    let roles: Vec<NamedRole> =
        named.roles.iter().filter(|role| wanted.is_none_or(|wanted| role.role == wanted)).cloned().collect();
    if !roles.is_empty() {
        return Ok(roles);
    }
    let what = wanted.map_or_else(|| "role with a key".into(), |role| role.to_string());
    Err(Failure { text: format!("{}: there is no {what} in it", named.file.display()), code: exit::USAGE })
}

impl Of {
    fn read(&self) -> Result<Named, Failure> {
        let file = self.config.clone().or_else(|| std::env::var_os(NODE_VARIABLE).map(PathBuf::from));
        let missing = || Failure {
            text: format!("whose keys? name the node with --config FILE, or {NODE_VARIABLE}=FILE"),
            code: exit::USAGE,
        };
        Ok(config::named(&file.ok_or_else(missing)?)?)
    }
}
