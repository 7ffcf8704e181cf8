//! Pushes to the port `nowhere`.

use nodata_component::{Events, Output, Result, component};

#[component]
fn emits_nowhere(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        out.to("nowhere").like(&event).value(event.bytes()?)?;
    }
    Ok(())
}
