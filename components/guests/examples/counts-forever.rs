//! Calls the host again and again, and never returns.

use nodata_component::{Events, Output, Result, component, metrics};

#[component]
fn counts_forever(_: Events<'_>, _: &mut Output<'_>) -> Result<()> {
    loop {
        metrics::add("calls", 1, &[]);
    }
}
