//! `trireme enrol`.

use std::io::BufRead;
use std::path::PathBuf;

use clap::Args;
use trireme_core::{NodeId, RoleKind};
use zeroize::Zeroizing;

use super::{Failure, exit, runtime, say, with_code};
use crate::authority;
use crate::config;
use crate::enrol::{self, Place, TokenText, Wish};
use crate::keys;
use crate::passphrase::Passphrase;

#[derive(Debug, Args)]
#[command(after_help = "\
The authority's administrator makes the token (`trireme authority token create ROLE ID`). This makes the node's key (mode
0600), which stays here, and writes the certificate and, where it is not there, the root's. What was cut off is done
again with the same token.

  trireme enrol --config gw-7.toml --token -
  trireme enrol --authority https://10.0.0.1:8443 --role gateway --id gw-7 --out /etc/trireme --token -")]
pub(super) struct Enrol {
    /// The node's configuration: says the role, the authority, and where the files go
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    config: Option<PathBuf>,
    /// Which of the node's roles, where it has several
    #[arg(long)]
    role: Option<RoleKind>,
    /// The token; `-` reads it from standard input, so that no other process sees it
    #[arg(long)]
    token: String,
    /// The authority's service, https://host:port
    #[arg(long, value_name = "URL")]
    authority: Option<String>,
    /// Without a configuration: the folder for <id>.key, <id>.pem and authority.pem
    #[arg(long, value_name = "DIR", requires_all = ["role", "id", "authority"])]
    out: Option<PathBuf>,
    /// Without a configuration: the node's identifier
    #[arg(long)]
    id: Option<NodeId>,
    /// The authority makes the key; for a token that was made so
    #[arg(long)]
    make_key: bool,
    /// Replace key and certificate of a node that has both
    #[arg(long)]
    renew_key: bool,
}

pub(super) fn perform(args: Enrol) -> Result<u8, Failure> {
    let usage = |text: &str| Failure { text: text.into(), code: exit::USAGE };
    let (again, wish) = match (args.config, args.out) {
        (Some(file), _) => {
            let node = config::enrolment_of(&file, args.role).map_err(with_code(exit::CONFIGURATION))?;
            let authority = args.authority.or(node.authority).ok_or_else(|| {
                usage("which authority? the configuration names none for this role; add --authority https://host:port")
            })?;
            if let (Some(told), Some(own)) = (&args.id, &node.id)
                && told != own
            {
                return Err(usage(&format!("the configuration is of {own}, not of {told}; leave --id out")));
            }
            let id = args.id.or(node.id);
            let place = Place {
                key: node.key,
                passphrase: Passphrase::of_node(node.passphrase_file),
                certificate: node.certificate,
                trust: node.trust,
            };
            let (make_key, renew_key) = (args.make_key, args.renew_key);
            let again = format!("trireme run {}", file.display());
            (again, Wish { authority, role: node.role, name: node.name, id, place, make_key, renew_key })
        }
        (None, Some(out)) => {
            let (Some(role), Some(id), Some(authority)) = (args.role, args.id, args.authority) else {
                return Err(usage("--out needs --role, --id and --authority"));
            };
            let place = Place {
                key: keys::Place::File(out.join(format!("{id}.key"))),
                passphrase: Passphrase::of_node(None),
                certificate: out.join(format!("{id}.pem")),
                trust: vec![out.join("authority.pem")],
            };
            let (make_key, renew_key) = (args.make_key, args.renew_key);
            let wish = Wish { authority, role, name: id.clone(), id: Some(id), place, make_key, renew_key };
            (format!("trireme config example {role}"), wish)
        }
        (None, None) => {
            return Err(usage("enrol whom? name --config FILE, or --out DIR with --role, --id, --authority"));
        }
    };
    let token: TokenText = match args.token.as_str() {
        "-" => {
            let mut line = Zeroizing::new(String::new());
            std::io::stdin().lock().read_line(&mut line)?;
            line.parse()?
        }
        text => text.parse()?,
    };
    let done = runtime()?.block_on(enrol::enrol(&wish, &token))?;
    let days = done.not_after_ms.saturating_sub(authority::now_ms()?).div_ceil(86_400_000);
    let mut text = format!(
        "{} is enrolled for {days} days\n{}: its private key; it stays here\n{}: its certificate\n",
        done.subject,
        wish.place.key,
        wish.place.certificate.display()
    );
    if let Some(root) = &done.root {
        text.push_str(&format!("{}: the root {}\n", root.display(), token.fingerprint));
    }
    say(&format!("{text}\n  {again}\n"))
}
