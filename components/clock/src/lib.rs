//! Emits an event at each tick of a clock.
//!
//! Out: `{"tick":"2013-01-01T10:00:00Z"}` at each multiple of config `every` since the Unix epoch, with that time as its timestamp and
//! as its id, so that what counts on it counts each tick once. Ticks that passed while the server was down come too, in order, at most
//! as many as config `missed` says (100 without it); earlier ones are left out.
//!
//! ```text
//! nodata add-component --file target/wasm32-wasip2/release/clock.wasm --source ticks --config every=60
//! ```
//!
//! `every` is in seconds.

use nodata_component::{Error, Next, Output, Result, Source, component, config};
use std::time::{Duration, SystemTime};

const SECOND_US: i64 = 1_000_000;

struct Clock {
    every_us: i64,
    /// The last tick; `None`: it has just begun, and the next one is the first.
    last_us: Option<i64>,
    missed: i64,
}

#[component]
impl Source for Clock {
    fn open(position: Option<&[u8]>) -> Result<Self> {
        let every: i64 = config::require("every")?;
        if !(1..=366 * 86_400).contains(&every) {
            return Err(Error::permanent(format_args!("config `every` is {every}; it is 1 second to a year")));
        }
        let missed: i64 = config::get_or("missed", 100)?;
        let last_us = match position {
            Some(bytes) => Some(i64::from_le_bytes(bytes.try_into().map_err(Error::permanent)?)),
            None => None,
        };
        Ok(Self { every_us: every * SECOND_US, last_us, missed: missed.max(0) })
    }

    fn poll(&mut self, events_max: u32, out: &mut Output<'_>) -> Result<Next> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::permanent)?;
        self.poll_at(i64::try_from(now.as_micros()).map_err(Error::permanent)?, events_max, out)
    }
}

impl Clock {
    fn poll_at(&mut self, now_us: i64, events_max: u32, out: &mut Output<'_>) -> Result<Next> {
        let latest = now_us - now_us.rem_euclid(self.every_us);
        let Some(last) = self.last_us else {
            // Nobody can have waited for a tick from before it was there.
            self.last_us = Some(latest);
            out.checkpoint(latest.to_le_bytes())?;
            return Ok(self.rest(now_us));
        };
        let earliest = latest - self.missed.saturating_mul(self.every_us);
        let mut tick = last.max(earliest);
        for _ in 0..events_max {
            if tick >= latest {
                break;
            }
            tick += self.every_us;
            let text = rfc3339(tick / SECOND_US);
            out.event().id(&text).timestamp_us(tick).text(format_args!("{{\"tick\":\"{text}\"}}"))?;
        }
        if tick != last {
            self.last_us = Some(tick);
            out.checkpoint(tick.to_le_bytes())?;
        }
        Ok(if tick < latest { Next::More } else { self.rest(now_us) })
    }

    fn rest(&self, now_us: i64) -> Next {
        let left = self.every_us - now_us.rem_euclid(self.every_us);
        Next::After(Duration::from_micros(left.unsigned_abs()) + Duration::from_millis(1))
    }
}

/// Seconds since the Unix epoch as a time in UTC. The days are those of Howard Hinnant's `civil_from_days`.
fn rfc3339(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, SourceHarness};

    #[test]
    fn a_tick_has_its_time() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_356_998_400), "2013-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
    }

    /// Seconds ago, as a checkpoint that lies on a tick.
    fn ago(ticks: i64, every: i64) -> [u8; 8] {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        ((now - now.rem_euclid(every) - ticks * every) * SECOND_US).to_le_bytes()
    }

    #[test]
    fn ticks_come_once_each_and_those_that_were_missed_too() {
        let mut harness = SourceHarness::<Clock>::new().config("every", 3600);
        let call = harness.poll(10).ok();
        assert_eq!(call.events(), [], "it begins now");
        let begun = harness.position().unwrap().to_vec();
        assert_eq!(harness.poll(10).ok().events(), []);
        assert_eq!(harness.position(), Some(&begun[..]));

        let mut harness = SourceHarness::<Clock>::new().config("every", 3600).at(ago(5, 3600));
        let first = harness.poll(3).ok();
        assert_eq!((first.events().len(), first.next()), (3, Some(Next::More)));
        let rest = harness.poll(3).ok();
        assert_eq!(rest.events().len(), 2);
        let ids: Vec<_> = first.events().iter().chain(rest.events()).map(|event| event.id.clone().unwrap()).collect();
        assert!(ids.is_sorted() && ids.iter().all(|id| id.ends_with(":00:00Z")), "{ids:?}");
        let last: &Event = &rest.events()[1];
        assert_eq!(last.text(), format!("{{\"tick\":\"{}\"}}", last.id.clone().unwrap()));
        assert!(matches!(rest.next(), Some(Next::After(wait)) if wait <= Duration::from_secs(3601)));
    }

    #[test]
    fn only_so_many_that_were_missed_are_made_up_for() {
        let mut harness = SourceHarness::<Clock>::new().config("every", 60).config("missed", 2).at(ago(50, 60));
        assert_eq!(harness.poll(10).ok().events().len(), 2);
        assert!(SourceHarness::<Clock>::new().config("every", 0).poll(1).error().is_some());
        assert!(SourceHarness::<Clock>::new().poll(1).error().is_some());
    }
}
