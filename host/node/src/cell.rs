//! One actor in its node: mailbox in, effects out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::mpsc;
use trireme_actor::{Actor, Condition, Effect, StoreError};
use trireme_core::role::{Answer, LinkId, Origin, Request, Subject, Then, code};
use trireme_core::{Digest, Event, Fault};
use trireme_net::link::{Link, LinkEvent};
use trireme_net::mqtt::front::Front;
use trireme_net::tls::TlsIdentity;
use trireme_store::{Blobs, Held};

use crate::device::Device;
use crate::executor::{Clock, Slot, Task};
use crate::mailbox::{Letter, Mailbox};
use crate::plan::Policy;
use crate::ports::{Port, Ports, Waiting};

/// How many events a worker takes at a time: they share one commit.
const BATCH: usize = 64;

/// An actor with all that its effects need.
pub(crate) struct Cell {
    pub(crate) name: String,
    /// Its identifier, with which it logs in elsewhere.
    pub(crate) id: String,
    pub(crate) ports: Ports,
    pub(crate) blobs: Blobs,
    pub(crate) clock: Clock,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) tls: Option<TlsIdentity>,
    pub(crate) device: Option<Arc<Device>>,
    pub(crate) policies: BTreeMap<String, Vec<Arc<dyn Policy>>>,
    /// A broker's listener, set once it listens.
    pub(crate) front: OnceLock<Front>,
    pub(crate) mailbox: Mailbox,
    pub(crate) actor: Mutex<Actor>,
    pub(crate) slot: OnceLock<Weak<Slot>>,
}

impl Cell {
    /// Starts the role. A configuration that cannot work is an error; other faults are tried again later.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<(), Fault> {
        let mut actor = self.actor.lock().unwrap_or_else(PoisonError::into_inner);
        let started = actor.start(self.clock.now_ms());
        let effects = started.map_err(|error| Fault::new(code::STORAGE, error.to_string()))?;
        if let Condition::Waiting { fault, .. } = actor.condition()
            && [code::CONFIGURATION, code::NOT_GRANTED].contains(&fault.code.as_ref())
        {
            return Err(fault.clone());
        }
        carry_out(self, &mut actor, effects);
        drop(actor);
        self.wake();
        Ok(())
    }

    /// How its actor is.
    pub(crate) fn condition(&self) -> Condition {
        self.actor.lock().unwrap_or_else(PoisonError::into_inner).condition().clone()
    }

    /// The answer of a job.
    pub(crate) fn done(&self, then: Then, outcome: Result<Answer, Fault>, held: Option<Held>) {
        self.mailbox.push(Letter { event: Event::Done(then, outcome), held });
        self.wake();
    }

    /// An event of the network; waits while too many wait already.
    pub(crate) async fn deliver(&self, event: Event) {
        self.mailbox.push_when_room(event.into()).await;
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
        let id = self.ports.ask(Waiting { answer, progress });
        let blob = image.as_ref().map(|held| (held.digest(), held.size()));
        let request = Request { id, origin, caller, path, body, blob };
        self.mailbox.push_when_room(Letter { event: Event::Request(request), held: image }).await;
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
    pub(crate) fn follow(self: &Arc<Self>, id: LinkId, link: u64, mut events: mpsc::Receiver<LinkEvent>) {
        let cell = self.clone();
        self.runtime.spawn(async move {
            let mut reason = String::from("the link ended");
            while let Some(event) = events.recv().await {
                match event {
                    LinkEvent::Closed(why) => {
                        reason = why;
                        break;
                    }
                    event => cell.deliver(role_event(id, event)).await,
                }
            }
            tracing::debug!(role = cell.name, link = id, reason, "link closed");
            if cell.ports.gone(id, link) {
                cell.deliver(Event::Closed(id, reason)).await;
            }
        });
    }

    /// Takes a link in that another end opened.
    pub(crate) fn adopt_incoming(
        self: &Arc<Self>,
        kind: &'static str,
        link: Link,
        events: mpsc::Receiver<LinkEvent>,
    ) {
        let number = link.id();
        let id = self.ports.incoming(Port { link, kind });
        self.follow(id, number, events);
    }

    /// What a failed commit leaves: the role starts again by itself, and all that it had open is closed.
    fn commit_failed(&self, error: &StoreError) {
        tracing::error!(role = self.name, %error, "nothing is committed; the role starts anew after a pause");
        self.ports.close_all("the state could not be saved");
        self.ports.answer_all(&Fault::new(code::STORAGE, error.to_string()));
    }
}

/// A cell as a task of the executor.
pub(crate) struct CellTask(pub(crate) Arc<Cell>);

impl Task for CellTask {
    fn run(&self) -> Option<u64> {
        let cell = &self.0;
        let mut actor = cell.actor.lock().unwrap_or_else(PoisonError::into_inner);
        let now = cell.clock.now_ms();
        let letters = cell.mailbox.take(BATCH);
        // Guards of blobs live until the events that carry them were handled.
        let (events, _held): (Vec<Event>, Vec<Option<Held>>) =
            letters.into_iter().map(|letter| (letter.event, letter.held)).unzip();
        let fired = actor.fire(now);
        let handled = if events.is_empty() { Ok(Vec::new()) } else { actor.handle_all(now, events) };
        for effects in [fired, handled] {
            match effects {
                Ok(effects) => carry_out(cell, &mut actor, effects),
                Err(error) => cell.commit_failed(&error),
            }
        }
        if !cell.mailbox.is_empty() {
            cell.wake();
        }
        actor.next_timer()
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
        restart(cell, actor);
    }
}

/// Power off, power on: links and all that waited are gone, the boot loader decides what runs.
fn restart(cell: &Arc<Cell>, actor: &mut Actor) {
    cell.ports.close_all("the device restarts");
    cell.mailbox.clear();
    if let Some(Err(fault)) = cell.device.as_ref().map(|device| device.boot()) {
        tracing::error!(role = cell.name, %fault, "the device does not boot");
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
        Err(error) => cell.commit_failed(&error),
    }
}

fn role_event(id: LinkId, event: LinkEvent) -> Event {
    match event {
        LinkEvent::Opened(info) => Event::Opened(id, info),
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
