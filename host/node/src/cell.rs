//! One actor in its node: mailbox in, effects out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::{Semaphore, mpsc, watch};
use trireme_actor::{Actor, Condition, Effect, StoreError};
use trireme_core::role::{Answer, LinkId, Origin, Request, RequestId, Shard, Subject, Then, code};
use trireme_core::{Digest, Event, Fault};
use trireme_net::link::{Link, LinkEvent};
use trireme_net::mqtt::front::Front;
use trireme_net::queue::Receiver;
use trireme_net::tls::TlsIdentity;
use trireme_store::{Blobs, Held, Namespace};

use crate::checks::Checks;
use crate::desk::{Asker, Desk};
use crate::device::Device;
use crate::executor::{Clock, Slot, Task};
use crate::flock::{Flock, Followed, Place, Step};
use crate::mailbox::{Letter, Mailbox};
use crate::plan::DoorPlan;
use crate::policy::Policy;
use crate::ports::{Port, Ports, Waiting};

/// How many events a worker takes at a time, as far as so many wait: they share one commit, and so one wait for the
/// disk, which takes as long as some dozens of key agreements.
const BATCH: usize = 256;

/// Milliseconds that a shard waits while the main one has enough to do.
const WAIT_MS: u64 = 2;

/// An actor with all that its effects need.
pub(crate) struct Cell {
    pub(crate) name: String,
    /// Its identifier, with which it logs in elsewhere.
    pub(crate) id: String,
    pub(crate) ports: Ports,
    pub(crate) blobs: Blobs,
    pub(crate) clock: Clock,
    pub(crate) runtime: tokio::runtime::Handle,
    /// Its credentials ([`TlsIdentity::own`]) are the one place that its server and its requests take them from:
    /// what is switched there counts for both.
    pub(crate) tls: Option<TlsIdentity>,
    pub(crate) doors: DoorPlan,
    /// Paths of its HTTPS server that need no certificate.
    pub(crate) open: Vec<String>,
    pub(crate) device: Option<Arc<Device>>,
    pub(crate) policies: BTreeMap<String, Vec<Arc<dyn Policy>>>,
    /// Where they are asked.
    pub(crate) desk: Arc<Desk>,
    /// The role's own place in the store, for what is noted of decisions.
    pub(crate) notes: Namespace,
    /// A broker's listener, set once it listens.
    pub(crate) front: OnceLock<Front>,
    /// Its number among the shards of its role.
    pub(crate) shard: u32,
    pub(crate) flock: Arc<Flock>,
    pub(crate) followed: Followed,
    pub(crate) mailbox: Mailbox,
    pub(crate) actor: Mutex<Actor>,
    pub(crate) slot: OnceLock<Weak<Slot>>,
    /// The actor's condition as it was last, so that nobody waits for a handler to learn it.
    pub(crate) shown: Mutex<Condition>,
    /// How many jobs of this node may run at a time.
    pub(crate) seats: Arc<Semaphore>,
    /// Checks of images that are under way in this node.
    pub(crate) checks: Arc<Checks>,
    /// Whether the node stops: requests that wait for an answer are given up then.
    pub(crate) stopping: watch::Sender<bool>,
}

impl Cell {
    /// The main shard of its role.
    pub(crate) fn main(self: &Arc<Self>) -> Option<Arc<Self>> {
        if self.is_main() { Some(self.clone()) } else { self.flock.cell(Shard::MAIN) }
    }

    fn is_main(&self) -> bool {
        self.shard == Shard::MAIN
    }

