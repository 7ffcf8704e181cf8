//! When a clock ticks.

use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use nodata_component::{Error, Result};

/// Longest time between two ticks of `every`.
const EVERY_SECONDS_MAX: i64 = 366 * 86_400;

#[derive(Debug)]
pub(crate) enum Ticks {
    /// At each multiple of so many seconds since the Unix epoch.
    Every(i64),
    Cron(Box<Cron>, TimeZone),
}

/// A time zone by its name in the database of the IANA.
pub(crate) fn zone(name: &str) -> Result<TimeZone> {
    let refused = format_args!("config `zone` is `{name}`, which is no time zone of the IANA, such as `Europe/Berlin`");
    TimeZone::get(name).map_err(|_| Error::permanent(refused))
}

impl Ticks {
    pub(crate) fn every(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(seconds) if (1..=EVERY_SECONDS_MAX).contains(&seconds) => Ok(Self::Every(seconds)),
            _ => Err(Error::permanent(format_args!(
                "config `every` is `{text}`; it is a number of seconds from 1 to {EVERY_SECONDS_MAX}, which is a year"
            ))),
        }
    }

    /// An expression that has a tick after `now`.
    pub(crate) fn cron(text: &str, zone: TimeZone, now: Timestamp) -> Result<Self> {
        // A clock whose years are over could only say so, again and again.
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| {
            Error::permanent(format_args!(
                "config `cron` is `{text}`; it is minute, hour, day of the month, month and day of the week, such as \
                 `30 8 * * MON-FRI`, after seconds if wanted: {error}"
            ))
        })?;
        let ticks = Self::Cron(Box::new(cron), zone);
        match ticks.after(now) {
            Some(_) => Ok(ticks),
            None => Err(Error::permanent(format_args!("config `cron` is `{text}`, which never comes"))),
        }
    }

    /// The first tick after a moment; `None`: there is none.
    pub(crate) fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(seconds) => Timestamp::from_second(floor(moment, *seconds) + seconds).ok(),
            Self::Cron(cron, zone) => {
                let next = cron.find_next_occurrence(&moment.to_zoned(zone.clone()), false);
                Some(next.ok()?.timestamp())
            }
        }
    }

    /// The last tick before a moment.
    fn before(&self, moment: Timestamp) -> Option<Timestamp> {
        // The last moment before it that there is.
        let moment = moment.checked_sub(SignedDuration::from_nanos(1)).ok()?;
        match self {
            Self::Every(seconds) => Timestamp::from_second(floor(moment, *seconds)).ok(),
            Self::Cron(cron, zone) => {
                let last = cron.find_previous_occurrence(&moment.to_zoned(zone.clone()), true);
                Some(last.ok()?.timestamp())
            }
        }
    }

    /// The ticks after `last` and up to `now`, in order: the latest of them, if there are more than `most`.
    pub(crate) fn due(&self, last: Timestamp, now: Timestamp, most: usize) -> Vec<Timestamp> {
        let ticks = std::iter::successors(self.after(last), |tick| self.after(*tick)).take_while(|tick| *tick <= now);
        let mut due: Vec<Timestamp> = ticks.take(most + 1).collect();
        if due.len() > most {
            // How many there are does not matter, and may be a year of seconds.
            let beyond = now.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(now);
            due = std::iter::successors(self.before(beyond), |tick| self.before(*tick)).take(most).collect();
            due.reverse();
        }
        due
    }
}

