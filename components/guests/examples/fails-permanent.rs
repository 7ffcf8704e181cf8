//! Fails with a permanent error, whatever is tried.

use nodata_component::{Error, Events, Output, Result, component};

#[component]
fn fails_permanent(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    events.into_iter().try_for_each(|event| out.forward(&event))?;
    Err(Error::permanent(format_args!("attempt {} cannot help", events.attempt())))
}
