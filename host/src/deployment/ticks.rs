//! When a task ticks.

use nodata_log::TimestampUs;
use std::time::Duration;

/// The beginnings of intervals since the Unix epoch. A task that begins anew more often than it ticks still ticks, and those of one
/// deployment tick together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    every_us: i64,
    next_us: TimestampUs,
}

impl Ticks {
    pub(crate) fn new(every_us: u64, now_us: TimestampUs) -> Self {
        let every_us = i64::try_from(every_us).unwrap_or(i64::MAX).max(1);
        Self { every_us, next_us: behind(now_us, every_us) }
    }

    /// Whether it is time. What was missed before is not made up for.
    pub(crate) fn is_due(&mut self, now_us: TimestampUs) -> bool {
        let is_due = now_us >= self.next_us;
        // Of a clock that was set back, the next tick is not as far away as it was.
        if is_due || self.next_us.saturating_sub(now_us) > self.every_us {
            self.next_us = behind(now_us, self.every_us);
        }
        is_due
    }

    /// How long it is until then.
    pub(crate) fn wait(self, now_us: TimestampUs) -> Duration {
        let wait_us = self.next_us.saturating_sub(now_us).clamp(0, self.every_us);
        Duration::from_micros(wait_us.unsigned_abs())
    }
}

/// The next beginning of an interval.
fn behind(now_us: TimestampUs, every_us: i64) -> TimestampUs {
    (now_us - now_us.rem_euclid(every_us)).saturating_add(every_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_comes_once_for_all_that_were_missed() {
        let mut ticks = Ticks::new(10, 103);
        let times = [103, 109, 110, 110, 119, 120, 121, 157, 158, 160];
        let due: Vec<i64> = times.into_iter().filter(|now| ticks.is_due(*now)).collect();
        assert_eq!(due, [110, 120, 157, 160]);
        assert_eq!(ticks.wait(163), Duration::from_micros(7));
        assert_eq!(ticks.wait(170), Duration::ZERO);
        assert_eq!(ticks.wait(500), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_is_set_back_ticks_on() {
        let mut ticks = Ticks::new(10, 1_000_000);
        assert_eq!(ticks.wait(5), Duration::from_micros(10), "it does not sleep until the old time comes again");
        assert!(!ticks.is_due(5));
        assert_eq!(ticks.wait(5), Duration::from_micros(5));
        assert!(ticks.is_due(10));
        // Before the epoch, too.
        let mut ticks = Ticks::new(10, -25);
        assert!(!ticks.is_due(-21));
        assert!(ticks.is_due(-20));
        Ticks::new(u64::MAX, i64::MAX).is_due(i64::MAX);
    }
}
