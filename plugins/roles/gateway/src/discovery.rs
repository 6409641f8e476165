//! Finding brokers (5.2, figure 6) and subscribing (5.6.2). The directory is not trusted: every list is the
//! manufacturer's own, signed, and only moves forward.
//!
//! | key | value |
//! |---|---|
//! | `brokers/<ID_MF>` | the newest [`SignedBrokers`], JSON |

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::api::{BrokerAddress, BrokerLists, BrokersOf, SignedBrokers, path};
use trireme_core::release::Channel;
use trireme_core::role::{Answer, LinkInfo, code};
use trireme_core::{Fault, Host, LinkId, ModelName, NodeId, RoleKind, Stamp, json};

use crate::{BACKOFF, Gateway, Work, keys};

/// The largest certificate with its issuers', in bytes.
const LARGEST_CERTIFICATE: usize = 16 * 1024;
/// The most manufacturers of a question: it has to fit a call of the host.
const MOST_ASKED: usize = 900;
/// Milliseconds in which a connection has to come up.
const CONNECT_MS: u64 = 60_000;
/// The most lists that one handler drops: a transaction of the host is bounded.
const MOST_DROPPED: usize = 256;
/// The most brokers at a time.
const MOST_BROKERS: usize = 1024;

/// Lists of brokers, and when the directory is asked next.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    pub(crate) lists: BTreeMap<NodeId, SignedBrokers>,
    /// The models that the certificate of each of these lists names.
    models: BTreeMap<NodeId, Vec<ModelName>>,
    /// The newest list ever taken of each manufacturer, also where it does not count any more.
    seen: BTreeMap<NodeId, SignedBrokers>,
    /// A question is on its way.
    asking: bool,
    /// The manufacturers of the last question.
    asked: BTreeSet<NodeId>,
    /// The manufacturers that there were when it was asked last.
    covered: BTreeSet<NodeId>,
    /// The last manufacturer of a question that did not hold all.
    turn: Option<NodeId>,
    failures: u32,
    /// Answers in a row without a list for one of the manufacturers.
    misses: u32,
    next_ms: u64,
    pub(crate) detail: String,
}

impl Discovery {
    fn count(&mut self, list: SignedBrokers, models: Vec<ModelName>) {
        self.models.insert(list.manufacturer.clone(), models);
        self.lists.insert(list.manufacturer.clone(), list);
    }

    /// Whether a manufacturer with a list is certified for a model. What a stranger on the LAN says that it is
    /// costs neither a subscription nor room for receipts unless it is.
    pub(crate) fn certified(&self, manufacturer: &NodeId, model: &ModelName) -> bool {
        self.models.get(manufacturer).is_some_and(|models| models.contains(model))
    }

    /// The certificate under which a manufacturer signed its list.
    pub(crate) fn certificate(&self, manufacturer: &NodeId) -> Option<Vec<u8>> {
        self.lists.get(manufacturer).and_then(|list| certificate(list).ok())
    }

    /// Nothing stays of a list: not its number either, which who had the revoked key could have set to the highest.
    fn forget(&mut self, host: &mut dyn Host, manufacturer: &NodeId) {
        host.delete(&format!("brokers/{manufacturer}"));
        self.seen.remove(manufacturer);
        self.lists.remove(manufacturer);
        self.models.remove(manufacturer);
    }
}

impl Gateway {
    /// Lists of an earlier run, verified again.
    pub(crate) fn load_lists(&mut self, host: &mut dyn Host, now: Stamp) {
        for key in keys(host, "brokers/") {
            let list = host.get(&key).and_then(|value| json::read::<SignedBrokers>(&value, "a list").ok());
            let Some(list) = list else { continue };
            self.discovery.seen.insert(list.manufacturer.clone(), list.clone());
            match verify_list(host, now, &list) {
                Ok(models) => self.discovery.count(list, models),
                Err(fault) if fault.code == code::REVOKED => {
                    self.discovery.forget(host, &list.manufacturer);
                }
                Err(_) => {}
            }
        }
    }

    /// Lists of manufacturers whose certificate was revoked are dropped, and asked for anew at once: they may have
    /// signed others under a renewed one.
    pub(crate) fn drop_revoked_lists(&mut self, host: &mut dyn Host, now: Stamp) {
        let revoked = self.discovery.seen.values().filter(|list| {
            let verdict = certificate(list).and_then(|certificate| host.certificate(&certificate));
            verdict.is_err_and(|fault| fault.code == code::REVOKED)
        });
        let revoked: Vec<NodeId> = revoked.map(|list| list.manufacturer.clone()).take(MOST_DROPPED).collect();
        self.aftermath.lists = revoked.len() == MOST_DROPPED;
        if revoked.is_empty() {
            return;
        }
        for manufacturer in &revoked {
            self.discovery.forget(host, manufacturer);
            self.alarm(host, format!("the list of brokers of {manufacturer} is dropped: it was revoked"));
        }
        self.discovery.next_ms = now.monotonic_ms;
        self.ask_directory(host);
        self.plan(host, now);
    }

