//! A component of no world: it exports nothing.
#![cfg(target_family = "wasm")]
