//! Access rules and users of a front while it runs: [`Access`] is what counts at a moment, [`AccessControl`] switches it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use trireme_mqtt::access::{Permits, Principal, Rules};

use super::flood::Flood;
use crate::guests::Guests;

/// The most users.
pub const MOST_USERS: usize = 10_000;
/// The longest user name, in bytes.
pub const LONGEST_NAME: usize = 64;
/// The longest password, in bytes.
pub const LONGEST_PASSWORD: usize = 1024;
/// The most memory that checking a password may take, in KiB, and the most passes.
const COST: (u32, u32) = (64 * 1024, 10);
/// Passwords that are checked at a time, each on a thread of its own.
const AT_A_TIME: usize = 2;
/// Passwords that may wait to be checked, and those of one address among them.
const WAITING: (usize, usize) = (64, 16);
/// Wrong passwords of one address, and in all, in a minute; each is paid back over time.
const FAILURES: (u32, u32) = (10, 1000);
/// A hash of the usual cost that no password has.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// How often files are looked at.
pub const RELOAD_EVERY: Duration = Duration::from_secs(2);

/// Who may do what.
#[derive(Debug, Default)]
pub struct Access {
    /// Without any, everybody may do everything with ordinary messages.
    pub rules: Option<Rules>,
    /// Without any, names and passwords of users mean nothing.
    pub users: Option<Users>,
    /// Whether clients without user and certificate are turned away. Gateways and manufacturers that come without TLS
    /// are such clients.
    pub no_strangers: bool,
}

/// Users and the hashes of their passwords.
#[derive(Default)]
pub struct Users(HashMap<String, PasswordHash>);

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

impl Users {
    /// Reads lines of the form `name:$argon2id$…`; empty ones, and those that begin with `#`, say nothing.
    ///
    /// # Errors
    /// Which line is wrong, and why; never what is in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("line {number}: {what}");
            let (name, hash) = line
                .split_once(':')
                .ok_or_else(|| wrong("expected name:hash, as `trireme passwd` writes it"))?;
            if !is_user_name(name) {
                return Err(wrong("a user's name has 1 to 64 of the characters A-Z a-z 0-9 . _ - @"));
            }
            let hash = PasswordHash::new(hash)
                .map_err(|_| wrong("the hash is none; make it with `trireme passwd`"))?;
            judge(&hash).map_err(|what| wrong(&what))?;
            if users.insert(name.to_owned(), hash).is_some() {
                return Err(wrong("the user stands there twice"));
            }
            if users.len() > MOST_USERS {
                return Err(wrong(&format!("more than {MOST_USERS} users")));
            }
        }
        Ok(Self(users))
    }
}

/// Whether this can be a user's name.
#[must_use]
pub fn is_user_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@'))
}

/// Hashes a password, as [`Users::parse`] reads it: argon2id with 19 MiB and two passes (OWASP), a random salt.
///
/// # Errors
/// The system gives no random bytes.
pub fn hash_password(password: &[u8]) -> Result<String, String> {
    let hash: Result<PasswordHash, _> = Argon2::default().hash_password(password);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

/// Nobody's hash may cost more than the broker can bear.
fn judge(hash: &PasswordHash) -> Result<(), String> {
    if hash.algorithm.as_str() != Algorithm::Argon2id.as_str() {
        return Err("only argon2id is taken; make the hash with `trireme passwd`".into());
    }
    let params =
        Params::try_from(hash).map_err(|error| format!("the hash's parameters are wrong: {error}"))?;
    if params.m_cost() > COST.0 || params.t_cost() > COST.1 || hash.hash.is_none() {
        return Err(format!("the hash costs more than {} MiB and {} passes", COST.0 / 1024, COST.1));
    }
    Ok(())
}

/// What counts now; clones are one. Files behind it are watched by [`watch`].
#[derive(Clone, Debug, Default)]
pub struct AccessControl(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    generation: AtomicU64,
    changed: watch::Sender<()>,
    access: RwLock<Arc<Access>>,
    /// Why files that changed do not count.
    problem: RwLock<Option<String>>,
}

impl AccessControl {
    /// With this to begin with.
    #[must_use]
    pub fn new(access: Access) -> Self {
        let control = Self::default();
        control.switch(access);
        control
    }

    /// From now on this: connections that would not be let in any more end, and for the others it counts from their
    /// next packet on.
    pub fn switch(&self, access: Access) {
        *self.0.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
        *self.0.problem.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.generation.fetch_add(1, Ordering::Release);
        self.0.changed.send_replace(());
    }

    /// What was to take effect does not, for this reason.
    pub fn fails(&self, why: String) {
        *self.0.problem.write().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Why what is in the files does not count, if it does not.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.0.problem.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn now(&self) -> Arc<Access> {
        self.0.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sees every [`Self::switch`] from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }
}

/// Files that access is read from.
pub trait AccessSource: Send + Sync {
    /// Something that is another when the files are: times and sizes, for example.
    fn stamp(&self) -> String;
    /// Reads them. May block.
    ///
    /// # Errors
    /// What is wrong, with file and place.
    fn load(&self) -> Result<Access, String>;
}

/// Looks at the files now and then; what does not parse changes nothing and is told. Files that could not be read or
/// understood are tried again each time: what was wrong may have been a disk, and leave no trace on them.
pub(super) fn watch(
    control: AccessControl,
    source: Arc<dyn AccessSource>,
    mut seen: String,
    every: Duration,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut wrong: Option<String> = None;
        loop {
            tokio::time::sleep(every).await;
            let (control, source) = (control.clone(), source.clone());
            let (before, told) = (seen.clone(), wrong.clone());
            // Files may be on a slow disk.
            let looked = tokio::task::spawn_blocking(move || look(&control, &*source, &before, told));
            if let Ok(looked) = looked.await {
                (seen, wrong) = looked;
            }
        }
    })
}

