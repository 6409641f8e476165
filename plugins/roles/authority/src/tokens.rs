//! Tokens: the administrator's word that a node may have its first certificate. The secret is shown once and kept
//! nowhere; only its hash is.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use trireme_core::api::{Page, TokenMade, TokenStatus, TokenWish, Tokens, WithdrawToken};
use trireme_core::role::{Request, Stamp, Subject, code};
use trireme_core::{Digest, Fault, Host, ModelName, NodeId, RoleKind, TopicName, formula, json};

use crate::config::{self, Config};
use crate::{paging, proven, register};

pub(crate) const PREFIX: &str = "token/";
/// The index of tokens that wait for their nodes.
pub(crate) const OPEN: &str = "open/";
/// The most tokens, used ones included.
const MOST: usize = 65_536;
/// The most tokens that wait for one node.
const MOST_OF_ONE: usize = 16;
/// Bytes of what precedes the secret, and of the secret.
const ID: u32 = 4;
const SECRET: u32 = 16;
const DAY: u32 = 24 * 60;
/// The longest life of a token, and what a clock may be corrected by.
pub(crate) const LONGEST_MS: u64 = 31 * crate::DAY_MS;

/// What is kept of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    /// `H(secret)`.
    pub(crate) hash: Digest,
    pub(crate) role: RoleKind,
    pub(crate) id: NodeId,
    pub(crate) topic: Option<TopicName>,
    pub(crate) models: Vec<ModelName>,
    pub(crate) make_key: bool,
    pub(crate) expires_ms: u64,
    pub(crate) state: State,
    /// Wrong secrets so far.
    pub(crate) tries: u32,
    /// `H(request)` of the request that used it.
    pub(crate) request: Option<Digest>,
    /// What it was used for: the certificate with its issuers, in hexadecimal.
    pub(crate) certificate: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Open,
    Used,
    Withdrawn,
}

impl Token {
    pub(crate) fn subject(&self) -> Subject {
        Subject { role: self.role, id: self.id.clone() }
    }

    fn status(&self, token: &str, now_ms: Option<u64>) -> TokenStatus {
        let over = now_ms.is_some_and(|now_ms| now_ms >= self.expires_ms);
        let state = match self.state {
            State::Open if over => "expired",
            State::Open => "open",
            State::Used => "used",
            State::Withdrawn => "withdrawn",
        };
        let (role, id, make_key, expires_ms) = (self.role, self.id.clone(), self.make_key, self.expires_ms);
        TokenStatus { token: token.into(), role, id, make_key, expires_ms, state: state.into() }
    }
}

/// A token by what precedes its secret.
pub(crate) fn get(host: &dyn Host, token: &str) -> Option<Token> {
    json::read(&host.get(&format!("{PREFIX}{token}"))?, "a token").ok()
}

/// Keeps a token, and the index with it.
pub(crate) fn put(host: &mut dyn Host, token: &str, record: &Token) {
    let open = open_key(&record.subject(), token);
    if record.state == State::Open {
        host.put(&open, record.expires_ms.to_be_bytes().into());
    } else {
        host.delete(&open);
    }
    host.put(&format!("{PREFIX}{token}"), json::write(record));
}

/// Forgets a token.
pub(crate) fn forget(host: &mut dyn Host, token: &str, record: &Token) {
    host.delete(&open_key(&record.subject(), token));
    host.delete(&format!("{PREFIX}{token}"));
}

/// Whether a text can be what precedes a secret.
pub(crate) fn is_id(text: &str) -> bool {
    is_hexadecimal(text, ID)
}

/// Whether a text can be a secret.
pub(crate) fn is_secret(text: &str) -> bool {
    is_hexadecimal(text, SECRET)
}

/// How many tokens wait for their nodes.
pub(crate) fn open(host: &dyn Host, now_ms: Option<u64>) -> u32 {
    let mut count = 0;
    paging::walk(host, OPEN, |key| {
        let expires_ms = host.get(key).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        count += u32::from(now_ms.is_none_or(|now_ms| now_ms < expires_ms));
        true
    });
    count
}

/// "Make a token for this node."
pub(crate) fn make(
    host: &mut dyn Host,
    now: Stamp,
    config: &Config,
    request: &Request,
) -> Result<Vec<u8>, Fault> {
    let wish: TokenWish = json::read(&request.body, "the wish for a token")?;
    let now_ms = proven(now)?;
    let minutes = wish.minutes.unwrap_or(DAY);
    if !(1..=30 * DAY).contains(&minutes) {
        return Err(Fault::new(code::LIMIT, "a token is good for 1 minute to 30 days (43200 minutes)"));
    }
    let subject = Subject { role: wish.role, id: wish.id.clone() };
    let (topic, models) = granted(config, &subject, &wish)?;
    register::free(host, config, now_ms, &subject, topic.as_ref(), &models)?;
    room(host, &subject)?;

    let token = unused(host)?;
    let secret = json::hexed(&host.random(SECRET));
    let expires_ms = now_ms.saturating_add(u64::from(minutes) * 60_000);
    let record = Token {
        hash: host.hash(&formula::enrol(secret.as_bytes())),
        role: wish.role,
        id: wish.id,
        topic,
        models,
        make_key: wish.make_key,
        expires_ms,
        state: State::Open,
        tries: 0,
        request: None,
        certificate: String::new(),
    };
    put(host, &token, &record);
    let mode = if record.make_key { ", whose key is made here" } else { "" };
    host.audit(&format!("made token {token} for {subject}{mode}, good for {minutes} minutes"));
    let roots = host.roots().iter().map(|root| json::hexed(root)).collect();
    Ok(json::write(&TokenMade { token: format!("{token}.{secret}"), expires_ms, roots }))
}

