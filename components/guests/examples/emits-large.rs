//! Pushes one event with a value of as many bytes as config `bytes` says.

use nodata_component::{Events, Output, Result, component, config};

#[component]
fn emits_large(_: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    out.push(vec![b'x'; config::require("bytes")?])
}
