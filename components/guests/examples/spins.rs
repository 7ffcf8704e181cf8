//! Never returns.

use nodata_component::{Events, Output, Result, component};

#[component]
fn spins(_: Events<'_>, _: &mut Output<'_>) -> Result<()> {
    loop {
        std::hint::spin_loop();
    }
}
