//! Keeps the flights that arrived late, and reshapes them.
//!
//! What goes in, comes out and can go wrong is in README.md.

use nodata_component::{Events, Output, Result, component, config};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Flight {
    year: u32,
    month: u32,
    day: u32,
    // It may be null, but it must be there: without this line a missing field would be null, too.
    #[serde(deserialize_with = "Option::deserialize")]
    arr_delay: Option<i64>,
    carrier: String,
    flight: u32,
    origin: String,
    dest: String,
}

#[derive(Serialize)]
struct LateFlight {
    flight: String,
    carrier: String,
    route: String,
    date: String,
    delay_minutes: i64,
}

#[component]
fn late_flights(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let minutes = config::get_or("minutes", 60)?;
    for event in events {
        let flight: Flight = match event.json() {
            Ok(flight) => flight,
            Err(error) => {
                out.reject(&event, error);
                continue;
            }
        };
        if let Some(delay_minutes) = flight.arr_delay.filter(|delay| *delay >= minutes) {
            out.like(&event).id_of(&event).json(&LateFlight {
                flight: format!("{}{}", flight.carrier, flight.flight),
                route: format!("{}-{}", flight.origin, flight.dest),
                date: format!("{:04}-{:02}-{:02}", flight.year, flight.month, flight.day),
                carrier: flight.carrier,
                delay_minutes,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, Harness};

    const ON_TIME: &str = r#"{"id":"F000000","year":2013,"month":1,"day":1,"dep_time":517,"sched_dep_time":515,"dep_delay":2,"arr_time":830,"sched_arr_time":819,"arr_delay":11,"carrier":"UA","flight":1545,"tailnum":"N14228","origin":"EWR","dest":"IAH","air_time":227,"distance":1400,"hour":5,"minute":15,"time_hour":"2013-01-01T10:00:00Z"}"#;
    const LATE: &str = r#"{"id":"F000151","year":2013,"month":1,"day":1,"dep_time":848,"sched_dep_time":1835,"dep_delay":853,"arr_time":1001,"sched_arr_time":1950,"arr_delay":851,"carrier":"MQ","flight":3944,"tailnum":"N942MQ","origin":"JFK","dest":"BWI","air_time":41,"distance":184,"hour":18,"minute":35,"time_hour":"2013-01-01T23:00:00Z"}"#;
    const CANCELLED: &str = r#"{"id":"F000838","year":2013,"month":1,"day":1,"dep_time":null,"sched_dep_time":1630,"dep_delay":null,"arr_time":null,"sched_arr_time":1815,"arr_delay":null,"carrier":"EV","flight":4308,"tailnum":"N18120","origin":"EWR","dest":"RDU","air_time":null,"distance":416,"hour":16,"minute":30,"time_hour":"2013-01-01T21:00:00Z"}"#;

    fn flight(arr_delay: &str) -> Event {
        Event::new(format!(
            r#"{{"year":2013,"month":12,"day":31,"arr_delay":{arr_delay},"carrier":"UA","flight":7,"origin":"EWR","dest":"IAH"}}"#
        ))
    }

    #[test]
    fn a_late_flight_is_reshaped_and_keeps_its_id_key_and_timestamp() {
        let late = Event::new(LATE).id("F000151").key("MQ").timestamp_us(1_357_081_200_000_000);
        let call = Harness::new(late_flights).call([Event::new(ON_TIME), late, Event::new(CANCELLED)]).ok();
        let reshaped =
            r#"{"flight":"MQ3944","carrier":"MQ","route":"JFK-BWI","date":"2013-01-01","delay_minutes":851}"#;
        assert_eq!(call.events(), [Event::new(reshaped).id("F000151").key("MQ").timestamp_us(1_357_081_200_000_000)]);
        assert_eq!(call.rejected(), []);
    }

    #[test]
    fn the_threshold_is_late() {
        let delays = |harness: Harness| {
            let mut harness = harness;
            let call = harness.call(["59", "60", "61", "-5"].map(flight)).ok();
            call.events()
                .iter()
                .map(|event| event.json::<serde_json::Value>()["delay_minutes"].as_i64())
                .collect::<Vec<_>>()
        };
        assert_eq!(delays(Harness::new(late_flights)), [Some(60), Some(61)]);
        assert_eq!(delays(Harness::new(late_flights).config("minutes", 61)), [Some(61)]);
        let call = Harness::new(late_flights).config("minutes", "an hour").call([flight("60")]);
        assert_eq!(
            call.error().unwrap().message(),
            "config `minutes` is `an hour`, which does not parse: invalid digit found in string"
        );
    }

    #[test]
    fn what_is_not_a_flight_is_put_aside_and_the_rest_goes_on() {
        let events = [
            Event::new("not JSON"),
            Event::new(r#"{"year":2013,"month":1,"day":1,"carrier":"UA","flight":7,"origin":"EWR","dest":"IAH"}"#),
            flight("\"sixty\""),
            Event::tombstone(),
            flight("75"),
        ];
        let call = Harness::new(late_flights).call(events).ok();
        assert_eq!(call.events().len(), 1);
        let reason = |reason: &str| reason.split(" at line").next().unwrap().to_owned();
        let reasons: Vec<_> = call.rejected().iter().map(|rejected| reason(&rejected.reason)).collect();
        assert_eq!(
            reasons,
            [
                "the event at offset 0 is not the JSON that was expected: expected ident",
                "the event at offset 1 is not the JSON that was expected: missing field `arr_delay`",
                "the event at offset 2 is not the JSON that was expected: invalid type: string \"sixty\", expected i64",
                "the event at offset 3 has no value",
            ]
        );
    }
}
