//! What components may import: one file for each interface.
//!
//! A capability has three phases, and each owns another thing. *Link* puts the functions into the linker, once, when the
//! engine starts. *Grant* is what a deployment decides for all of its instances ([`Deployment`](crate::Deployment)). *State*
//! belongs to one instance ([`Guest`](crate::guest::Guest)).

mod config; // what the deployment configured
mod metrics; // numbers about the work
mod state; // durable tables
pub(crate) mod types; // the batch and the collector
pub(crate) mod wasi; // files, clocks and sockets that are not granted

use crate::guest::Guest;
use wasmtime::Engine;
use wasmtime::component::Linker;

/// Everything that a component of this engine may import.
pub(crate) fn link(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasi::link(&mut linker)?;
    types::link(&mut linker)?;
    config::link(&mut linker)?;
    metrics::link(&mut linker)?;
    state::link(&mut linker)?;
    Ok(linker)
}
