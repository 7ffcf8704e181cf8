//! Copies each event with all that is in it, and panics in every third call of an instance, after it has emitted.

use nodata_component::{Events, Output, Result, component};
use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

#[component]
fn copies_and_traps(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    CALLS.set(CALLS.get() + 1);
    events.into_iter().try_for_each(|event| out.forward(&event))?;
    assert!(!CALLS.get().is_multiple_of(3), "this is a third call");
    Ok(())
}
