//! Forwards every event.

use nodata_component::{Events, Output, Result, component};

#[component]
fn passes_on(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        out.forward(&event)?;
    }
    Ok(())
}
