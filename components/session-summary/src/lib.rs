//! Says of each session of a key when it was, how much was in it, how it began and how it ended.
//!
//! What goes in, comes out and can go wrong is in README.md. `summary` is what is kept of a session; this file is the configuration,
//! and what is shown.

mod summary;

use crate::summary::{Bounds, Distinct, Moment, Summary};
use json_fields::{By, Field, Parsed, fields};
use nodata_component::{Aggregate, Error, Event, Group, Result, component, config};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Distinct values of a field, and values of a path: without configuration, and at most.
const KEPT: usize = 100;
const KEPT_MAX: usize = 1000;

/// Longest value that is kept, as JSON. What is kept of a session is read and written with each batch that has an event of it.
const VALUE_BYTES_MAX: usize = 1024;

/// What a summary has, so no field of a group may be called so.
const NAMES: [&str; 9] = ["first_us", "last_us", "duration_us", "events", "first", "last", "distinct", "path", "cut"];

struct SessionSummary {
    by: By,
    first: Vec<Field>,
    last: Vec<Field>,
    distinct: Vec<Field>,
    path: Option<Field>,
    bounds: Bounds,
    parsed: Parsed,
}

#[component]
impl Aggregate for SessionSummary {
    type Accumulator = Summary;

    fn new() -> Result<Self> {
        let mut path = fields("path")?;
        if path.len() > 1 {
            return Err(Error::permanent(format_args!("config `path` names {} fields; a path is of one", path.len())));
        }
        let bounds = Bounds {
            distinct: bound("distinct-max", config::get_or("distinct-max", KEPT)?)?,
            path: bound("path-max", config::get_or("path-max", KEPT)?)?,
        };
        Ok(Self {
            by: By::configured("by", &NAMES)?,
            first: fields("first")?,
            last: fields("last")?,
            distinct: fields("distinct")?,
            path: path.pop(),
            bounds,
            parsed: Parsed::default(),
        })
    }

    fn group<'e>(&self, event: &Event<'e>) -> Result<Option<Cow<'e, [u8]>>> {
        self.by.group(event, &self.parsed)
    }

    fn accepts(&self, event: &Event<'_>) -> std::result::Result<(), String> {
        let accepted = self.parsed.with(event, |value| {
            let kept = [&self.first, &self.last, &self.distinct].into_iter().flatten().chain(&self.path);
            let mut sizes =
                kept.map(|field| (field.name(), field.of(value).map_or(0, |found| found.to_string().len())));
            Ok(match sizes.find(|(_, bytes)| *bytes > VALUE_BYTES_MAX) {
                Some((name, bytes)) => Err(format!(
                    "field `{name}` has {bytes} bytes of JSON; a value that is kept has {VALUE_BYTES_MAX} at most"
                )),
                None => Ok(()),
            })
        });
        accepted.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn add(&self, summary: &mut Summary, event: &Event<'_>) -> Result<()> {
        self.parsed.with(event, |value| {
            let moment = |found: &Value| Moment {
                time_us: event.timestamp_us(),
                id: event.id().map(str::to_owned),
                value: found.to_string(),
            };
            summary.saw(event.timestamp_us());
            for (field, found) in self.first.iter().filter_map(|field| Some((field, field.of(value)?))) {
                summary.begins(field.name(), moment(found));
            }
            for (field, found) in self.last.iter().filter_map(|field| Some((field, field.of(value)?))) {
                summary.ends(field.name(), moment(found));
            }
            for (field, found) in self.distinct.iter().filter_map(|field| Some((field, field.of(value)?))) {
                summary.has(field.name(), found.to_string(), self.bounds);
            }
            if let Some(found) = self.path.as_ref().and_then(|field| field.of(value)) {
                summary.passes(moment(found), self.bounds);
            }
            Ok(())
        })
    }

    fn merge(&self, summary: &mut Summary, other: Summary) -> Result<()> {
        summary.merge(other, self.bounds);
        Ok(())
    }

    fn render(&self, group: &Group<'_>, summary: &Summary) -> Result<Vec<u8>> {
        let mut shown = Map::new();
        self.by.show(group.key, &mut shown)?;
        let mut show = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
        let (first, last) = summary.span_us.unzip();
        show("first_us", first.into());
        show("last_us", last.into());
        show("duration_us", last.zip(first).map(|(last, first)| last.saturating_sub(first)).into());
        show("events", summary.events.into());
        let mut cut = Vec::new();
        if !self.first.is_empty() {
            show("first", moments(&self.first, &summary.first)?);
        }
        if !self.last.is_empty() {
            show("last", moments(&self.last, &summary.last)?);
        }
        if !self.distinct.is_empty() {
            let nothing = Distinct::default();
            let mut fields = Map::new();
            for field in &self.distinct {
                let found = summary.distinct.get(field.name()).unwrap_or(&nothing);
                fields.insert(
                    field.name().to_owned(),
                    found.values.iter().map(|text| read(text)).collect::<Result<_>>()?,
                );
                if found.is_cut {
                    cut.push(Value::from(format!("distinct {}", field.name())));
                }
            }
            show("distinct", fields.into());
        }
        if self.path.is_some() {
            show("path", summary.path.moments.iter().map(|moment| read(&moment.value)).collect::<Result<_>>()?);
            cut.extend(summary.path.is_cut.then(|| Value::from("path")));
        }
        if !cut.is_empty() {
            show("cut", cut.into());
        }
        serde_json::to_vec(&shown).map_err(Error::permanent)
    }
}

