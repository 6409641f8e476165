//! The one thread that writes: it takes all commits that wait, writes them in one transaction, and answers them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use trireme_actor::{Commit, StoreError};
use trireme_core::Digest;

use crate::audit;
use crate::backup::Snapshot;
use crate::ballast::Ballast;
use crate::blobs::Blobs;
use crate::database::OpenError;
use crate::engine::Engine;
use crate::schema::{PINS, STATE};

/// How many may wait; further callers wait to get in.
const QUEUE: usize = 256;
/// What a transaction needs beside its own bytes: pages are copied before they are changed.
const ROOM: u64 = 256 * 1024;

type Values = BTreeMap<String, Vec<u8>>;
type Answer<T> = SyncSender<Result<T, StoreError>>;

enum Order {
    Load(Arc<str>, Answer<Values>),
    Commit(Waiting),
    Snapshot(Answer<Snapshot>),
}

/// A commit whose caller waits.
struct Waiting {
    namespace: Arc<str>,
    commit: Commit,
    answer: Answer<()>,
}

pub(crate) struct Writer {
    /// `None` only while it is dropped.
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    transactions: Arc<AtomicU64>,
}

impl Writer {
    pub(crate) fn start(
        engine: Engine,
        audit: audit::Log,
        blobs: Blobs,
        clock: Arc<dyn Fn() -> String + Send + Sync>,
    ) -> Result<Self, OpenError> {
        let (orders, incoming) = sync_channel(QUEUE);
        let transactions = Arc::new(AtomicU64::new(0));
        let mut ballast = Ballast::new(Arc::clone(&engine.home));
        ballast.keep();
        let desk = Desk { engine, audit, blobs, ballast, clock, transactions: Arc::clone(&transactions) };
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || desk.run(&incoming))
            .map_err(|error| StoreError::Failed(format!("starting the writer's thread: {error}")))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), transactions })
    }

    pub(crate) fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    pub(crate) fn load(&self, namespace: Arc<str>) -> Result<Values, StoreError> {
        self.ask(|answer| Order::Load(namespace, answer))
    }

    pub(crate) fn commit(&self, namespace: Arc<str>, commit: Commit) -> Result<(), StoreError> {
        self.ask(|answer| Order::Commit(Waiting { namespace, commit, answer }))
    }

    /// The store as it is after the commits of now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.ask(Order::Snapshot)
    }

    fn ask<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, StoreError> {
        let gone = || StoreError::Failed("the writer has stopped; restart trireme".into());
        let (answer, wait) = sync_channel(1);
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(order(answer)).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the store ended in a fault");
        }
    }
}

/// What the thread works with.
struct Desk {
    engine: Engine,
    audit: audit::Log,
    blobs: Blobs,
    ballast: Ballast,
    clock: Arc<dyn Fn() -> String + Send + Sync>,
    transactions: Arc<AtomicU64>,
}

impl Desk {
    fn run(mut self, incoming: &Receiver<Order>) {
        while let Ok(first) = incoming.recv() {
            let mut group = Vec::new();
            for order in std::iter::once(first).chain(incoming.try_iter().take(QUEUE)) {
                match order {
                    Order::Commit(waiting) => group.push(waiting),
                    Order::Load(namespace, answer) => {
                        // Whoever gave up waiting wants no answer.
                        let _ = answer.send(self.engine.load(&namespace));
                    }
                    Order::Snapshot(answer) => {
                        let _ = answer.send(self.snapshot());
                    }
                }
            }
            if !group.is_empty() {
                self.commit(group);
            }
        }
    }

    /// Between two transactions: values, pins and log belong together.
    fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        self.audit.repair(&mut self.engine)?;
        let (entries, head, audit) = self.audit.end();
        Ok(Snapshot { read: self.engine.snapshot()?, audit, entries, head, held: self.blobs.hold_all() })
    }

    fn commit(&mut self, group: Vec<Waiting>) {
        let mut outcome = self.write(&group);
        if matches!(outcome, Err(StoreError::Full(_))) && self.ballast.release() {
            outcome = self.write(&group);
        }
        if outcome.is_ok() {
            self.ballast.keep();
            self.transactions.fetch_add(1, Ordering::Relaxed);
            for Waiting { namespace, commit, .. } in &group {
                self.blobs.apply(namespace, &commit.pins);
            }
        }
        for Waiting { answer, .. } in group {
            let _ = answer.send(outcome.as_ref().map_err(again).copied());
        }
    }

    fn write(&mut self, group: &[Waiting]) -> Result<(), StoreError> {
        let size: usize = group.iter().map(|waiting| size(&waiting.commit)).sum();
        self.engine.home.ensure_room(2 * size as u64 + ROOM, 0)?;
        match self.audit.repair(&mut self.engine) {
            // Its lines are in the database, and come into the file when there is room.
            Err(StoreError::Full(_)) if self.audit.may_wait() => {}
            other => other?,
        }
        let time = (self.clock)();
        let entries = group.iter().flat_map(|waiting| {
            waiting.commit.audit.iter().map(|entry| (waiting.namespace.as_ref(), entry.as_str()))
        });
        let addition = self.audit.chain(&time, entries)?;
        self.engine.write(|transaction| {
            let mut state = transaction.open_table(STATE)?;
            let mut pins = transaction.open_table(PINS)?;
            for Waiting { namespace, commit, .. } in group {
                let namespace = namespace.as_ref();
                for (key, value) in &commit.puts {
                    match value {
                        Some(value) => state.insert((namespace, key.as_str()), value.as_slice())?,
                        None => state.remove((namespace, key.as_str()))?,
                    };
                }
                for (digest, size) in &commit.pins {
                    match size {
                        Some(size) => pins.insert((namespace, digest.as_bytes()), size)?,
                        None => pins.remove((namespace, digest.as_bytes()))?,
                    };
                }
            }
            addition.store(transaction)
        })?;
        self.audit.append(addition);
        Ok(())
    }
}

/// Bytes of a commit, about.
fn size(commit: &Commit) -> usize {
    let values: usize =
        commit.puts.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
    let entries: usize = commit.audit.iter().map(String::len).sum();
    values + entries + commit.pins.len() * (Digest::LENGTH + 8)
}

/// The same error for each of a group.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(text) => StoreError::Full(text.clone()),
        StoreError::Damaged(text) => StoreError::Damaged(text.clone()),
        StoreError::Failed(text) => StoreError::Failed(text.clone()),
    }
}
