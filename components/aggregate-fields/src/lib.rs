//! Counts, sums, minima, maxima, means, distinct counts and quantiles over the fields of JSON events, by group.
//!
//! What goes in, comes out and can go wrong is in README.md. `compute` is the configuration, `kept` is what is kept of a group, and
//! `sketch` what of it is approximate.

mod compute;
mod kept;
mod sketch;

use crate::compute::Compute;
use crate::kept::Accumulator;
use json_fields::{By, Parsed};
use nodata_component::{Aggregate, Error, Event, Group, Result, component, config};
use serde_json::Map;
use std::borrow::Cow;

/// What a result says of its window.
const WINDOW: [&str; 2] = ["from_us", "to_us"];

struct AggregateFields {
    by: By,
    compute: Compute,
    parsed: Parsed,
}

#[component]
impl Aggregate for AggregateFields {
    type Accumulator = Accumulator;

    fn new() -> Result<Self> {
        let by = By::configured("by", &WINDOW)?;
        let compute: String = config::require("compute")?;
        let compute = Compute::parse(&compute, by.names().chain(WINDOW).map(str::to_owned).collect())?;
        Ok(Self { by, compute, parsed: Parsed::default() })
    }

    fn group<'e>(&self, event: &Event<'e>) -> Result<Option<Cow<'e, [u8]>>> {
        self.by.group(event, &self.parsed)
    }

    fn accepts(&self, event: &Event<'_>) -> std::result::Result<(), String> {
        let accepted = self.parsed.with(event, |value| Ok(self.compute.accepts(value)));
        accepted.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn add(&self, accumulator: &mut Accumulator, event: &Event<'_>) -> Result<()> {
        self.parsed.with(event, |value| accumulator.add(&self.compute, value))
    }

    fn merge(&self, accumulator: &mut Accumulator, other: Accumulator) -> Result<()> {
        accumulator.merge(&self.compute, other)
    }

    fn render(&self, group: &Group<'_>, accumulator: &Accumulator) -> Result<Vec<u8>> {
        let mut shown = Map::new();
        self.by.show(group.key, &mut shown)?;
        accumulator.show(&self.compute, &mut shown);
        if let Some((from, to)) = group.window_us {
            shown.extend(WINDOW.map(str::to_owned).into_iter().zip([from.into(), to.into()]));
        }
        serde_json::to_vec(&shown).map_err(Error::permanent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{AggregateHarness, Event};
    use serde_json::{Value, json};

    fn harness(by: &str, compute: &str) -> AggregateHarness<AggregateFields> {
        AggregateHarness::new().config("by", by).config("compute", compute)
    }

    fn shown(harness: &mut AggregateHarness<AggregateFields>, key: &str) -> Value {
        serde_json::from_slice(&harness.shown(key).unwrap()).unwrap()
    }

    const ALL: &str = "n=count,seen=count(a.b),sum=sum(a.b),min=min(a.b),max=max(a.b),mean=mean(a.b),many=distinct(a.b),\
                       half=median(a.b),most=quantile(a.b,1)";

    #[test]
    fn fields_are_computed_by_group() {
        let mut harness = harness("g", ALL);
        let events =
            [r#"{"g":"x","a":{"b":3}}"#, r#"{"g":"x","a":{"b":null}}"#, r#"{"g":"x","a":{"b":-1.5}}"#, r#"{"g":7}"#];
        let _ = harness.call(events).ok();
        assert_eq!(
            shown(&mut harness, "x"),
            json!({
                "g": "x", "n": 3, "seen": 2, "sum": 1.5, "min": -1.5, "max": 3, "mean": 0.75, "many": 2, "half": -1.5, "most": 3.0
            })
        );
        let nothing = json!({
            "g": "7", "n": 1, "seen": 0, "sum": 0, "min": null, "max": null, "mean": null, "many": 0, "half": null, "most": null
        });
        assert_eq!(shown(&mut harness, "7"), nothing);
    }

    #[test]
    fn several_fields_make_one_group_and_without_any_it_is_the_key() {
        let mut by_two = harness("g,h", "n=count");
        let _ = by_two.call([r#"{"g":"x","h":1}"#, r#"{"g":"x","h":1}"#, r#"{"g":"x"}"#]).ok();
        assert_eq!(shown(&mut by_two, r#"["x",1]"#), json!({ "g": "x", "h": 1, "n": 2 }));
        let mut by_key = AggregateHarness::<AggregateFields>::new().config("compute", "n=count");
        let _ = by_key.call([Event::new("{}").key("k"), Event::new("{}")]).ok();
        assert_eq!(shown(&mut by_key, "k"), json!({ "key": "k", "n": 1 }));
    }

    #[test]
    fn what_cannot_be_computed_is_put_aside() {
        let numbers = "s=sum(a),m=median(a)";
        let events = [
            r#"{"g":"x","a":"1"}"#,
            "[]",
            "{",
            r#"{"g":"x","a":1}"#,
            r#"{"g":"x","a":1e999}"#,
            r#"{"g":"x","a":NaN}"#,
            r#"{"g":"x","a":true}"#,
        ];
        let mut harness = harness("g", numbers);
        let call = harness.call(events).ok();
        let rejected: Vec<_> = call.rejected().iter().map(|letter| (letter.row, letter.reason.as_str())).collect();
        let no_json =
            |row: u32, why: &str| (row, format!("the event at offset {row} is not the JSON that was expected: {why}"));
        let (open, large, nan) = (
            no_json(2, "EOF while parsing an object at line 1 column 1"),
            no_json(4, "number out of range at line 1 column 18"),
            no_json(5, "expected value at line 1 column 14"),
        );
        assert_eq!(
            rejected,
            [
                (0, "field `a` is no number"),
                (1, "the value is no JSON object"),
                (open.0, open.1.as_str()),
                (large.0, large.1.as_str()),
                (nan.0, nan.1.as_str()),
                (6, "field `a` is no number")
            ]
        );
        assert_eq!(shown(&mut harness, "x"), json!({ "g": "x", "s": 1, "m": 1.0 }));
        // Anything can be told apart and counted.
        let call =
            self::harness("g", "n=count(a),d=distinct(a)").call([r#"{"g":"x","a":"1"}"#, r#"{"g":"x","a":[1]}"#]).ok();
        assert_eq!(call.rejected(), []);
    }

    #[test]
    fn whole_numbers_are_added_exactly_and_groups_can_be_merged() {
        let compute = "s=sum(a),n=count,m=max(a),d=distinct(a),q=median(a)";
        let mut one = harness("g", compute);
        let _ = one.call([r#"{"g":"x","a":9007199254740993}"#]).ok();
        let mut other = harness("g", compute);
        let _ = other.call([r#"{"g":"x","a":2}"#, r#"{"g":"y","a":5}"#]).ok();
        one.merge(&other);
        assert_eq!(
            shown(&mut one, "x"),
            json!({ "g": "x", "s": 9_007_199_254_740_995_i64, "n": 2, "m": 9_007_199_254_740_993_i64, "d": 2, "q": 2.0 })
        );
        assert_eq!(shown(&mut one, "y"), json!({ "g": "y", "s": 5, "n": 1, "m": 5, "d": 1, "q": 5.0 }));
    }

    #[test]
    fn a_closed_window_is_an_event() {
        let mut harness = harness("g", "n=count");
        let _ = harness.call([r#"{"g":"x"}"#]).ok();
        let closed = harness.close(Some((0, 60))).ok();
        let event = &closed.events()[0];
        assert_eq!((closed.events().len(), event.key.as_deref(), event.timestamp_us), (1, Some(&b"x"[..]), Some(60)));
        assert_eq!(event.json::<Value>(), json!({ "g": "x", "n": 1, "from_us": 0, "to_us": 60 }));
    }

    #[test]
    fn results_have_names_of_their_own() {
        for (by, compute, name) in [("n", "n=count", "n"), ("g", "to_us=count", "to_us")] {
            let call = harness(by, compute).call(["{}"]);
            let expected = format!("config `compute`: there is something else that is called `{name}`");
            assert_eq!(call.error().unwrap().message(), expected);
        }
    }
}