fn bound(key: &str, most: usize) -> Result<usize> {
    match most {
        1..=KEPT_MAX => Ok(most),
        _ => Err(Error::permanent(format_args!("config `{key}` is {most}; it is 1 to {KEPT_MAX}"))),
    }
}

/// The value of each field; null where there was none.
fn moments(fields: &[Field], found: &BTreeMap<String, Moment>) -> Result<Value> {
    let mut values = Map::new();
    for field in fields {
        let value = found.get(field.name()).map_or(Ok(Value::Null), |moment| read(&moment.value))?;
        values.insert(field.name().to_owned(), value);
    }
    Ok(values.into())
}

fn read(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(Error::permanent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{AggregateHarness, Event};
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn harness(config: &[(&str, &str)]) -> AggregateHarness<SessionSummary> {
        config.iter().fold(AggregateHarness::new(), |harness, (key, value)| harness.config(key, value))
    }

    fn shown(harness: &mut AggregateHarness<SessionSummary>, key: &str) -> Value {
        serde_json::from_slice(&harness.shown(key).unwrap()).unwrap()
    }

    const ALL: [(&str, &str); 6] = [
        ("first", "at,by"),
        ("last", "at"),
        ("distinct", "at,by"),
        ("path", "at"),
        ("distinct-max", "2"),
        ("path-max", "3"),
    ];

    fn visit(time_us: i64, value: &str) -> Event {
        Event::new(value).key("k").timestamp_us(time_us)
    }

    #[test]
    fn a_session_is_said_by_when_its_events_were() {
        let mut harness = harness(&ALL);
        let events =
            [visit(30, r#"{"at":"c"}"#), visit(10, r#"{"at":"a","by":1}"#), visit(20, r#"{"at":"b","by":null}"#)];
        let _ = harness.call(events).ok();
        let expected = json!({
            "key": "k", "first_us": 10, "last_us": 30, "duration_us": 20, "events": 3, "first": { "at": "a", "by": 1 },
            "last": { "at": "c" }, "distinct": { "at": ["a", "b"], "by": [1] }, "path": ["a", "b", "c"], "cut": ["distinct at"]
        });
        assert_eq!(shown(&mut harness, "k"), expected);
        let _ = harness.call([visit(15, r#"{"at":{"x":1}}"#)]).ok();
        let later = shown(&mut harness, "k");
        assert_eq!((&later["path"], &later["cut"]), (&json!(["a", { "x": 1 }, "b"]), &json!(["distinct at", "path"])));
        // It is an event when it closes.
        let closed = harness.close(Some((10, 60))).ok();
        let event = &closed.events()[0];
        assert_eq!((event.key.as_deref(), event.timestamp_us), (Some(&b"k"[..]), Some(60)));
        assert_eq!(event.json::<Value>(), later);
    }

    #[test]
    fn what_was_not_there_is_null_and_what_was_not_asked_for_is_left_out() {
        let mut all = harness(&ALL);
        let _ = all.call([visit(7, "{}")]).ok();
        let expected = json!({
            "key": "k", "first_us": 7, "last_us": 7, "duration_us": 0, "events": 1, "first": { "at": null, "by": null },
            "last": { "at": null }, "distinct": { "at": [], "by": [] }, "path": []
        });
        assert_eq!(shown(&mut all, "k"), expected);
        let mut none = harness(&[("by", "user.name")]);
        let _ = none.call([visit(7, r#"{"user":{"name":"ada"}}"#), visit(7, "{}")]).ok();
        let expected = json!({ "user.name": "ada", "first_us": 7, "last_us": 7, "duration_us": 0, "events": 1 });
        assert_eq!(shown(&mut none, "ada"), expected);
    }

    #[test]
    fn what_is_at_the_same_time_is_told_apart_by_its_id() {
        let events = [visit(5, r#"{"at":"z"}"#).id("1"), visit(5, r#"{"at":"a"}"#).id("2"), visit(5, r#"{"at":"m"}"#)];
        let mut harness = harness(&ALL);
        let _ = harness.call(events).ok();
        let shown = shown(&mut harness, "k");
        assert_eq!((&shown["path"], &shown["last"]["at"]), (&json!(["m", "z", "a"]), &json!("a")));
    }

    #[test]
    fn what_cannot_be_summed_up_is_put_aside() {
        let long = format!(r#"{{"at":"{}"}}"#, "x".repeat(1023));
        let mut harness = harness(&ALL);
        let call = harness.call([visit(1, "[]"), visit(1, "{"), visit(1, &long), visit(1, r#"{"at":"a"}"#)]).ok();
        let reasons: Vec<&str> = call.rejected().iter().map(|letter| letter.reason.as_str()).collect();
        assert_eq!(reasons.len(), 3);
        assert_eq!(
            (reasons[0], reasons[2]),
            ("the value is no JSON object", "field `at` has 1025 bytes of JSON; a value that is kept has 1024 at most")
        );
        assert_eq!(shown(&mut harness, "k")["events"], 1);
    }

    #[test]
    fn a_configuration_that_is_wrong_is_named() {
        let said = |key: &str, value: &str| harness(&[(key, value)]).call(["{}"]).error().unwrap().message().to_owned();
        assert_eq!(said("path", "a,b"), "config `path` names 2 fields; a path is of one");
        assert_eq!(said("path-max", "0"), "config `path-max` is 0; it is 1 to 1000");
        assert_eq!(said("distinct-max", "1001"), "config `distinct-max` is 1001; it is 1 to 1000");
        assert_eq!(said("by", "events"), "config `by`: `events` is what something else in the result is called");
        assert!(said("first", "a,,b").starts_with("config `first` is `a,,b`; it is names of fields"));
        assert!(said("path-max", "many").starts_with("config `path-max` is `many`, which does not parse"));
    }

    /// What this version wrote must be read by those that come.
    #[test]
    fn what_was_written_is_read_and_what_another_version_wrote_is_refused() {
        let text = concat!(
            r#"{"form":1,"span_us":[5,9],"events":2,"first":{"at":{"time_us":5,"id":"i","value":"\"a\""}},"#,
            r#""last":{"at":{"time_us":9,"value":"1"}},"distinct":{"at":{"values":["\"a\"","1"],"is_cut":true}},"#,
            r#""path":{"moments":[{"time_us":5,"value":"\"a\""}]}}"#
        );
        let summary: Summary = serde_json::from_str(text).unwrap();
        assert_eq!((summary.events, summary.distinct["at"].is_cut, summary.path.is_cut), (2, true, false));
        let again: Value = serde_json::to_value(&summary).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
        let other = serde_json::from_str::<Summary>(r#"{"form":2}"#).unwrap_err().to_string();
        assert!(other.starts_with("a summary of form 2; this version knows form 1"), "{other}");
    }

    /// Events with few times, ids and values, so that much is the same.
    fn events() -> impl Strategy<Value = Vec<(i64, Option<u8>, Option<u8>)>> {
        let id = prop::option::of(0u8..3);
        prop::collection::vec((0i64..6, id, prop::option::of(0u8..8)), 1..25)
    }

    fn event((time_us, id, value): (i64, Option<u8>, Option<u8>)) -> Event {
        let value = value.map_or("null".to_owned(), |value| format!("\"{value}\""));
        let event = visit(time_us, &format!(r#"{{"at":{value},"by":{time_us}}}"#));
        match id {
            Some(id) => event.id(id.to_string()),
            None => event,
        }
    }

    proptest! {
        /// However the events of a session are ordered, divided and put together: what is said is what sorting them says.
        #[test]
        fn the_order_in_which_events_come_does_not_matter(
            ordered in events(),
            order in any::<u64>(),
            parts in prop::collection::vec(0usize..4, 1..7),
        ) {
            let mut mixed = ordered.clone();
            let mut number = order;
            for at in (1..mixed.len()).rev() {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                mixed.swap(at, (number >> 33) as usize % (at + 1));
            }
            let mut harnesses: Vec<_> = (0..4).map(|_| harness(&ALL)).collect();
            for (at, given) in mixed.into_iter().enumerate() {
                let _ = harnesses[parts[at % parts.len()]].call([event(given)]).ok();
            }
            let mut whole = harnesses.swap_remove((number >> 62) as usize);
            for part in &harnesses {
                whole.merge(part);
            }

            let mut sorted = ordered;
            sorted.sort_unstable_by_key(|(time, id, value)| (*time, id.map(|id| id.to_string()), value.map(|value| value.to_string())));
            let path: Vec<String> = sorted.iter().filter_map(|(_, _, value)| Some(value.as_ref()?.to_string())).collect();
            let mut distinct = path.clone();
            distinct.sort();
            distinct.dedup();
            let times: Vec<i64> = sorted.iter().map(|(time, ..)| *time).collect();
            let by: BTreeSet<i64> = times.iter().copied().collect();
            let mut expected = json!({
                "key": "k",
                "first_us": times[0],
                "last_us": times[times.len() - 1],
                "duration_us": times[times.len() - 1] - times[0],
                "events": times.len(),
                "first": { "at": path.first(), "by": times[0] },
                "last": { "at": path.last() },
                "distinct": {
                    "at": distinct.iter().take(2).collect::<Vec<_>>(),
                    "by": by.iter().take(2).collect::<Vec<_>>(),
                },
                "path": path.iter().take(3).collect::<Vec<_>>(),
            });
            let cut = [("distinct at", distinct.len() > 2), ("distinct by", by.len() > 2), ("path", path.len() > 3)];
            let cut: Vec<&str> = cut.iter().filter(|(_, is)| *is).map(|(what, _)| *what).collect();
            if !cut.is_empty() {
                expected["cut"] = json!(cut);
            }
            prop_assert_eq!(shown(&mut whole, "k"), expected);
        }
    }
}
