//! `trireme publish`: hands an image to a running manufacturer, and shows how it reaches its brokers; `refresh` and
//! `withdraw` do the same for a release that is there.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use trireme_core::api::{HandIn, Publish, PublishProgress, Published, Refresh, Withdraw, path};
use trireme_core::message::LARGEST_IMAGE;
use trireme_core::role::code;
use trireme_core::{Fault, ModelName, NodeId, RoleKind, Version};
use trireme_net::admin::Progress;

use crate::admin;
use crate::commands::exit;
use crate::table::{Table, bytes};

/// Why an image was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The image.
    #[error("the image {}: {source}", file.display())]
    Image {
        /// Its file.
        file: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// An image of a size that cannot travel.
    #[error("the image {} has {size} bytes; an image has from 1 to {LARGEST_IMAGE}", file.display())]
    Size {
        /// Its file.
        file: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// The manufacturer's word.
    #[error("{0}")]
    Refused(#[from] Fault),
    /// The answer cannot be shown.
    #[error("{0}")]
    Output(#[from] std::io::Error),
}

impl PublishError {
    /// The exit code that tells a script what happened.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Refused(fault) => match fault.code.as_ref() {
                code::CONFLICT
                | code::VERSION
                | code::FORBIDDEN
                | code::POLICY
                | code::LIMIT
                | code::UNKNOWN => exit::REFUSED,
                _ => exit::OTHER,
            },
            _ => exit::OTHER,
        }
    }
}

/// How progress and the end are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Bars on a terminal, else lines; then a table.
    People,
    /// A line of JSON for each step, then one for the end.
    Json,
}

/// Publishes, and gives the exit code: 0 all brokers have it (or the release was accepted, with `detach`), 2 one
/// refused it, 3 one is still pending.
///
/// # Errors
/// [`PublishError`].
pub async fn publish(socket: &Path, wish: &Publish, image: &Path, show: Show) -> Result<u8, PublishError> {
    let image = open(image).await?;
    let order =
        Order { path: path::PUBLISH, body: body(wish)?, detach: wish.detach, done: "every broker has it" };
    order.give(socket, Some(image), show).await
}

/// Hands in the image of an earlier version, for a release that leads through it.
///
/// # Errors
/// [`PublishError`].
pub async fn hand_in(
    socket: &Path,
    model: &ModelName,
    version: Version,
    image: &Path,
    show: Show,
) -> Result<(), PublishError> {
    let (file, size) = open(image).await?;
    let mut view = View::new(show, Some(size));
    let path = format!("/{}{}", RoleKind::Manufacturer, path::HAND_IN);
    let body = body(&HandIn { model: model.clone(), version })?;
    let answer = admin::ask(socket, &path, body, Some((file, size)), |progress| view.step(&progress)).await;
    view.end();
    answer?;
    Ok(())
}

/// An image of a size that can travel.
async fn open(image: &Path) -> Result<(tokio::fs::File, u64), PublishError> {
    let failed = |source| PublishError::Image { file: image.into(), source };
    let file = tokio::fs::File::open(image).await.map_err(failed)?;
    let size = file.metadata().await.map_err(failed)?.len();
    if size == 0 || size > LARGEST_IMAGE {
        return Err(PublishError::Size { file: image.into(), size });
    }
    Ok((file, size))
}

/// Has a release signed anew; the exit codes are those of [`publish`].
///
/// # Errors
/// [`PublishError::Refused`].
pub async fn refresh(socket: &Path, wish: &Refresh, show: Show) -> Result<u8, PublishError> {
    let done = "every broker has it as it is signed now";
    let order = Order { path: path::REFRESH, body: body(wish)?, detach: wish.detach, done };
    order.give(socket, None, show).await
}

/// Withdraws a release; the exit codes are those of [`publish`].
///
/// # Errors
/// [`PublishError::Refused`].
pub async fn withdraw(socket: &Path, wish: &Withdraw, show: Show) -> Result<u8, PublishError> {
    let done = "every broker has withdrawn it, and tells its gateways";
    let order = Order { path: path::WITHDRAW, body: body(wish)?, detach: wish.detach, done };
    order.give(socket, None, show).await
}

fn body(wish: &impl serde::Serialize) -> Result<serde_json::Value, PublishError> {
    Ok(serde_json::to_value(wish).map_err(std::io::Error::other)?)
}

/// What a manufacturer is told to take to its brokers.
struct Order {
    path: &'static str,
    body: serde_json::Value,
    detach: bool,
    /// What is said when every broker has it.
    done: &'static str,
}

impl Order {
    async fn give(
        self,
        socket: &Path,
        image: Option<(tokio::fs::File, u64)>,
        show: Show,
    ) -> Result<u8, PublishError> {
        let mut view = View::new(show, image.as_ref().map(|(_, size)| *size));
        let path = format!("/{}{}", RoleKind::Manufacturer, self.path);
        let answer = admin::ask(socket, &path, self.body, image, |progress| view.step(&progress)).await;
        view.end();
        show_end(answer?, self.detach, self.done, show)
    }
}

fn show_end(answer: serde_json::Value, detach: bool, done: &str, show: Show) -> Result<u8, PublishError> {
    let published: Published = serde_json::from_value(answer).map_err(|error| {
        Fault::new(code::MALFORMED, format!("the node's answer is of another kind than expected: {error}"))
    })?;
    let mut out = std::io::stdout();
    match show {
        Show::Json => writeln!(out, "{}", serde_json::json!({ "published": published }))?,
        Show::People => write!(out, "{}", summary(&published, detach, done))?,
    }
    Ok(if detach { exit::OK } else { outcome(&published) })
}

