//! Forwards two batches, and never returns from the third.

use nodata_component::{Events, Output, Result, component};
use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

#[component]
fn spins_on_third(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    CALLS.set(CALLS.get() + 1);
    while CALLS.get() == 3 {
        std::hint::spin_loop();
    }
    events.into_iter().try_for_each(|event| out.forward(&event))
}
