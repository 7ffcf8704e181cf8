//! How many events a task gives to its component at once.
//!
//! Large batches cost less for each event, and a call must return long before its deadline. So the number grows while calls
//! are quick and shrinks when they are slow, whatever the component does with an event.

use crate::limits::{CALL_EVENTS_FIRST, CALL_EVENTS_MAX, CALL_QUICK, CALL_SLOW};
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    events: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { events: CALL_EVENTS_FIRST }
    }
}

impl Pace {
    /// Events of the next call, at most.
    pub(crate) fn events(self) -> usize {
        self.events
    }

    /// Learns from a call that was given so many events.
    pub(crate) fn learn(&mut self, events: usize, took: Duration) {
        if took > CALL_SLOW {
            self.events = (self.events / 2).max(1);
        } else if took < CALL_QUICK && events >= self.events {
            self.events = (self.events * 2).min(CALL_EVENTS_MAX);
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
        assert_eq!(pace.events(), CALL_EVENTS_FIRST, "a call that was not full says nothing");
        for _ in 0..20 {
            pace.learn(pace.events(), quick);
        }
        assert_eq!(pace.events(), CALL_EVENTS_MAX);
        pace.learn(CALL_EVENTS_MAX, Duration::from_millis(100));
        assert_eq!(pace.events(), CALL_EVENTS_MAX);
        for _ in 0..20 {
            pace.learn(pace.events(), Duration::from_secs(1));
        }
        assert_eq!(pace.events(), 1);
    }
}
