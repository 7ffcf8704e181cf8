//! Panics on an event with the value `trap`, after it pushed the ones before. Forwards all others.

use nodata_component::{Events, Output, Result, component};

#[component]
fn traps_on_value(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        assert!(event.value() != Some(b"trap"), "the event at offset {} asked for it", event.offset());
        out.forward(&event)?;
    }
    Ok(())
}
