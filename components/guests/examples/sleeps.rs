//! Sleeps for as many milliseconds as config `ms` says (1000 without it), then forwards.

use nodata_component::{Events, Output, Result, component, config};
use std::thread;
use std::time::Duration;

#[component]
fn sleeps(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    thread::sleep(Duration::from_millis(config::get_or("ms", 1000)?));
    events.into_iter().try_for_each(|event| out.forward(&event))
}