    /// Starts the role. A configuration that cannot work is an error; other faults are tried again later.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<(), Fault> {
        let mut actor = self.actor.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_main() {
            self.flock.follow(&self.followed, &mut actor);
        }
        let started = actor.start(self.clock.now_ms());
        let effects = started.map_err(|error| Fault::new(code::STORAGE, error.to_string()))?;
        if let Condition::Waiting { fault, .. } = actor.condition()
            && [code::CONFIGURATION, code::NOT_GRANTED].contains(&fault.code.as_ref())
        {
            return Err(fault.clone());
        }
        if self.is_main() {
            self.flock.show_key(&actor);
            self.flock.led(&actor);
        }
        let fell = actor.falls() > 0;
        carry_out(self, &mut actor, effects);
        if fell {
            self.fallen(&actor);
        }
        self.show(&actor);
        drop(actor);
        self.wake();
        Ok(())
    }

    /// How its actor is, or was before the handler in hand.
    pub(crate) fn condition(&self) -> Condition {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, actor: &Actor) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = actor.condition().clone();
    }

    /// A job that the role asked for.
    pub(crate) fn job(self: &Arc<Self>, then: Then) -> Ticket {
        Ticket { cell: self.clone(), then: Some(then), life: self.ports.life() }
    }

    /// The role, as it stands before policies.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { role: &self.name, id: &self.id, notes: self.notes.clone() }
    }

    /// An event of the network, in this life of the role; waits while too many wait already, here or at the main shard,
    /// which what happens here may be told to.
    async fn deliver(self: &Arc<Self>, event: Event, life: u64) {
        if !self.is_main()
            && let Some(main) = self.main()
        {
            main.mailbox.room().await;
        }
        self.mailbox.push_when_room(Letter { event, held: None, life }).await;
        self.wake();
    }

    /// Asks the role and waits for its answer.
    pub(crate) async fn ask(
        &self,
        origin: Origin,
        caller: Option<Subject>,
        path: String,
        body: Vec<u8>,
        image: Option<Held>,
        progress: Option<mpsc::Sender<Vec<u8>>>,
    ) -> Result<Vec<u8>, Fault> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let stops = || Fault::new(code::NETWORK, "the node stops");
        let (id, life) = self.ports.ask(Waiting { answer, progress }).ok_or_else(stops)?;
        // Whoever asked may leave, and with it this future.
        let _asked = Asked(self, id);
        let blob = image.as_ref().map(|held| (held.digest(), held.size()));
        let request = Request { id, origin, caller, path, body, blob };
        self.mailbox.push_when_room(Letter { event: Event::Request(request), held: image, life }).await;
        self.wake();
        let lost = |_| Fault::new(code::INTERNAL, format!("{} gave no answer", self.name));
        answered.await.map_err(lost)?
    }

    pub(crate) fn wake(&self) {
        if let Some(slot) = self.slot.get().and_then(Weak::upgrade) {
            slot.wake();
        }
    }

    /// Follows a link: its events become the role's.
    pub(crate) fn follow(self: &Arc<Self>, id: LinkId, life: u64, link: u64, events: Receiver<LinkEvent>) {
        self.runtime.spawn(followed(Place { cell: self.clone(), id, life }, link, events));
    }

    /// Takes a link in that another end opened: it goes to the shard of whom the other end claims to be.
    pub(crate) fn adopt_incoming(
        self: &Arc<Self>,
        kind: &'static str,
        link: Link,
        mut events: Receiver<LinkEvent>,
    ) {
        let number = link.id();
        if self.flock.count() == 1 {
            return match self.ports.incoming(Port { link: link.clone(), kind, info: None }) {
                Some((id, life)) => self.follow(id, life, number, events),
                None => link.close("the node stops"),
            };
        }
        let flock = self.flock.clone();
        self.runtime.spawn(async move {
            // Nobody has seen a link that ends before it opens.
            let Some(LinkEvent::Opened(info)) = events.recv().await else { return };
            let Some(cell) = flock.of(info.claims.as_deref(), number) else {
                return link.close("the node stops");
            };
            let port = Port { link: link.clone(), kind, info: Some(info.clone()) };
            let Some((id, life)) = cell.ports.incoming(port) else { return link.close("the node stops") };
            drop(link);
            Box::pin(cell.deliver(Event::Opened(id, *info), life)).await;
            followed(Place { cell, id, life }, number, events).await;
        });
    }

    /// The role failed: it starts again by itself, and all that it had open or under way is ended.
    fn fallen(&self, actor: &Actor) {
        let (Condition::Waiting { fault, .. } | Condition::Quarantined(fault)) = actor.condition() else {
            return;
        };
        let outward = match fault.code.as_ref() {
            code::STORAGE => fault.clone(),
            _ => Fault::new(code::INTERNAL, format!("{} failed: {}", self.name, fault.detail)),
        };
        self.ports.renew("the role failed", &outward);
        self.flock.ended(self.shard);
    }

    /// Whether the main shard, which this one may have something to tell, has enough to do.
    fn must_wait(self: &Arc<Self>) -> bool {
        !self.is_main() && self.main().is_some_and(|main| main.mailbox.is_full())
    }

    /// Acts on what handlers led to. Everything of the life before is ended before anything of the next begins.
    fn act(self: &Arc<Self>, actor: &mut Actor, falls: u64, outcome: Result<Vec<Effect>, StoreError>) {
        if self.is_main() {
            self.flock.show_key(actor);
        }
        match outcome {
            Ok(effects) => carry_out(self, actor, effects),
            Err(error) => {
                tracing::error!(role = self.name, %error, "nothing is committed; the role starts anew after a pause");
            }
        }
        if actor.falls() > falls {
            self.fallen(actor);
        }
        if self.is_main() {
            self.flock.led(actor);
        }
    }

    /// Does what the main shard did: a shard lives no longer than it.
    fn keep_up(self: &Arc<Self>, actor: &mut Actor) {
        if self.is_main() {
            return;
        }
        match self.flock.follow(&self.followed, actor) {
            Step::Stay => {}
            Step::Start => restart(self, actor, "the role starts anew"),
            Step::Stop => {
                let why = "the main shard of the role is down";
                self.ports.renew(why, &Fault::new(code::INTERNAL, why));
                drop(actor.stop());
            }
        }
    }
}

