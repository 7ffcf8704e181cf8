//! How many events a task gives to its component at once.
//!
//! Large batches cost less for each event, and a call must return long before its deadline. So the number grows while calls
//! are quick and shrinks when they are slow, whatever the component does with an event.

use std::time::Duration;

/// Events of the first call: a component that needs a millisecond for each is still far from its deadline.
const FIRST: usize = 128;

/// Most events of a call. More would not make it cheaper, see `benches/transform.rs` of the runtime.
const MOST: usize = 8192;

/// A call that is quicker gets more events next time.
const QUICK: Duration = Duration::from_millis(20);

/// A call that is slower gets fewer.
const SLOW: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    events: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { events: FIRST }
    }
}

impl Pace {
    /// Events of the next call, at most.
    pub(crate) fn events(self) -> usize {
        self.events
    }

    /// Learns from a call that was given so many events.
    pub(crate) fn learn(&mut self, events: usize, took: Duration) {
        if took > SLOW {
            self.events = (self.events / 2).max(1);
        } else if took < QUICK && events >= self.events {
            self.events = (self.events * 2).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_calls_are_quick_and_full_and_shrinks_when_they_are_slow() {
        let mut pace = Pace::default();
        let quick = Duration::from_millis(1);
        pace.learn(10, quick);
        assert_eq!(pace.events(), FIRST, "a call that was not full says nothing");
        for _ in 0..20 {
            pace.learn(pace.events(), quick);
        }
        assert_eq!(pace.events(), MOST);
        pace.learn(MOST, Duration::from_millis(100));
        assert_eq!(pace.events(), MOST);
        for _ in 0..20 {
            pace.learn(pace.events(), Duration::from_secs(1));
        }
        assert_eq!(pace.events(), 1);
    }
}
