//! Copies each event with all that is in it, column by column. What comes out is what went in.

use nodata_component::{Events, Output, Result, component};

#[component]
fn copies(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        let draft = out.like(&event).id_of(&event).headers_of(&event);
        match event.value() {
            Some(value) => draft.value(value)?,
            None => draft.tombstone()?,
        }
    }
    Ok(())
}
