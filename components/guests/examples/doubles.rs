//! Pushes each event twice: the value, then the value in upper case. The order of the input is kept.

use nodata_component::{Events, Output, Result, component};

#[component]
fn doubles(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        out.like(&event).value(event.bytes()?)?;
        out.like(&event).value(event.bytes()?.to_ascii_uppercase())?;
    }
    Ok(())
}
