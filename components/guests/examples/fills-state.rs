//! Writes a mebibyte for each event into the table `t`, under its offset.

use nodata_component::{Events, Output, Result, component, state::Table};

#[component]
fn fills_state(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let table = Table::open("t")?;
    for event in events {
        table.put(event.offset().to_be_bytes(), vec![b'x'; 1 << 20])?;
        out.forward(&event)?;
    }
    Ok(())
}
