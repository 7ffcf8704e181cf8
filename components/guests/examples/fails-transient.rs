//! Fails with a transient error until the attempt that config `attempts` names (3 without it), and then forwards.

use nodata_component::{Error, Events, Output, Result, component, config};

#[component]
fn fails_transient(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    events.into_iter().try_for_each(|event| out.forward(&event))?;
    let attempts: u32 = config::get_or("attempts", 3)?;
    if events.attempt() < attempts {
        return Err(Error::transient(format_args!("attempt {} of {attempts}", events.attempt())));
    }
    Ok(())
}
