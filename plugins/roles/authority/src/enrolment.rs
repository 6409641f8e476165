//! 5.2, a node's first certificate: for whom the token is, whatever the request says.
//!
//! Whoever asks is told only that the token does not count; why, stands in the audit log. So nobody learns by asking
//! which tokens there are.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::api::{Enrol, Enrolled};
use trireme_core::role::{Certified, Described, Request, Stamp, code};
use trireme_core::{Fault, Host, Point, formula, json};

use crate::config::Config;
use crate::refusals::Refusals;
use crate::tokens::{self, State, Token};
use crate::{LARGEST_REQUEST, Reply, proven, register};

/// So many wrong secrets withdraw a token.
const MOST_TRIES: u32 = 10;

/// What a token is good for.
enum Admitted {
    /// A first certificate, under this token and its secret.
    First { token: String, secret: String, record: Token },
    /// The answer was lost on the way: the same one again.
    Again(Token),
}

/// "Here is my token."
pub(crate) fn enrol(
    host: &mut dyn Host,
    now: Stamp,
    config: &Config,
    refusals: &mut Refusals,
    request: &Request,
) -> Result<Reply, Fault> {
    let enrol: Enrol = json::read(&request.body, "the enrolment")?;
    let signing = enrol.request.as_deref();
    let signing = signing.map(|text| json::hexadecimal(text, LARGEST_REQUEST, "the certificate request"));
    let signing = signing.transpose()?;
    let now_ms = proven(now)?;
    match admit(host, now_ms, &enrol.token, signing.as_deref()) {
        Err(why) => {
            refusals.audit(host, now, &format!("refused an enrolment: {why}"));
            Ok(Reply::Refused(outward()))
        }
        Ok(Admitted::Again(record)) => {
            host.audit(&format!("gave {} its certificate again, as its token allows", record.subject()));
            Ok(Reply::Now(enrolled(host, record.certificate, None)))
        }
        Ok(Admitted::First { token, secret, record }) => {
            first(host, now_ms, config, &token, &secret, record.clone(), signing.as_deref()).or_else(
                |fault| {
                    // The token is right, so its holder may hear what is wrong. It stays open.
                    let subject = record.subject();
                    refusals.audit(
                        host,
                        now,
                        &format!("token {token} of {subject} did not lead far: {fault}"),
                    );
                    Ok(Reply::Refused(fault))
                },
            )
        }
    }
}

/// Why a token does not count, for the audit log.
fn admit(host: &mut dyn Host, now_ms: u64, given: &str, signing: Option<&[u8]>) -> Result<Admitted, String> {
    let parts = given.split_once('.').filter(|(id, secret)| tokens::is_id(id) && tokens::is_secret(secret));
    let (id, secret) = parts.ok_or("what was shown is no token")?;
    let mut record = tokens::get(host, id).ok_or_else(|| format!("there is no token {id}"))?;
    let subject = record.subject();
    if host.hash(&formula::enrol(secret.as_bytes())) != record.hash {
        return Err(wrong_secret(host, id, &mut record));
    }
    if record.state == State::Withdrawn {
        return Err(format!("token {id} of {subject} is withdrawn"));
    }
    if now_ms >= record.expires_ms {
        return Err(format!("token {id} of {subject} has expired"));
    }
    if record.expires_ms > now_ms.saturating_add(tokens::LONGEST_MS) {
        return Err(format!("token {id} of {subject} was made while the clock was wrong; make a new one"));
    }
    if record.state == State::Used {
        if !signing.is_some_and(|signing| is_of_the_same(host, &record, signing)) {
            return Err(format!(
                "ALARM: token {id} of {subject} was used before and is shown with another request; somebody else \
                 may have it: revoke what {subject} was certified, and make a new token"
            ));
        }
        if !still_counts(host, &record, now_ms) {
            return Err(format!("what {subject} was certified with token {id} is revoked"));
        }
        return Ok(Admitted::Again(record));
    }
    match (record.make_key, signing.is_some()) {
        (true, true) => {
            Err(format!("token {id} is for a key that the authority makes, and came with a request"))
        }
        (false, false) => {
            Err(format!("token {id} is for a key of {subject}'s own, and came without a request"))
        }
        _ => Ok(Admitted::First { token: id.into(), secret: secret.into(), record }),
    }
}

