//! Counts the events of each key.
//!
//! What goes in, comes out and can go wrong is in README.md. One read and one write of the table serve all keys of a batch.

use nodata_component::{Error, Event, Events, Output, Result, component, state::Table};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Counted<'a> {
    key: &'a str,
    count: u64,
}

#[component]
fn running_count(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    // One call of the host reads what is known of all keys in the batch, and one writes it back.
    let table = Table::open("counts")?;
    let mut counts: BTreeMap<&[u8], u64> = events.iter().filter_map(key_of).map(|key| (key, 0)).collect();
    let stored = table.get_many(counts.keys())?;
    for (count, bytes) in counts.values_mut().zip(stored.iter()) {
        *count = bytes.map_or(Ok(0), decode)?;
    }

    for event in events {
        let Some(key) = key_of(event) else {
            out.reject(&event, "there is no key to count it by");
            continue;
        };
        let count = counts.entry(key).or_default();
        *count += 1;
        out.like(&event).json(&Counted { key: &String::from_utf8_lossy(key), count: *count })?;
    }

    table.put_many(counts.iter().map(|(key, count)| (key, count.to_le_bytes())))?;
    Ok(())
}

fn key_of(event: Event<'_>) -> Option<&[u8]> {
    event.key().filter(|key| !key.is_empty())
}

fn decode(bytes: &[u8]) -> Result<u64> {
    match bytes.try_into() {
        Ok(bytes) => Ok(u64::from_le_bytes(bytes)),
        Err(_) => Err(Error::permanent(format_args!("a count in the table has {} bytes, not 8", bytes.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, Harness};

    fn keyed(keys: &[&str]) -> Vec<Event> {
        keys.iter().map(|key| Event::new("x").key(key)).collect()
    }

    fn texts(events: &[Event]) -> Vec<String> {
        events.iter().map(Event::text).collect()
    }

    #[test]
    fn each_event_gets_the_count_of_its_key() {
        let mut harness = Harness::new(running_count);
        let call = harness.call(keyed(&["UA", "B6", "UA"])).ok();
        let expected = [r#"{"key":"UA","count":1}"#, r#"{"key":"B6","count":1}"#, r#"{"key":"UA","count":2}"#];
        assert_eq!(texts(call.events()), expected);
        assert_eq!(call.events()[0].key.as_deref(), Some(&b"UA"[..]));
    }

    #[test]
    fn counts_go_on_in_the_next_call() {
        let mut harness = Harness::new(running_count);
        harness.call(keyed(&["UA", "UA"])).ok();
        let call = harness.call(keyed(&["UA", "B6"])).ok();
        assert_eq!(texts(call.events()), [r#"{"key":"UA","count":3}"#, r#"{"key":"B6","count":1}"#]);
        assert_eq!(harness.table("counts")[&b"UA"[..]], 3u64.to_le_bytes());
    }

    #[test]
    fn an_event_without_a_key_is_put_aside() {
        let call = Harness::new(running_count).call([Event::new("x"), Event::new("x").key("")]).ok();
        assert_eq!(call.events(), []);
        assert_eq!(call.rejected().len(), 2);
        assert_eq!(call.rejected()[0].reason, "there is no key to count it by");
    }

    #[test]
    fn a_count_that_is_none_fails_the_call() {
        let call = Harness::new(running_count).state("counts", "UA", "x").call(keyed(&["UA"]));
        assert_eq!(call.error().unwrap().message(), "a count in the table has 1 bytes, not 8");
    }
}
