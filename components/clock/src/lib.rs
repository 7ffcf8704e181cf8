//! Emits an event at each tick of a clock: at each multiple of config `every`, or when config `cron` says so.
//!
//! What goes in, comes out and can go wrong is in README.md. This file is the source and its configuration; `ticks` knows when.

mod ticks;

use crate::ticks::Ticks;
use jiff::{Timestamp, tz::TimeZone};
use nodata_component::{Error, Next, Output, Result, Source, component, config};
use std::time::Duration;

/// Ticks that are made up for without config `missed`, and at most: each is looked for anew after every start.
const MISSED: usize = 100;
const MISSED_MAX: usize = 10_000;

/// Longest rest of the clock: whoever sets the time of the machine should not wait for long.
const REST_MAX: Duration = Duration::from_secs(60);

struct Clock {
    ticks: Ticks,
    /// Where the time of day in an event is from, if somebody asked for one.
    zone: Option<TimeZone>,
    missed: usize,
    /// The last tick, or when it began; `None`: it has just begun.
    last: Option<Timestamp>,
}

#[component]
impl Source for Clock {
    fn open(position: Option<&[u8]>) -> Result<Self> {
        let zone = config::get("zone").map(|name| ticks::zone(&name)).transpose()?;
        let ticks = match (config::get("every"), config::get("cron")) {
            (Some(every), None) if zone.is_none() => Ticks::every(&every)?,
            (Some(_), None) => {
                return Err(Error::permanent(
                    "config `zone` is for `cron`: every so many seconds is the same everywhere",
                ));
            }
            (None, Some(cron)) => Ticks::cron(&cron, zone.clone().unwrap_or(TimeZone::UTC), Timestamp::now())?,
            (Some(_), Some(_)) => {
                return Err(Error::permanent(
                    "config `every` and config `cron` are both there; a clock has one of them",
                ));
            }
            (None, None) => {
                return Err(Error::permanent("config `every` or config `cron` is missing; a clock has one of them"));
            }
        };
        let missed = config::get_or("missed", MISSED)?;
        if missed > MISSED_MAX {
            return Err(Error::permanent(format_args!(
                "config `missed` is {missed}; at most {MISSED_MAX} ticks are made up for"
            )));
        }
        let last = position.map(decode).transpose()?;
        Ok(Self { ticks, zone, missed, last })
    }

    fn poll(&mut self, events_max: u32, out: &mut Output<'_>) -> Result<Next> {
        self.poll_at(Timestamp::now(), events_max as usize, out)
    }
}

impl Clock {
    fn poll_at(&mut self, now: Timestamp, events_max: usize, out: &mut Output<'_>) -> Result<Next> {
        let Some(last) = self.last else {
            // Nobody can have waited for a tick from before it was there.
            self.last = Some(now);
            out.checkpoint(now.as_microsecond().to_le_bytes())?;
            return Ok(self.rest(now));
        };
        let due = self.ticks.due(last, now, self.missed);
        for tick in due.iter().take(events_max) {
            let text = tick.to_string();
            let event = out.event().id(&text).timestamp_us(tick.as_microsecond());
            match &self.zone {
                None => event.text(format_args!("{{\"tick\":\"{text}\"}}"))?,
                Some(zone) => {
                    let local = tick.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
                    event.text(format_args!("{{\"tick\":\"{text}\",\"local\":\"{local}\"}}"))?;
                }
            }
            self.last = Some(*tick);
            out.checkpoint(tick.as_microsecond().to_le_bytes())?;
        }
        Ok(if due.len() > events_max { Next::More } else { self.rest(now) })
    }

    /// Until the next tick, or for as long as it may be.
    fn rest(&self, now: Timestamp) -> Next {
        let next = self.ticks.after(now).and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        // A tick is due when its time has come, and the host counts in milliseconds.
        Next::After(next.unwrap_or(REST_MAX).min(REST_MAX) + Duration::from_millis(1))
    }
}

