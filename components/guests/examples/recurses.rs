//! Calls itself until the stack ends.

use nodata_component::{Events, Output, Result, component};

#[component]
fn recurses(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    out.event().text(deeper(events.byte_size()))
}

/// What is done with the result keeps the compiler from making a loop of it.
#[inline(never)]
fn deeper(n: u64) -> u64 {
    if n == u64::MAX { n } else { deeper(n + 1).rotate_left(1) ^ n }
}
