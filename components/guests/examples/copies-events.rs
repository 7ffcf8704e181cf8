//! Emits what it was given, as events.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, EventParam, EventResult, Guest, say};

struct CopiesEvents;

fn give<'a>(event: &'a EventResult, headers: &'a [(&'a str, &'a [u8])]) -> EventParam<'a> {
    EventParam {
        id: event.id.as_deref(),
        key: event.key.as_deref(),
        value: event.value.as_deref(),
        headers,
        timestamp: event.timestamp,
    }
}

impl Guest for CopiesEvents {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        let events = input.events();
        let headers: Vec<Vec<(&str, &[u8])>> = events
            .iter()
            .map(|event| event.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect())
            .collect();
        let given: Vec<EventParam<'_>> =
            events.iter().zip(&headers).map(|(event, headers)| give(event, headers)).collect();
        if let Err(error) = out.emit("", &given) {
            say(out, &format!("{error:?}"));
        }
        Ok(())
    }
}

guests::export!(CopiesEvents);
