//! Fails with a transient error, whatever is tried.

use nodata_component::{Error, Events, Output, Result, component};

#[component]
fn fails_transient_forever(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    events.into_iter().try_for_each(|event| out.forward(&event))?;
    Err(Error::transient(format_args!("attempt {}", events.attempt())))
}
