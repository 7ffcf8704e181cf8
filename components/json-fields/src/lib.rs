//! Fields of JSON events as configurations name them, and groups by them.
//!
//! It is no component: it is what those have in common that look into JSON.

use nodata_component::{Error, Event, Result, config};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cell::RefCell;

/// A field of an object: `city`, or `address.city` of one in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    name: String,
    /// From the outermost.
    path: Vec<String>,
}

impl Field {
    /// `None`: this is no name.
    pub fn parse(name: &str) -> Option<Self> {
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        (!path.iter().any(String::is_empty)).then(|| Self { name: name.to_owned(), path })
    }

    /// As it was written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is; `None` where it is missing or null.
    pub fn of<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.path.iter().try_fold(value, |value, name| value.get(name)).filter(|value| !value.is_null())
    }

    /// What it is, null too, and leaves the object without it.
    pub fn take(&self, object: &mut Map<String, Value>) -> Option<Value> {
        let (last, path) = self.path.split_last()?;
        let outer = path.iter().try_fold(object, |object, name| object.get_mut(name)?.as_object_mut())?;
        outer.remove(last)
    }

    /// Gives it to an object, with those around it that are not there.
    pub fn put(&self, object: &mut Map<String, Value>, value: Value) {
        let Some((last, path)) = self.path.split_last() else { return };
        let mut outer = object;
        for name in path {
            let next = outer.entry(name).or_insert_with(|| Map::new().into());
            if !next.is_object() {
                *next = Map::new().into();
            }
            let Value::Object(next) = next else { return };
            outer = next;
        }
        outer.insert(last.clone(), value);
    }
}

