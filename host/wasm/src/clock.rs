//! The clock of components: a step every [`TICK`] while one runs. While none does, its thread sleeps, so that an idle node
//! does not wake the processor a hundred times a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use crate::error::Error;

/// How often a running component is asked whether it is time.
const TICK: Duration = Duration::from_millis(10);
/// Steps without any call after which the clock sleeps: calls that follow each other closely do not wake it each time.
const IDLE_STEPS: u32 = 10;

/// How many steps of the clock a call may take.
pub(crate) fn ticks(call: Duration) -> u64 {
    // One more, since the step in hand has begun already.
    u64::try_from(call.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX).saturating_add(1)
}

/// The clock of an engine. Its thread ends soon after it: whoever calls a component holds it.
#[derive(Debug)]
pub(crate) struct Clock {
    calls: Arc<Calls>,
    thread: Thread,
}

/// What the clock and those who call have in common.
#[derive(Debug, Default)]
struct Calls {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Whether the thread sleeps, or is about to.
    asleep: AtomicBool,
}

/// A call that runs; the clock goes as long as there is one.
pub(crate) struct Running<'a>(&'a Calls);

impl Clock {
    /// Starts the clock of an engine.
    ///
    /// # Errors
    /// [`Error::Engine`] when there is no thread for it.
    pub(crate) fn start(engine: &wasmtime::Engine) -> Result<Self, Error> {
        let engine = engine.weak();
        let step = move || {
            if let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
            }
        };
        Self::stepping(step).map_err(|error| Error::Engine(format!("no thread for its clock: {error}")))
    }

    fn stepping(step: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let calls = Arc::new(Calls::default());
        let of_thread = Arc::clone(&calls);
        let spawned = thread::Builder::new().name("wasm-clock".into()).spawn(move || of_thread.run(step))?;
        Ok(Self { calls, thread: spawned.thread().clone() })
    }

    /// A call begins.
    pub(crate) fn running(&self) -> Running<'_> {
        // Either this sees that the clock sleeps, or the clock sees the call before it does.
        self.calls.begun.fetch_add(1, Ordering::SeqCst);
        if self.calls.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.calls)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Calls {
    /// Steps until nobody holds the clock.
    fn run(self: &Arc<Self>, step: impl Fn()) {
        let (mut seen, mut idle) = (0, 0);
        while Arc::strong_count(self) > 1 {
            step();
            thread::sleep(TICK);
            let begun = self.begun.load(Ordering::SeqCst);
            let busy = begun != seen || self.ended.load(Ordering::SeqCst) != begun;
            idle = if busy { 0 } else { idle + 1 };
            seen = begun;
            if idle == IDLE_STEPS {
                self.asleep.store(true, Ordering::SeqCst);
                if self.begun.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                idle = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Instant};

    use super::*;

    /// A clock, and how often it has stepped.
    fn clock() -> (Clock, Arc<AtomicUsize>) {
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        let step = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        (Clock::stepping(step).unwrap(), steps)
    }

    fn until(what: &str, reached: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reached() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn asleep(clock: &Clock) -> bool {
        clock.calls.asleep.load(Ordering::SeqCst)
    }

    #[test]
    fn the_clock_sleeps_while_nothing_runs_and_goes_while_something_does() {
        let (clock, steps) = clock();
        until("it sleeps", || asleep(&clock));
        let before = steps.load(Ordering::SeqCst);
        let running = clock.running();
        until("it goes on and on", || steps.load(Ordering::SeqCst) > before + 3 * IDLE_STEPS as usize);
        assert!(!asleep(&clock), "a call runs");
        drop(running);
        until("it sleeps again", || asleep(&clock));
    }

    #[test]
    fn the_thread_ends_with_the_clock_also_from_sleep() {
        let (clock, _) = clock();
        until("it sleeps", || asleep(&clock));
        let calls = Arc::downgrade(&clock.calls);
        drop(clock);
        until("its thread is gone", || calls.strong_count() == 0);
    }

    #[test]
    fn a_limit_counts_the_step_in_hand() {
        assert_eq!(ticks(Duration::from_millis(10)), 2);
        assert_eq!(ticks(Duration::from_millis(11)), 3);
        assert_eq!(ticks(Duration::MAX), u64::MAX);
    }
}
