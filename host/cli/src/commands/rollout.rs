//! `trireme rollout`, `trireme fleet`, `trireme sensor facts`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use trireme_core::api::{
    Approve, Fleet, FleetQuestion, FleetSensor, RolloutOrder, RolloutQuestion, Rollouts, SensorFacts, path,
};
use trireme_core::role::code;
use trireme_core::{Fault, ModelName, NodeId, RoleKind, Selector, SensorId, Version, formula};
use trireme_crypto::key::{Signer, sign_formula};

use super::args::At;
use super::keys::of_new;
use super::releases::Withdraw;
use super::{Failure, exit, releases, runtime, say};
use crate::admin;
use crate::keys::{self, Place};
use crate::passphrase::Passphrase;
use crate::rollouts;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The most pages of an inventory.
const MOST_PAGES: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum RolloutCommand {
    /// How rollouts stand: waves, who confirmed, who failed, why one is halted
    Status(Status),
    /// Halt a rollout: nobody is offered the release until it is resumed
    Halt(Order),
    /// Let a halted rollout go on; what failed until now is excused
    Resume(Order),
    /// Take the release back, and end its rollout
    Withdraw(Withdraw),
    /// Approve of a release, as an operator, under the operator's own key
    Approve(ApproveArgs),
    /// Make an operator's key, and show what the manufacturer's configuration has to say
    Operator(Operator),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 · 3 where the newest rollout that was asked for is halted.

  trireme rollout status
  trireme rollout status MD-01 --watch
  trireme rollout status MD-01 --version 1.3 --json")]
pub(super) struct Status {
    /// Only this model's
    model: Option<ModelName>,
    /// Only this version's
    #[arg(long)]
    version: Option<Version>,
    /// Again and again, until interrupted
    #[arg(long)]
    watch: bool,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  trireme rollout halt MD-01 --reason \"reports from the field\"
  trireme rollout resume MD-01 --reason \"it was the batteries\"")]
pub(super) struct Order {
    /// The release's model
    model: ModelName,
    /// Its version; the newest, where nothing is said
    #[arg(long)]
    version: Option<Version>,
    /// Why; it stands in the status and in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The signature is over manufacturer, model, version and digest: another image is not approved by it.

  trireme rollout approve MD-01 1.3 --as alice --key alice.key")]
pub(super) struct ApproveArgs {
    /// The release's model
    model: ModelName,
    /// Its version
    version: Version,
    /// Who approves: a name in [manufacturer.operators]
    #[arg(long = "as", value_name = "NAME")]
    operator: NodeId,
    /// The operator's private key: a file, or a pkcs11: URI
    #[arg(long, value_name = "FILE|URI")]
    key: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  trireme rollout operator alice --key alice.key >> acme.toml")]
pub(super) struct Operator {
    /// The operator's name
    name: NodeId,
    /// The operator's private key; made, where the file is not there
    #[arg(long, value_name = "FILE|URI")]
    key: String,
    /// Encrypt the new key; the passphrase comes from $TRIREME_PASSPHRASE_FILE, or is asked for
    #[arg(long)]
    encrypt: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What runs where, by receipts, and by gateways' word for sensors that have not reported yet. `sensor` and `gateway` are
labels too.

  trireme fleet
  trireme fleet MD-01 --below 1.3 --select 'site=berlin, gateway in (gw-1, gw-2)'
  trireme fleet --outcome reverted --json")]
pub(super) struct FleetArgs {
    /// Only this model's
    model: Option<ModelName>,
    /// Only those with these labels
    #[arg(long, value_name = "SELECTOR")]
    select: Option<Selector>,
    /// Only those that run this version
    #[arg(long, value_name = "VERSION")]
    running: Option<Version>,
    /// Only those that run something below this version
    #[arg(long, value_name = "VERSION")]
    below: Option<Version>,
    /// Only those that reported this last: installed, reverted, refused-policy, …
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Subcommand)]
pub(super) enum SensorCommand {
    /// Tell a running sensor of its device's condition, for policies
    Facts(Facts),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The facts take the place of those before; gateways hear of them at once.

