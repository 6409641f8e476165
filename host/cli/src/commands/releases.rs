//! `trireme refresh`, `trireme withdraw`.

use std::io::Write;

use clap::Args;
use trireme_core::{ModelName, Version, api};

use super::args::At;
use super::{Failure, runtime, with_code};
use crate::admin;
use crate::publish::{self, PublishError, Show};

#[derive(Debug, Args)]
#[command(after_help = "\
The release gets a new expiry and is signed under the manufacturer's present certificate, with a Token for each
generation of the model's secrets in use. Exit codes are those of publish.

  trireme refresh MD-01 1.3 --expires-days 90
  trireme refresh MD-01 1.3 --node net/acme.toml --detach")]
pub(super) struct Refresh {
    /// The release's model
    model: ModelName,
    /// Its version
    version: Version,
    /// Days from now after which no install starts any more; as configured, where nothing is said; 0 means never
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=36_500))]
    expires_days: Option<u32>,
    /// Do not wait for the brokers
    #[arg(long)]
    detach: bool,
    /// Progress and end as JSON, a line each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Sensors that installed it keep it; publish a higher version to replace it. A version that was withdrawn is not published
again. Exit codes are those of publish.

  trireme withdraw MD-01 1.3")]
pub(super) struct Withdraw {
    /// The release's model
    model: ModelName,
    /// Its version
    version: Version,
    /// Do not wait for the brokers
    #[arg(long)]
    detach: bool,
    /// Progress and end as JSON, a line each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

pub(super) fn refresh(args: &Refresh) -> Result<u8, Failure> {
    let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
    let wish = api::Refresh {
        model: args.model.clone(),
        version: args.version,
        expires_days: args.expires_days,
        detach: args.detach,
    };
    let show = show(args.json);
    told(show, runtime()?.block_on(publish::refresh(&socket, &wish, show)))
}

pub(super) fn withdraw(args: &Withdraw) -> Result<u8, Failure> {
    let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
    let wish = api::Withdraw { model: args.model.clone(), version: args.version, detach: args.detach };
    let show = show(args.json);
    told(show, runtime()?.block_on(publish::withdraw(&socket, &wish, show)))
}

fn show(json: bool) -> Show {
    if json { Show::Json } else { Show::People }
}

/// The exit code of what a manufacturer was told to do.
pub(super) fn told(show: Show, done: Result<u8, PublishError>) -> Result<u8, Failure> {
    done.map_err(|error: PublishError| {
        if let (Show::Json, PublishError::Refused(fault)) = (show, &error) {
            // The error itself is on standard error in any case.
            let _ = writeln!(std::io::stdout(), "{}", serde_json::json!({ "error": fault }));
        }
        let code = error.exit();
        with_code(code)(error)
    })
}
