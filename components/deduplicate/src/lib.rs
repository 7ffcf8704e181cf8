//! Leaves out events that were there before.
//!
//! What goes in, comes out and can go wrong is in README.md. What is remembered is in two tables that commit with the position, so it
//! is exact over crashes; it is bounded by time, and may be more than memory holds.

use json_fields::Field;
use nodata_component::{Error, Event, Events, Output, Result, component, config, state::Table};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Longest time for which a name is remembered.
const SECONDS_MAX: i64 = 3653 * 86_400;

/// Of those that are over, so many are forgotten in a call for each event in it.
const FORGET_EACH: usize = 2;

#[component]
fn deduplicate(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let field = config::get("field").map(|name| {
        let refused = || Error::permanent(format_args!("config `field` is `{name}`; it is the name of a field"));
        Field::parse(&name).ok_or_else(refused)
    });
    let field = field.transpose()?;
    let seconds: i64 = config::get_or("seconds", 86_400)?;
    if !(1..=SECONDS_MAX).contains(&seconds) {
        return Err(Error::permanent(format_args!(
            "config `seconds` is {seconds}; it is 1 to {SECONDS_MAX}, which is ten years"
        )));
    }
    let window_us = seconds * 1_000_000;
    // When each name was seen last, and names by that time: whatever is over is at the front.
    let (seen, times) = (Table::open("seen")?, Table::open("times")?);

    let mut names: Vec<Option<Vec<u8>>> = Vec::with_capacity(events.len());
    for event in &events {
        match name_of(&event, field.as_ref()) {
            Ok(name) => names.push(name.map(|name| key(&name))),
            Err(error) => {
                out.reject(&event, error);
                names.push(None);
            }
        }
    }
    let mut known: BTreeMap<&[u8], Option<i64>> = names.iter().flatten().map(|name| (name.as_slice(), None)).collect();
    let stored = seen.get_many(known.keys())?;
    for (at, bytes) in known.values_mut().zip(stored.iter()) {
        *at = bytes.map(time).transpose()?;
    }

    let before = known.clone();
    let mut latest = i64::MIN;
    for (event, name) in events.iter().zip(&names) {
        let now = event.timestamp_us();
        latest = latest.max(now);
        match name.as_ref().and_then(|name| known.get_mut(name.as_slice())) {
            Some(Some(at)) if now.saturating_sub(*at) < window_us => *at = (*at).max(now),
            Some(at) => {
                *at = Some(now);
                out.forward(&event)?;
            }
            // It has no name, or it was put aside.
            None if name_of(&event, field.as_ref()).is_ok() => out.forward(&event)?,
            None => {}
        }
    }

    let moved = |name: &&[u8], at: i64| [&at.to_be_bytes()[..], name].concat();
    let changed: Vec<(&&[u8], i64)> = known
        .iter()
        .filter(|(name, at)| before.get(*name) != Some(at))
        .filter_map(|(name, at)| Some((name, (*at)?)))
        .collect();
    seen.put_many(changed.iter().map(|(name, at)| (name, at.to_le_bytes())))?;
    let old = before.iter().filter(|(name, at)| known.get(*name) != Some(at));
    times.delete_many(old.filter_map(|(name, at)| Some(moved(name, (*at)?))))?;
    times.put_many(changed.iter().map(|(name, at)| (moved(name, *at), "")))?;
    forget(&seen, &times, latest.saturating_sub(window_us), events.len() * FORGET_EACH)
}

/// Forgets names that were seen last before this time.
fn forget(seen: &Table, times: &Table, before_us: i64, most: usize) -> Result<()> {
    let mut over = Vec::new();
    for entry in times.scan(..before_us.max(0).to_be_bytes().to_vec()).take(most) {
        over.push(entry?.0);
    }
    seen.delete_many(over.iter().map(|key| &key[8..]))?;
    times.delete_many(&over)?;
    Ok(())
}

fn name_of<'e>(event: &Event<'e>, field: Option<&Field>) -> Result<Option<Cow<'e, [u8]>>> {
    let Some(field) = field else { return Ok(event.id().map(|id| Cow::Borrowed(id.as_bytes()))) };
    let value: serde_json::Value = event.json()?;
    Ok(field.of(&value).map(|found| Cow::Owned(found.to_string().into_bytes())))
}

/// A key of a state table has a bound, which names may be over.
fn key(name: &[u8]) -> Vec<u8> {
    const WHOLE_BYTES: usize = 1024;
    match name.len() {
        0 => vec![0],
        1..=WHOLE_BYTES => name.to_vec(),
        // Two halves, each hashed, and the length: what is the same here is the same.
        len => {
            let (one, other) = name.split_at(len / 2);
            [&name[..64], &fnv(one).to_le_bytes(), &fnv(other).to_le_bytes(), &(len as u64).to_le_bytes()].concat()
        }
    }
}

/// FNV-1a, 128 bits.
fn fnv(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

fn time(bytes: &[u8]) -> Result<i64> {
    Ok(i64::from_le_bytes(bytes.try_into().map_err(Error::permanent)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, Harness};

    const SECOND: i64 = 1_000_000;

    fn event(id: &str, second: i64) -> Event {
        Event::new("x").id(id).timestamp_us(second * SECOND)
    }

    fn ids(call: &nodata_component::testing::Call) -> Vec<String> {
        call.events().iter().map(|event| event.id.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn events_are_there_once_within_the_window() {
        let mut harness = Harness::new(deduplicate).config("seconds", 10);
        assert_eq!(ids(&harness.call([event("a", 0), event("b", 1), event("a", 2)]).ok()), ["a", "b"]);
        assert_eq!(ids(&harness.call([event("b", 9), event("c", 9), Event::new("x").timestamp_us(9)]).ok()), ["c", ""]);
        // `a` was seen last at 2, `b` at 9.
        assert_eq!(ids(&harness.call([event("a", 12), event("b", 18)]).ok()), ["a"]);
        assert_eq!(ids(&harness.call([event("b", 30)]).ok()), ["b"]);
        assert_eq!(harness.table("seen").len(), 1, "what is over is forgotten");
        assert_eq!(harness.table("times").len(), 1);
    }

    #[test]
    fn a_field_may_name_an_event() {
        let mut harness = Harness::new(deduplicate).config("field", "o.n");
        let call = harness.call([r#"{"o":{"n":1}}"#, r#"{"o":{"n":1}}"#, r#"{"o":{"n":"1"}}"#, "{}", "{"]).ok();
        assert_eq!((call.events().len(), call.rejected().len()), (3, 1));
    }

    #[test]
    fn long_and_empty_names_are_names() {
        let mut harness = Harness::new(deduplicate).config("field", "n");
        let long = |end: &str| format!("{{\"n\":\"{}{end}\"}}", "x".repeat(5000));
        let call = harness.call([long("a"), long("b"), long("a")]).ok();
        assert_eq!(call.events().len(), 2);
    }

    #[test]
    fn a_configuration_that_is_wrong_is_named() {
        let said = |key: &str, value: &str| {
            let mut harness = Harness::new(deduplicate).config(key, value);
            harness.call(["{}"]).error().unwrap().message().to_owned()
        };
        assert_eq!(said("seconds", "0"), "config `seconds` is 0; it is 1 to 315619200, which is ten years");
        assert_eq!(
            said("seconds", "315619201"),
            "config `seconds` is 315619201; it is 1 to 315619200, which is ten years"
        );
        assert_eq!(said("field", "a."), "config `field` is `a.`; it is the name of a field");
    }
}