/// The last multiple of so many seconds that is not after a moment.
fn floor(moment: Timestamp, seconds: i64) -> i64 {
    moment.as_nanosecond().div_euclid(i128::from(seconds) * 1_000_000_000) as i64 * seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(expression: &str, zone: &str) -> Ticks {
        Ticks::cron(expression, super::zone(zone).unwrap(), time("2024-01-01T00:00:00Z")).unwrap()
    }

    /// The local times of the ticks after one moment and up to another, with their distance from UTC.
    #[track_caller]
    fn check(expression: &str, zone: &str, from: &str, to: &str, expected: &[&str]) {
        let ticks = cron(expression, zone).due(time(from), time(to), 1000);
        let zone = super::zone(zone).unwrap();
        let local = |tick: &Timestamp| tick.to_zoned(zone.clone()).strftime("%m-%d %H:%M:%S %:z").to_string();
        assert_eq!(ticks.iter().map(local).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn expressions_say_when() {
        let (from, to) = ("2024-02-28T23:59:59Z", "2024-03-04T00:00:00Z");
        check(
            "0 12 * * *",
            "UTC",
            from,
            to,
            &["02-29 12:00:00 +00:00", "03-01 12:00:00 +00:00", "03-02 12:00:00 +00:00", "03-03 12:00:00 +00:00"],
        );
        check("0 8 * FEB,MAR mon-Fri", "UTC", from, to, &["02-29 08:00:00 +00:00", "03-01 08:00:00 +00:00"]);
        check(
            "30 */20 1-2 3 *",
            "UTC",
            from,
            to,
            &["03-01 00:30:00 +00:00", "03-01 20:30:00 +00:00", "03-02 00:30:00 +00:00", "03-02 20:30:00 +00:00"],
        );
        check("0 0 L * *", "UTC", from, to, &["02-29 00:00:00 +00:00"]);
        check("0 0 * * 0", "UTC", from, to, &["03-03 00:00:00 +00:00"]);
        check("@weekly", "UTC", from, to, &["03-03 00:00:00 +00:00"]);
        check(
            "15-45/15 0 12 1 * *",
            "UTC",
            from,
            to,
            &["03-01 12:00:15 +00:00", "03-01 12:00:30 +00:00", "03-01 12:00:45 +00:00"],
        );
        // A day of the month or a day of the week, and both with a plus.
        check("0 0 1 * SUN", "UTC", from, to, &["03-01 00:00:00 +00:00", "03-03 00:00:00 +00:00"]);
        check("0 0 3 * +SUN", "UTC", from, to, &["03-03 00:00:00 +00:00"]);
    }

    // In New York the clocks went from 2:00 to 3:00 on 2024-03-10, and from 2:00 back to 1:00 on 2024-11-03.

    #[test]
    fn a_local_time_that_is_skipped_comes_right_after_the_gap() {
        let (from, to) = ("2024-03-09T12:00:00Z", "2024-03-11T12:00:00Z");
        check("30 2 * * *", "America/New_York", from, to, &["03-10 03:00:00 -04:00", "03-11 02:30:00 -04:00"]);
        // What comes again and again goes on, without the hour that was not there.
        let (from, to) = ("2024-03-10T06:29:59Z", "2024-03-10T07:30:00Z");
        check(
            "*/30 * * * *",
            "America/New_York",
            from,
            to,
            &["03-10 01:30:00 -05:00", "03-10 03:00:00 -04:00", "03-10 03:30:00 -04:00"],
        );
    }

    #[test]
    fn a_local_time_that_is_repeated_comes_once() {
        let (from, to) = ("2024-11-02T12:00:00Z", "2024-11-04T12:00:00Z");
        check("30 1 * * *", "America/New_York", from, to, &["11-03 01:30:00 -04:00", "11-04 01:30:00 -05:00"]);
        // What comes again and again comes in both of the hours.
        let (from, to) = ("2024-11-03T05:00:00Z", "2024-11-03T07:00:00Z");
        check(
            "*/30 * * * *",
            "America/New_York",
            from,
            to,
            &["11-03 01:30:00 -04:00", "11-03 01:00:00 -05:00", "11-03 01:30:00 -05:00", "11-03 02:00:00 -05:00"],
        );
    }

    fn ticks() -> impl Strategy<Value = Ticks> {
        let expressions = [
            "* * * * * *",
            "*/7 */5 * * * *",
            "30 2 * * *",
            "*/30 * * * *",
            "0 */3 * * *",
            "15 1 * * SUN",
            "0 0 L * *",
            "0 3 1,15 * +MON",
        ];
        let zones = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"];
        prop_oneof![
            (1i64..100_000).prop_map(Ticks::Every),
            (prop::sample::select(expressions.to_vec()), prop::sample::select(zones.to_vec()))
                .prop_map(|(expression, zone)| cron(expression, zone)),
        ]
    }

    /// Around a day on which clocks are changed, somewhere.
    fn moment() -> impl Strategy<Value = Timestamp> {
        let days = [
            "2024-03-10T07:00:00Z",
            "2024-03-31T01:00:00Z",
            "2024-04-06T15:00:00Z",
            "2024-10-05T15:30:00Z",
            "2024-10-27T01:00:00Z",
            "2024-11-03T06:00:00Z",
        ];
        (prop::sample::select(days.to_vec()), -9_000_000_000i64..9_000_000_000)
            .prop_map(|(day, by)| time(day) + SignedDuration::from_micros(by))
    }

    proptest! {
        /// However often the clock is looked at, and whatever it made up for, each tick comes once and in order.
        #[test]
        fn ticks_come_once_each_however_they_are_asked_for(
            ticks in ticks(),
            from in moment(),
            steps in prop::collection::vec(0i64..2_000_000_000, 1..10),
        ) {
            let (mut at, mut last, mut found) = (from, from, Vec::new());
            for step in steps {
                at += SignedDuration::from_micros(step);
                let due = ticks.due(last, at, 100_000);
                last = due.last().copied().unwrap_or(last);
                found.extend(due);
            }
            prop_assert!(found.is_sorted_by(|one, next| one < next));
            prop_assert!(found.iter().all(|tick| from < *tick && *tick <= at));
            prop_assert_eq!(&found, &ticks.due(from, at, 100_000));
            // Looking back finds what looking forward finds.
            for most in [0, 1, 10, found.len()] {
                prop_assert_eq!(ticks.due(from, at, most), &found[found.len().saturating_sub(most)..]);
            }
        }
    }

    #[test]
    fn what_was_missed_for_a_year_is_found_at_once() {
        let (from, to) = (time("2023-01-01T00:00:00Z"), time("2024-01-01T00:00:00.5Z"));
        for ticks in [Ticks::Every(1), cron("* * * * * *", "UTC")] {
            let due = ticks.due(from, to, 3);
            assert_eq!(due, ["2023-12-31T23:59:58Z", "2023-12-31T23:59:59Z", "2024-01-01T00:00:00Z"].map(time));
        }
    }
}
