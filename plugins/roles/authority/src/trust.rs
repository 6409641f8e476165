//! What is trusted besides the roots, for whoever asks: revocation lists and link certificates. A question can wait
//! for news, so that a revocation is known everywhere at once.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::api::{Roots, Taught, Teach, TrustAnswer, TrustQuestion};
use trireme_core::role::{LARGEST_CALL, Request, RequestId, Stamp, TrustItem, code};
use trireme_core::{Digest, Fault, Host, json};

use crate::config::Config;
use crate::{Reply, WAITING};

/// The longest that a question waits.
const LONGEST_WAIT_MS: u64 = 20_000;
/// The most hexadecimal characters of an answer, unless a single item has more.
const LARGEST_ANSWER: usize = 60 * 1024;
/// The most that fits a call at all, less the answer's frame.
const LARGEST_ITEM: usize = LARGEST_CALL - 64;
/// The most answers, and characters of them, in one transaction; the others follow in the next.
const MOST_ANSWERS: usize = 512;
const MOST_CHARACTERS: usize = 4 * 1024 * 1024;

/// The questions that wait. They end with the connections that they came over, so no restart needs them.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    waiting: Vec<Waiting>,
    /// When the timer rings.
    wakes_ms: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    request: RequestId,
    /// Of what the asker has, that which is known here.
    have: Vec<TrustItem>,
    until_ms: u64,
}

impl Trust {
    /// How many questions wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// "What is newer than this?"
    pub(crate) fn question(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        config: &Config,
        request: &Request,
    ) -> Result<Reply, Fault> {
        let mut question: TrustQuestion = json::read(&request.body, "the question for trust items")?;
        if question.have.len() > TrustQuestion::MOST {
            let detail = format!("at most {} items can be named as known", TrustQuestion::MOST);
            return Err(Fault::new(code::LIMIT, detail));
        }
        let mut shelf = Shelf::new(host);
        let answer = shelf.newer(host, &question.have);
        let full = self.waiting.len() >= config.waiting as usize;
        if !answer.items.is_empty() || question.wait_ms == 0 || full {
            return Ok(Reply::Now(json::write(&answer)));
        }
        question.have.retain(|item| shelf.knows(&item.id));
        let until_ms = now.monotonic_ms.saturating_add(question.wait_ms.min(LONGEST_WAIT_MS));
        self.waiting.push(Waiting { request: request.id, have: question.have, until_ms });
        if self.wakes_ms.is_none_or(|wakes_ms| until_ms < wakes_ms) {
            self.wake(host, now, Some(until_ms));
        }
        Ok(Reply::Later)
    }

    /// Answers the questions for which there is news, and those that have waited long enough.
    pub(crate) fn answer(&mut self, host: &mut dyn Host, now: Stamp) {
        let mut shelf = Shelf::new(host);
        let (mut answers, mut characters) = (0, 0);
        let mut left = Vec::new();
        let mut again = false;
        for waiting in core::mem::take(&mut self.waiting) {
            if answers >= MOST_ANSWERS || characters >= MOST_CHARACTERS {
                again = true;
                left.push(waiting);
                continue;
            }
            let answer = shelf.newer(host, &waiting.have);
            if answer.items.is_empty() && waiting.until_ms > now.monotonic_ms {
                left.push(waiting);
                continue;
            }
            answers += 1;
            characters += answer.items.iter().map(String::len).sum::<usize>();
            host.reply(waiting.request, Ok(json::write(&answer)));
        }
        self.waiting = left;
        let next = self.waiting.iter().map(|waiting| waiting.until_ms).min();
        let next = if again { Some(now.monotonic_ms) } else { next };
        if next != self.wakes_ms {
            self.wake(host, now, next);
        }
    }

    /// The timer rang.
    pub(crate) fn woken(&mut self, host: &mut dyn Host, now: Stamp) {
        self.wakes_ms = None;
        self.answer(host, now);
    }

    fn wake(&mut self, host: &mut dyn Host, now: Stamp, at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => host.arm(WAITING, at_ms.saturating_sub(now.monotonic_ms).max(1)),
            None => host.disarm(WAITING),
        }
        self.wakes_ms = at_ms;
    }
}

/// The items that there are, each written once however many ask.
struct Shelf(Vec<(TrustItem, Option<String>)>);

impl Shelf {
    fn new(host: &dyn Host) -> Self {
        Self(host.trust_items().into_iter().map(|item| (item, None)).collect())
    }

    fn knows(&self, id: &Digest) -> bool {
        self.0.iter().any(|(item, _)| item.id == *id)
    }

    /// What is newer than `have`, in the order in which it is to be learned.
    fn newer(&mut self, host: &dyn Host, have: &[TrustItem]) -> TrustAnswer {
        let mut answer = TrustAnswer::default();
        let mut size = 0;
        for (item, text) in &mut self.0 {
            if have.iter().any(|known| known.id == item.id && known.number >= item.number) {
                continue;
            }
            let text = text.get_or_insert_with(|| {
                host.trust_item(&item.id).map(|bytes| json::hexed(&bytes)).unwrap_or_default()
            });
            if text.is_empty() || text.len() > LARGEST_ITEM {
                continue;
            }
            size += text.len() + 3;
            if size > LARGEST_ANSWER && !answer.items.is_empty() {
                answer.more = true;
                break;
            }
            answer.items.push(text.clone());
        }
        answer
    }
}

/// The roots; whoever asks compares fingerprints.
pub(crate) fn roots(host: &dyn Host) -> Vec<u8> {
    json::write(&Roots { roots: host.roots().iter().map(|root| json::hexed(root)).collect() })
}

/// "Learn this, and pass it on": what a root signed offline.
pub(crate) fn teach(host: &mut dyn Host, request: &Request) -> Result<Vec<u8>, Fault> {
    let Teach { items } = json::read(&request.body, "the trust items")?;
    if items.len() > TrustQuestion::MOST {
        let detail = format!("at most {} items can be taught at a time", TrustQuestion::MOST);
        return Err(Fault::new(code::LIMIT, detail));
    }
    let mut news = 0;
    for (number, item) in (1..).zip(&items) {
        let name = format!("item {number}");
        let item = json::hexadecimal(item, LARGEST_CALL / 2, &name)?;
        let learned = host.learn(&item);
        let learned =
            learned.map_err(|fault| Fault { detail: format!("{name}: {}", fault.detail), ..fault })?;
        news += u32::from(learned);
    }
    host.audit(&format!("was taught {} trust items, {news} of them news", items.len()));
    Ok(json::write(&Taught { news }))
}