  trireme sensor facts --node sn-001.toml battery=80 charging=1 rssi=-70")]
pub(super) struct Facts {
    /// Names with whole numbers
    #[arg(value_name = "NAME=NUMBER", value_parser = fact)]
    facts: Vec<(trireme_core::LabelText, i64)>,
    /// Which of the node's sensors, where it has several
    #[arg(long)]
    sensor: Option<SensorId>,
    #[command(flatten)]
    at: At,
}

fn fact(text: &str) -> Result<(trireme_core::LabelText, i64), String> {
    let (name, number) = text.split_once('=').ok_or("write name=number, like battery=80")?;
    let name = trireme_core::LabelText::new(name).map_err(|why| why.to_string())?;
    Ok((name, number.parse().map_err(|_| format!("{number:?} is no whole number"))?))
}

pub(super) fn perform(command: RolloutCommand) -> Result<u8, Failure> {
    match command {
        RolloutCommand::Status(args) => status(&args),
        RolloutCommand::Halt(args) => order(&args, path::HALT),
        RolloutCommand::Resume(args) => order(&args, path::RESUME),
        RolloutCommand::Withdraw(args) => releases::withdraw(&args),
        RolloutCommand::Approve(args) => approve(&args),
        RolloutCommand::Operator(args) => operator(&args),
    }
}

fn of_manufacturer(path: &str) -> String {
    format!("/{}{path}", RoleKind::Manufacturer)
}

fn status(args: &Status) -> Result<u8, Failure> {
    let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
    let question = RolloutQuestion { model: args.model.clone(), version: args.version };
    let body = serde_json::to_value(&question)?;
    let runtime = runtime()?;
    let clear = args.watch && !args.json && std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let place = of_manufacturer(path::ROLLOUT);
        let asked = admin::question::<Rollouts>(&socket, &place, body.clone());
        let answer = match runtime.block_on(asked) {
            Ok(answer) => answer,
            Err(fault) if args.watch => {
                writeln!(std::io::stderr(), "{fault}")?;
                Rollouts::default()
            }
            Err(fault) => return Err(fault.into()),
        };
        let text = shown(&answer, args.json)?;
        let mut out = std::io::stdout();
        if clear {
            write!(out, "\u{1b}[H\u{1b}[2J{text}")?;
        } else if text != last {
            write!(out, "{text}")?;
        }
        out.flush()?;
        if !args.watch {
            let halted = |status: &trireme_core::api::RolloutStatus| status.state.as_str() == "halted";
            return Ok(if answer.rollouts.first().is_some_and(halted) { exit::PENDING } else { exit::OK });
        }
        last = text;
        std::thread::sleep(EVERY);
    }
}

fn shown(answer: &Rollouts, json: bool) -> Result<String, Failure> {
    if json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(answer)?));
    }
    if answer.rollouts.is_empty() {
        let how = "no release has a rollout; `trireme publish --wave 10% --wave 100% …` begins one\n";
        return Ok(how.into());
    }
    let each: Vec<String> = answer.rollouts.iter().map(rollouts::rollout).collect();
    Ok(each.join("\n"))
}

fn order(args: &Order, path: &str) -> Result<u8, Failure> {
    let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
    let order =
        RolloutOrder { model: args.model.clone(), version: args.version, reason: args.reason.clone() };
    let place = of_manufacturer(path);
    let asked = admin::question::<Rollouts>(&socket, &place, serde_json::to_value(&order)?);
    let answer = runtime()?.block_on(asked)?;
    say(&shown(&answer, args.json)?)
}

fn approve(args: &ApproveArgs) -> Result<u8, Failure> {
    let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
    let runtime = runtime()?;
    let ApproveArgs { model, version, operator, .. } = args;
    let identity = json!({ "model": model });
    let status = runtime.block_on(admin::question::<trireme_core::api::Releases>(
        &socket,
        &of_manufacturer(path::STATUS),
        identity,
    ))?;
    let release = status.releases.into_iter().find(|release| release.version == *version);
    let digest = release
        .map(|release| release.digest)
        .ok_or_else(|| Fault::new(code::UNKNOWN, format!("{model} {version} is not published there")))?;
    let who = runtime.block_on(admin::question::<trireme_core::api::IdentityStatus>(
        &socket,
        &of_manufacturer(path::IDENTITY),
        json!({}),
    ))?;
    let name = who.subject.rsplit(' ').next().unwrap_or_default();
    let manufacturer = NodeId::new(name).map_err(|why| {
        Fault::new(code::MALFORMED, format!("the node calls itself {:?}: {why}", who.subject))
    })?;
    let key = open(&args.key)?;
    let formula = formula::approval(&manufacturer, model, *version, &digest, operator.as_str());
    let signature = sign_formula(key.as_ref(), &formula)?;
    let wish = Approve { model: model.clone(), version: *version, operator: operator.to_string(), signature };
    let place = of_manufacturer(path::APPROVE);
    runtime.block_on(admin::ask(&socket, &place, serde_json::to_value(&wish)?, None, |_| {}))?;
    say(&format!("{operator} approves of {model} {version}, image {digest}\n"))
}