/// Looks once; gives the files' stamp, and what is wrong with them. `told`: what was wrong with them before.
fn look(
    control: &AccessControl,
    source: &dyn AccessSource,
    before: &str,
    told: Option<String>,
) -> (String, Option<String>) {
    let stamp = source.stamp();
    if stamp == before && told.is_none() {
        return (stamp, None);
    }
    let wrong = match source.load() {
        Ok(access) => {
            tracing::info!("access rules and users were read anew");
            control.switch(access);
            None
        }
        Err(why) => {
            if told.as_ref() != Some(&why) {
                tracing::error!("the access rules in force stay: {why}");
            }
            control.fails(why.clone());
            Some(why)
        }
    };
    (stamp, wrong)
}

/// How the check of a user and password went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    Right,
    Wrong,
    /// The address has been wrong too often.
    TooOften,
    /// So many wait that this one would not be served in time.
    Busy,
}

/// Checks passwords: few at a time, off the threads that serve connections.
pub(super) struct Doorman {
    seats: Arc<Semaphore>,
    waiting: Semaphore,
    /// By address, of those that wait.
    shares: Guests,
    failures: Arc<Flood>,
    /// Compared with where there is no such user: names are not to be found out by the time that it takes.
    nobody: Option<PasswordHash>,
}

impl Doorman {
    pub(super) fn new() -> Self {
        Self {
            seats: Arc::new(Semaphore::new(AT_A_TIME)),
            waiting: Semaphore::new(WAITING.0),
            shares: Guests::new(WAITING.1),
            failures: Arc::new(Flood::new(FAILURES.0, FAILURES.1, Duration::from_secs(60))),
            nobody: PasswordHash::new(NOBODY).ok(),
        }
    }

    pub(super) async fn check(
        &self,
        users: &Users,
        address: std::net::IpAddr,
        name: &str,
        password: &[u8],
    ) -> Login {
        if self.failures.is_spent(address, Instant::now()) {
            return Login::TooOften;
        }
        let Some(_share) = self.shares.enter(address) else { return Login::Busy };
        let (Ok(_waits), Some(hash)) =
            (self.waiting.try_acquire(), users.0.get(name).or(self.nobody.as_ref()).cloned())
        else {
            return Login::Busy;
        };
        let known = users.0.contains_key(name) && password.len() <= LONGEST_PASSWORD;
        let Ok(seat) = Arc::clone(&self.seats).acquire_owned().await else { return Login::Busy };
        // Many may have come together.
        if self.failures.is_spent(address, Instant::now()) {
            return Login::TooOften;
        }
        let password = zeroize::Zeroizing::new(password.get(..LONGEST_PASSWORD).unwrap_or(password).to_vec());
        let failures = Arc::clone(&self.failures);
        let checked = tokio::task::spawn_blocking(move || {
            let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default());
            let right = argon.verify_password(&password, &hash).is_ok() && known;
            // Counted before the next one is checked, and also where the client has not waited for the answer.
            if !right {
                failures.take(address, Instant::now());
            }
            // Given up here, not when a client that was checked has left: so many run, and no more.
            drop(seat);
            right
        });
        if checked.await.unwrap_or(false) { Login::Right } else { Login::Wrong }
    }
}

