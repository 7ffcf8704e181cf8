//! Says where each event is from: topic, partition, offset, attempt, row and number of rows.

use nodata_component::{Events, Output, Result, component};

#[component]
fn says_where(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        out.like(&event).text(format_args!(
            "{}/{}@{} attempt {} row {} of {}",
            events.topic(),
            events.partition(),
            event.offset(),
            events.attempt(),
            event.row(),
            events.len(),
        ))?;
    }
    Ok(())
}
