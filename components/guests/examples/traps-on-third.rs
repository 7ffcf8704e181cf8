//! Forwards two batches, pushes something of the third and panics.

use nodata_component::{Events, Output, Result, component};
use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

#[component]
fn traps_on_third(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    CALLS.set(CALLS.get() + 1);
    events.into_iter().try_for_each(|event| out.forward(&event))?;
    // Before and after the panic the host must not see it.
    out.push("never seen if this is the third batch")?;
    assert!(CALLS.get() != 3, "this is the third batch");
    Ok(())
}
