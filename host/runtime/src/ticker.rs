//! The thread that ticks, as long as there is a call to tick for.

use crate::limits::{TICK_MS, TICKS_WITHOUT_CALLS};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// Ticks at intervals while there are calls, and for a moment after the last one. Dropping this ends its thread.
pub(crate) struct Ticker {
    pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

/// What calls and the thread that ticks for them know of each other.
#[derive(Default)]
pub(crate) struct Pulse {
    calls: AtomicUsize,
    /// The thread does not tick, and nobody but a call wakes it.
    is_asleep: AtomicBool,
    is_over: AtomicBool,
    thread: OnceLock<Thread>,
}

/// A call that is ticked for until this is dropped.
pub(crate) struct Ticking<'a>(&'a Pulse);

impl Ticker {
    /// Ticks until there is nothing left to tick for, which the answer `false` says.
    pub(crate) fn start(mut tick: impl FnMut() -> bool + Send + 'static) -> io::Result<Self> {
        let pulse = Arc::new(Pulse::default());
        let known = pulse.clone();
        let beat = move || {
            let mut without_calls = 0;
            while !known.is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(TICK_MS));
                if !tick() {
                    break;
                }
                without_calls = if known.calls.load(Ordering::Relaxed) == 0 { without_calls + 1 } else { 0 };
                if without_calls > TICKS_WITHOUT_CALLS {
                    known.sleep();
                    without_calls = 0;
                }
            }
        };
        let thread = std::thread::Builder::new().name("nodata-tick".to_owned()).spawn(beat)?;
        // Nothing calls before this is returned, and the thread waits for no call before it has ticked for long.
        let _ = pulse.thread.set(thread.thread().clone());
        Ok(Self { pulse, thread: Some(thread) })
    }

    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.pulse.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Pulse {
    /// A call begins.
    pub(crate) fn call(&self) -> Ticking<'_> {
        // Either this sees that the thread sleeps, or the thread sees this call: both write before they read, in one order.
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Ticking(self)
    }

    /// Waits for a call.
    fn sleep(&self) {
        self.is_asleep.store(true, Ordering::SeqCst);
        while self.calls.load(Ordering::SeqCst) == 0 && !self.is_over.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.is_asleep.store(false, Ordering::SeqCst);
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_until(is_so: impl Fn() -> bool) {
        while !is_so() {
            std::thread::yield_now();
        }
    }

    /// One that ticks, and how often it has.
    fn counted() -> (Ticker, impl Fn() -> usize) {
        let ticks = Arc::new(AtomicUsize::new(0));
        let count = ticks.clone();
        let tick = move || {
            count.fetch_add(1, Ordering::SeqCst);
            true
        };
        (Ticker::start(tick).unwrap(), move || ticks.load(Ordering::SeqCst))
    }

    #[test]
    fn it_ticks_for_calls_and_sleeps_without() {
        let (ticker, ticks) = counted();
        let pulse = ticker.pulse();
        for _ in 0..2 {
            wait_until(|| pulse.is_asleep.load(Ordering::SeqCst));
            let asleep_at = ticks();
            std::thread::sleep(Duration::from_millis(5 * TICK_MS));
            assert_eq!(ticks(), asleep_at);
            let call = pulse.call();
            // Much longer than it ticks without one.
            wait_until(|| ticks() > asleep_at + 2 * TICKS_WITHOUT_CALLS);
            assert!(!pulse.is_asleep.load(Ordering::SeqCst));
            drop(call);
        }
        wait_until(|| pulse.is_asleep.load(Ordering::SeqCst));
        drop(ticker);
    }

    #[test]
    fn no_call_is_missed() {
        let (ticker, ticks) = counted();
        let pulse = ticker.pulse();
        // Calls begin at about the moment at which it falls asleep.
        for _ in 0..20 {
            wait_until(|| pulse.is_asleep.load(Ordering::SeqCst));
            for _ in 0..3 {
                let seen = ticks();
                let _call = pulse.call();
                wait_until(|| ticks() > seen);
            }
        }
    }
}
