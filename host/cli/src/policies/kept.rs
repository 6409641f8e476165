//! A policy that a node asks: several instances, so that questions do not wait for one another, and always of the file
//! as it is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant as Moment, SystemTime, UNIX_EPOCH};

use trireme_core::Digest;
use trireme_node::{Decision, Policy, PolicyState, Script};

use super::workshop::{self, Instance, MakeError, Maker, Said, Workshop};
use crate::config::{PolicyConfig, PolicySource};

/// How often its file is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A policy of the configuration.
pub struct Kept {
    name: String,
    source: PolicySource,
    settings: Arc<str>,
    /// Those that it is configured for.
    hooks: Vec<String>,
    workshop: Arc<Workshop>,
    /// Instances that are kept.
    most: usize,
    force: RwLock<Force>,
    /// The file as it was looked at last; held by whoever looks.
    seen: Mutex<Option<Stamp>>,
    began: Moment,
    next_look_ms: AtomicU64,
    /// What is to be noted and was not asked for yet.
    news: Mutex<Vec<String>>,
}

/// What counts now.
#[derive(Default)]
struct Force {
    version: Option<Arc<Version>>,
    /// Why it is not what the file says.
    problem: Option<String>,
    /// What was read last, whether it could be loaded or not.
    last: Option<Digest>,
}

/// One version.
struct Version {
    digest: Digest,
    since_ms: u64,
    maker: Maker,
    idle: Mutex<Vec<Instance>>,
}

