//! Counts, sums, minima, maxima and means over the fields of JSON events, by group.
//!
//! In: events whose values are JSON objects.
//! Out, when a window closes: `{"carrier":"UA","flights":17,"mean_delay":3.5,"from_us":…,"to_us":…}`, with the group as its key and
//! the end of the window as its time. A reader of the aggregate is shown the same.
//! Aside: values that are no JSON objects, and numbers that are none.
//!
//! | config | is |
//! | --- | --- |
//! | `compute` | what to compute, with commas between: `NAME=count`, or `NAME=count\|sum\|min\|max\|mean(FIELD)` |
//! | `by` | the fields that make a group, with commas between; without it, the key of the event |
//!
//! A field may be within others: `address.city`. Events in which a field is missing or null do not count for it; those in which a
//! field of `by` is are in no group. Whole numbers are added exactly as long as the sum fits 64 bits.
//!
//! ```text
//! cargo build --release --target wasm32-wasip2 -p aggregate-fields
//! nodata add-component --file target/wasm32-wasip2/release/aggregate_fields.wasm --aggregate flights:by-carrier \
//!     --config by=carrier --config 'compute=flights=count,distance=sum(distance)' --window tumbling=1h --lateness 10m
//! ```

use nodata_component::{Aggregate, Error, Event, Group, Result, component, config};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};
use std::borrow::Cow;

/// What is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Computed {
    name: String,
    what: What,
    /// Names of fields, from the outermost; empty: the event itself.
    field: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Count,
    Sum,
    Min,
    Max,
    Mean,
}

/// What is kept of one computation: how many values there were, and one number of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<Number>,
}

struct AggregateFields {
    by: Vec<Vec<String>>,
    computed: Vec<Computed>,
}

#[component]
impl Aggregate for AggregateFields {
    type Accumulator = Vec<Kept>;

    fn new() -> Result<Self> {
        let by: String = config::get_or("by", String::new())?;
        let computed: String = config::require("compute")?;
        Ok(Self {
            by: by.split(',').filter(|field| !field.is_empty()).map(path).collect(),
            computed: computed.split(',').map(computation).collect::<Result<_>>()?,
        })
    }

    fn group<'e>(&self, event: &Event<'e>) -> Result<Option<Cow<'e, [u8]>>> {
        if self.by.is_empty() {
            return Ok(event.key().map(Cow::Borrowed));
        }
        let value: Value = event.json()?;
        let fields: Option<Vec<&Value>> = self.by.iter().map(|field| at(&value, field)).collect();
        Ok(fields.map(|fields| match fields.as_slice() {
            [Value::String(text)] => Cow::Owned(text.clone().into_bytes()),
            [one] => Cow::Owned(one.to_string().into_bytes()),
            several => Cow::Owned(json!(several).to_string().into_bytes()),
        }))
    }

    fn accepts(&self, event: &Event<'_>) -> std::result::Result<(), String> {
        let value: Value = event.json().map_err(|error| error.to_string())?;
        if !value.is_object() {
            return Err("the value is no JSON object".to_owned());
        }
        for Computed { field, .. } in self.computed.iter().filter(|computed| computed.what != What::Count) {
            if at(&value, field).is_some_and(|value| !value.is_number()) {
                return Err(format!("field `{}` is no number", field.join(".")));
            }
        }
        Ok(())
    }

    fn add(&self, kept: &mut Vec<Kept>, event: &Event<'_>) -> Result<()> {
        let value: Value = event.json()?;
        kept.resize_with(self.computed.len(), Kept::default);
        for (kept, computed) in kept.iter_mut().zip(&self.computed) {
            let Some(found) = at(&value, &computed.field) else { continue };
            kept.count += 1;
            if let Value::Number(number) = found {
                kept.number = computed.what.together(kept.number.take(), Some(number.clone()));
            }
        }
        Ok(())
    }

    fn merge(&self, kept: &mut Vec<Kept>, other: Vec<Kept>) -> Result<()> {
        kept.resize_with(self.computed.len(), Kept::default);
        for ((kept, other), computed) in kept.iter_mut().zip(other).zip(&self.computed) {
            kept.count += other.count;
            kept.number = computed.what.together(kept.number.take(), other.number);
        }
        Ok(())
    }

    fn render(&self, group: &Group<'_>, kept: &Vec<Kept>) -> Result<Vec<u8>> {
        let mut shown = Map::new();
        let key = String::from_utf8_lossy(group.key);
        match self.by.as_slice() {
            [] => drop(shown.insert("key".to_owned(), key.into())),
            [field] => drop(shown.insert(field.join("."), key.into())),
            fields => {
                let values: Vec<Value> = serde_json::from_slice(group.key).map_err(Error::permanent)?;
                shown.extend(fields.iter().map(|field| field.join(".")).zip(values));
            }
        }
        for (computed, kept) in self.computed.iter().zip(kept) {
            shown.insert(computed.name.clone(), computed.what.shown(kept));
        }
        if let Some((from, to)) = group.window_us {
            shown.insert("from_us".to_owned(), from.into());
            shown.insert("to_us".to_owned(), to.into());
        }
        serde_json::to_vec(&shown).map_err(Error::permanent)
    }
}

