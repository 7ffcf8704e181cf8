//! Sends each event to the port that a field of it names.
//!
//! In: JSON objects.
//! Out: the same events, with a header `routed-by` that names the field, on the port whose name is in the field. What
//! names none of the ports goes to the default port.
//! Aside: what is not a JSON object.
//!
//! Config: `field`, the name of the field; `ports`, the ports that the deployment wires, separated by commas. One that is not wired
//! refuses the deployment.
//!
//! ```text
//! cargo build --release --target wasm32-wasip2 -p route-by-field
//! nodata add-component --file target/wasm32-wasip2/release/route_by_field.wasm --transform flights:other-flights \
//!     --port UA=united --port DL=delta --config field=carrier --config ports=UA,DL \
//!     --create-topics
//! ```

use nodata_component::{Events, Output, PortInfo, Result, Transform, component, config};
use serde_json::{Map, Value};

struct RouteByField {
    field: String,
    ports: Vec<String>,
}

fn ports() -> Result<Vec<String>> {
    let ports: String = config::require("ports")?;
    Ok(ports.split(',').map(str::to_owned).collect())
}

#[component]
impl Transform for RouteByField {
    fn new() -> Result<Self> {
        Ok(Self { field: config::require("field")?, ports: ports()? })
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            let object: Map<String, Value> = match event.json() {
                Ok(object) => object,
                Err(error) => {
                    out.reject(&event, error);
                    continue;
                }
            };
            let name = object.get(&self.field).and_then(Value::as_str);
            let port = self.ports.iter().find(|port| Some(port.as_str()) == name).map_or("", String::as_str);
            let copy = out.to(port).like(&event).id_of(&event).headers_of(&event);
            copy.header("routed-by", &self.field).value(event.bytes()?)?;
        }
        Ok(())
    }

    // A port that is configured and not wired would fail the first event that names it.
    fn ports() -> Result<Vec<PortInfo>> {
        let mut described = vec![
            PortInfo::input("JSON objects").json(),
            PortInfo::output("", "those that name none of the other ports").optional().json(),
        ];
        described.extend(ports()?.iter().map(|port| PortInfo::output(port, format!("those that name {port}")).json()));
        Ok(described)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, Harness};

    fn routed(event: Event) -> Event {
        event.header("routed-by", "carrier").timestamp_us(0)
    }

    #[test]
    fn an_event_goes_to_the_port_that_it_names() {
        let (united, delta) = (Event::new(r#"{"carrier":"UA"}"#).id("1").key("k"), Event::new(r#"{"carrier":"DL"}"#));
        let united = united.header("h", "v");
        let others = [r#"{"carrier":"B6"}"#, r#"{"carrier":7}"#, "{}", r#"{"carrier":""}"#].map(Event::new);
        let mut harness = Harness::of::<RouteByField>().ports(["", "UA", "DL"]).config("field", "carrier");
        harness = harness.config("ports", "UA,DL");
        let call = harness.call([vec![united.clone(), delta.clone()], others.to_vec()].concat()).ok();
        assert_eq!(call.to("UA"), [routed(united)]);
        assert_eq!(call.to("DL"), [routed(delta)]);
        assert_eq!(call.events(), others.map(routed));
    }

    #[test]
    fn what_is_not_an_object_is_put_aside() {
        let mut harness = Harness::of::<RouteByField>().config("field", "carrier").config("ports", "UA");
        let call = harness.call(["[1]"]).ok();
        assert!(call.rejected()[0].reason.contains("expected a map"), "{:?}", call.rejected());
    }

    #[test]
    fn the_field_must_be_named() {
        let call = Harness::of::<RouteByField>().call(["{}"]);
        assert_eq!(call.error().unwrap().message(), "config `field` is missing");
    }
}