/// A request that somebody waits for.
struct Asked<'a>(&'a Cell, RequestId);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.ports.forget(self.1);
    }
}

/// A job that is under way. It is answered once: at the latest when this is dropped.
pub(crate) struct Ticket {
    cell: Arc<Cell>,
    then: Option<Then>,
    life: u64,
}

impl Ticket {
    /// The job's answer.
    pub(crate) fn done(mut self, outcome: Result<Answer, Fault>, held: Option<Held>) {
        self.give(outcome, held);
    }

    /// Whether nobody waits for it any more: the role began anew since.
    pub(crate) fn is_stale(&self) -> bool {
        self.cell.ports.life() != self.life
    }

    /// Does the job on the pool for blocking work, as soon as one of the node's seats is free.
    pub(crate) fn blocking(self, work: impl FnOnce() -> Result<Answer, Fault> + Send + 'static) {
        let runtime = self.cell.runtime.clone();
        runtime.spawn(async move {
            // The seats are never closed.
            let _seat = self.cell.seats.clone().acquire_owned().await;
            let job = tokio::task::spawn_blocking(move || {
                if !self.is_stale() {
                    let outcome = work();
                    self.done(outcome, None);
                }
            });
            // One that ended in a fault was answered when its ticket was dropped.
            let _ = job.await;
        });
    }