impl What {
    fn together(self, one: Option<Number>, other: Option<Number>) -> Option<Number> {
        let (Some(a), Some(b)) = (&one, &other) else { return one.or(other) };
        match self {
            What::Count => None,
            What::Sum | What::Mean => Some(sum(a, b)),
            What::Min => {
                if is_less(b, a) {
                    other
                } else {
                    one
                }
            }
            What::Max => {
                if is_less(a, b) {
                    other
                } else {
                    one
                }
            }
        }
    }

    fn shown(self, kept: &Kept) -> Value {
        let number = || kept.number.clone().map_or(Value::Null, Value::Number);
        match self {
            What::Count => kept.count.into(),
            What::Sum if kept.count == 0 => 0.into(),
            What::Sum | What::Min | What::Max => number(),
            What::Mean => {
                let sum = kept.number.as_ref().and_then(Number::as_f64);
                sum.filter(|_| kept.count > 0).map_or(Value::Null, |sum| (sum / kept.count as f64).into())
            }
        }
    }
}

fn sum(a: &Number, b: &Number) -> Number {
    let exact = a.as_i64().zip(b.as_i64()).and_then(|(a, b)| a.checked_add(b));
    let about = || Number::from_f64(a.as_f64().unwrap_or(0.0) + b.as_f64().unwrap_or(0.0));
    exact.map(Number::from).or_else(about).unwrap_or_else(|| a.clone())
}

fn is_less(a: &Number, b: &Number) -> bool {
    match a.as_i64().zip(b.as_i64()) {
        Some((a, b)) => a < b,
        None => a.as_f64() < b.as_f64(),
    }
}

/// A field; `None` where it is missing or null.
fn at<'v>(value: &'v Value, field: &[String]) -> Option<&'v Value> {
    field.iter().try_fold(value, |value, name| value.get(name)).filter(|value| !value.is_null())
}

fn path(field: &str) -> Vec<String> {
    field.split('.').map(str::to_owned).collect()
}

