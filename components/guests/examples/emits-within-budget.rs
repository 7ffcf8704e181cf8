//! Pushes a kibibyte again and again for as long as the budget of the call allows it.

use nodata_component::{Events, Output, Result, component};

#[component]
fn emits_within_budget(_: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let kibibyte = [b'x'; 1 << 10];
    while out.remaining_bytes() >= kibibyte.len() as u64 {
        out.push(kibibyte)?;
    }
    Ok(())
}
