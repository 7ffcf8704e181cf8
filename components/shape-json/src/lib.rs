//! Keeps, drops and renames fields of JSON events, and leaves out events by what a field is.
//!
//! In: events whose values are JSON objects.
//! Out: for each that is kept, the object with the fields it should have, with its id, key, headers and timestamp.
//! Aside: values that are no JSON objects.
//!
//! | config | is |
//! | --- | --- |
//! | `where` | conditions with ` and ` between: `FIELD OP VALUE`, where OP is `==`, `!=`, `<`, `<=`, `>` or `>=` and VALUE is JSON, or `FIELD exists` |
//! | `keep` | the fields to keep, with commas between; without it, all |
//! | `drop` | the fields to drop |
//! | `rename` | `OLD=NEW`, with commas between; names are those from before |
//!
//! A field of a condition may be within others: `address.city`. One that is missing is null. Numbers are compared as numbers, texts as
//! texts; values of different kinds are not equal, and neither is less.
//!
//! ```text
//! nodata add-component --file target/wasm32-wasip2/release/shape_json.wasm --transform flights:late \
//!     --config 'where=arr_delay > 60 and carrier != "UA"' --config keep=carrier,flight,arr_delay --config rename=arr_delay=minutes
//! ```

use nodata_component::{Error, Events, Output, Result, Transform, component, config};
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

struct ShapeJson {
    conditions: Vec<Condition>,
    keep: Option<BTreeSet<String>>,
    drop: BTreeSet<String>,
    rename: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq)]
struct Condition {
    /// From the outermost.
    field: Vec<String>,
    test: Test,
}

