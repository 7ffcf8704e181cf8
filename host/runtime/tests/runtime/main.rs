//! What components see of the host, and what the host sees of components.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness; // starts guests, shows what they do

mod calls; // errors that a component returns, and instances that go on
mod columns; // events there and back
mod emits; // what is taken and what is refused
mod extras; // what a component exports beside its role
mod grants; // configuration, metrics, logs, and everything that is not granted
mod http; // requests to receivers that behave in every way
mod limits; // guests that take too much
mod loading; // compiling and keeping what was compiled
mod tables; // state
mod uploads; // what is accepted
