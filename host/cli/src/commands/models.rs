//! `trireme model rotate`, `retire`, `list`.

use std::path::PathBuf;

use clap::Args;
use trireme_core::ModelName;

use super::{Failure, exit, say};
use crate::config;
use crate::models::{self, Stored};
use crate::table::Table;

/// Which store.
#[derive(Debug, Args)]
pub(super) struct StoreAt {
    /// The manufacturer's store of secrets; ./models, where nothing is said
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    store: Option<PathBuf>,
    /// The manufacturer's configuration, which names the store
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  trireme model rotate MD-01 --config net/acme.toml")]
pub(super) struct Rotate {
    /// The model
    model: ModelName,
    #[command(flatten)]
    at: StoreAt,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  trireme model retire MD-01 1 --config net/acme.toml")]
pub(super) struct Retire {
    /// The model
    model: ModelName,
    /// The generation
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    generation: u32,
    #[command(flatten)]
    at: StoreAt,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// As JSON, a line for each generation
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: StoreAt,
}

pub(super) fn rotate(args: &Rotate) -> Result<u8, Failure> {
    let Rotate { model, at } = args;
    let (generation, file) = models::rotate(&at.folder()?, model)?;
    say(&format!(
        "{}: secrets of {model}, generation {generation}\n\n\
         1. Restart the manufacturer: it reads them at its start.\n\
         2. Provision new sensors; they get generation {generation} from now on.\n\
         3. `trireme refresh {model} VERSION` for each release that these sensors are to install: it then carries\n   \
         Tokens of both generations.\n\
         4. When no sensor of an older generation is left: `trireme model retire {model} {}`.\n",
        file.display(),
        generation.saturating_sub(1)
    ))
}

pub(super) fn retire(args: &Retire) -> Result<u8, Failure> {
    let Retire { model, generation, at } = args;
    let file = models::retire(&at.folder()?, model, *generation)?;
    say(&format!(
        "{}: kept, so that receipts of its sensors still count\n\n\
         1. Restart the manufacturer: until then it makes Tokens of generation {generation}.\n\
         2. `trireme refresh {model} VERSION` for each release that is still to be installed: its Token of \
         generation {generation} goes.\n\
         Sensors of generation {generation} can install nothing from then on.\n",
        file.display()
    ))
}

pub(super) fn list(args: &List) -> Result<u8, Failure> {
    let all = models::load_all(&args.at.folder()?)?;
    let newest = |one: &Stored| {
        let of_model =
            all.iter().rev().find(|other| other.secrets.model() == one.secrets.model() && !other.retired);
        of_model.is_some_and(|newest| newest.secrets.generation() == one.secrets.generation())
    };
    let state = |one: &Stored| match (one.retired, newest(one)) {
        (true, _) => "retired",
        (false, true) => "newest",
        (false, false) => "in use",
    };
    if args.json {
        let line = |one: &Stored| {
            let line = serde_json::json!({
                "model": one.secrets.model(),
                "generation": one.secrets.generation(),
                "state": state(one),
                "file": one.file.display().to_string(),
            });
            format!("{line}\n")
        };
        return say(&all.iter().map(line).collect::<String>());
    }
    let mut table = Table::new(&["model", "generation", "state", "file"]);
    for one in &all {
        let (model, generation) = (one.secrets.model(), one.secrets.generation());
        table.row([
            model.to_string(),
            generation.to_string(),
            state(one).into(),
            one.file.display().to_string(),
        ]);
    }
    say(&table.to_string())
}

impl StoreAt {
    fn folder(&self) -> Result<PathBuf, Failure> {
        let Some(file) = &self.config else {
            return Ok(self.store.clone().unwrap_or_else(|| "models".into()));
        };
        let store = config::named(file)?.roles.into_iter().find_map(|role| role.models);
        store.ok_or_else(|| Failure {
            text: format!("{}: there is no manufacturer with a store of models in it", file.display()),
            code: exit::CONFIGURATION,
        })
    }
}
