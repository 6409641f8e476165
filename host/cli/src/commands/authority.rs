//! `trireme authority`: what is done with an authority's folders, and with a running authority.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use trireme_core::api::{Registered, Revoke, TokenWish};
use trireme_core::role::Subject;
use trireme_core::{ModelName, NodeId, RoleKind, TopicName};
use trireme_crypto::certificate::RevocationReason;
use trireme_pkcs11::{KeyUri, TokenError};

use super::{Failure, exit, runtime, say, with_code};
use crate::admin;
use crate::authority::duties::{self, WrittenList};
use crate::authority::folder::Kind;
use crate::authority::online::Online;
use crate::authority::{self, Folder, Grant, Issued};
use crate::config;
use crate::files;
use crate::table::Table;

/// The usual file of an authority's node, where none is named.
const USUAL_NODE: &str = "authority.toml";

#[derive(Debug, Subcommand)]
pub(super) enum AuthorityCommand {
    /// Offline: make a root: key, certificate, register
    #[command(visible_alias = "init", after_help = "  trireme authority create root --name my-authority")]
    Create {
        /// The folder to make
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The root's name
        #[arg(long, default_value = "authority-root")]
        name: NodeId,
        /// Days that the root is valid
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// A key in a token (`trireme keys generate` makes it) instead of a new one in a file
        #[arg(long, value_name = "PKCS11_URI", value_parser = key_uri)]
        key: Option<Box<KeyUri>>,
    },
    /// Offline: make an intermediate, for an authority that is online
    #[command(after_help = "\
Writes issuing.key (mode 0600), issuing.pem and an empty register.jsonl into OUT_DIR; the root's register has it. Carry
OUT_DIR to the authority's node, and the root back to its safe.

  trireme authority intermediate root issuing --name ca-1")]
    Intermediate {
        /// The root's folder
        #[arg(value_name = "ROOT_DIR")]
        root: PathBuf,
        /// The folder to make
        #[arg(value_name = "OUT_DIR")]
        out: PathBuf,
        /// The intermediate's name; another one each time
        #[arg(long)]
        name: NodeId,
        /// Days that it is valid
        #[arg(long, default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// A key in a token (`trireme keys generate` makes it) instead of a new one in a file
        #[arg(long, value_name = "PKCS11_URI", value_parser = key_uri)]
        key: Option<Box<KeyUri>>,
    },
    /// Certify the key of a request, from a root's or an intermediate's folder
    Issue(Issue),
    /// Show what was issued from a folder
    List {
        /// A root's or an intermediate's folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// As JSON, a line for each certificate
        #[arg(long)]
        json: bool,
    },
    /// Offline: a root revokes an intermediate, and with it everything that it issued
    #[command(after_help = "\
Writes ROOT_DIR/list.pem. Hand that to the authority's node: trireme authority teach list.pem

  trireme authority revoke-intermediate root issuing/issuing.pem --reason key-compromise")]
    RevokeIntermediate {
        /// The root's folder
        #[arg(value_name = "ROOT_DIR")]
        root: PathBuf,
        /// The intermediate's certificate
        #[arg(value_name = "CERT.pem")]
        certificate: PathBuf,
        /// Why
        #[arg(long, default_value = "unspecified", value_parser = reason)]
        reason: RevocationReason,
    },
    /// Offline: sign a root's list anew; it is valid for 400 days
    RenewList {
        /// The root's folder
        #[arg(value_name = "ROOT_DIR")]
        root: PathBuf,
    },
    /// Offline: make the successor of a root, and the links between both
    #[command(after_help = "\
Where NEW_DIR holds a root already, that one becomes the successor. A successor that is made in advance and kept
elsewhere is there on the day when the root is lost: NEW_DIR is all that is needed then.