fn wrong_secret(host: &mut dyn Host, id: &str, record: &mut Token) -> String {
    let subject = record.subject();
    if record.state != State::Open {
        return format!("a wrong secret for token {id} of {subject}, which is not open any more");
    }
    record.tries += 1;
    let tries = record.tries;
    if tries >= MOST_TRIES {
        record.state = State::Withdrawn;
    }
    tokens::put(host, id, record);
    if tries < MOST_TRIES {
        return format!("a wrong secret for token {id} of {subject}, {tries} of {MOST_TRIES}");
    }
    format!(
        "ALARM: {MOST_TRIES} wrong secrets for token {id} of {subject}, which is withdrawn; make a new one"
    )
}

/// Whether a request is that of before, or another for its key: signatures with randomness make each one another. What
/// it gets is the certificate of before, which is no secret and of no use without the private key; so it is enough that
/// the key is in it.
fn is_of_the_same(host: &dyn Host, record: &Token, signing: &[u8]) -> bool {
    let names = |key: &Point| signing.windows(key.0.len()).any(|part| part == key.0);
    record.request == Some(host.hash(&formula::enrol(signing)))
        || made(host, record).is_ok_and(|made| names(&made.key))
}

/// What a token was used for.
fn made(host: &dyn Host, record: &Token) -> Result<Described, Fault> {
    let der = json::hexadecimal(&record.certificate, crate::LARGEST_CHAIN, "a certificate")?;
    host.describe(&der)
}

fn still_counts(host: &dyn Host, record: &Token, now_ms: u64) -> bool {
    let made = made(host, record);
    let entry = made.map(|made| register::get(host, &record.subject(), &register::written(&made.serial)));
    entry.is_ok_and(|entry| entry.is_some_and(|entry| register::is_live(&entry, now_ms)))
}

fn first(
    host: &mut dyn Host,
    now_ms: u64,
    config: &Config,
    token: &str,
    secret: &str,
    mut record: Token,
    signing: Option<&[u8]>,
) -> Result<Reply, Fault> {
    let subject = record.subject();
    // Another token for the same model may have come first.
    register::free(host, config, now_ms, &subject, record.topic.as_ref(), &record.models)?;
    let certified = Certified {
        subject: subject.clone(),
        topic: record.topic.clone(),
        models: record.models.clone(),
        not_after_ms: now_ms.saturating_add(config.certificate_ms()),
    };
    let issuer = register::issuer(host)?;
    let (certificate, key) = match signing {
        Some(signing) => (host.certify(signing, &certified)?, None),
        None => {
            let made = host.certify_new(&certified, secret.as_bytes())?;
            (made.certificate, Some(made.sealed_key))
        }
    };
    let serial = register::enter(host, &certificate, &certified, issuer)?;
    record.state = State::Used;
    if let Some(signing) = signing {
        record.request = Some(host.hash(&formula::enrol(signing)));
        record.certificate = json::hexed(&certificate);
    }
    tokens::put(host, token, &record);
    let days = config.certificate_days;
    host.audit(&format!("enrolled {subject} with token {token}: serial {serial}, valid {days} days"));
    Ok(Reply::Now(enrolled(host, json::hexed(&certificate), key)))
}

fn enrolled(host: &dyn Host, certificate: String, key: Option<String>) -> Vec<u8> {
    let roots = host.roots().iter().map(|root| json::hexed(root)).collect();
    json::write(&Enrolled { certificate, key, roots })
}

fn outward() -> Fault {
    Fault::new(
        code::FORBIDDEN,
        "this token does not count; ask the authority's administrator for a new one (`trireme authority token`)",
    )
}