/// What a client was let in on.
#[derive(Clone)]
pub(super) enum Pass {
    /// A certificate: no file says more about it.
    Certificate,
    /// A user's name, and the hash that the password was checked against.
    User(Arc<(String, PasswordHash)>),
    /// Nothing; whether a name came with it, which meant nothing then.
    Nothing { named: bool },
}

impl Pass {
    /// Whether it would be let in under this.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn judge(&self, access: &Access) -> Result<(), String> {
        match self {
            Self::User(known) => {
                let (name, hash) = &**known;
                if access.users.as_ref().and_then(|users| users.0.get(name)) == Some(hash) {
                    return Ok(());
                }
                Err(format!("user {name} is there no more, or has another password"))
            }
            Self::Nothing { .. } if access.no_strangers => Err(STRANGER.to_owned()),
            Self::Nothing { named: true } if access.users.is_some() => {
                Err("the client gave a name before there were users, and its password was not checked"
                    .to_owned())
            }
            Self::Nothing { .. } | Self::Certificate => Ok(()),
        }
    }
}

/// Why strangers are turned away.
pub(super) const STRANGER: &str = "the client has neither a user's password nor a certificate";

/// One client's part in it, while its connection lasts.
pub(super) struct Standing {
    control: AccessControl,
    principal: Principal,
    client_id: Option<String>,
    pass: Pass,
    generation: u64,
    /// `None`: there are no rules.
    permits: Option<Permits>,
    /// Why it would not be let in any more.
    over: Option<String>,
}

impl Standing {
    /// Of a client that was let in under this. `named`: it gave a user's name.
    pub(super) fn new(
        control: AccessControl,
        access: &Access,
        principal: Principal,
        client_id: Option<String>,
        named: bool,
    ) -> Self {
        let hash = |name: &String| access.users.as_ref()?.0.get(name).cloned();
        let pass = match &principal {
            Principal::Node { .. } => Pass::Certificate,
            Principal::User(name) => match hash(name) {
                Some(hash) => Pass::User(Arc::new((name.clone(), hash))),
                None => Pass::Nothing { named },
            },
            Principal::Anonymous => Pass::Nothing { named },
        };
        // Made anew at its first packet.
        let generation = u64::MAX;
        Self { control, principal, client_id, pass, generation, permits: None, over: None }
    }