/// Tokens, page by page.
pub(crate) fn list(host: &dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    let page: Page = json::read(&request.body, "the question for a page")?;
    let (tokens, next) = paging::page(host, PREFIX, page.after.as_deref(), |key| {
        let token = key.strip_prefix(PREFIX)?;
        Some(get(host, token)?.status(token, now.unix_ms))
    })?;
    Ok(json::write(&Tokens { tokens, next }))
}

/// "This token is void."
pub(crate) fn withdraw(host: &mut dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    let WithdrawToken { token } = json::read(&request.body, "the withdrawal")?;
    let record = get(host, &token).filter(|_| is_id(&token));
    let mut record = record.ok_or_else(|| {
        Fault::new(code::UNKNOWN, "no token begins so; name the eight characters that precede its dot")
    })?;
    if record.state == State::Used {
        let detail = format!(
            "token {token} was used by {}; to undo that, revoke what the node was certified",
            record.subject()
        );
        return Err(Fault::new(code::UNEXPECTED, detail));
    }
    record.state = State::Withdrawn;
    put(host, &token, &record);
    host.audit(&format!("withdrew token {token} of {}", record.subject()));
    Ok(json::write(&record.status(&token, now.unix_ms)))
}

/// Withdraws what waits for a node; gives how many those were.
pub(crate) fn withdraw_of(host: &mut dyn Host, subject: &Subject) -> usize {
    let tokens = waiting_for(host, subject);
    for token in &tokens {
        if let Some(record) = get(host, token) {
            put(host, token, &Token { state: State::Withdrawn, ..record });
            host.audit(&format!("withdrew token {token} of {subject}: what it was certified is revoked"));
        }
    }
    tokens.len()
}

/// What a manufacturer's certificate is to say: the wish, else the configuration, and never against that.
fn granted(
    config: &Config,
    subject: &Subject,
    wish: &TokenWish,
) -> Result<(Option<TopicName>, Vec<ModelName>), Fault> {
    if matches!(subject.role, RoleKind::Authority | RoleKind::Sensor) {
        let detail = match subject.role {
            RoleKind::Sensor => "a sensor has no certificate; provision its secure element instead",
            _ => "an authority is not enrolled with another; its certificate is made where its CA's key is",
        };
        return Err(Fault::new(code::FORBIDDEN, detail));
    }
    config.listed(subject)?;
    let (mut topic, mut models) = (wish.topic.clone(), wish.models.clone());
    if let Some(entry) = config.entry(subject).filter(|_| subject.role == RoleKind::Manufacturer) {
        let set = |models: &[ModelName]| models.iter().cloned().collect::<BTreeSet<_>>();
        let other_topic = topic.is_some() && topic != entry.topic;
        if other_topic || !models.is_empty() && set(&models) != set(&entry.models) {
            let detail = format!(
                "the register of the authority's configuration has another topic or other models for {subject}; \
                 change it there, or leave them out here"
            );
            return Err(Fault::new(code::CONFLICT, detail));
        }
        (topic, models) = (entry.topic.clone(), entry.models.clone());
    }
    config::scope(subject.role, topic.as_ref(), &models)?;
    Ok((topic, models))
}

fn room(host: &dyn Host, subject: &Subject) -> Result<(), Fault> {
    if waiting_for(host, subject).len() >= MOST_OF_ONE {
        let detail =
            format!("{MOST_OF_ONE} tokens wait for {subject} already; withdraw those that are not used");
        return Err(Fault::new(code::LIMIT, detail));
    }
    let mut count = 0;
    paging::walk(host, PREFIX, |_| {
        count += 1;
        count < MOST
    });
    if count < MOST {
        return Ok(());
    }
    Err(Fault::new(
        code::LIMIT,
        format!(
            "there are {MOST} tokens; they are dropped 30 days after their end, so wait or give shorter lives"
        ),
    ))
}

fn waiting_for(host: &dyn Host, subject: &Subject) -> Vec<String> {
    let prefix = open_key(subject, "");
    let keys = host.scan(&prefix, None, 1024);
    keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(Into::into).collect()
}

fn unused(host: &mut dyn Host) -> Result<String, Fault> {
    // Among 2^32 there is a free one at the first try, nearly always.
    for _ in 0..16 {
        let token = json::hexed(&host.random(ID));
        if host.get(&format!("{PREFIX}{token}")).is_none() {
            return Ok(token);
        }
    }
    Err(Fault::new(code::INTERNAL, "the host's random numbers repeat themselves"))
}

fn open_key(subject: &Subject, token: &str) -> String {
    format!("{OPEN}{}/{}/{token}", subject.role, subject.id)
}

fn is_hexadecimal(text: &str, bytes: u32) -> bool {
    text.len() == 2 * bytes as usize && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