    /// Lists that ran out do not count any more; their numbers do.
    fn drop_expired_lists(&mut self, host: &mut dyn Host, now: Stamp) {
        let ended = self.discovery.lists.values().filter(|list| expired(list, now));
        let ended: Vec<NodeId> = ended.map(|list| list.manufacturer.clone()).collect();
        if ended.is_empty() {
            return;
        }
        for manufacturer in &ended {
            host.audit(&format!("the list of brokers of {manufacturer} has expired"));
            self.discovery.lists.remove(manufacturer);
        }
        if self.discovery.failures == 0 {
            self.discovery.next_ms = now.monotonic_ms;
        }
        self.plan(host, now);
    }

    /// 5.2, step 1: the gateway tells the directory the manufacturers of its sensors.
    pub(crate) fn ask_directory(&mut self, host: &mut dyn Host) {
        let manufacturers = self.sensors.manufacturers();
        if !self.discovery.asking && !manufacturers.is_empty() {
            self.discovery.covered.clone_from(&manufacturers);
            self.ask_for(host, manufacturers);
        }
    }

    fn ask_for(&mut self, host: &mut dyn Host, mut manufacturers: BTreeSet<NodeId>) {
        // In turns, where there are too many for one question: names that nobody has shall not hide others.
        if manufacturers.len() > MOST_ASKED {
            let after = |id: &&NodeId| self.discovery.turn.as_ref().is_none_or(|turn| *id > turn);
            let (later, earlier): (Vec<_>, Vec<_>) = manufacturers.iter().partition(after);
            let turn: Vec<NodeId> = later.into_iter().chain(earlier).take(MOST_ASKED).cloned().collect();
            self.discovery.turn = turn.last().cloned();
            manufacturers = turn.into_iter().collect();
        }
        let question = BrokersOf { manufacturers: manufacturers.iter().cloned().collect() };
        let url = format!("{}{}", self.config.directory.trim_end_matches('/'), path::BROKERS_OF);
        let then = self.job(Work::Directory);
        host.request(RoleKind::Directory, &url, json::write(&question), then);
        self.discovery.asking = true;
        self.discovery.asked = manufacturers;
    }

    /// 5.2, step 2: the directory's answer. Each list stands for itself: a bad one is refused and the others count.
    pub(crate) fn directory_answered(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        result: Result<Answer, Fault>,
    ) {
        self.discovery.asking = false;
        match result.and_then(|answer| read_lists(&answer)) {
            Ok(answer) => {
                self.discovery.failures = 0;
                self.discovery.detail = String::new();
                let told: BTreeSet<NodeId> =
                    answer.lists.iter().map(|list| list.manufacturer.clone()).collect();
                for list in answer.lists {
                    self.take_list(host, now, list);
                }
                self.plan(host, now);
                // What does not fit one answer is asked for again; who is not known at all ends it.
                let missing: BTreeSet<NodeId> = self.discovery.asked.difference(&told).cloned().collect();
                if missing.len() < self.discovery.asked.len() && !missing.is_empty() {
                    self.ask_for(host, missing);
                }
                self.next_question(host, now);
            }
            Err(fault) => {
                self.discovery.failures = self.discovery.failures.saturating_add(1);
                self.discovery.next_ms = now.monotonic_ms + BACKOFF.pause(host, self.discovery.failures);
                self.discovery.detail = fault.to_string();
            }
        }
    }

    /// A manufacturer without a list may announce it any moment: that is asked for sooner.
    fn next_question(&mut self, host: &mut dyn Host, now: Stamp) {
        let lists = &self.discovery.lists;
        let complete =
            self.discovery.covered.iter().all(|id| lists.get(id).is_some_and(|list| !expired(list, now)));
        self.discovery.misses = if complete { 0 } else { self.discovery.misses.saturating_add(1) };
        let soon = if complete { u64::MAX } else { BACKOFF.pause(host, self.discovery.misses) };
        let pause = soon.min(self.config.directory_ms);
        self.discovery.next_ms = now.monotonic_ms.saturating_add(pause);
    }

    fn take_list(&mut self, host: &mut dyn Host, now: Stamp, list: SignedBrokers) {
        if !self.discovery.asked.contains(&list.manufacturer) {
            return;
        }
        let known = self.discovery.seen.get(&list.manufacturer);
        let verdict =
            verify_list(host, now, &list).and_then(|models| moves_forward(known, &list).map(|()| models));
        match verdict {
            Ok(models) => {
                let key = format!("brokers/{}", list.manufacturer);
                host.put(&key, json::write(&list));
                self.discovery.seen.insert(list.manufacturer.clone(), list.clone());
                self.discovery.count(list, models);
            }
            Err(fault) => {
                let text = format!("the directory's list of {} is refused: {fault}", list.manufacturer);
                self.alarm(host, text);
            }
        }
    }