/// What tells that a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(file)?;
        Ok(Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Kept {
    /// Loads it. Where that does not work it denies until its file is mended.
    #[must_use]
    pub fn open(config: &PolicyConfig, hooks: Vec<String>, workshop: Arc<Workshop>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let kept = Self {
            name: config.name.clone(),
            source: config.source.clone(),
            settings: config.settings.as_str().into(),
            hooks,
            workshop,
            most: 2 * cores,
            force: RwLock::default(),
            seen: Mutex::new(None),
            began: Moment::now(),
            next_look_ms: AtomicU64::new(0),
            news: Mutex::default(),
        };
        match &kept.source {
            PolicySource::File(_) => kept.look(),
            PolicySource::Shipped(_) => kept.load(),
        }
        kept.look_again_later();
        kept
    }

    fn look_again_later(&self) {
        self.next_look_ms.store(self.now_ms().saturating_add(millis(LOOK_EVERY)), Ordering::Release);
    }

    fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// Whether it is this caller's turn to look at the file.
    fn is_due(&self) -> bool {
        let due = self.next_look_ms.load(Ordering::Acquire);
        let now = self.now_ms();
        let next = now.saturating_add(millis(LOOK_EVERY));
        now >= due
            && self.next_look_ms.compare_exchange(due, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the file's new version where it changed. Questions go on meanwhile, with the one before.
    fn look(&self) {
        let PolicySource::File(file) = &self.source else { return };
        // Whoever loads a large component for longer than a look is not helped by a second one.
        let Ok(mut seen) = self.seen.try_lock() else { return };
        let stamp = match Stamp::of(file) {
            Ok(stamp) if *seen == Some(stamp) => return,
            Ok(stamp) => Some(stamp),
            Err(error) => {
                *seen = None;
                return self.stays(&format!("{}: {error}", file.display()), None);
            }
        };
        let bytes = Workshop::read(&self.source);
        // Written to at this moment: the next look has all of it.
        if self.version().is_some() && Stamp::of(file).ok() != stamp {
            return;
        }
        *seen = stamp;
        self.take(bytes);
    }

    fn load(&self) {
        self.take(Workshop::read(&self.source));
    }

    fn take(&self, bytes: Result<Vec<u8>, MakeError>) {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return self.stays(&error.to_string(), None),
        };
        let digest = workshop::digest(&bytes, &self.settings);
        if self.version().is_some_and(|version| version.digest == digest) {
            return self.stays_well(digest);
        }
        match self.workshop.make_of(&self.source, &bytes, &self.settings, &self.hooks) {
            Ok((maker, first)) => self.takes_over(digest, maker, first),
            Err(error) => self.stays(&format!("{}: {error}", self.source), Some(digest)),
        }
    }

    fn takes_over(&self, digest: Digest, maker: Maker, first: Instance) {
        let (how, idle) = (maker.how(), Mutex::new(vec![first]));
        let version = Arc::new(Version { digest, since_ms: wall_ms(), maker, idle });
        let force = Force { version: Some(version), problem: None, last: Some(digest) };
        let before =
            std::mem::replace(&mut *self.force.write().unwrap_or_else(PoisonError::into_inner), force);
        let (name, source) = (&self.name, &self.source);
        match before.version {
            Some(old) => {
                tracing::info!(policy = name, old = %old.digest, new = %digest, "a new version is in force");
                self.tell(format!(
                    "policy {name}: version {} is replaced by {digest}, from {source}",
                    old.digest
                ));
            }
            None => {
                tracing::info!(policy = name, version = %digest, how, %source, "a policy is in force");
                self.tell(format!("policy {name}: version {digest} is in force, from {source}"));
            }
        }
    }

    /// What is there cannot be taken. It is told once.
    fn stays(&self, problem: &str, last: Option<Digest>) {
        let mut force = self.force.write().unwrap_or_else(PoisonError::into_inner);
        force.last = last.or(force.last);
        if force.problem.as_deref() == Some(problem) {
            return;
        }
        force.problem = Some(problem.to_owned());
        let (name, version) = (&self.name, force.version.as_ref().map(|version| version.digest));
        drop(force);
        match version {
            Some(version) => {
                tracing::error!(policy = name, problem, %version, "the file does not count; the version in force stays");
                self.tell(format!("policy {name}: version {version} stays in force: {problem}"));
            }
            None => {
                tracing::error!(
                    policy = name,
                    problem,
                    "the policy cannot be asked: it denies until this is mended"
                );
                self.tell(format!("policy {name}: cannot be asked, and denies: {problem}"));
            }
        }
    }

    /// The file says again what is in force.
    fn stays_well(&self, digest: Digest) {
        let mut force = self.force.write().unwrap_or_else(PoisonError::into_inner);
        force.last = Some(digest);
        if force.problem.take().is_some() {
            drop(force);
            self.tell(format!(
                "policy {}: version {digest} stays in force, as its file says again",
                self.name
            ));
        }
    }

    fn tell(&self, news: String) {
        lock(&self.news).push(news);
    }

    fn version(&self) -> Option<Arc<Version>> {
        self.force.read().unwrap_or_else(PoisonError::into_inner).version.clone()
    }

    fn broken(&self) -> Decision {
        let force = self.force.read().unwrap_or_else(PoisonError::into_inner);
        let problem = force.problem.as_deref().unwrap_or("it was not loaded");
        let why = format!("policy {} cannot be asked, which counts as no: {problem}", self.name);
        Decision::failure(force.last.unwrap_or(Digest([0; 32])), why)
    }

    fn ask(&self, version: &Version, hook: &str, question: &[u8]) -> Decision {
        let failure = |why: String| Decision::failure(version.digest, why);
        let Ok(question) = std::str::from_utf8(question) else {
            return failure("the question is no text, which counts as no".into());
        };
        let idle = lock(&version.idle).pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => match version.maker.instance() {
                Ok((instance, _)) => instance,
                Err(error) => return failure(format!("the policy failed, which counts as no: {error}")),
            },
        };
        let Said { verdict, line, column, failed } = instance.decide(hook, question);
        let mut idle = lock(&version.idle);
        if idle.len() < self.most {
            idle.push(instance);
        }
        Decision { verdict, policy: version.digest, line, column, failed }
    }
}

impl Policy for Kept {
    fn name(&self) -> &str {
        &self.name
    }

    fn decide(&self, hook: &str, question: &[u8]) -> Decision {
        match self.version() {
            Some(version) => self.ask(&version, hook, question),
            None => self.broken(),
        }
    }

    fn refresh(&self) -> Vec<String> {
        if self.is_due() {
            self.look();
        }
        std::mem::take(&mut *lock(&self.news))
    }

    fn state(&self) -> PolicyState {
        let force = self.force.read().unwrap_or_else(PoisonError::into_inner);
        let how = force.version.as_ref().map_or("not loaded", |version| version.maker.how());
        PolicyState {
            origin: format!("{} ({how})", self.source),
            version: force.version.as_ref().map(|version| version.digest),
            since_ms: force.version.as_ref().map_or(0, |version| version.since_ms),
            problem: force.problem.clone(),
        }
    }

    fn script(&self, version: &Digest) -> Option<Script> {
        let now = self.version().filter(|now| now.digest == *version)?;
        Some(Script { source: now.maker.script()?.clone(), settings: self.settings.clone() })
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn wall_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests;