/// What the brokers' last stages mean for a script.
#[must_use]
pub fn outcome(published: &Published) -> u8 {
    let any = |wanted: &dyn Fn(&str) -> bool| published.brokers.iter().any(|broker| wanted(&broker.stage));
    if any(&|stage| stage == "refused") {
        exit::REFUSED
    } else if published.brokers.is_empty() || any(&|stage| stage != "stored") {
        exit::PENDING
    } else {
        exit::OK
    }
}

fn summary(published: &Published, detached: bool, done: &str) -> String {
    let Published { model, version, digest, size, brokers } = published;
    let mut text = format!("{model} {version}, {}, image {}\n", bytes(*size), digest.short());
    let mut table = Table::new(&["broker", "stage", "detail"]);
    for PublishProgress { broker, stage, detail, .. } in brokers {
        table.row([broker.to_string(), stage.clone(), detail.clone()]);
    }
    text.push_str(&table.to_string());
    text.push_str(match (detached, outcome(published)) {
        (true, _) => "accepted; the node goes on by itself, see `trireme status`",
        (false, exit::OK) => done,
        (false, exit::REFUSED) => "refused by a broker; see the detail above",
        (false, _) if brokers.is_empty() => {
            "the directory has not named a broker yet; the node goes on by itself"
        }
        (false, _) => "not every broker has it yet; the node goes on by itself, see `trireme status`",
    });
    text.push('\n');
    text
}

/// Progress as it comes.
enum View {
    Json,
    Lines { shown: BTreeMap<NodeId, String> },
    Bars { all: MultiProgress, upload: Option<ProgressBar>, brokers: BTreeMap<NodeId, ProgressBar> },
}

impl View {
    /// `size` is that of an image that is handed over.
    fn new(show: Show, size: Option<u64>) -> Self {
        match show {
            Show::Json => Self::Json,
            Show::People if !std::io::stderr().is_terminal() => Self::Lines { shown: BTreeMap::new() },
            Show::People => {
                let all = MultiProgress::new();
                let upload = size.map(|size| {
                    let upload = all.add(bar(size));
                    upload.set_prefix("node");
                    upload.set_message("handing over");
                    upload
                });
                Self::Bars { all, upload, brokers: BTreeMap::new() }
            }
        }
    }

    fn step(&mut self, progress: &Progress) {
        match progress {
            Progress::Sent(sent) => {
                if let Self::Bars { upload: Some(upload), .. } = self {
                    upload.set_position(*sent);
                }
            }
            Progress::Said(value) => {
                // What a newer node says besides is not for us.
                let Ok(said) = serde_json::from_value::<PublishProgress>(value.clone()) else { return };
                self.said(&said);
            }
        }
    }

    fn said(&mut self, said: &PublishProgress) {
        let PublishProgress { broker, stage, sent, size, detail } = said;
        match self {
            Self::Json => {
                // Where nobody reads any more there is nobody to tell.
                let _ = writeln!(std::io::stdout(), "{}", serde_json::json!({ "progress": said }));
            }
            Self::Lines { shown } => {
                // A line for each stage, not for each piece.
                if shown.insert(broker.clone(), stage.clone()).as_ref() != Some(stage) {
                    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                    let _ = writeln!(std::io::stderr(), "{broker}: {stage}{detail}");
                }
            }
            Self::Bars { all, upload, brokers } => {
                if let Some(upload) = upload {
                    upload.set_position(upload.length().unwrap_or(0));
                    upload.finish_with_message("taken");
                }
                let bar = brokers.entry(broker.clone()).or_insert_with(|| {
                    let bar = all.add(bar(*size));
                    bar.set_prefix(broker.to_string());
                    bar.enable_steady_tick(Duration::from_millis(200));
                    bar
                });
                bar.set_position(if stage == "stored" { *size } else { *sent });
                bar.set_message(if detail.is_empty() { stage.clone() } else { format!("{stage}: {detail}") });
                if ["stored", "refused"].contains(&stage.as_str()) {
                    bar.abandon();
                }
            }
        }
    }

    fn end(self) {
        if let Self::Bars { upload, brokers, .. } = self {
            upload.into_iter().for_each(|bar| bar.abandon());
            brokers.into_values().for_each(|bar| bar.abandon());
        }
    }
}

fn bar(size: u64) -> ProgressBar {
    let template = "{prefix:>14} [{bar:30}] {bytes:>10}/{total_bytes} {wide_msg}";
    // A template that does not parse leaves the usual style.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style.progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(stages: &[&str]) -> Published {
        let brokers = stages.iter().enumerate().map(|(index, stage)| PublishProgress {
            broker: NodeId::new(format!("bk-{index}")).unwrap(),
            stage: (*stage).into(),
            sent: 0,
            size: 7,
            detail: String::new(),
        });
        Published {
            model: trireme_core::ModelName::new("MD-01").unwrap(),
            version: "1.3".parse().unwrap(),
            digest: trireme_core::Digest([7; 32]),
            size: 7,
            brokers: brokers.collect(),
        }
    }

    #[test]
    fn the_exit_code_says_whether_all_stored_one_refused_or_one_is_pending() {
        assert_eq!(outcome(&published(&["stored", "stored"])), exit::OK);
        assert_eq!(outcome(&published(&["stored", "retrying"])), exit::PENDING);
        assert_eq!(outcome(&published(&["retrying", "refused"])), exit::REFUSED);
        assert_eq!(outcome(&published(&[])), exit::PENDING);
        let conflict = PublishError::Refused(Fault::new(code::CONFLICT, "other bytes"));
        assert_eq!(conflict.exit(), exit::REFUSED);
        assert_eq!(PublishError::Refused(Fault::new(code::NETWORK, "no node")).exit(), exit::OTHER);
    }
}
