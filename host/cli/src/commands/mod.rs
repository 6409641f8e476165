//! What `trireme` understands, and what it does then.

mod args;
mod audit;
mod authority;
mod backup;
mod enrol;
mod explain;
mod keys;
mod models;
mod policy;
mod releases;
mod rollout;
mod simulate;
mod wait;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use clap::error::ErrorKind;
use trireme_core::api::Publish;

use crate::admin;
use crate::config::{self, Problems};
use crate::files;
use crate::init::Network;
use crate::models as stores;
use crate::policies;
use crate::publish::{self, Show};
use crate::run;
use crate::status;
use crate::supervise::{self, Job, Pauses};
use crate::table::Table;
use crate::users;

pub use args::Cli;
use args::{Command, ConfigCommand, ModelCommand};

/// Exit codes, for scripts.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Something else went wrong.
    pub const OTHER: u8 = 1;
    /// A publication was refused, or the version exists with other bytes.
    pub const REFUSED: u8 = 2;
    /// A publication is accepted, and some broker does not have it yet.
    pub const PENDING: u8 = 3;
    /// The command line is wrong (sysexits' EX_USAGE).
    pub const USAGE: u8 = 64;
    /// A configuration is wrong (sysexits' EX_CONFIG).
    pub const CONFIGURATION: u8 = 78;
}

/// What went wrong, for a person, and what a script sees.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            let more = source.to_string();
            // Most errors say their cause already.
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = source.source();
        }
        Self { text, code: exit::OTHER }
    }
}

fn with_code<E: std::error::Error>(code: u8) -> impl FnOnce(E) -> Failure {
    move |error| Failure { code, ..Failure::from(error) }
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where nobody reads there is nobody to tell.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked { exit::OK } else { exit::USAGE });
        }
    };
    match perform(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(Failure { text, code }) => {
            let _ = writeln!(std::io::stderr(), "trireme: {text}");
            ExitCode::from(code)
        }
    }
}

fn perform(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run(&args),
        Command::Config(ConfigCommand::Check { path }) => check(&path),
        Command::Config(ConfigCommand::Example { role }) => say(&config::example::full(role)),
        Command::Init(args) => init(&args),
        Command::Authority(command) => authority::perform(command),
        Command::Enrol(args) => enrol::perform(args),
        Command::Request(args) => keys::request(&args),
        Command::Keys(command) => keys::perform(command),
        Command::Passwd(args) => passwd(&args),
        Command::Audit(command) => audit::perform(command),
        Command::Policy(command) => policy::perform(command),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Refresh(args) => releases::refresh(&args),
        Command::Withdraw(args) => releases::withdraw(&args),
        Command::Rollout(command) => rollout::perform(command),
        Command::Fleet(args) => rollout::fleet(&args),
        Command::Sensor(command) => rollout::sensor(command),
        Command::Wait(command) => wait::perform(command),
        Command::Model(command) => perform_model(command),
        Command::Publish(args) => publish(&args),
        Command::Status(args) => {
            let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
            let options = status::Options { json: args.json, watch: args.watch, all: args.all };
            runtime()?.block_on(status::status(&socket, options))?;
            Ok(exit::OK)
        }
    }
}

fn passwd(args: &args::Passwd) -> Result<u8, Failure> {
    if args.remove {
        if let Some(file) = &args.file {
            users::remove(file, &args.name)?;
        }
        return Ok(exit::OK);
    }
    let line = users::line(&args.name, &users::password(&args.name)?)?;
    match &args.file {
        Some(file) => {
            users::put(file, &args.name, &line)?;
            Ok(exit::OK)
        }
        None => say(&format!("{line}\n")),
    }
}

fn run(args: &args::Run) -> Result<u8, Failure> {
    if !args.path.is_dir() {
        let options = run::Options { log_json: args.log_json, log: args.log.clone(), leash: args.leash };
        return match run::run(&args.path, &options) {
            Ok(()) => Ok(exit::OK),
            Err(error) => {
                let code = if error.is_final() { exit::CONFIGURATION } else { exit::OTHER };
                Err(with_code(code)(error))
            }
        };
    }
    let files = config::files(&args.path).map_err(with_code(exit::CONFIGURATION))?;
    // What is wrong is told before anything runs.
    let nodes = config::check(&files).map_err(with_code(exit::CONFIGURATION))?;
    let program = std::env::current_exe()?;
    let job = |node: config::NodeConfig| {
        let mut arguments: Vec<OsString> = vec!["run".into(), node.file.into(), "--leash".into()];
        if args.log_json {
            arguments.push("--log-json".into());
        }
        if let Some(log) = &args.log {
            arguments.extend(["--log".into(), log.into()]);
        }
        Job { name: node.name.to_string(), program: program.clone(), arguments }
    };
    let jobs = nodes.into_iter().map(job).collect();
    let output = Arc::new(Mutex::new(std::io::stderr()));
    let failed = runtime()?.block_on(supervise::supervise(
        jobs,
        Pauses::default(),
        output,
        run::leash_end(args.leash),
    ))?;
    Ok(if failed == 0 { exit::OK } else { exit::CONFIGURATION })
}