    /// Asks again when the time has come, or when the sensors' manufacturers have changed.
    pub(crate) fn look_after_directory(&mut self, host: &mut dyn Host, now: Stamp) {
        self.drop_expired_lists(host, now);
        let waits = self.discovery.next_ms > now.monotonic_ms;
        let failing = self.discovery.failures > 0;
        let new = self.sensors.manufacturers().iter().any(|id| !self.discovery.covered.contains(id));
        if !waits || (new && !failing) {
            self.ask_directory(host);
        }
    }

    /// Which brokers are needed for what: from the sensors' models and the manufacturers' lists. Brokers that nobody
    /// needs any more are left.
    pub(crate) fn plan(&mut self, host: &mut dyn Host, now: Stamp) {
        for broker in self.brokers.values_mut() {
            broker.urls.clear();
            broker.wants.clear();
            broker.serves.clear();
        }
        for (manufacturer, model) in self.sensors.models() {
            let Some(list) = self.discovery.lists.get(&manufacturer) else { continue };
            if expired(list, now) || !self.discovery.certified(&manufacturer, &model) {
                continue;
            }
            let channel = Channel { topic: list.topic.clone(), model };
            for address in &list.brokers {
                if !self.brokers.contains_key(&address.id) && self.brokers.len() >= MOST_BROKERS {
                    continue;
                }
                let broker = self.brokers.entry(address.id.clone()).or_default();
                if !broker.urls.contains(&address.url) {
                    broker.urls.push(address.url.clone());
                }
                broker.wants.insert(channel.clone());
                broker.serves.insert(manufacturer.clone());
            }
        }
        let ids: Vec<NodeId> = self.brokers.keys().cloned().collect();
        for id in ids {
            self.follow_plan(host, now, &id);
        }
    }

    /// Subscribes to what is new, unsubscribes from what no sensor needs, leaves a broker that serves nobody here.
    fn follow_plan(&mut self, host: &mut dyn Host, now: Stamp, id: &NodeId) {
        let Some(broker) = self.brokers.get_mut(id) else { return };
        if let Some(link) = broker.link.filter(|_| broker.binding.is_some()) {
            for channel in broker.wants.difference(&broker.subscribed) {
                host.subscribe(link, &channel.to_string());
            }
            for channel in broker.subscribed.difference(&broker.wants) {
                host.unsubscribe(link, &channel.to_string());
            }
            broker.subscribed = broker.wants.clone();
        }
        if broker.wants.is_empty() {
            if let Some(link) = broker.link {
                self.uplinks.remove(&link);
                host.close(link, "no sensor needs this broker any more");
            }
            let ended = self.brokers.remove(id).and_then(|broker| broker.incoming);
            if let Some(incoming) = ended.filter(|incoming| !incoming.parked) {
                self.resume_parked(host, now, &incoming);
            }
        } else if broker.link.is_none() && broker.connect_ms <= now.monotonic_ms {
            self.connect_broker(host, now, id);
        }
    }

    /// 5.6.2: CONNECT.
    fn connect_broker(&mut self, host: &mut dyn Host, now: Stamp, id: &NodeId) {
        let link = self.link_number();
        let Some(broker) = self.brokers.get_mut(id) else { return };
        let Some(url) = broker.next_url() else { return };
        broker.link = Some(link);
        broker.active_ms = now.monotonic_ms;
        self.uplinks.insert(link, id.clone());
        host.connect(&url, link);
    }

