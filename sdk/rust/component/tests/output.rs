//! Whatever a component says, in whatever order: what comes out is what it said.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nodata_component::testing::{Event, Harness};
use nodata_component::{Draft, Result};
use proptest::prelude::*;
use std::collections::BTreeMap;

const PORTS: [&str; 3] = ["", "a", "b"];
const INPUT_EVENTS: usize = 40;

#[derive(Clone, Debug)]
enum Step {
    /// Pushes this event.
    Push(usize, Event),
    /// Starts it, writes all of it, and gives it up.
    GiveUp(usize, Event),
    /// Passes a row of the input on.
    Forward(usize, usize),
    /// Pushes a large value, so that what waits is handed over.
    Large(usize),
}

fn large() -> Event {
    Event::new(vec![b'x'; 600_000])
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..12))
}

prop_compose! {
    fn any_event()(
        id in prop::option::weighted(0.3, "[a-z]{1,8}"),
        key in any_bytes(),
        value in any_bytes(),
        headers in prop::collection::btree_map("[a-c]", prop::collection::vec(any::<u8>(), 0..5), 0..3),
        timestamp_us in prop::option::weighted(0.9, any::<i64>()),
    ) -> Event {
        Event { id, key, value, headers: headers.into_iter().collect(), timestamp_us }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let port = || 0..PORTS.len();
    prop_oneof![
        8 => (port(), any_event()).prop_map(|(port, event)| Step::Push(port, event)),
        2 => (port(), any_event()).prop_map(|(port, event)| Step::GiveUp(port, event)),
        8 => (port(), 0..INPUT_EVENTS).prop_map(|(port, row)| Step::Forward(port, row)),
        1 => port().prop_map(Step::Large),
    ]
}

fn any_input() -> impl Strategy<Value = Vec<Event>> {
    let with_timestamp = any_event().prop_map(|event| Event { timestamp_us: event.timestamp_us.or(Some(0)), ..event });
    prop::collection::vec(with_timestamp, INPUT_EVENTS)
}

fn fill<'p>(mut draft: Draft<'p>, event: &Event) -> Draft<'p> {
    if let Some(id) = &event.id {
        draft = draft.id(id);
    }
    for (name, value) in &event.headers {
        draft = draft.header(name, "another").header(name, value);
    }
    if let Some(timestamp_us) = event.timestamp_us {
        draft = draft.timestamp_us(timestamp_us);
    }
    match &event.key {
        Some(key) => draft.key("another").key(key),
        None => draft,
    }
}

fn finish(draft: Draft<'_>, event: &Event) -> Result<()> {
    match &event.value {
        Some(value) => draft.value(value),
        None => draft.tombstone(),
    }
}

proptest! {
    #[test]
    fn what_comes_out_is_what_was_said(
        input in any_input(),
        calls in prop::collection::vec(prop::collection::vec(any_step(), 0..60), 1..3),
    ) {
        // The memory of one call is used again in the next, so there are several.
        for steps in calls {
            let mut expected: BTreeMap<&str, Vec<Event>> = BTreeMap::new();
            for step in &steps {
                let (port, event) = match step {
                    Step::Push(port, event) => (port, event.clone()),
                    Step::Forward(port, row) => (port, input[*row].clone()),
                    Step::Large(port) => (port, large()),
                    Step::GiveUp(..) => continue,
                };
                expected.entry(PORTS[*port]).or_default().push(event);
            }
            let mut harness = Harness::new(move |events, out| {
                for step in &steps {
                    match step {
                        Step::Push(port, event) => finish(fill(out.to(PORTS[*port]).event(), event), event)?,
                        Step::GiveUp(port, event) => {
                            let mut writer = fill(out.to(PORTS[*port]).event(), event).writer();
                            writer.extend("given up");
                        }
                        Step::Forward(port, row) => {
                            let event = events.get(*row).ok_or_else(|| nodata_component::Error::permanent("no row"))?;
                            out.to(PORTS[*port]).forward(&event)?;
                        }
                        Step::Large(port) => finish(out.to(PORTS[*port]).event(), &large())?,
                    }
                }
                Ok(())
            });
            let call = harness.call(input.clone()).ok();
            for port in PORTS {
                let expected = expected.remove(port).unwrap_or_default();
                prop_assert!(call.to(port) == expected, "port {port:?}: {:?} instead of {expected:?}", call.to(port));
            }
        }
    }
}
