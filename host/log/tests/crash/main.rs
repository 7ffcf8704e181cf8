//! The log on a disk that crashes, tears, forgets and fails.
//!
//! Everything runs in one thread: the steps that the syncer, the preparer and the checkpointer take are taken by hand, in an
//! order that a seed decides, so a run can be repeated exactly. What the log must be after a crash is said by a model that
//! holds a plain list of what was asked for: it must be the sum of a prefix of that list, and the prefix must hold everything
//! that was acknowledged and everything that anyone has seen.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod disk;
mod model;
mod power;
mod syncs;
mod workload;