    pub(super) fn pass(&self) -> &Pass {
        &self.pass
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What the client may do now; `Ok(None)`: anything.
    ///
    /// # Errors
    /// It would not be let in any more.
    pub(super) fn permits(&mut self) -> Result<Option<&Permits>, String> {
        let generation = self.control.generation();
        if generation != self.generation {
            let access = self.control.now();
            self.generation = generation;
            self.over = self.pass.judge(&access).err();
            self.permits =
                access.rules.as_ref().map(|rules| rules.of(&self.principal, self.client_id.as_deref()));
        }
        match &self.over {
            Some(reason) => Err(reason.clone()),
            None => Ok(self.permits.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_what_is_wrong_is_named_without_what_it_says() {
        let hash = hash_password(b"secret").unwrap();
        let users = Users::parse(&format!("# people\n\nalice:{hash}\nb.o-b_@x:{hash}\n")).unwrap();
        assert_eq!(users.0.len(), 2);
        let dear = hash.replace("m=19456", "m=99999999");
        for (text, why) in [
            (format!("alice:{hash}\nalice:{hash}"), "line 2: the user stands there twice"),
            ("alice".into(), "line 1: expected name:hash"),
            ("alice:secret".into(), "line 1: the hash is none"),
            (format!("a b:{hash}"), "line 1: a user's name"),
            (format!("a/b:{hash}"), "line 1: a user's name"),
            (format!(":{hash}"), "line 1: a user's name"),
            (format!("alice:{dear}"), "line 1: the hash costs more than 64 MiB"),
            (format!("alice:{}", hash.replace("argon2id", "argon2d")), "line 1: only argon2id"),
        ] {
            let error = Users::parse(&text).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_password_is_checked_and_an_address_that_guesses_is_stopped() {
        let users = Users::parse(&format!("alice:{}", hash_password(b"right").unwrap())).unwrap();
        let (doorman, guesser) = (Doorman::new(), "192.0.2.1".parse().unwrap());
        let check =
            async |address, name: &str, password: &[u8]| doorman.check(&users, address, name, password).await;
        assert_eq!(check(guesser, "alice", b"right").await, Login::Right);
        for number in 0..FAILURES.0 {
            let name = if number % 2 == 0 { "alice" } else { "nobody" };
            assert_eq!(check(guesser, name, b"wrong").await, Login::Wrong);
        }
        assert_eq!(check(guesser, "alice", b"right").await, Login::TooOften);
        assert_eq!(check("192.0.2.2".parse().unwrap(), "alice", b"right").await, Login::Right);
    }

    #[tokio::test]
    async fn one_address_takes_no_more_than_its_share_of_the_places_where_passwords_wait() {
        let users = Arc::new(Users::parse(&format!("alice:{}", hash_password(b"right").unwrap())).unwrap());
        let doorman = Arc::new(Doorman::new());
        // Nobody is served for the moment.
        let seats = Arc::clone(&doorman.seats).acquire_many_owned(AT_A_TIME as u32).await.unwrap();
        let check = |address: &str, password: &'static [u8]| {
            let (users, doorman, address) = (users.clone(), doorman.clone(), address.parse().unwrap());
            tokio::spawn(async move { doorman.check(&users, address, "alice", password).await })
        };
        let crowd: Vec<_> = (0..2 * WAITING.0).map(|_| check("192.0.2.1", b"wrong")).collect();
        let mut answers = Vec::new();
        // Those without a place are told at once.
        for waiting in crowd.into_iter().skip(WAITING.1) {
            answers.push(waiting.await.unwrap());
        }
        assert!(answers.iter().all(|answer| *answer == Login::Busy));
        let other = check("192.0.2.2", b"right");
        drop(seats);
        assert_eq!(other.await.unwrap(), Login::Right);
    }

    #[test]
    fn who_would_not_be_let_in_any_more_is_over() {
        let (stranger, named) = (Pass::Nothing { named: false }, Pass::Nothing { named: true });
        let users = || Some(Users::parse("").unwrap());
        let open = Access::default();
        let with_users = Access { users: users(), ..Access::default() };
        let closed = Access { no_strangers: true, users: users(), ..Access::default() };
        for (pass, access, stays) in [
            (&stranger, &open, true),
            (&named, &open, true),
            (&stranger, &with_users, true),
            (&named, &with_users, false),
            (&stranger, &closed, false),
            (&named, &closed, false),
            (&Pass::Certificate, &closed, true),
        ] {
            assert_eq!(pass.judge(access).is_ok(), stays);
        }
    }

    /// Files that cannot be read for a while.
    struct Flaky(std::sync::Mutex<Result<(), String>>);

    impl AccessSource for Flaky {
        fn stamp(&self) -> String {
            "always the same".into()
        }

        fn load(&self) -> Result<Access, String> {
            self.0.lock().unwrap().clone().map(|()| Access { no_strangers: true, ..Access::default() })
        }
    }

    #[test]
    fn files_that_could_not_be_read_are_tried_again_though_they_did_not_change() {
        let control = AccessControl::default();
        let source = Flaky(std::sync::Mutex::new(Err("the disk does not answer".into())));
        let (seen, wrong) = look(&control, &source, "before", None);
        assert_eq!(control.problem().as_deref(), Some("the disk does not answer"));
        *source.0.lock().unwrap() = Ok(());
        let (seen, wrong) = look(&control, &source, &seen, wrong);
        assert!(control.now().no_strangers);
        assert_eq!((control.problem(), &wrong), (None, &None));
        // And from then on only when they change.
        *source.0.lock().unwrap() = Err("not to be read".into());
        assert_eq!(look(&control, &source, &seen, wrong).1, None);
    }

    #[test]
    fn a_user_that_is_gone_or_has_another_password_is_over() {
        let access = |users: &str| Access { users: Some(Users::parse(users).unwrap()), ..Access::default() };
        let (one, two) = (hash_password(b"one").unwrap(), hash_password(b"two").unwrap());
        let control = AccessControl::new(access(&format!("alice:{one}")));
        let mut standing =
            Standing::new(control.clone(), &control.now(), Principal::User("alice".into()), None, true);
        assert!(standing.permits().is_ok());
        control.switch(access(&format!("alice:{one}\nbob:{two}")));
        assert!(standing.permits().is_ok());
        control.switch(access(&format!("alice:{two}")));
        assert!(standing.permits().is_err());
        control.switch(access(""));
        assert!(standing.permits().is_err());
    }
}
