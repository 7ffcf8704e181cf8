//! Stores that lost something. After a repair every event that is not said to be lost is there once, in its place and as it was;
//! what is said to be lost was there and is not any more; no task, no producer and no state knows of anything that is not there;
//! and the next check finds nothing.
//!
//! Everything runs in one thread, on a simulated disk, and a seed decides everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod crash;
mod damage;
mod holes;
mod store;
