//! Panics when a batch is given for the first time. Forwards it when it is given again.

use nodata_component::{Events, Output, Result, component};

#[component]
fn traps_once(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    assert!(events.attempt() > 1, "this is the first attempt");
    events.into_iter().try_for_each(|event| out.forward(&event))
}
