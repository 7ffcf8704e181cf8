//! Leaves out events by what their fields are, and keeps, drops, renames and adds fields of the others.
//!
//! What goes in, comes out and can go wrong is in README.md. `conditions` is which events are kept; this file is what becomes of them.

mod conditions;

use crate::conditions::Conditions;
use json_fields::{Field, fields, key_of};
use nodata_component::{Error, Event, Events, Output, Result, Transform, component, config};
use serde_json::{Map, Value};

struct ShapeJson {
    conditions: Conditions,
    /// `None`: all.
    keep: Option<Vec<Field>>,
    drop: Vec<Field>,
    /// Names from before, and new ones.
    rename: Vec<(Field, String)>,
    add: Vec<(String, Value)>,
    key: Option<Field>,
}

#[component]
impl Transform for ShapeJson {
    fn new() -> Result<Self> {
        let conditions: Option<String> = config::get("where");
        let key = config::get("key").map(|name| {
            let refused = || Error::permanent(format_args!("config `key` is `{name}`; it is the name of a field"));
            Field::parse(&name).ok_or_else(refused)
        });
        Ok(Self {
            conditions: conditions.as_deref().map(Conditions::parse).transpose()?.unwrap_or_default(),
            keep: config::get("keep").map(|_| fields("keep")).transpose()?,
            drop: fields("drop")?,
            rename: config::get("rename").map_or_else(|| Ok(Vec::new()), |text| renamed(&text))?,
            add: config::get("add").map_or_else(|| Ok(Vec::new()), |text| added(&text))?,
            key: key.transpose()?,
        })
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            match event.json::<Map<String, Value>>() {
                Err(error) => out.reject(&event, error),
                Ok(object) => {
                    let value = Value::Object(object);
                    if self.conditions.hold(&value) {
                        self.push(&event, value, out)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl ShapeJson {
    fn push(&self, event: &Event<'_>, value: Value, out: &mut Output<'_>) -> Result<()> {
        let has_shape = self.keep.is_some() || !self.drop.is_empty() || !self.rename.is_empty() || !self.add.is_empty();
        if !has_shape && self.key.is_none() {
            return out.forward(event);
        }
        let draft = match &self.key {
            None => out.like(event),
            Some(field) => {
                let draft = out.event().timestamp_of(event);
                match field.of(&value) {
                    Some(found) => draft.key(key_of(found)),
                    None => draft,
                }
            }
        };
        let draft = draft.id_of(event).headers_of(event);
        match value {
            Value::Object(object) if has_shape => draft.json(&self.shaped(object)),
            _ => draft.value(event.bytes()?),
        }
    }

    fn shaped(&self, mut object: Map<String, Value>) -> Map<String, Value> {
        for field in &self.drop {
            field.take(&mut object);
        }
        if let Some(keep) = &self.keep {
            let mut kept = Map::new();
            for field in keep {
                if let Some(value) = field.take(&mut object) {
                    field.put(&mut kept, value);
                }
            }
            object = kept;
        }
        // All are taken before one is put, so that two can change places.
        let taken: Vec<(&String, Value)> =
            self.rename.iter().filter_map(|(old, new)| Some((new, old.take(&mut object)?))).collect();
        object.extend(taken.into_iter().map(|(new, value)| (new.clone(), value)));
        object.extend(self.add.iter().cloned());
        object
    }
}

fn renamed(text: &str) -> Result<Vec<(Field, String)>> {
    let pair = |pair: &str| {
        let (old, new) = pair.split_once('=')?;
        Some((Field::parse(old.trim())?, new.trim().to_owned())).filter(|(_, new)| !new.is_empty())
    };
    let pairs: Option<Vec<_>> = text.split(',').map(pair).collect();
    pairs.ok_or_else(|| {
        Error::permanent(format_args!("config `rename` is `{text}`; it is OLD=NEW, with commas between"))
    })
}

fn added(text: &str) -> Result<Vec<(String, Value)>> {
    let refused = || Error::permanent(format_args!("config `add` is `{text}`; it is NAME=JSON, with commas between"));
    let (mut added, mut rest) = (Vec::new(), text);
    loop {
        let (name, after) = rest.split_once('=').ok_or_else(refused)?;
        let (value, after) = conditions::json(after).ok_or_else(refused)?;
        if name.trim().is_empty() {
            return Err(refused());
        }
        added.push((name.trim().to_owned(), value));
        match after.trim_start().strip_prefix(',') {
            Some(more) => rest = more,
            None if after.trim().is_empty() => return Ok(added),
            None => return Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, Harness};
    use serde_json::json;

    fn harness(config: &[(&str, &str)]) -> Harness {
        config.iter().fold(Harness::of::<ShapeJson>(), |harness, (key, value)| harness.config(key, value))
    }

    fn event(value: &str) -> Event {
        Event::new(value).key("k").id("i").header("h", "v").timestamp_us(5)
    }

    fn shape(config: &[(&str, &str)], value: &str) -> Value {
        harness(config).call([event(value)]).ok().events()[0].json()
    }

    #[test]
    fn fields_are_kept_dropped_renamed_and_added() {
        let value = r#"{"a":1,"b":[2],"c":{"d":3,"e":null,"f":5}}"#;
        assert_eq!(shape(&[("keep", "a,b"), ("rename", "a=x")], value), json!({ "x": 1, "b": [2] }));
        assert_eq!(shape(&[("drop", "b, c")], value), json!({ "a": 1 }));
        assert_eq!(shape(&[("keep", "c.d,c.e,z")], value), json!({ "c": { "d": 3, "e": null } }));
        assert_eq!(shape(&[("keep", "c"), ("drop", "c.d")], value), json!({ "c": { "e": null, "f": 5 } }));
        assert_eq!(shape(&[("keep", "a,c.d"), ("rename", "c.d=d")], value), json!({ "a": 1, "c": {}, "d": 3 }));
        assert_eq!(shape(&[("drop", "c"), ("rename", "a=b,b=a")], value), json!({ "a": [2], "b": 1 }));
        assert_eq!(
            shape(&[("keep", "a"), ("add", r#"kind="x, y", list=[1,2],a=null"#)], value),
            json!({ "a": null, "kind": "x, y", "list": [1, 2] })
        );
    }

    #[test]
    fn an_event_keeps_what_is_not_its_value() {
        let call = harness(&[("drop", "b")]).call([event(r#"{"a":1}"#)]).ok();
        assert_eq!(call.events(), [event(r#"{"a":1}"#)]);
        // Without a shape it is the same to the byte.
        let plain = event("{ \"b\" : 1.50 }");
        assert_eq!(harness(&[("where", "b > 1")]).call([plain.clone()]).ok().events(), [plain]);
    }

    #[test]
    fn a_field_can_become_the_key() {
        let key = |config: &[(&str, &str)], value: &str| harness(config).call([event(value)]).ok().events()[0].clone();
        let keyed = key(&[("key", "a.b")], r#"{"a": {"b":"x"}}"#);
        assert_eq!(keyed, event(r#"{"a": {"b":"x"}}"#).key("x"));
        assert_eq!(key(&[("key", "a")], r#"{"a":7}"#).key.as_deref(), Some(&b"7"[..]));
        assert_eq!(key(&[("key", "a")], r#"{"a":null}"#).key, None);
        // It is the field from before.
        let keyed = key(&[("key", "a"), ("drop", "a")], r#"{"a":"x","b":1}"#);
        assert_eq!(keyed, event(r#"{"b":1}"#).key("x"));
    }

    #[test]
    fn what_is_no_object_is_put_aside() {
        let call = harness(&[]).call(["[]", "{", "{}"]).ok();
        assert_eq!((call.rejected().len(), call.events().len()), (2, 1));
    }

    #[test]
    fn a_configuration_that_is_wrong_is_named() {
        let said = |key: &str, value: &str| harness(&[(key, value)]).call(["{}"]).error().unwrap().message().to_owned();
        for wrong in ["a", "a=", "=a", "a=b,", "a.=b"] {
            assert_eq!(
                said("rename", wrong),
                format!("config `rename` is `{wrong}`; it is OLD=NEW, with commas between")
            );
        }
        for wrong in ["a", "a=", "=1", "a=x", "a=1 b=2", "a=1,"] {
            assert_eq!(said("add", wrong), format!("config `add` is `{wrong}`; it is NAME=JSON, with commas between"));
        }
        assert_eq!(said("key", "a."), "config `key` is `a.`; it is the name of a field");
        assert!(said("keep", "a,").starts_with("config `keep` is `a,`; it is names of fields"));
    }
}