  trireme authority rotate-root root root-2 --name root-2
  trireme authority teach root-2/new-with-old.pem root-2/old-with-new.pem")]
    RotateRoot {
        /// The present root's folder
        #[arg(value_name = "OLD_DIR")]
        old: PathBuf,
        /// The successor's folder
        #[arg(value_name = "NEW_DIR")]
        new: PathBuf,
        /// The successor's name
        #[arg(long)]
        name: NodeId,
        /// Days that the successor is valid
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Offline: a successor retires the root before it, for ever
    #[command(after_help = "\
Writes NEW_DIR/list.pem. Once a node has learned the successor and this list, nothing under the old root counts there.

  trireme authority retire-root root-2
  trireme authority teach root-2/list.pem")]
    RetireRoot {
        /// The successor's folder
        #[arg(value_name = "NEW_DIR")]
        new: PathBuf,
        /// Why
        #[arg(long, default_value = "superseded", value_parser = reason)]
        reason: RevocationReason,
    },
    /// Online: tokens, each good for one node's first certificate
    #[command(subcommand)]
    Token(TokenCommand),
    /// Online: revoke what a node was certified
    Revoke(RevokeArgs),
    /// Online: all that the authority knows as issued
    Issued {
        /// As JSON, a line for each certificate
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: AtAuthority,
    },
    /// Online: tell the authority what was issued by hand; again is fine
    #[command(after_help = "  trireme authority import issuing/register.jsonl")]
    Import {
        /// The register of the folder that it was issued from
        #[arg(value_name = "REGISTER.jsonl")]
        file: PathBuf,
        #[command(flatten)]
        at: AtAuthority,
    },
    /// Online: hand over lists and link certificates that a root signed; the authority passes them on to every node
    #[command(after_help = "  trireme authority teach root/list.pem")]
    Teach {
        /// Revocation lists and link certificates, in PEM
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        at: AtAuthority,
    },
    /// Online: write the present revocation lists and link certificates as PEM, for openssl
    #[command(after_help = "\
  trireme authority lists --out lists
  openssl verify -crl_check -CAfile root/authority.pem -CRLfile lists/list-ca-1-….pem -untrusted gw-1.pem gw-1.pem")]
    Lists {
        /// The folder for the files; what is there already is replaced
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        at: AtAuthority,
    },
}

/// Which authority.
#[derive(Debug, Args)]
pub(super) struct AtAuthority {
    /// The configuration of the authority's node; $TRIREME_NODE or net/authority.toml, where nothing is said
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// The administrator's socket of the authority's node
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is shown this once
    #[command(after_help = "\
  trireme authority token create gateway gw-7
  trireme authority token create manufacturer acme --topic acme --model MD-01 --model MD-02")]
    Create {
        /// The node's role
        role: RoleKind,
        /// Its identifier
        id: NodeId,
        /// A manufacturer's topic; what the register of the configuration says, where nothing is said
        #[arg(long)]
        topic: Option<TopicName>,
        /// A model of a manufacturer; again for each
        #[arg(long = "model", alias = "models", value_name = "MODEL", value_delimiter = ',')]
        models: Vec<ModelName>,
        /// How long the token is good for; a day, where nothing is said
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=43_200))]
        minutes: Option<u32>,
        /// The authority makes the node's key and hands it over, once; else the node makes its own, which never leaves it
        #[arg(long)]
        make_key: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: AtAuthority,
    },
    /// Show all tokens, without their secrets
    List {
        /// As JSON, a line for each token
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: AtAuthority,
    },
    /// Make a token void that was not used yet
    Withdraw {
        /// The token, or what precedes its first dot
        #[arg(value_name = "ID")]
        token: String,
        #[command(flatten)]
        at: AtAuthority,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Reasons: unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation. A new list is signed at
once; nodes hear of it within seconds. Certificates that were issued by hand from the folder of `issued` are found as
well.

  trireme authority revoke gateway gw-7 --reason key-compromise")]
pub(super) struct RevokeArgs {
    /// The node's role
    role: RoleKind,
    /// Its identifier
    id: NodeId,
    /// Why
    #[arg(long, value_parser = reason)]
    reason: Option<RevocationReason>,
    /// Only this serial number, in hexadecimal; again for each
    #[arg(long = "serial", value_name = "HEX")]
    serials: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AtAuthority,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The request says who it is for; you say who it really is for: role, identifier, and for a manufacturer its topic and
models. Nobody else may publish for these.

  trireme authority issue issuing --request gw-1.csr --role gateway --id gw-1
  trireme authority issue issuing --request acme.csr --role manufacturer --id acme --topic acme --model MD-01 --model MD-02")]
pub(super) struct Issue {
    /// A root's or an intermediate's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The request, as `trireme request` or openssl made it
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// The owner's role
    #[arg(long)]
    role: RoleKind,
    /// The owner's identifier
    #[arg(long)]
    id: NodeId,
    /// A manufacturer's topic
    #[arg(long)]
    topic: Option<TopicName>,
    /// A model of a manufacturer; again for each
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<ModelName>,
    /// Days that the certificate is valid, but no longer than its issuer's
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Where the certificate goes; beside the request as <id>.pem, where nothing is said
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A key's URI; a relative path of a pin starts at the working directory, and is written down in full.
fn key_uri(text: &str) -> Result<Box<KeyUri>, String> {
    let uri: KeyUri = text.parse().map_err(|error: TokenError| error.to_string())?;
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    Ok(Box::new(uri.relative_to(&here)))
}

fn reason(text: &str) -> Result<RevocationReason, String> {
    let all = || RevocationReason::ALL.map(RevocationReason::as_str).join(", ");
    RevocationReason::parse(text).ok_or_else(|| format!("a reason is one of {}", all()))
}

pub(super) fn perform(command: AuthorityCommand) -> Result<u8, Failure> {
    match command {
        AuthorityCommand::Create { folder, name, days, key } => {
            let root = Folder::create_with(&folder, &name, days, key.as_deref())?;
            say(&format!(
                "{}: the root's private key; keep it where nobody else gets it\n{}: its certificate; give it to \
                 every node\n",
                root.key_file().display(),
                root.certificate_file().display()
            ))
        }
        AuthorityCommand::Intermediate { root, out, name, days, key } => {
            let made = Folder::open(&root)?.intermediate_with(&out, &name, days, key.as_deref())?;
            say(&format!(
                "{}: the intermediate's private key; it goes to the authority's node, and nowhere else\n{}: its \
                 certificate\n",
                made.key_file().display(),
                made.certificate_file().display()
            ))
        }
        AuthorityCommand::Issue(args) => issue(args),
        AuthorityCommand::List { folder, json } => {
            let issued = Folder::list(&folder)?;
            if json { say_lines(&issued) } else { say(&issued_table(&issued)?) }
        }
        AuthorityCommand::RevokeIntermediate { root, certificate, reason } => {
            let list = duties::revoke(&root, &certificate, reason)?;
            let what = match &list.news {
                Some(name) => format!("{name} is revoked: {reason}\n"),
                None => format!("{} was revoked before\n", certificate.display()),
            };
            say(&(what + of_list(&list).as_str()))
        }
        AuthorityCommand::RenewList { root } => say(&of_list(&duties::renew_list(&root)?)),
        AuthorityCommand::RotateRoot { old, new, name, days } => {
            let made = duties::rotate(&old, &new, &name, days)?;
            say(&format!(
                "{}: the successor's certificate; in `authority` of [trust] it makes a node know it from the start\n\
                 {}: tells nodes that know the old root of the new one\n\
                 {}: tells nodes that know the new root alone of the old one\n\n  \
                 trireme authority teach {} {}\n",
                made.certificate.display(),
                made.new_with_old.display(),
                made.old_with_new.display(),
                made.new_with_old.display(),
                made.old_with_new.display()
            ))
        }
        AuthorityCommand::RetireRoot { new, reason } => {
            let list = duties::retire(&new, reason)?;
            say(&format!("the root before that of {} is retired\n{}", new.display(), of_list(&list)))
        }
        AuthorityCommand::Token(command) => token(command),
        AuthorityCommand::Revoke(args) => revoke(args),
        AuthorityCommand::Issued { json, at } => {
            let issued = runtime()?.block_on(online(&at)?.issued())?;
            if json {
                return say_lines(&issued);
            }
            let issued: Vec<Issued> = issued.into_iter().map(of_registered).collect();
            say(&issued_table(&issued)?)
        }
        AuthorityCommand::Import { file, at } => {
            let (news, all) = runtime()?.block_on(online(&at)?.import(&file))?;
            say(&format!("{all} certificates, {news} of them news to the authority\n"))
        }
        AuthorityCommand::Teach { files, at } => {
            let (news, all) = runtime()?.block_on(online(&at)?.teach(&files))?;
            say(&format!("{all} lists and links, {news} of them news to the authority\n"))
        }
        AuthorityCommand::Lists { out, at } => lists(&out, &at),
    }
}

fn issue(args: Issue) -> Result<u8, Failure> {
    let grant = Grant {
        subject: Subject { role: args.role, id: args.id.clone() },
        topic: args.topic,
        models: args.models,
        days: args.days,
    };
    if grant.subject.role == RoleKind::Manufacturer && grant.topic.is_none() {
        let text = "a manufacturer is certified for a topic and models: add --topic and --model".into();
        return Err(Failure { text, code: exit::USAGE });
    }
    let folder = Folder::open(&args.folder)?;
    let out = args.out.unwrap_or_else(|| args.request.with_file_name(format!("{}.pem", args.id)));
    // Nothing is issued that has nowhere to go.
    if out.exists() {
        return Err(files::FileError::Exists(out).into());
    }
    let certificate = folder.issue(&args.request, &grant)?;
    files::write_new(&out, certificate.as_bytes())?;
    let issuers = if folder.kind() == Kind::Root { "" } else { ", followed by its issuer's" };
    say(&format!("{}: the certificate of {}{issuers}\n", out.display(), grant.subject))
}

fn token(command: TokenCommand) -> Result<u8, Failure> {
    match command {
        TokenCommand::Create { role, id, topic, models, minutes, make_key, json, at } => {
            let wish = TokenWish { role, id: id.clone(), topic, models, minutes, make_key };
            let made = runtime()?.block_on(online(&at)?.make_token(&wish))?;
            if json {
                return say(&format!("{}\n", serde_json::to_string(&made)?));
            }
            let left = made.expires_ms.saturating_sub(authority::now_ms()?).div_ceil(60_000);
            let flag = if make_key { " --make-key" } else { "" };
            say(&format!(
                "{}\n\nShown this once; good for {left} minutes, for the first certificate of {role} {id}. Take it there by \
                 a way that you trust, and on the node:\n\n  \
                 trireme enrol --config FILE{flag} --token -      (reads the token from standard input)\n",
                made.token
            ))
        }
        TokenCommand::List { json, at } => {
            let tokens = runtime()?.block_on(online(&at)?.tokens())?;
            if json {
                return say_lines(&tokens);
            }
            let now = authority::now_ms()?;
            let mut table = Table::new(&["token", "role", "id", "state", "minutes left", "key"]);
            for one in tokens {
                let left = one.expires_ms.checked_sub(now).filter(|_| one.state == "open");
                let left = left.map_or_else(|| "-".into(), |left| left.div_ceil(60_000).to_string());
                let key = if one.make_key { "authority's" } else { "its own" };
                let (role, id) = (one.role.to_string(), one.id.to_string());
                table.row([one.token, role, id, one.state, left, key.into()]);
            }
            say(&table.to_string())
        }
        TokenCommand::Withdraw { token, at } => {
            let one = runtime()?.block_on(online(&at)?.withdraw_token(&token))?;
            say(&format!("the token {} of {} {} is {}\n", one.token, one.role, one.id, one.state))
        }
    }
}

fn revoke(args: RevokeArgs) -> Result<u8, Failure> {
    let RevokeArgs { role, id, reason, serials, json, at } = args;
    let reason = reason.map(|reason| reason.to_string());
    let order = Revoke { role, id, reason, serials };
    let issued = match at.file() {
        Some(file) => config::register_of(&file).map_err(with_code(exit::CONFIGURATION))?,
        None => None,
    };
    let revoked = runtime()?.block_on(online(&at)?.revoke(&order, issued.as_deref()))?;
    if json {
        return say(&format!("{}\n", serde_json::to_string(&revoked)?));
    }
    let Revoke { role, id, .. } = &order;
    let mut text = match revoked.serials.as_slice() {
        [] => format!("{role} {id} had nothing that was not revoked before\n"),
        serials => {
            format!(
                "{role} {id}: {} revoked\n  {}\n",
                count(serials.len(), "certificate"),
                serials.join("\n  ")
            )
        }
    };
    for list in &revoked.lists {
        text.push_str(&format!("list {} of issuer {} says so\n", list.number, list.id.short()));
    }
    say(&text)
}

fn lists(out: &Path, at: &AtAuthority) -> Result<u8, Failure> {
    let saved = runtime()?.block_on(online(at)?.lists(out))?;
    let now = authority::now_ms()?;
    let mut table = Table::new(&["file", "what", "revokes", "hours left"]);
    for one in saved {
        let entries = one.entries.map_or_else(|| "-".into(), |entries| entries.to_string());
        let left = match one.until_ms.checked_sub(now) {
            Some(left) => (left / 3_600_000).to_string(),
            None => "ran out".into(),
        };
        table.row([out.join(&one.name).display().to_string(), one.what, entries, left]);
    }
    say(&table.to_string())
}

impl AtAuthority {
    /// The configuration that is meant, where it is not the socket that is named.
    fn file(&self) -> Option<PathBuf> {
        if self.socket.is_some() {
            return None;
        }
        let told = self.config.clone();
        let told = told.or_else(|| std::env::var_os(admin::NODE_VARIABLE).map(PathBuf::from));
        told.or_else(|| Some(Path::new(admin::USUAL_FOLDER).join(USUAL_NODE)).filter(|file| file.exists()))
    }
}

fn online(at: &AtAuthority) -> Result<Online, Failure> {
    if let Some(socket) = &at.socket {
        return Ok(Online::new(socket));
    }
    let file = at.file().ok_or_else(|| Failure {
        text: format!(
            "which authority? there is no {}/{USUAL_NODE}; name its node with --config FILE, --socket PATH, or {}=FILE",
            admin::USUAL_FOLDER,
            admin::NODE_VARIABLE
        ),
        code: exit::USAGE,
    })?;
    let (socket, _) = config::socket_of(&file).map_err(with_code(exit::CONFIGURATION))?;
    Ok(Online::new(&socket))
}

fn of_list(list: &WrittenList) -> String {
    format!(
        "{}: list {}, {}, valid for {} days\n\n  trireme authority teach {}\n",
        list.file.display(),
        list.number,
        count(list.entries, "entry").replace("entrys", "entries"),
        duties::LIST_DAYS,
        list.file.display()
    )
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn issued_table(issued: &[Issued]) -> Result<String, Failure> {
    let now = authority::now_ms()?;
    let mut table = Table::new(&["role", "id", "topic", "models", "days left", "serial"]);
    for one in issued {
        let models: Vec<&str> = one.models.iter().map(|model| model.as_str()).collect();
        let left = match one.not_after_ms.checked_sub(now) {
            _ if one.revoked_ms > 0 => format!("revoked: {}", one.reason),
            Some(left) => (left / 86_400_000).to_string(),
            None => "expired".into(),
        };
        let topic = one.topic.as_ref().map(ToString::to_string).unwrap_or_default();
        let (role, id) = (one.role.to_string(), one.id.to_string());
        table.row([role, id, topic, models.join(" "), left, one.serial.clone()]);
    }
    Ok(table.to_string())
}

fn of_registered(entry: Registered) -> Issued {
    Issued {
        serial: entry.serial,
        role: entry.role,
        id: entry.id,
        topic: entry.topic,
        models: entry.models,
        not_before_ms: entry.not_before_ms,
        not_after_ms: entry.not_after_ms,
        issuer: Some(entry.issuer),
        digest: Some(entry.digest),
        key: Some(entry.key),
        revoked_ms: entry.revoked_ms,
        reason: entry.reason,
    }
}

fn say_lines<T: serde::Serialize>(entries: &[T]) -> Result<u8, Failure> {
    let lines: Result<Vec<String>, _> = entries.iter().map(serde_json::to_string).collect();
    say(&lines?.into_iter().map(|line| line + "\n").collect::<String>())
}
