//! For each event, pushes as many copies as config `copies` says (10 without it), with ids that say which is which.

use nodata_component::{Events, Output, Result, component, config};

#[component]
fn emits_many(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let copies: u32 = config::get_or("copies", 10)?;
    for event in events {
        for copy in 0..copies {
            out.like(&event).id(format!("{}-{copy}", event.offset())).value(event.bytes()?)?;
        }
    }
    Ok(())
}
