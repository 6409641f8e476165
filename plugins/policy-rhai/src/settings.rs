//! What is configured, laid over the defaults that the script gives in `settings()`.

use rhai::{Caches, Dynamic, Engine, FLOAT, ImmutableString, Map};
use trireme_core::policy::Diagnostic;

use crate::{
    at,
    builtins::{amounts, times},
    question,
    source::Script,
};

/// The settings of a policy.
pub(crate) fn settle(engine: &Engine, script: &Script, json: &str) -> Result<Map, Vec<Diagnostic>> {
    let configured = question::read(json)
        .map_err(|error| vec![Diagnostic::nowhere(format!("the settings are no JSON object: {error}"))])?;
    let mut settings = defaults(engine, script).map_err(|mistake| vec![mistake])?;
    let mut mistakes = Vec::new();
    for (name, value) in configured {
        match settings.get(name.as_str()) {
            None => mistakes.push(Diagnostic::nowhere(unknown(&name, &settings))),
            Some(default) => match fit(&name, default, value) {
                Ok(value) => {
                    settings.insert(name, value);
                }
                Err(told) => mistakes.push(Diagnostic::nowhere(told)),
            },
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    if let Some(check) = &script.check {
        // What it gives does not count: a mistake is thrown.
        let judged = check.call(engine, &mut Caches::new(), [settings.clone()]);
        judged.map(drop).map_err(|mistake| vec![mistake])?;
    }
    Ok(settings)
}

fn defaults(engine: &Engine, script: &Script) -> Result<Map, Diagnostic> {
    let Some(function) = &script.settings else { return Ok(Map::new()) };
    let given = function.call(engine, &mut Caches::new(), [])?;
    given.try_cast::<Map>().ok_or_else(|| at(function.end, "settings() gives a map: #{ name: default, … }"))
}

fn unknown(name: &str, settings: &Map) -> String {
    let names: Vec<&str> = settings.keys().map(|name| name.as_str()).collect();
    match names.is_empty() {
        true => format!("{name} is no setting of this policy; it has none"),
        false => format!("{name} is no setting of this policy; it has {}", names.join(", ")),
    }
}

/// A value in the place of its default: of the same kind.
fn fit(name: &str, default: &Dynamic, value: Dynamic) -> Result<Dynamic, String> {
    let wanted = Kind::of(default);
    let fits = match wanted {
        Kind::Anything => true,
        Kind::Share => value.is_int() || text(&value).is_some_and(|text| amounts::is_share(&text)),
        Kind::Number => value.is_int() || value.is_float(),
        Kind::Text => value.is_string(),
        other => Kind::of(&value) == other,
    };
    if !fits {
        return Err(format!("the setting {name} is {}, for example {}", wanted.told(), shown(default)));
    }
    match (wanted, value.as_int()) {
        (Kind::Number, Ok(whole)) => Ok(Dynamic::from_float(whole as FLOAT)),
        _ => Ok(value),
    }
}

/// What a setting is, by its default.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Anything,
    Bool,
    Integer,
    Number,
    Duration,
    Share,
    TimeOfDay,
    Text,
    List,
    Map,
}

impl Kind {
    fn of(value: &Dynamic) -> Self {
        if let Some(text) = text(value) {
            return match () {
                () if amounts::is_duration(&text) => Self::Duration,
                () if amounts::is_share(&text) => Self::Share,
                () if times::minute(&text).is_ok() => Self::TimeOfDay,
                () => Self::Text,
            };
        }
        match () {
            () if value.is_bool() => Self::Bool,
            () if value.is_int() => Self::Integer,
            () if value.is_float() => Self::Number,
            () if value.is_array() => Self::List,
            () if value.is_map() => Self::Map,
            () => Self::Anything,
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Anything => "anything",
            Self::Bool => "true or false",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Duration => "a duration",
            Self::Share => "a percentage or a whole number",
            Self::TimeOfDay => "a time of day",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a table",
        }
    }
}

fn text(value: &Dynamic) -> Option<ImmutableString> {
    value.clone().try_cast::<ImmutableString>()
}

fn shown(value: &Dynamic) -> String {
    match text(value) {
        Some(text) => format!("{:?}", text.as_str()),
        None => value.to_string(),
    }
}
