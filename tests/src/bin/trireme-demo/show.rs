//! What one sees: bars in a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use trireme_net::admin::Progress;

/// The screen.
pub(crate) struct Show {
    bars: MultiProgress,
    by_name: Mutex<BTreeMap<String, ProgressBar>>,
    began: Instant,
    terminal: bool,
}

impl Show {
    pub(crate) fn new() -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self { bars: MultiProgress::new(), by_name: Mutex::default(), began: Instant::now(), terminal }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        let line = format!("{:6.1} s  {}", self.began.elapsed().as_secs_f64(), text.as_ref());
        if self.terminal {
            // A terminal that is gone cannot be told so.
            let _ = self.bars.println(line);
        } else {
            print(&line);
        }
    }

    /// How far something is.
    pub(crate) fn bar(&self, name: &str, done: u64, of: u64, note: &str) {
        if !self.terminal {
            return;
        }
        let mut bars = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(name.into()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(of));
            let style = ProgressStyle::with_template("  {prefix:26} [{bar:30}] {msg}");
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name.to_owned());
            bar
        });
        bar.set_position(done.min(of));
        bar.set_message(note.to_owned());
    }

    /// What a publication says on its way, for its bars.
    pub(crate) fn publication(&self, release: &str, size: u64, progress: &Progress) {
        let Progress::Said(said) = progress else { return };
        let text = |key: &str| said.get(key).and_then(|value| value.as_str()).unwrap_or_default();
        let (broker, stage) = (text("broker"), text("stage"));
        let done = match stage {
            "stored" | "held" => size,
            "sending" => said.get("sent").and_then(serde_json::Value::as_u64).unwrap_or(0).max(size / 2),
            _ => 0,
        };
        self.bar(&format!("{release} → {broker}"), done, size, stage);
        if ["stored", "retrying", "refused"].contains(&stage) {
            let detail = text("detail");
            let why = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            self.say(format!("{release} at {broker}: {stage}{why}"));
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Takes the bars away; lines stay.
    pub(crate) fn end(&self) {
        let bars = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        bars.values().for_each(ProgressBar::finish_and_clear);
    }
}

#[expect(clippy::print_stdout, reason = "this is a program for a terminal")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}
