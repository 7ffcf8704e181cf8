//! Makes a new series of metrics for each event: as many as config `series` says (100 000 without it).

use nodata_component::{Events, Output, Result, component, config, metrics};

#[component]
fn makes_series(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for n in 0..config::get_or("series", 100_000)? {
        metrics::add("made", 1, &[("n", &format!("{n}"))]);
    }
    events.into_iter().try_for_each(|event| out.forward(&event))
}
