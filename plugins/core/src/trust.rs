//! Revocation lists and link certificates on their way from peer to peer, over the sealed sessions of tiers 1 and 2
//! and in both directions: so that who cannot reach the authority hears of a revocation all the same. Nobody is
//! trusted for it: every item is signed, and [`Host::learn`] verifies it.
//!
//! # Order of calls
//! 1. [`Relay::greet`] right after a session was agreed: "this is what I know" ([`Talk::TrustKnown`]).
//! 2. [`Relay::hear`] for every [`Talk::TrustKnown`] and [`Talk::Trust`] of the peer.
//! 3. [`Relay::pass_on`] after that, for the same link; for every link with a session where `hear` said that it was
//!    news, and on [`Event::TrustChanged`](crate::Event::TrustChanged). It sends what the peer is not known to have.
//!
//! A role calls `pass_on` for other links last in its handler and answers no fault after it: a dropped transaction
//! would take back what was sent, and not the sessions' counters.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::Digest;
use crate::exchange::Exchange;
use crate::message::{RESPONSE, Talk};
use crate::role::{Fault, Host, LinkId, TrustItem, code};

/// The largest item, in bytes: a list with its issuers' certificates.
pub const LARGEST_ITEM: usize = 48 * 1024;
/// The most items that a peer may send in one session.
pub const MOST_RECEIVED: u32 = 256;
/// The most items of one link that may be refused before the link is closed: an older peer, or one whose clock is
/// wrong, shall not lose its releases over it.
pub const MOST_REFUSED: u32 = 8;

/// What one handler may pass on: a transaction of the host is bounded. The rest follows with the role's next tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    bytes: usize,
    messages: usize,
    short: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: 2 * 1024 * 1024, messages: 1024, short: false }
    }
}

impl Budget {
    /// Whether something was left out.
    #[must_use]
    pub fn short(&self) -> bool {
        self.short
    }

    fn takes(&mut self, bytes: usize) -> bool {
        match (self.bytes.checked_sub(bytes), self.messages.checked_sub(1)) {
            (Some(bytes), Some(messages)) => (self.bytes, self.messages) = (bytes, messages),
            _ => self.short = true,
        }
        !self.short
    }
}

/// What one link has said and heard of trust.
#[derive(Debug, Default)]
pub struct Relay {
    /// What was known here when the session began, and said.
    told: Vec<TrustItem>,
    /// What the peer said that it knows.
    theirs: Option<Vec<TrustItem>>,
    /// What went over this session, either way.
    exchanged: BTreeMap<Digest, u64>,
    /// Items that came in this session.
    received: u32,
    /// Items of this link that were no good.
    refused: u32,
}

impl Relay {
    /// A session was agreed: tells the peer what is known here, also where that is nothing, so that it can send
    /// what it has.
    ///
    /// # Errors
    /// What [`Exchange::seal`] says.
    pub fn greet(&mut self, host: &mut dyn Host, link: LinkId, session: &mut Exchange) -> Result<(), Fault> {
        let mut told = host.trust_items();
        told.truncate(Talk::MOST_TRUST_ITEMS);
        let payload = session.seal(host, link, &Talk::TrustKnown(told.clone()))?;
        host.send(link, RESPONSE, payload);
        *self = Self { told, refused: self.refused, ..Self::default() };
        Ok(())
    }

    /// What the peer, named `from`, says of trust. Whether it was news, that others should hear too. What is no good
    /// is refused and on record.
    ///
    /// # Errors
    /// `limit` for a peer that sends more than [`MOST_RECEIVED`] items or more than [`MOST_REFUSED`] bad ones;
    /// `unexpected` for a message of another kind.
    pub fn hear(&mut self, host: &mut dyn Host, from: &dyn fmt::Display, talk: &Talk) -> Result<bool, Fault> {
        match talk {
            Talk::TrustKnown(known) if known.len() > Talk::MOST_TRUST_ITEMS => {
                let text = format!("it claims to know {} items", known.len());
                self.refuse(host, from, &Fault::new(code::LIMIT, text)).map(|()| false)
            }
            Talk::TrustKnown(known) => {
                self.theirs = Some(known.clone());
                Ok(false)
            }
            Talk::Trust(item) => self.take(host, from, item),
            _ => Err(Fault::new(code::UNEXPECTED, "that is not about trust")),
        }
    }