    /// 5.6.2: CONNACK; SUBSCRIBE to the topic of each model.
    pub(crate) fn connected(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, info: &LinkInfo) {
        let Some(id) = self.uplinks.get(&link).cloned() else {
            host.close(link, "nobody asked for this link");
            return;
        };
        if let Some(other) = info.claims.as_ref().filter(|claims| claims.as_str() != id.as_str()) {
            host.close(
                link,
                &format!("at the address of {id} is {other}, by the certificate of its TLS connection"),
            );
            return;
        }
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.binding = Some(info.binding.clone());
            broker.active_ms = now.monotonic_ms;
        }
        self.follow_plan(host, now, &id);
    }

    /// An unexpected end: the next attempt comes with a growing pause, at the next of its addresses.
    pub(crate) fn lost_broker(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, reason: &str) {
        let Some(id) = self.uplinks.remove(&link) else { return };
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        // After a refusal the link was to end anyway.
        broker.failures = if broker.leaving.is_some() { 1 } else { broker.failures.saturating_add(1) };
        broker.connect_ms = now.monotonic_ms + BACKOFF.pause(host, broker.failures);
        broker.detail = reason.chars().take(240).collect();
        let ended = broker.incoming.take();
        broker.disconnected();
        if let Some(incoming) = ended.filter(|incoming| !incoming.parked) {
            self.resume_parked(host, now, &incoming);
        }
    }

    /// Connections that are due, `T_I` and `T_R`, links that were refused, receipts that nobody answered for.
    pub(crate) fn look_after_brokers(&mut self, host: &mut dyn Host, now: Stamp) {
        let ids: Vec<NodeId> = self.brokers.keys().cloned().collect();
        for id in ids {
            self.follow_plan(host, now, &id);
            self.send_receipts(host, now, &id);
            let receipts_wait = self.receipts_wait_for(&id);
            let Some(broker) = self.brokers.get_mut(&id) else { continue };
            let Some(link) = broker.link else { continue };
            let quiet_ms = now.monotonic_ms.saturating_sub(broker.active_ms);
            if broker.binding.is_none() {
                if quiet_ms >= CONNECT_MS {
                    host.close(link, "the connection does not come up");
                    self.lost_broker(host, now, link, "the connection did not come up");
                }
                continue;
            }
            let refused = broker.leaving.is_some_and(|at| at <= now.monotonic_ms);
            let busy = broker.incoming.is_some() || broker.leaving.is_some() || receipts_wait;
            let idle = !self.config.stay_connected && !busy && quiet_ms >= self.config.idle_ms;
            if !refused && !idle {
                continue;
            }
            let pause = if refused { BACKOFF.first_ms } else { self.config.reconnect_ms };
            // A link that lasted: the broker has nothing against us.
            broker.failures = 0;
            broker.connect_ms = now.monotonic_ms.saturating_add(pause);
            broker.disconnected();
            self.uplinks.remove(&link);
            host.close(link, if refused { "its release was refused or not needed" } else { "idle" });
        }
    }
}

fn read_lists(answer: &Answer) -> Result<BrokerLists, Fault> {
    let body = answer.values.first().map_or(&[][..], Vec::as_slice);
    let answer: BrokerLists = json::read(body, "the directory's answer")?;
    if answer.lists.len() > BrokersOf::MOST {
        return Err(Fault::new(code::LIMIT, "the directory answers with more lists than were asked for"));
    }
    Ok(answer)
}

/// The list is the manufacturer's own: its certificate, its topic, its signature; and it has not expired. Gives the
/// models that the certificate names.
fn verify_list(host: &mut dyn Host, now: Stamp, list: &SignedBrokers) -> Result<Vec<ModelName>, Fault> {
    if list.brokers.len() > SignedBrokers::MOST {
        return Err(Fault::new(code::LIMIT, format!("it has more than {} brokers", SignedBrokers::MOST)));
    }
    if let Some(broker) = list.brokers.iter().find(|broker| !BrokerAddress::is_url(&broker.url)) {
        return Err(Fault::new(
            code::MALFORMED,
            format!("the address of {} is not mqtt://host:port", broker.id),
        ));
    }
    let certified = host.verify(&certificate(list)?, &list.formula(), &list.signature)?;
    let subject = &certified.subject;
    if subject.role != RoleKind::Manufacturer
        || subject.id != list.manufacturer
        || certified.topic.as_ref() != Some(&list.topic)
    {
        let text = format!("{subject} signed a list of {} for topic {}", list.manufacturer, list.topic);
        return Err(Fault::new(code::FORBIDDEN, text));
    }
    if expired(list, now) {
        return Err(Fault::new(code::TIME, "it has expired; the manufacturer has to sign a new one"));
    }
    Ok(certified.models)
}

/// No list below the one that was seen, and no other list of the same number.
fn moves_forward(known: Option<&SignedBrokers>, list: &SignedBrokers) -> Result<(), Fault> {
    let Some(known) = known else { return Ok(()) };
    if list.sequence < known.sequence {
        let text = format!("it is number {}, and {} was seen already", list.sequence, known.sequence);
        return Err(Fault::new(code::VERSION, text));
    }
    let same =
        (&list.topic, &list.brokers, list.expires_ms) == (&known.topic, &known.brokers, known.expires_ms);
    if list.sequence == known.sequence && !same {
        return Err(Fault::new(code::CONFLICT, format!("there are two lists of number {}", list.sequence)));
    }
    Ok(())
}

fn certificate(list: &SignedBrokers) -> Result<Vec<u8>, Fault> {
    json::hexadecimal(&list.certificate, LARGEST_CERTIFICATE, "its certificate")
}

fn expired(list: &SignedBrokers, now: Stamp) -> bool {
    list.expires_ms != 0 && now.unix_ms.is_some_and(|unix_ms| unix_ms > list.expires_ms)
}