fn decode(position: &[u8]) -> Result<Timestamp> {
    let micros = i64::from_le_bytes(position.try_into().map_err(Error::permanent)?);
    Timestamp::from_microsecond(micros).map_err(Error::permanent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, SourceHarness};
    use serde_json::json;

    const HOUR: i64 = 3600;

    fn harness(config: &[(&str, &str)]) -> SourceHarness<Clock> {
        config.iter().fold(SourceHarness::new(), |harness, (key, value)| harness.config(key, value))
    }

    /// A moment so many hours before the last full one, and some minutes.
    fn hours_ago(hours: i64) -> [u8; 8] {
        let now = Timestamp::now().as_second();
        ((now - now.rem_euclid(HOUR) - hours * HOUR + 120) * 1_000_000).to_le_bytes()
    }

    #[test]
    fn ticks_come_once_each_and_those_that_were_missed_too() {
        for config in [("every", "3600"), ("cron", "0 * * * *")] {
            let mut begins = harness(&[config]);
            assert_eq!(begins.poll(10).ok().events(), [], "it begins now");
            let begun = begins.position().unwrap().to_vec();
            assert_eq!(begins.poll(10).ok().events(), []);
            assert_eq!(begins.position(), Some(&begun[..]));

            let mut harness = harness(&[config]).at(hours_ago(5));
            let first = harness.poll(3).ok();
            assert_eq!((first.events().len(), first.next()), (3, Some(Next::More)));
            let rest = harness.poll(3).ok();
            assert_eq!(rest.events().len(), 2);
            assert!(matches!(rest.next(), Some(Next::After(wait)) if wait <= REST_MAX + Duration::from_millis(1)));
            assert_eq!(harness.poll(3).ok().events(), []);
            let events: Vec<&Event> = first.events().iter().chain(rest.events()).collect();
            for (event, next) in events.iter().zip(&events[1..]) {
                assert_eq!(next.timestamp_us.unwrap() - event.timestamp_us.unwrap(), HOUR * 1_000_000);
            }
            for event in events {
                let tick = Timestamp::from_microsecond(event.timestamp_us.unwrap()).unwrap();
                assert_eq!(event.id, Some(tick.to_string()));
                assert_eq!(event.text(), format!("{{\"tick\":\"{tick}\"}}"));
                assert!(event.text().ends_with(":00:00Z\"}"), "{}", event.text());
            }
        }
    }

    #[test]
    fn an_event_says_what_time_it_is_where_it_was_asked_for() {
        let mut harness = harness(&[("cron", "0 * * * *"), ("zone", "Asia/Kathmandu")]).at(hours_ago(1));
        let call = harness.poll(1).ok();
        let event: serde_json::Value = call.events()[0].json();
        let tick: Timestamp = event["tick"].as_str().unwrap().parse().unwrap();
        let local = tick.to_zoned(TimeZone::get("Asia/Kathmandu").unwrap()).datetime();
        assert_eq!(local.minute(), 0, "45 minutes from the hour in UTC");
        assert_eq!(event, json!({ "tick": tick.to_string(), "local": format!("{local}+05:45") }));
    }

    #[test]
    fn only_so_many_that_were_missed_are_made_up_for() {
        let mut some = harness(&[("every", "3600"), ("missed", "2")]).at(hours_ago(50));
        assert_eq!(some.poll(10).ok().events().len(), 2);
        let mut none = harness(&[("cron", "0 * * * *"), ("missed", "0")]).at(hours_ago(50));
        assert_eq!(none.poll(10).ok().events(), []);
        let mut at_most = harness(&[("cron", "* * * * * *")]).at(hours_ago(50));
        assert_eq!(at_most.poll(1000).ok().events().len(), MISSED);
    }

    #[test]
    fn a_configuration_that_is_wrong_is_named() {
        let said = |config: &[(&str, &str)]| harness(config).poll(1).error().unwrap().message().to_owned();
        assert_eq!(said(&[]), "config `every` or config `cron` is missing; a clock has one of them");
        assert_eq!(
            said(&[("every", "60"), ("cron", "@daily")]),
            "config `every` and config `cron` are both there; a clock has one of them"
        );
        for wrong in ["0", "-1", "1h", "31622401"] {
            assert_eq!(
                said(&[("every", wrong)]),
                format!("config `every` is `{wrong}`; it is a number of seconds from 1 to 31622400, which is a year")
            );
        }
        assert_eq!(
            said(&[("every", "60"), ("zone", "UTC")]),
            "config `zone` is for `cron`: every so many seconds is the same everywhere"
        );
        let refused = "it is minute, hour, day of the month, month and day of the week, such as `30 8 * * MON-FRI`, after \
                       seconds if wanted";
        for wrong in ["", "* * * *", "60 * * * *", "* * * * FUN", "*/0 * * * *", "5-1 * * * *", "0 0 0 1 1 * 2030"] {
            let said = said(&[("cron", wrong)]);
            assert!(said.starts_with(&format!("config `cron` is `{wrong}`; {refused}: ")), "{said}");
        }
        assert_eq!(said(&[("cron", "0 0 30 2 *")]), "config `cron` is `0 0 30 2 *`, which never comes");
        assert_eq!(
            said(&[("cron", "@daily"), ("zone", "Mars")]),
            "config `zone` is `Mars`, which is no time zone of the IANA, such as `Europe/Berlin`"
        );
        assert_eq!(
            said(&[("every", "60"), ("missed", "10001")]),
            "config `missed` is 10001; at most 10000 ticks are made up for"
        );
    }
}
