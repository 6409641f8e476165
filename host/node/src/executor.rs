//! Workers and timers: an actor is a queue, and a worker takes whichever has something to do.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Something that a worker runs when it was woken.
pub(crate) trait Task: Send + Sync {
    /// Does some of what waits, and says when to be woken by the clock, in milliseconds of [`Executor::now_ms`].
    fn run(&self) -> Option<u64>;
}

/// Idle, queued, running, or running and woken again meanwhile.
const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const AGAIN: u8 = 3;

/// A task with its place in the queue.
pub(crate) struct Slot {
    task: Box<dyn Task>,
    state: AtomicU8,
    number: usize,
    executor: Weak<Shared>,
}

impl Slot {
    /// Has the task run soon. Cheap; any number of wakes before a run make one run.
    pub(crate) fn wake(self: &Arc<Self>) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            let next = match state {
                IDLE => QUEUED,
                RUNNING => AGAIN,
                _ => return,
            };
            if self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                if next == QUEUED {
                    self.enqueue();
                }
                return;
            }
        }
    }

    fn enqueue(self: &Arc<Self>) {
        if let Some(executor) = self.executor.upgrade() {
            executor.lock().ready.push_back(self.clone());
            executor.work.notify_one();
        }
    }

    fn run(self: &Arc<Self>, executor: &Shared) {
        self.state.store(RUNNING, Ordering::Release);
        if let Some(at_ms) = self.task.run() {
            executor.wake_at(at_ms, self.number);
        }
        if self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.state.store(QUEUED, Ordering::Release);
            self.enqueue();
        }
    }
}

struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    clock: Condvar,
    stopping: AtomicBool,
    began: Instant,
}

#[derive(Default)]
struct Queues {
    ready: VecDeque<Arc<Slot>>,
    slots: Vec<Weak<Slot>>,
    /// When to wake whom; each task has one alarm at most.
    alarms: BTreeSet<(u64, usize)>,
    alarm_of: HashMap<usize, u64>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wake_at(&self, at_ms: u64, number: usize) {
        let mut queues = self.lock();
        if let Some(old) = queues.alarm_of.insert(number, at_ms) {
            queues.alarms.remove(&(old, number));
        }
        queues.alarms.insert((at_ms, number));
        if queues.alarms.first() == Some(&(at_ms, number)) {
            self.clock.notify_one();
        }
    }

    fn worker(&self) {
        loop {
            let mut queues = self.lock();
            let slot = loop {
                if self.stopping.load(Ordering::Acquire) {
                    return;
                }
                match queues.ready.pop_front() {
                    Some(slot) => break slot,
                    None => queues = self.work.wait(queues).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queues);
            slot.run(self);
        }
    }

    fn alarms(&self) {
        let mut queues = self.lock();
        while !self.stopping.load(Ordering::Acquire) {
            let now = self.now_ms();
            let later = queues.alarms.split_off(&(now.saturating_add(1), 0));
            let due = std::mem::replace(&mut queues.alarms, later);
            let slots: Vec<_> =
                due.iter().filter_map(|(_, number)| queues.slots.get(*number)?.upgrade()).collect();
            drop(queues);
            slots.iter().for_each(Slot::wake);
            drop(slots);
            queues = self.lock();
            // Read only now: an alarm that came meanwhile found nobody waiting.
            let now = self.now_ms();
            let next = queues.alarms.first().map_or(u64::MAX, |(at, _)| at.saturating_sub(now));
            if next > 0 && !self.stopping.load(Ordering::Acquire) {
                let pause = Duration::from_millis(next.min(1_000));
                queues = self.clock.wait_timeout(queues, pause).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// The workers of a node. Stops and joins them when dropped.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Executor {
    /// `workers` threads, and one for the clock.
    pub(crate) fn start(workers: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            work: Condvar::new(),
            clock: Condvar::new(),
            stopping: AtomicBool::new(false),
            began: Instant::now(),
        });
        let spawn = |name: String, body: fn(&Shared)| {
            let shared = shared.clone();
            std::thread::Builder::new().name(name).spawn(move || body(&shared))
        };
        let mut threads = vec![spawn("clock".into(), Shared::alarms)?];
        for number in 0..workers.max(1) {
            threads.push(spawn(format!("worker-{number}"), Shared::worker)?);
        }
        Ok(Self { shared, threads })
    }

    /// Takes a task in; it runs when it is woken.
    pub(crate) fn add(&self, make: impl FnOnce() -> Box<dyn Task>) -> Arc<Slot> {
        let mut queues = self.shared.lock();
        let number = queues.slots.len();
        let executor = Arc::downgrade(&self.shared);
        let slot = Arc::new(Slot { task: make(), state: AtomicU8::new(IDLE), number, executor });
        queues.slots.push(Arc::downgrade(&slot));
        slot
    }

    /// A clock that others may read.
    pub(crate) fn clock(&self) -> Clock {
        Clock(self.shared.began)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        {
            let _queues = self.shared.lock();
            self.shared.stopping.store(true, Ordering::Release);
        }
        self.shared.work.notify_all();
        self.shared.clock.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// The node's own clock: milliseconds since its executor started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    struct Counter(Arc<AtomicUsize>, mpsc::Sender<()>, Option<u64>);

    impl Task for Counter {
        fn run(&self) -> Option<u64> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let _ = self.1.send(());
            if self.0.load(Ordering::SeqCst) < 3 { self.2 } else { None }
        }
    }

    #[test]
    fn a_woken_task_runs() {
        let executor = Executor::start(2).unwrap();
        let (runs, (sender, receiver)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
        let slot = executor.add(|| Box::new(Counter(runs.clone(), sender, None)));
        slot.wake();
        receiver.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_task_is_woken_by_the_clock_when_it_asks_for_it() {
        let executor = Executor::start(1).unwrap();
        let (runs, (sender, receiver)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
        let slot = executor.add(|| Box::new(Counter(runs.clone(), sender, Some(20))));
        slot.wake();
        for _ in 0..3 {
            receiver.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}