fn check(path: &Path) -> Result<u8, Failure> {
    let files = config::files(path).map_err(with_code(exit::CONFIGURATION))?;
    let nodes = config::check(&files).map_err(with_code(exit::CONFIGURATION))?;
    // A node starts all the same, and denies: whoever asks is to know before.
    let problems = Problems(nodes.iter().flat_map(policies::problems).collect());
    problems.none().map_err(with_code(exit::CONFIGURATION))?;
    let mut table = Table::new(&["file", "node", "roles"]);
    for node in nodes {
        let mut roles: Vec<String> =
            node.roles.iter().map(|role| format!("{} {}", role.role, role.certified.subject.id)).collect();
        match node.sensors.as_slice() {
            [] => {}
            [one] => roles.push(format!("sensor {}", one.id)),
            more => roles.push(format!("{} sensors", more.len())),
        }
        table.row([node.file.display().to_string(), node.name.to_string(), roles.join(", ")]);
    }
    say(&format!("{table}fine\n"))
}

fn init(args: &args::Init) -> Result<u8, Failure> {
    let written = Network::of(args.counts())?.write(&args.folder)?;
    let folder = written.folder.display();
    say(&format!(
        "{folder}: {} nodes, ready to run\n\n  trireme run {folder}\n\nand from a second terminal, with an image of yours:\n\n  \
         trireme publish --node {folder}/acme.toml --model MD-01 --version 1.1 IMAGE\n  \
         trireme status --node {folder}/acme.toml --watch\n\n\
         {folder}/root has the root's key, which no node needs: move the folder to a safe place, off this machine. The \
         authority's node issues and revokes with {folder}/issuing.\n",
        written.nodes.len()
    ))
}

fn perform_model(command: ModelCommand) -> Result<u8, Failure> {
    match command {
        ModelCommand::Add { model, store, generation } => {
            let file = stores::add(&store, &model, generation)?;
            say(&format!(
                "{}: secrets of {model}\nA running manufacturer reads them at its next start; its certificate has to \
                 name the model.\n",
                file.display()
            ))
        }
        ModelCommand::Rotate(args) => models::rotate(&args),
        ModelCommand::Retire(args) => models::retire(&args),
        ModelCommand::List(args) => models::list(&args),
        ModelCommand::Provision(args) => {
            let wish = stores::Provision {
                model: args.model,
                generation: args.generation,
                sensor: args.sensor,
                manufacturer: args.manufacturer,
                version: args.version,
            };
            let made = stores::provision(&args.store, &wish, &args.out)?;
            let bundle = made.bundle.display();
            if args.code_file {
                return say(&format!("{bundle}: the bundle\n{}: its one-time code\n", made.code.display()));
            }
            // Shown once, and kept nowhere.
            let code = zeroize::Zeroizing::new(files::read_text(&made.code, 256)?);
            files::remove(&made.code)?;
            let mut out = std::io::stdout();
            writeln!(out, "{bundle}: the bundle\none-time code, shown this once: {}", code.trim())?;
            Ok(exit::OK)
        }
    }
}

fn publish(args: &args::Publish) -> Result<u8, Failure> {
    let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
    let wish = Publish {
        model: args.model.clone(),
        version: args.version,
        suite: args.suite.map(Into::into),
        expires_days: args.expires,
        detach: args.detach,
        rollout: args.plan()?,
        emergency: args.emergency,
        through: args.through.iter().map(|through| through.version).collect(),
    };
    let show = if args.json { Show::Json } else { Show::People };
    let handed_in =
        args.through.iter().filter_map(|through| Some((through.version, through.image.as_deref()?)));
    let handed_in: Vec<_> = handed_in.collect();
    let publishing = async {
        for (version, image) in handed_in {
            publish::hand_in(&socket, &wish.model, version, image, show).await?;
        }
        publish::publish(&socket, &wish, &args.image, show).await
    };
    releases::told(show, runtime()?.block_on(publishing))
}

fn say(text: &str) -> Result<u8, Failure> {
    write!(std::io::stdout(), "{text}")?;
    Ok(exit::OK)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
