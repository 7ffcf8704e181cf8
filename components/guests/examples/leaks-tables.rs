//! Opens tables and never closes one, until the host refuses or config `tables` is reached (1 000 000 without it).

use nodata_component::{Events, Output, Result, component, config, state::Table};

#[component]
fn leaks_tables(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for _ in 0..config::get_or("tables", 1_000_000)? {
        std::mem::forget(Table::open("t")?);
    }
    events.into_iter().try_for_each(|event| out.forward(&event))
}