/// The bytes that a value makes as a key: a text is its letters, anything else its JSON.
pub fn key_of(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

/// The fields that an entry of the configuration names, with commas between them. Without the entry there are none.
pub fn fields(key: &str) -> Result<Vec<Field>> {
    let Some(text) = config::get(key) else { return Ok(Vec::new()) };
    let fields: Option<Vec<Field>> = text.split(',').map(|name| Field::parse(name.trim())).collect();
    fields.ok_or_else(|| {
        Error::permanent(format_args!(
            "config `{key}` is `{text}`; it is names of fields with commas between, such as `carrier,address.city`"
        ))
    })
}

/// The value that was parsed last. An aggregate is asked for each event several times: is it right, which group is it in, what is
/// in it.
#[derive(Debug, Default)]
pub struct Parsed(RefCell<Option<(Vec<u8>, Value)>>);

impl Parsed {
    /// Does something with the value of an event. What is no object is an error.
    pub fn with<T>(&self, event: &Event<'_>, work: impl FnOnce(&Value) -> Result<T>) -> Result<T> {
        let mut last = self.0.borrow_mut();
        if let Some((bytes, value)) = last.as_ref()
            && Some(bytes.as_slice()) == event.value()
        {
            return work(value);
        }
        let value: Value = event.json()?;
        if !value.is_object() {
            return Err(Error::permanent("the value is no JSON object"));
        }
        let (_, value) = last.insert((event.bytes()?.to_vec(), value));
        work(value)
    }
}

/// What makes a group: configured fields, or the key of the event.
#[derive(Debug)]
pub struct By(Vec<Field>);

impl By {
    /// As this entry of the configuration says. A group has no field that is called as one of `taken` is.
    pub fn configured(key: &str, taken: &[&str]) -> Result<Self> {
        let by = fields(key)?;
        match by.iter().find(|field| taken.contains(&field.name())) {
            Some(field) => Err(Error::permanent(format_args!(
                "config `{key}`: `{}` is what something else in the result is called",
                field.name()
            ))),
            None => Ok(Self(by)),
        }
    }

    /// What a group is called in a result.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let key = self.0.is_empty().then_some("key");
        self.0.iter().map(Field::name).chain(key)
    }

    /// The group of an event: the text of one field, or the JSON of what is no text or of several. `None`: it is in none.
    pub fn group<'e>(&self, event: &Event<'e>, parsed: &Parsed) -> Result<Option<Cow<'e, [u8]>>> {
        if self.0.is_empty() {
            return Ok(event.key().map(Cow::Borrowed));
        }
        parsed.with(event, |value| {
            let found: Option<Vec<&Value>> = self.0.iter().map(|field| field.of(value)).collect();
            Ok(found.map(|found| match found.as_slice() {
                [one] => Cow::Owned(key_of(one)),
                several => {
                    let several = several.iter().copied().cloned().collect();
                    Cow::Owned(Value::Array(several).to_string().into_bytes())
                }
            }))
        })
    }

    /// Says which group it is.
    pub fn show(&self, key: &[u8], shown: &mut Map<String, Value>) -> Result<()> {
        match self.0.as_slice() {
            [] => drop(shown.insert("key".to_owned(), String::from_utf8_lossy(key).into())),
            [field] => drop(shown.insert(field.name.clone(), String::from_utf8_lossy(key).into())),
            fields => {
                let values: Vec<Value> = serde_json::from_slice(key).map_err(Error::permanent)?;
                shown.extend(fields.iter().map(|field| field.name.clone()).zip(values));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event as Given, Harness};
    use serde_json::json;

    #[test]
    fn a_field_may_be_within_another_and_may_be_missing() {
        let value = json!({ "a": { "b": 7, "c": null }, "d": "x" });
        let found = |name: &str| Field::parse(name).unwrap().of(&value).cloned();
        assert_eq!((found("a.b"), found("d")), (Some(json!(7)), Some(json!("x"))));
        assert_eq!((found("a.c"), found("a.b.c"), found("e")), (None, None, None));
        assert_eq!((Field::parse(""), Field::parse("a."), Field::parse(".a")), (None, None, None));
    }

    #[test]
    fn a_field_is_taken_and_put() {
        let mut object = json!({ "a": { "b": 7, "c": null }, "d": "x" }).as_object().cloned().unwrap();
        let field = |name: &str| Field::parse(name).unwrap();
        assert_eq!(
            (field("a.b").take(&mut object), field("a.c").take(&mut object)),
            (Some(json!(7)), Some(Value::Null))
        );
        assert_eq!((field("a.b").take(&mut object), field("d.e").take(&mut object)), (None, None));
        field("a.b.c").put(&mut object, json!(1));
        field("d.e").put(&mut object, json!(2));
        assert_eq!(Value::from(object), json!({ "a": { "b": { "c": 1 } }, "d": { "e": 2 } }));
    }

    /// The groups of these events, and what is shown of each.
    fn groups(by: Option<&str>, events: Vec<Given>) -> Vec<Option<(String, Value)>> {
        let found = std::rc::Rc::new(RefCell::new(Vec::new()));
        let into = found.clone();
        let mut harness = Harness::new(move |events, _| {
            let (by, parsed) = (By::configured("by", &["n"])?, Parsed::default());
            for event in events {
                let key = by.group(&event, &parsed)?;
                let shown = key.map(|key| {
                    let mut shown = Map::new();
                    by.show(&key, &mut shown).unwrap();
                    (String::from_utf8_lossy(&key).into_owned(), Value::from(shown))
                });
                into.borrow_mut().push(shown);
            }
            Ok(())
        });
        if let Some(by) = by {
            harness = harness.config("by", by);
        }
        harness.call(events).ok();
        found.take()
    }

    #[test]
    fn a_group_is_a_field_several_fields_or_the_key() {
        let events = || [r#"{"g":"x","h":1}"#, r#"{"g":7,"h":1}"#, r#"{"h":{"i":2}}"#].map(Given::new).to_vec();
        let some = |key: &str, shown: Value| Some((key.to_owned(), shown));
        let by_one = [some("x", json!({ "g": "x" })), some("7", json!({ "g": "7" })), None];
        assert_eq!(groups(Some("g"), events()), by_one);
        let by_two = [some(r#"["x",1]"#, json!({ "g": "x", "h": 1 })), some("[7,1]", json!({ "g": 7, "h": 1 })), None];
        assert_eq!(groups(Some("g, h"), events()), by_two);
        let keyed = vec![Given::new("no JSON").key("k"), Given::new("{}")];
        assert_eq!(groups(None, keyed), [some("k", json!({ "key": "k" })), None]);
    }

    #[test]
    fn a_configuration_that_is_wrong_is_named() {
        let said = |by: &str| {
            let mut harness = Harness::new(|_, _| By::configured("by", &["n"]).map(drop)).config("by", by);
            harness.call(["{}"]).error().unwrap().message().to_owned()
        };
        let expected = "it is names of fields with commas between, such as `carrier,address.city`";
        assert_eq!(said("a,,b"), format!("config `by` is `a,,b`; {expected}"));
        assert_eq!(said(""), format!("config `by` is ``; {expected}"));
        assert_eq!(said("a,n"), "config `by`: `n` is what something else in the result is called");
    }
}