fn open(key: &str) -> Result<std::sync::Arc<dyn Signer>, Failure> {
    let place = Place::parse(key, std::path::Path::new("."))?;
    Ok(keys::open_at(&place, &Passphrase::of_person(None))?)
}

fn operator(args: &Operator) -> Result<u8, Failure> {
    let place = Place::parse(&args.key, std::path::Path::new("."))?;
    let public = match &place {
        Place::File(file) if !file.exists() => {
            let key = keys::generate(file, &of_new(args.encrypt))?;
            key.public_key()
        }
        _ => open(&args.key)?.public_key(),
    };
    say(&format!(
        "[manufacturer.operators]\n{} = \"{}\"\n",
        args.name,
        hex::encode(public.to_point().as_bytes())
    ))
}

pub(super) fn fleet(args: &FleetArgs) -> Result<u8, Failure> {
    let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
    let runtime = runtime()?;
    let mut question = FleetQuestion {
        model: args.model.clone(),
        select: args.select.clone(),
        running: args.running,
        below: args.below,
        outcome: args.outcome.clone(),
        ..FleetQuestion::default()
    };
    let mut sensors: Vec<FleetSensor> = Vec::new();
    let mut summary = Fleet::default();
    for _ in 0..MOST_PAGES {
        let body = serde_json::to_value(&question)?;
        let page =
            runtime.block_on(admin::question::<Fleet>(&socket, &of_manufacturer(path::FLEET), body))?;
        if question.after.is_none() {
            summary.versions = page.versions;
        }
        sensors.extend(page.sensors);
        match sensors.last() {
            Some(last) if page.more => question.after = Some((last.model.clone(), last.sensor.clone())),
            _ => break,
        }
    }
    if args.json {
        let all = json!({ "sensors": sensors, "versions": summary.versions });
        return say(&format!("{}\n", serde_json::to_string_pretty(&all)?));
    }
    say(&rollouts::fleet(&sensors, &summary))
}

pub(super) fn sensor(command: SensorCommand) -> Result<u8, Failure> {
    let SensorCommand::Facts(args) = command;
    let socket = admin::socket(args.at.node.as_deref(), args.at.socket.as_deref())?;
    let body = serde_json::to_value(SensorFacts { facts: args.facts.into_iter().collect() })?;
    let runtime = runtime()?;
    let role = match args.sensor {
        Some(sensor) => format!("sensor/{sensor}"),
        None => only_sensor(&runtime, &socket)?,
    };
    runtime.block_on(admin::ask(&socket, &format!("/{role}{}", path::FACTS), body, None, |_| {}))?;
    say(&format!("{role} has heard\n"))
}

fn only_sensor(runtime: &tokio::runtime::Runtime, socket: &std::path::Path) -> Result<String, Failure> {
    let status = runtime.block_on(admin::ask(socket, "/node/v1/status", json!({}), None, |_| {}))?;
    let roles = status.get("roles").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let names = roles.iter().filter_map(|role| role.get("name").and_then(serde_json::Value::as_str));
    let mut sensors: Vec<String> =
        names.filter(|name| name.starts_with("sensor")).map(ToOwned::to_owned).collect();
    match (sensors.pop(), sensors.len()) {
        (Some(sensor), 0) => Ok(sensor),
        (None, _) => Err(Fault::new(code::UNKNOWN, "the node has no sensor").into()),
        (Some(_), more) => {
            let text = format!("the node has {} sensors; name one with --sensor", more + 1);
            Err(Fault::new(code::UNKNOWN, text).into())
        }
    }
}
