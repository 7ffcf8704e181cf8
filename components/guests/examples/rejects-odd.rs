//! Puts events with odd offsets aside, and forwards the others.

use nodata_component::{Events, Output, Result, component};

#[component]
fn rejects_odd(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        if event.offset() % 2 == 1 {
            out.reject(&event, format_args!("offset {} is odd", event.offset()));
        } else {
            out.forward(&event)?;
        }
    }
    Ok(())
}
