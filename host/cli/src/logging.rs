//! What goes to standard error: lines for people, or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Reads a level or a filter like `info,trireme_net=debug`.
///
/// # Errors
/// What is wrong with it.
pub fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
}

/// Starts logging, once in a process; a later call changes nothing. Colours only where a person watches.
pub fn start(filter: EnvFilter, json: bool) {
    let to = std::io::stderr;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to);
    // Fails only where logging has started already.
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(colours).with_target(false).compact().try_init()
    };
}
