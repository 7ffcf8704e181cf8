//! Never returns from a batch that holds the value `spin`. Forwards all others.

use nodata_component::{Events, Output, Result, component};

#[component]
fn spins_on_value(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        while event.value() == Some(b"spin") {
            std::hint::spin_loop();
        }
        out.forward(&event)?;
    }
    Ok(())
}
