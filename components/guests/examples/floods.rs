//! Logs as many bytes as config `bytes` says (16 MiB without it) and never ends the line. Forwards the events.

use nodata_component::{Events, Output, Result, component, config};
use std::io::Write;

#[component]
fn floods(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let mut left: usize = config::get_or("bytes", 16 << 20)?;
    let part = [b'x'; 4096];
    while left > 0 {
        let bytes = left.min(part.len());
        std::io::stderr().write_all(&part[..bytes])?;
        left -= bytes;
    }
    events.into_iter().try_for_each(|event| out.forward(&event))
}
