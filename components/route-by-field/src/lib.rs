//! Sends each event to the port that a field of it names.
//!
//! What goes in, comes out and can go wrong is in README.md.

use json_fields::{Field, key_of};
use nodata_component::{Error, Event, Events, Output, PortInfo, Result, Transform, component, config};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

struct RouteByField {
    field: Field,
    ports: BTreeSet<String>,
    /// The port for what names none.
    default: String,
    /// Everything else is put aside; `None`: nothing is.
    allowed: Option<BTreeSet<String>>,
}

#[component]
impl Transform for RouteByField {
    fn new() -> Result<Self> {
        let field: String = config::require("field")?;
        let refused = || Error::permanent(format_args!("config `field` is `{field}`; it is the name of a field"));
        let list = |text: String| text.split(',').map(|value| value.trim().to_owned()).collect();
        Ok(Self {
            field: Field::parse(&field).ok_or_else(refused)?,
            ports: list(config::require("ports")?),
            default: config::get_or("default", String::new())?,
            allowed: config::get("allowed").map(list),
        })
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            match self.port(&event) {
                Err(reason) => out.reject(&event, reason),
                Ok(port) => {
                    let copy = out.to(port).like(&event).id_of(&event).headers_of(&event);
                    copy.header("routed-by", self.field.name()).value(event.bytes()?)?;
                }
            }
        }
        Ok(())
    }

    // A port that is configured and not wired would fail the first event that names it.
    fn ports() -> Result<Vec<PortInfo>> {
        let Self { mut ports, default, .. } = Self::new()?;
        ports.remove(&default);
        let others = PortInfo::output(&default, "those that name none of the other ports").json();
        let mut described = vec![PortInfo::input("JSON objects").json()];
        described.push(if default.is_empty() { others.optional() } else { others });
        described.extend(ports.iter().map(|port| PortInfo::output(port, format!("those that name {port}")).json()));
        Ok(described)
    }
}

impl RouteByField {
    /// The port of an event, or why it has none.
    fn port(&self, event: &Event<'_>) -> Result<&str, String> {
        let object: Map<String, Value> = event.json().map_err(|error| error.to_string())?;
        let object = Value::Object(object);
        let found = self.field.of(&object).map(|value| String::from_utf8_lossy(&key_of(value)).into_owned());
        match (&self.allowed, &found) {
            (Some(_), None) => return Err(format!("there is no field `{}`", self.field.name())),
            (Some(allowed), Some(found)) if !allowed.contains(found) && !self.ports.contains(found) => {
                return Err(format!("field `{}` is `{found}`, which is not allowed", self.field.name()));
            }
            _ => {}
        }
        Ok(found.and_then(|found| self.ports.get(&found)).unwrap_or(&self.default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Call, Event, Harness};

    fn harness(config: &[(&str, &str)]) -> Harness {
        let harness = Harness::of::<RouteByField>().ports(["", "UA", "DL", "7", "other"]);
        config.iter().fold(harness, |harness, (key, value)| harness.config(key, value))
    }

    fn routed(event: Event) -> Event {
        event.header("routed-by", "carrier").timestamp_us(0)
    }

    #[test]
    fn an_event_goes_to_the_port_that_it_names() {
        let (united, delta) = (Event::new(r#"{"carrier":"UA"}"#).id("1").key("k"), Event::new(r#"{"carrier":"DL"}"#));
        let united = united.header("h", "v");
        let others = [r#"{"carrier":"B6"}"#, r#"{"carrier":true}"#, "{}", r#"{"carrier":""}"#].map(Event::new);
        let seven = Event::new(r#"{"carrier":7}"#);
        let all = [vec![united.clone(), delta.clone(), seven.clone()], others.to_vec()].concat();
        let call = harness(&[("field", "carrier"), ("ports", "UA, DL,7")]).call(all.clone()).ok();
        assert_eq!(call.to("UA"), [routed(united)]);
        assert_eq!(call.to("DL"), [routed(delta)]);
        assert_eq!(call.to("7"), [routed(seven)]);
        assert_eq!(call.events(), others.clone().map(routed));
        let call = harness(&[("field", "carrier"), ("ports", "UA,DL,7"), ("default", "other")]).call(all).ok();
        assert_eq!((call.to("other"), call.events()), (&others.map(routed)[..], &[][..]));
    }

    #[test]
    fn an_event_that_was_routed_before_can_be_routed_again() {
        let before = Event::new(r#"{"a":{"b":"UA"}}"#).header("routed-by", "elsewhere").timestamp_us(0);
        let call = harness(&[("field", "a.b"), ("ports", "UA")]).call([before]).ok();
        assert_eq!(call.to("UA")[0].headers, [("routed-by".to_owned(), b"a.b".to_vec())]);
    }

    fn reasons(call: &Call) -> Vec<(u32, &str)> {
        call.rejected().iter().map(|letter| (letter.row, letter.reason.as_str())).collect()
    }

    #[test]
    fn what_is_not_allowed_is_put_aside() {
        let values = [r#"{"carrier":"UA"}"#, r#"{"carrier":"B6"}"#, r#"{"carrier":"XX"}"#, r#"{"carrier":null}"#];
        let call = harness(&[("field", "carrier"), ("ports", "UA"), ("allowed", "B6,AA")]).call(values).ok();
        assert_eq!((call.to("UA").len(), call.events().len()), (1, 1));
        let expected = [(2, "field `carrier` is `XX`, which is not allowed"), (3, "there is no field `carrier`")];
        assert_eq!(reasons(&call), expected);
    }

    #[test]
    fn what_is_not_an_object_is_put_aside() {
        let call = harness(&[("field", "carrier"), ("ports", "UA")]).call(["[1]"]).ok();
        assert!(reasons(&call)[0].1.contains("expected a map"), "{:?}", reasons(&call));
    }

    #[test]
    fn a_configuration_that_is_wrong_is_named() {
        let said = |config: &[(&str, &str)]| harness(config).call(["{}"]).error().unwrap().message().to_owned();
        assert_eq!(said(&[]), "config `field` is missing");
        assert_eq!(said(&[("field", "carrier")]), "config `ports` is missing");
        assert_eq!(said(&[("field", "a..b"), ("ports", "UA")]), "config `field` is `a..b`; it is the name of a field");
    }
}
