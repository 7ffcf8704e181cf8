//! Traps at once, without a word.
#![cfg(target_family = "wasm")]

use nodata_component::{Events, Output, Result, component};

#[component]
fn traps(_: Events<'_>, _: &mut Output<'_>) -> Result<()> {
    core::arch::wasm32::unreachable()
}
