//! Panics, and says why. The host finds it among what the component logged.

use nodata_component::{Events, Output, Result, component};

#[component]
fn panics(events: Events<'_>, _: &mut Output<'_>) -> Result<()> {
    panic!("asked to panic, with {} events", events.len());
}