fn computation(text: &str) -> Result<Computed> {
    let refused =
        || Error::permanent(format_args!("config `compute`: `{text}` is not NAME=count or NAME=FUNCTION(FIELD)"));
    let (name, how) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(refused)?;
    let (function, field) = match how.split_once('(') {
        Some((function, rest)) => (function, path(rest.strip_suffix(')').ok_or_else(refused)?)),
        None => (how, Vec::new()),
    };
    let what = match function {
        "count" => What::Count,
        "sum" => What::Sum,
        "min" => What::Min,
        "max" => What::Max,
        "mean" => What::Mean,
        _ => return Err(refused()),
    };
    if field.is_empty() && what != What::Count {
        return Err(refused());
    }
    Ok(Computed { name: name.to_owned(), what, field })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{AggregateHarness, Event};

    fn harness(by: &str, compute: &str) -> AggregateHarness<AggregateFields> {
        AggregateHarness::new().config("by", by).config("compute", compute)
    }

    fn shown(harness: &mut AggregateHarness<AggregateFields>, key: &str) -> Value {
        serde_json::from_slice(&harness.shown(key).unwrap()).unwrap()
    }

    const ALL: &str = "n=count,seen=count(a.b),sum=sum(a.b),min=min(a.b),max=max(a.b),mean=mean(a.b)";

    #[test]
    fn fields_are_computed_by_group() {
        let mut harness = harness("g", ALL);
        let events =
            [r#"{"g":"x","a":{"b":3}}"#, r#"{"g":"x","a":{"b":null}}"#, r#"{"g":"x","a":{"b":-1.5}}"#, r#"{"g":7}"#];
        let _ = harness.call(events).ok();
        assert_eq!(
            shown(&mut harness, "x"),
            json!({ "g": "x", "n": 3, "seen": 2, "sum": 1.5, "min": -1.5, "max": 3, "mean": 0.75 })
        );
        let nothing = json!({ "g": "7", "n": 1, "seen": 0, "sum": 0, "min": null, "max": null, "mean": null });
        assert_eq!(shown(&mut harness, "7"), nothing);
    }

    #[test]
    fn several_fields_make_one_group_and_without_any_it_is_the_key() {
        let mut by_two = harness("g,h", "n=count");
        let _ = by_two.call([r#"{"g":"x","h":1}"#, r#"{"g":"x","h":1}"#, r#"{"g":"x"}"#]).ok();
        assert_eq!(shown(&mut by_two, r#"["x",1]"#), json!({ "g": "x", "h": 1, "n": 2 }));
        let mut by_key = harness("", "n=count");
        let _ = by_key.call([Event::new("{}").key("k"), Event::new("{}")]).ok();
        assert_eq!(shown(&mut by_key, "k"), json!({ "key": "k", "n": 1 }));
    }

    #[test]
    fn what_cannot_be_computed_is_put_aside() {
        let call = harness("g", "s=sum(a)").call([r#"{"g":"x","a":"1"}"#, "[]", "{", r#"{"g":"x","a":1}"#]).ok();
        let rejected: Vec<_> = call.rejected().iter().map(|letter| (letter.row, letter.reason.clone())).collect();
        assert_eq!(rejected[..2], [(0, "field `a` is no number".into()), (1, "the value is no JSON object".into())]);
        assert_eq!(rejected.len(), 3);
    }

    #[test]
    fn whole_numbers_are_added_exactly_and_groups_can_be_merged() {
        let mut one = harness("g", "s=sum(a),n=count,m=max(a)");
        let _ = one.call([r#"{"g":"x","a":9007199254740993}"#]).ok();
        let mut other = harness("g", "s=sum(a),n=count,m=max(a)");
        let _ = other.call([r#"{"g":"x","a":2}"#, r#"{"g":"y","a":5}"#]).ok();
        one.merge(&other);
        assert_eq!(
            shown(&mut one, "x"),
            json!({ "g": "x", "s": 9_007_199_254_740_995_i64, "n": 2, "m": 9_007_199_254_740_993_i64 })
        );
        assert_eq!(shown(&mut one, "y"), json!({ "g": "y", "s": 5, "n": 1, "m": 5 }));
    }

    #[test]
    fn a_closed_window_is_an_event() {
        let mut harness = harness("g", "n=count");
        let _ = harness.call([r#"{"g":"x"}"#]).ok();
        let closed = harness.close(Some((0, 60))).ok();
        let expected = Event::new(r#"{"from_us":0,"g":"x","n":1,"to_us":60}"#).key("x").timestamp_us(60);
        assert_eq!(
            closed.events().iter().map(|event| (event.key.clone(), event.timestamp_us)).collect::<Vec<_>>(),
            [(expected.key, expected.timestamp_us)]
        );
        assert_eq!(closed.events()[0].json::<Value>(), json!({ "g": "x", "n": 1, "from_us": 0, "to_us": 60 }));
    }

    #[test]
    fn a_configuration_that_is_wrong_is_named() {
        for wrong in ["n", "n=", "n=median(a)", "n=sum", "n=sum(a", "=count"] {
            let call = harness("", wrong).call(["{}"]);
            let message = call.error().unwrap().message().to_owned();
            assert_eq!(message, format!("config `compute`: `{wrong}` is not NAME=count or NAME=FUNCTION(FIELD)"));
        }
    }
}