#[derive(Debug, PartialEq)]
enum Test {
    Exists,
    Equal(Value),
    NotEqual(Value),
    Ordered(&'static [Ordering], Value),
}

#[component]
impl Transform for ShapeJson {
    fn new() -> Result<Self> {
        let names =
            |key: &str| config::get(key).map(|names| names.split(',').map(str::to_owned).collect::<BTreeSet<_>>());
        let conditions: Option<String> = config::get("where");
        let renamed: String = config::get_or("rename", String::new())?;
        Ok(Self {
            conditions: conditions.iter().flat_map(|text| text.split(" and ")).map(condition).collect::<Result<_>>()?,
            keep: names("keep"),
            drop: names("drop").unwrap_or_default(),
            rename: renamed.split(',').filter(|pair| !pair.is_empty()).map(renaming).collect::<Result<_>>()?,
        })
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        let is_plain = self.keep.is_none() && self.drop.is_empty() && self.rename.is_empty();
        for event in events {
            match event.json::<Map<String, Value>>() {
                Err(error) => out.reject(&event, error),
                Ok(object) if !self.conditions.iter().all(|condition| condition.holds(&object)) => {}
                Ok(_) if is_plain => out.forward(&event)?,
                Ok(object) => {
                    out.like(&event).id_of(&event).headers_of(&event).json(&self.shaped(object))?;
                }
            }
        }
        Ok(())
    }
}

impl ShapeJson {
    fn shaped(&self, object: Map<String, Value>) -> Map<String, Value> {
        let is_wanted =
            |name: &str| self.keep.as_ref().is_none_or(|keep| keep.contains(name)) && !self.drop.contains(name);
        let named = |name: String| self.rename.get(&name).cloned().unwrap_or(name);
        let wanted = object.into_iter().filter(|(name, _)| is_wanted(name));
        wanted.map(|(name, value)| (named(name), value)).collect()
    }
}

impl Condition {
    fn holds(&self, object: &Map<String, Value>) -> bool {
        let (first, rest) =
            self.field.split_first().map_or(("", [].as_slice()), |(first, rest)| (first.as_str(), rest));
        let found = object.get(first);
        let found = rest.iter().fold(found, |value, name| value.and_then(|value| value.get(name)));
        let value = found.unwrap_or(&Value::Null);
        match &self.test {
            Test::Exists => !value.is_null(),
            Test::Equal(wanted) => order(value, wanted) == Some(Ordering::Equal),
            Test::NotEqual(wanted) => order(value, wanted) != Some(Ordering::Equal),
            Test::Ordered(wanted, bound) => order(value, bound).is_some_and(|order| wanted.contains(&order)),
        }
    }
}

/// `None`: they are not equal, and neither is less.
fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => match a.as_i64().zip(b.as_i64()) {
            Some((a, b)) => Some(a.cmp(&b)),
            None => a.as_f64().partial_cmp(&b.as_f64()),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

fn condition(text: &str) -> Result<Condition> {
    let refused = || Error::permanent(format_args!("config `where`: `{text}` is not FIELD OP VALUE or FIELD exists"));
    let (field, rest) = text.trim().split_once(' ').ok_or_else(refused)?;
    let field = field.split('.').map(str::to_owned).collect();
    if rest.trim() == "exists" {
        return Ok(Condition { field, test: Test::Exists });
    }
    let (operator, value) = rest.trim().split_once(' ').ok_or_else(refused)?;
    let value: Value = serde_json::from_str(value.trim()).map_err(|_| refused())?;
    let test = match operator {
        "==" => Test::Equal(value),
        "!=" => Test::NotEqual(value),
        "<" => Test::Ordered(&[Ordering::Less], value),
        "<=" => Test::Ordered(&[Ordering::Less, Ordering::Equal], value),
        ">" => Test::Ordered(&[Ordering::Greater], value),
        ">=" => Test::Ordered(&[Ordering::Greater, Ordering::Equal], value),
        _ => return Err(refused()),
    };
    Ok(Condition { field, test })
}

fn renaming(pair: &str) -> Result<(String, String)> {
    let pair = pair.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty());
    let (old, new) = pair.ok_or_else(|| Error::permanent("config `rename` is OLD=NEW, with commas between"))?;
    Ok((old.to_owned(), new.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, Harness};

    fn kept(condition: &str, values: &[&str]) -> Vec<String> {
        let mut harness = Harness::of::<ShapeJson>().config("where", condition);
        harness.call(values.iter().map(Event::new)).ok().events().iter().map(Event::text).collect()
    }

    #[test]
    fn events_are_kept_by_their_fields() {
        let values = [r#"{"a":1}"#, r#"{"a":2.5}"#, r#"{"a":"x"}"#, r#"{"a":null}"#, "{}", r#"{"a":{"b":7}}"#];
        assert_eq!(kept("a == 1", &values), values[..1]);
        assert_eq!(kept("a >= 1", &values), values[..2]);
        assert_eq!(kept("a < 2", &values), values[..1]);
        assert_eq!(kept("a == \"x\"", &values), values[2..3]);
        assert_eq!(kept("a == null", &values), values[3..5]);
        assert_eq!(kept("a exists and a.b == 7", &values), values[5..]);
        assert_eq!(kept("a != 1", &values).len(), 5);
    }

    #[test]
    fn fields_are_kept_dropped_and_renamed() {
        let shape = |configs: &[(&str, &str)]| {
            let harness = Harness::of::<ShapeJson>();
            let mut harness = configs.iter().fold(harness, |harness, (key, value)| harness.config(key, value));
            let event = Event::new(r#"{"a":1,"b":[2],"c":"3"}"#).key("k").id("i").header("h", "v").timestamp_us(5);
            harness.call([event]).ok().events()[0].clone()
        };
        let shaped = shape(&[("keep", "a,b"), ("rename", "a=x")]);
        assert_eq!(shaped.json::<Value>(), serde_json::json!({ "x": 1, "b": [2] }));
        assert_eq!((shaped.key.as_deref(), shaped.id.as_deref()), (Some(&b"k"[..]), Some("i")));
        assert_eq!((shaped.timestamp_us, shaped.headers.len()), (Some(5), 1));
        assert_eq!(shape(&[("drop", "b,c")]).json::<Value>(), serde_json::json!({ "a": 1 }));
    }

    #[test]
    fn what_is_no_object_is_put_aside_and_a_wrong_configuration_is_named() {
        let call = Harness::of::<ShapeJson>().call(["[]", "{", "{}"]).ok();
        assert_eq!((call.rejected().len(), call.events().len()), (2, 1));
        for wrong in ["a", "a ==", "a ~ 1", "a == x"] {
            let call = Harness::of::<ShapeJson>().config("where", wrong).call(["{}"]);
            assert!(call.error().unwrap().message().contains(wrong));
        }
        assert!(Harness::of::<ShapeJson>().config("rename", "a").call(["{}"]).error().is_some());
    }
}
