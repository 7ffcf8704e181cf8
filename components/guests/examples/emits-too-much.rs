//! Pushes a mebibyte again and again, until the host refuses.

use nodata_component::{Events, Output, Result, component};

#[component]
fn emits_too_much(_: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let mebibyte = vec![b'x'; 1 << 20];
    loop {
        out.push(&mebibyte)?;
    }
}
