//! Counts events and their bytes. Fails on the value `fail`, after it counted: numbers count at once.

use nodata_component::{Error, Events, Output, Result, component, metrics};

#[component]
fn uses_metrics(events: Events<'_>, _: &mut Output<'_>) -> Result<()> {
    for event in events {
        let kind = if event.key().is_some() { "keyed" } else { "plain" };
        metrics::add("events", 1, &[("kind", kind)]);
        metrics::observe("value_bytes", event.bytes()?.len() as f64, &[]);
        metrics::set("last_offset", event.offset() as f64, &[]);
        if event.value() == Some(b"fail") {
            return Err(Error::permanent("asked to"));
        }
    }
    Ok(())
}
