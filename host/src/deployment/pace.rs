//! How many events a task gives to its component at once.
//!
//! Large batches cost less for each event, and a call must return long before its deadline. So the number grows while calls
//! are quick and shrinks when they are slow, whatever the component does with an event.

use crate::deployment::spec::DeploymentRole;
use crate::limits::{CALL_EVENTS_FIRST, CALL_EVENTS_MAX, CALL_QUICK, CALL_SLOW, SINK_CALL_QUICK, SINK_CALL_SLOW};
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    events: usize,
    quick: Duration,
    slow: Duration,
}

impl Pace {
    pub(crate) fn of(role: DeploymentRole) -> Self {
        let (quick, slow) = match role {
            DeploymentRole::Sink => (SINK_CALL_QUICK, SINK_CALL_SLOW),
            _ => (CALL_QUICK, CALL_SLOW),
        };
        Self { events: CALL_EVENTS_FIRST, quick, slow }
    }

    /// Events of the next call, at most.
    pub(crate) fn events(self) -> usize {
        self.events
    }

    /// Learns from a call that was given so many events.
    pub(crate) fn learn(&mut self, events: usize, took: Duration) {
        if took > self.slow {
            self.events = (self.events / 2).max(1);
        } else if took < self.quick && events >= self.events {
            self.events = (self.events * 2).min(CALL_EVENTS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_calls_are_quick_and_full_and_shrinks_when_they_are_slow() {
        for (role, quick, steady, slow) in
            [(DeploymentRole::Transform, 1, 100, 1000), (DeploymentRole::Sink, 500, 5000, 11_000)]
        {
            let mut pace = Pace::of(role);
            let [quick, steady, slow] = [quick, steady, slow].map(Duration::from_millis);
            pace.learn(10, quick);
            assert_eq!(pace.events(), CALL_EVENTS_FIRST, "a call that was not full says nothing");
            for _ in 0..20 {
                pace.learn(pace.events(), quick);
            }
            assert_eq!(pace.events(), CALL_EVENTS_MAX);
            pace.learn(CALL_EVENTS_MAX, steady);
            assert_eq!(pace.events(), CALL_EVENTS_MAX);
            for _ in 0..20 {
                pace.learn(pace.events(), slow);
            }
            assert_eq!(pace.events(), 1);
        }
    }
}
