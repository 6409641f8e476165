//! The shards of a role: which of them an incoming link goes to, what they tell each other, and that none outlives its
//! main one. A role in one piece is its own main shard.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use trireme_actor::{Actor, Condition, OwnKey};
use trireme_core::Event;
use trireme_core::role::{LinkId, LinkInfo, Shard};

use crate::cell::Cell;
use crate::mailbox::Letter;

/// What the cells of one role share.
#[derive(Default)]
pub(crate) struct Flock {
    /// By number, the main one first; set once, when all are made.
    cells: OnceLock<Vec<Weak<Cell>>>,
    /// Counts the lives of the main shard; 0 while it is down.
    up: AtomicU64,
    /// Certificate and key of the role, once the main shard has renewed them, and how often it has.
    key: Mutex<(u64, Option<OwnKey>)>,
    /// Links that were handed over and whose followers have not noticed, by the links' own numbers.
    moved: Mutex<HashMap<u64, Place>>,
    hasher: RandomState,
}

/// Where a link's events go.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) cell: Arc<Cell>,
    pub(crate) id: LinkId,
    pub(crate) life: u64,
}

/// How far a shard other than the main one has followed it.
#[derive(Default)]
pub(crate) struct Followed {
    up: AtomicU64,
    keys: AtomicU64,
}

impl Flock {
    /// These are its cells.
    pub(crate) fn gather(&self, cells: &[Arc<Cell>]) {
        // Set once, before any of them runs.
        let _ = self.cells.set(cells.iter().map(Arc::downgrade).collect());
    }

    fn cells(&self) -> &[Weak<Cell>] {
        self.cells.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// How many shards there are.
    pub(crate) fn count(&self) -> usize {
        self.cells().len().max(1)
    }

    pub(crate) fn cell(&self, shard: u32) -> Option<Arc<Cell>> {
        self.cells().get(shard as usize).and_then(Weak::upgrade)
    }

    /// The shards that are there.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Cell>> {
        self.cells().iter().filter_map(Weak::upgrade)
    }

    /// Which shard an incoming link goes to: whoever comes back comes to the same one, and strangers cannot know which
    /// that is. While that one is down, the next takes its place.
    pub(crate) fn of(&self, claims: Option<&str>, link: u64) -> Option<Arc<Cell>> {
        let hash = claims.map_or_else(|| self.hasher.hash_one(link), |claims| self.hasher.hash_one(claims));
        let count = self.count() as u64;
        let shard = |after: u64| self.cell(u32::try_from((hash % count + after) % count).ok()?);
        let running = |cell: &Arc<Cell>| cell.condition() == Condition::Running;
        (0..count).filter_map(shard).find(running).or_else(|| shard(0))
    }

    /// One shard tells another something.
    pub(crate) fn tell(&self, from: u32, to: u32, payload: Vec<u8>) {
        self.post(to, Event::Told(from, payload));
    }

    /// A shard is down; the main one hears of it after all that the shard told it.
    pub(crate) fn ended(&self, shard: u32) {
        if shard != Shard::MAIN {
            self.post(Shard::MAIN, Event::ShardEnded(shard));
        }
    }

    fn post(&self, to: u32, event: Event) {
        let Some(cell) = self.cell(to) else { return };
        let life = cell.ports.life();
        cell.mailbox.push(Letter { event, held: None, life });
        cell.wake();
    }

    /// Gives a link from one shard to another, which sees it opened and then its first message.
    pub(crate) fn hand_over(&self, from: &Cell, link: LinkId, to: u32, kind: String, payload: Vec<u8>) {
        // Its follower looks here when it does not find it there any more, and waits until it is.
        let mut moved = self.moved();
        let Some(mut port) = from.ports.take(link) else { return };
        let (Some(info), Some(cell)) = (port.info.take(), self.cell(to)) else {
            return port.link.close("it was to be handed over, and its peer has subscribed already");
        };
        let handle = port.link.clone();
        let Some((id, life)) = cell.ports.incoming(port) else { return handle.close("the node stops") };
        moved.insert(handle.id(), Place { cell: cell.clone(), id, life });
        // Before anybody finds it there: nothing of the link comes before these.
        for event in [Event::Opened(id, *info), Event::Message(id, kind, payload)] {
            cell.mailbox.push(Letter { event, held: None, life });
        }
        drop(moved);
        cell.wake();
    }

    /// Where a link went.
    pub(crate) fn moved_to(&self, link: u64) -> Option<Place> {
        self.moved().remove(&link)
    }

    fn moved(&self) -> MutexGuard<'_, HashMap<u64, Place>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main shard has done something: all others hear of it when it went down or up, or has another key.
    pub(crate) fn led(&self, main: &Actor) {
        if self.count() == 1 {
            return;
        }
        let up = if *main.condition() == Condition::Running { main.falls() + 1 } else { 0 };
        if self.up.swap(up, Ordering::AcqRel) != up {
            self.all().skip(1).for_each(|cell| cell.wake());
        }
    }

    /// The key of the main shard, before anything that it did with it is acted on.
    pub(crate) fn show_key(&self, main: &Actor) {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *key {
            (_, Some(known)) if main.shows(known) => {}
            (renewals, known) => {
                // The first one is that of the configuration, which all have.
                *renewals += u64::from(known.is_some());
                *known = Some(main.own_key());
            }
        }
    }

    /// Brings another shard up to where the main one is: its key, and whether it has begun anew or is down.
    pub(crate) fn follow(&self, followed: &Followed, shard: &mut Actor) -> Step {
        {
            let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
            if let (renewals, Some(key)) = &*key
                && followed.keys.swap(*renewals, Ordering::AcqRel) != *renewals
            {
                shard.switch_key(key.clone());
            }
        }
        let up = self.up.load(Ordering::Acquire);
        match followed.up.swap(up, Ordering::AcqRel) {
            before if before == up => Step::Stay,
            _ if up == 0 => Step::Stop,
            _ => Step::Start,
        }
    }
}

/// What a shard does when its main one has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Stay,
    /// It stops, until the main one is back.
    Stop,
    /// It starts, anew.
    Start,
}

/// What is kept of a link until its peer subscribes to something: until then it can be handed over.
pub(crate) type Info = Option<Box<LinkInfo>>;
