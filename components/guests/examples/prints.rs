//! Says each value on stdout and its offset on stderr, line by line. Forwards nothing.

use nodata_component::{Events, Output, Result, component};

#[component]
fn prints(events: Events<'_>, _: &mut Output<'_>) -> Result<()> {
    for event in events {
        println!("value {}", event.text()?);
        eprintln!("offset {}", event.offset());
    }
    Ok(())
}