    /// Sends what the peer is not known to have, of `items` ([`Host::trust_items`], in its order).
    ///
    /// # Errors
    /// What [`Exchange::seal`] says: the link is of no more use.
    pub fn pass_on(
        &mut self,
        host: &mut dyn Host,
        link: LinkId,
        session: &mut Exchange,
        items: &[TrustItem],
        budget: &mut Budget,
    ) -> Result<(), Fault> {
        let lacking: Vec<&TrustItem> = items.iter().filter(|item| self.lacks(item)).collect();
        for item in lacking.into_iter().take(Talk::MOST_TRUST_ITEMS) {
            let Some(bytes) = host.trust_item(&item.id).filter(|bytes| bytes.len() <= LARGEST_ITEM) else {
                continue;
            };
            if !budget.takes(bytes.len()) {
                return Ok(());
            }
            let payload = session.seal(host, link, &Talk::Trust(bytes))?;
            host.send(link, RESPONSE, payload);
            self.exchanged.insert(item.id, item.number);
        }
        Ok(())
    }

    fn take(&mut self, host: &mut dyn Host, from: &dyn fmt::Display, item: &[u8]) -> Result<bool, Fault> {
        self.received += 1;
        if self.received > MOST_RECEIVED {
            let text = format!("{from} sends more than {MOST_RECEIVED} lists and link certificates");
            return Err(Fault::new(code::LIMIT, text));
        }
        if item.len() > LARGEST_ITEM {
            let text = format!("it has {} bytes, {LARGEST_ITEM} are allowed", item.len());
            return self.refuse(host, from, &Fault::new(code::LIMIT, text)).map(|()| false);
        }
        let before = host.trust_items();
        match host.learn(item) {
            Ok(true) => {
                let news = host.trust_items().into_iter().filter(|item| !before.contains(item));
                self.exchanged.extend(news.map(|item| (item.id, item.number)));
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(fault) => {
                if fault.code == code::VERSION {
                    // It knows less than it was taken to know: ours follows.
                    self.theirs = Some(Vec::new());
                }
                self.refuse(host, from, &fault).map(|()| false)
            }
        }
    }

    /// Before the peer has said what it knows, it is taken to know what was known here: it asks for the rest by
    /// saying so, and news reach it at once.
    fn lacks(&self, item: &TrustItem) -> bool {
        let known = self.theirs.as_ref().unwrap_or(&self.told);
        let said = known.iter().filter(|known| known.id == item.id).map(|known| known.number).max();
        said.max(self.exchanged.get(&item.id).copied()).is_none_or(|number| number < item.number)
    }

    fn refuse(&mut self, host: &mut dyn Host, from: &dyn fmt::Display, fault: &Fault) -> Result<(), Fault> {
        host.audit(&format!("a list or link certificate that {from} sends is refused: {fault}"));
        if [code::STORAGE, code::INTERNAL].contains(&&*fault.code) {
            return Ok(());
        }
        self.refused += 1;
        if self.refused > MOST_REFUSED {
            let text = format!("{from} sends nothing but bad lists: {fault}");
            return Err(Fault::new(code::LIMIT, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{PUSH, Response};
    use crate::names::RoleKind;
    use crate::testing::{Act, Fake, issuer_id, list};
    use crate::{Event, Role, Stamp};

    const LINK: LinkId = 3;

    /// One end of a session: a role that does nothing but pass on trust.
    struct End {
        host: Fake,
        relay: Option<Relay>,
        session: Option<Exchange>,
        news: u32,
    }

    /// The relay behind the trait, so that it runs in a handler.
    struct Under<'a>(&'a mut Option<Relay>, &'a mut Option<Exchange>, &'a mut u32);

    impl Role for Under<'_> {
        fn about(&self) -> crate::role::About {
            crate::role::About { kind: "relay".into(), version: "1".into(), sharded: false }
        }

        fn started(&mut self, _: &mut dyn Host, _: Stamp, _: &[u8]) -> Result<(), Fault> {
            Ok(())
        }

        fn handle(&mut self, host: &mut dyn Host, _: Stamp, event: Event) -> Result<(), Fault> {
            let (relay, session) = (self.0.as_mut().unwrap(), self.1.as_mut().unwrap());
            match event {
                Event::Opened(..) => return relay.greet(host, LINK, session),
                Event::Message(_, _, payload) => {
                    let Ok(Response::Sealed(sealed)) = crate::exchange::parse(&payload) else { panic!() };
                    let talk = session.open(host, LINK, &sealed)?;
                    *self.2 += u32::from(relay.hear(host, &"the other", &talk)?);
                }
                _ => {}
            }
            let items = host.trust_items();
            relay.pass_on(host, LINK, session, &items, &mut Budget::default())
        }
    }

    impl End {
        fn handle(&mut self, event: Event) -> Result<Vec<Act>, Fault> {
            self.host.handle(&mut Under(&mut self.relay, &mut self.session, &mut self.news), event)
        }

        fn says(&mut self, talk: &Talk) -> Event {
            let payload = self.session.as_mut().unwrap().seal(&mut self.host, LINK, talk).unwrap();
            Event::Message(LINK, RESPONSE.into(), payload)
        }

        fn number(&self, issuer: &str) -> Option<u64> {
            self.host.items.get(&issuer_id(issuer)).map(|(number, _)| *number)
        }
    }

    fn pair() -> (End, End) {
        let mut broker = Fake::new(RoleKind::Broker, "bk-1", None, &[]);
        let mut gateway = Fake::new(RoleKind::Gateway, "gw-1", None, &[]);
        let (_, push) = crate::exchange::offer(&mut broker, LINK, 2).unwrap();
        let (_, theirs, response) =
            crate::exchange::accept(&mut gateway, LINK, "native", 2, &push, Vec::new(), RoleKind::Broker)
                .unwrap();
        let Ok(Response::Agreement(response)) = crate::exchange::parse(&response) else { panic!("{PUSH}") };
        let (_, ours) =
            crate::exchange::conclude(&mut broker, LINK, "native", &push, &response, RoleKind::Gateway, None)
                .unwrap();
        let end =
            |host, session| End { host, relay: Some(Relay::default()), session: Some(session), news: 0 };
        (end(broker, ours), end(gateway, theirs))
    }

    /// Carries messages to and fro until nobody has anything to say; how many there were.
    fn run(one: &mut End, other: &mut End, first: Vec<Act>, second: Vec<Act>) -> usize {
        let (mut to_other, mut to_one, mut count) = (first, second, 0);
        while !(to_other.is_empty() && to_one.is_empty()) {
            let (mut next_other, mut next_one) = (Vec::new(), Vec::new());
            for (acts, end, answers) in
                [(&to_other, &mut *other, &mut next_one), (&to_one, &mut *one, &mut next_other)]
            {
                for act in acts.iter() {
                    let Act::Send(_, kind, payload) = act else { continue };
                    count += 1;
                    let event = Event::Message(LINK, kind.clone(), payload.clone());
                    answers.extend(end.handle(event).unwrap());
                }
            }
            (to_other, to_one) = (next_other, next_one);
        }
        count
    }

    fn greet(one: &mut End, other: &mut End) -> usize {
        let opened = || Event::Opened(LINK, Fake::outgoing());
        let (first, second) = (one.handle(opened()).unwrap(), other.handle(opened()).unwrap());
        run(one, other, first, second)
    }

    fn refusals(acts: &[Act]) -> usize {
        acts.iter().filter(|act| matches!(act, Act::Audit(text) if text.contains("the other"))).count()
    }

    #[test]
    fn whoever_knows_newer_sends_it_and_both_know_the_same_then() {
        let (mut one, mut other) = pair();
        for (issuer, number) in [("a", 3), ("c", 2)] {
            one.host.learn(&list(issuer, number, &[])).unwrap();
        }
        for (issuer, number) in [("a", 5), ("b", 1)] {
            other.host.learn(&list(issuer, number, &[])).unwrap();
        }
        assert_eq!(greet(&mut one, &mut other), 5, "two greetings and three items");
        for end in [&one, &other] {
            assert_eq!(["a", "b", "c"].map(|issuer| end.number(issuer)), [Some(5), Some(1), Some(2)]);
        }
        assert_eq!((one.news, other.news), (2, 1));
    }

    #[test]
    fn news_go_to_the_peer_once_and_never_back_to_where_they_came_from() {
        let (mut one, mut other) = pair();
        greet(&mut one, &mut other);
        one.host.learn(&list("a", 1, &[])).unwrap();
        let acts = one.handle(Event::TrustChanged).unwrap();
        assert_eq!(run(&mut one, &mut other, acts, Vec::new()), 1);
        assert_eq!(other.number("a"), Some(1));
        for end in [&mut one, &mut other] {
            assert!(end.handle(Event::TrustChanged).unwrap().is_empty());
        }
    }

    #[test]
    fn news_reach_a_peer_that_has_not_said_what_it_knows() {
        let (mut one, _) = pair();
        one.host.learn(&list("a", 1, &[])).unwrap();
        one.handle(Event::Opened(LINK, Fake::outgoing())).unwrap();
        assert!(one.handle(Event::TrustChanged).unwrap().is_empty(), "it was told of that");
        one.host.learn(&list("a", 2, &[])).unwrap();
        assert_eq!(one.handle(Event::TrustChanged).unwrap().len(), 1);
    }

    #[test]
    fn an_older_list_is_refused_and_answered_with_the_newer_one() {
        let (mut one, mut other) = pair();
        greet(&mut one, &mut other);
        one.host.learn(&list("a", 7, &[])).unwrap();
        let event = other.says(&Talk::Trust(list("a", 6, &[])));
        let acts = one.handle(event).unwrap();
        assert_eq!(refusals(&acts), 1);
        assert_eq!(run(&mut one, &mut other, acts, Vec::new()), 1);
        assert_eq!((one.number("a"), other.number("a")), (Some(7), Some(7)));
    }

    #[test]
    fn a_link_outlives_eight_bad_items_and_not_nine() {
        let (mut one, mut other) = pair();
        greet(&mut one, &mut other);
        let bad: [Talk; 3] = [
            Talk::Trust(b"nobody signed this".to_vec()),
            Talk::Trust([0; LARGEST_ITEM + 1].to_vec()),
            Talk::TrustKnown(alloc::vec![TrustItem { id: Digest([1; 32]), number: 1 }; 65]),
        ];
        for talk in bad.iter().cycle().take(MOST_REFUSED as usize) {
            let event = other.says(talk);
            assert_eq!(refusals(&one.handle(event).unwrap()), 1);
        }
        // A new session of the same link does not forget them.
        one.handle(Event::Opened(LINK, Fake::outgoing())).unwrap();
        let event = other.says(&bad[0]);
        assert_eq!(one.handle(event).unwrap_err().code, code::LIMIT);
        assert!(one.host.items.is_empty());
    }

    #[test]
    fn items_without_end_end_the_link() {
        let (mut one, mut other) = pair();
        greet(&mut one, &mut other);
        for number in 1..=u64::from(MOST_RECEIVED) {
            let event = other.says(&Talk::Trust(list("a", number, &[])));
            one.handle(event).unwrap();
        }
        let event = other.says(&Talk::Trust(list("a", 1000, &[])));
        assert_eq!(one.handle(event).unwrap_err().code, code::LIMIT);
        assert_eq!(one.number("a"), Some(256));
    }

    #[test]
    fn what_does_not_fit_one_transaction_waits_for_the_next() {
        let (mut one, _) = pair();
        let items: Vec<TrustItem> = {
            let long = alloc::vec![alloc::vec![7_u8; 16]; 1000];
            for number in 0..64_u32 {
                one.host.learn(&list(&format!("ca-{number}"), 1, &long)).unwrap();
            }
            one.host.trust_items()
        };
        let (relay, session) = (one.relay.as_mut().unwrap(), one.session.as_mut().unwrap());
        relay.theirs = Some(Vec::new());
        let mut rounds = 0;
        loop {
            let mut budget = Budget { bytes: 500_000, ..Budget::default() };
            relay.pass_on(&mut one.host, LINK, session, &items, &mut budget).unwrap();
            rounds += 1;
            if !budget.short() {
                break;
            }
        }
        assert!(rounds > 2, "{rounds}");
        assert!(items.iter().all(|item| !relay.lacks(item)));
    }
}
