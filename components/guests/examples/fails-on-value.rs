//! Fails with a permanent error on an event with the value `fail`. Forwards all others.

use nodata_component::{Error, Events, Output, Result, component};

#[component]
fn fails_on_value(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        if event.value() == Some(b"fail") {
            return Err(Error::permanent(format_args!("the event at offset {} asked for it", event.offset())));
        }
        out.forward(&event)?;
    }
    Ok(())
}
