//! Puts every event aside, with a reason that is as long as config `bytes` says (5000 without it), and forwards it
//! all the same: a dead letter is a copy.

use nodata_component::{Events, Output, Result, component, config};

#[component]
fn rejects_all(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let reason = "x".repeat(config::get_or("bytes", 5000)?);
    for event in events {
        out.reject(&event, &reason);
        out.forward(&event)?;
    }
    Ok(())
}