    fn give(&mut self, outcome: Result<Answer, Fault>, held: Option<Held>) {
        if let Some(then) = self.then.take() {
            self.cell.mailbox.push(Letter { event: Event::Done(then, outcome), held, life: self.life });
            self.cell.wake();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give(Err(Fault::new(code::INTERNAL, "the job ended early")), None);
    }
}

/// A cell as a task of the executor.
pub(crate) struct CellTask(pub(crate) Arc<Cell>);

impl Task for CellTask {
    fn run(&self) -> Option<u64> {
        let cell = &self.0;
        let mut actor = cell.actor.lock().unwrap_or_else(PoisonError::into_inner);
        let now = cell.clock.now_ms();
        cell.keep_up(&mut actor);
        // First, and acted on before anything else: a timer may end the life that letters were written in.
        let falls = actor.falls();
        let fired = actor.fire(now);
        cell.act(&mut actor, falls, fired);
        let waits = cell.must_wait();
        let letters = if waits { Vec::new() } else { cell.mailbox.take(BATCH) };
        let life = cell.ports.life();
        // Guards of blobs live until the events that carry them were handled.
        let (events, _held): (Vec<Event>, Vec<Option<Held>>) = letters
            .into_iter()
            .filter(|letter| letter.life == life)
            .map(|letter| (letter.event, letter.held))
            .unzip();
        if !events.is_empty() {
            let falls = actor.falls();
            let handled = actor.handle_all(now, events);
            cell.act(&mut actor, falls, handled);
        }
        cell.show(&actor);
        let next = actor.next_timer();
        if waits {
            let soon = now.saturating_add(WAIT_MS);
            return Some(next.map_or(soon, |next| next.min(soon)));
        }
        if !cell.mailbox.is_empty() {
            cell.wake();
        }
        next
    }
}

/// Carries effects out; a reboot comes last, and may bring effects of its own.
fn carry_out(cell: &Arc<Cell>, actor: &mut Actor, effects: Vec<Effect>) {
    let mut reboot = false;
    for effect in effects {
        match effect {
            Effect::Reboot => reboot = true,
            effect => crate::effects::carry_out(cell, effect),
        }
    }
    if reboot {
        restart(cell, actor, "the device restarts");
    }
}

/// Power off, power on: links and all that waited are gone, the boot loader of a device decides what runs.
fn restart(cell: &Arc<Cell>, actor: &mut Actor, why: &'static str) {
    cell.ports.renew(why, &Fault::new(code::NETWORK, why));
    if let Some(Err(fault)) = cell.device.as_ref().map(|device| device.boot()) {
        tracing::error!(role = cell.name, %fault, "the device does not boot; it stays off until the node starts again");
        drop(actor.stop());
        return;
    }
    match actor.start(cell.clock.now_ms()) {
        // A role that asks for a reboot in each start would never come to anything: one at a time.
        Ok(effects) => {
            let again = effects.iter().any(|effect| matches!(effect, Effect::Reboot));
            let others = effects.into_iter().filter(|effect| !matches!(effect, Effect::Reboot));
            others.for_each(|effect| crate::effects::carry_out(cell, effect));
            if again {
                tracing::error!(role = cell.name, "the role asked for a reboot while it started; not done");
            }
        }
        // Whoever asked for the restart sees that it failed, and ends what is open.
        Err(error) => {
            tracing::error!(role = cell.name, %error, "the role cannot start; it is tried again after a pause");
        }
    }
}

/// Follows a link to its end, to whichever shard it goes.
async fn followed(mut at: Place, link: u64, mut events: Receiver<LinkEvent>) {
    let mut reason = String::from("the link ended");
    while let Some(event) = events.recv().await {
        if let LinkEvent::Closed(why) = event {
            reason = why;
            break;
        }
        if !at.cell.ports.is(at.id, link)
            && let Some(place) = at.cell.flock.moved_to(link)
        {
            at = place;
        }
        // What a link still says after its number went to another, or after the role began anew, is nobody's.
        if !at.cell.ports.is(at.id, link) {
            continue;
        }
        if matches!(event, LinkEvent::Subscribed(_)) {
            at.cell.ports.stays(at.id);
        }
        // In a box: a link that says nothing keeps no room for what it might say.
        Box::pin(at.cell.deliver(role_event(at.id, event), at.life)).await;
    }
    tracing::debug!(role = at.cell.name, link = at.id, reason, "link closed");
    if !at.cell.ports.gone(at.id, link) {
        // It may have been handed over meanwhile.
        match at.cell.flock.moved_to(link) {
            Some(place) if place.cell.ports.gone(place.id, link) => at = place,
            _ => return,
        }
    }
    Box::pin(at.cell.deliver(Event::Closed(at.id, reason), at.life)).await;
}

fn role_event(id: LinkId, event: LinkEvent) -> Event {
    match event {
        LinkEvent::Opened(info) => Event::Opened(id, *info),
        LinkEvent::Closed(reason) => Event::Closed(id, reason),
        LinkEvent::Subscribed(filters) => Event::Subscribed(id, filters),
        LinkEvent::Unsubscribed(filters) => Event::Unsubscribed(id, filters),
        LinkEvent::Message { kind, payload } => Event::Message(id, kind, payload),
        LinkEvent::BodyOffered { header, rest } => Event::BodyOffered(id, header, rest),
    }
}

/// The answer of a job that made or touched a blob.
pub(crate) fn blob_answer((digest, size): (Digest, u64)) -> Answer {
    Answer { blob: Some((digest, size)), values: Vec::new() }
}
