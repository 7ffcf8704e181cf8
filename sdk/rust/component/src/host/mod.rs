//! The host, as the rest of the crate sees it. It is one of two things with the same shape: inside a component the
//! imports of `nodata:streaming`, natively a few maps in memory that belong to a test.

#[cfg(target_family = "wasm")]
mod guest;
#[cfg(all(target_family = "wasm", feature = "http"))]
pub(crate) mod http;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod native;

#[cfg(target_family = "wasm")]
pub(crate) use guest::{Batch, Collector, Fetched, Table, config, metrics};
#[cfg(all(not(target_family = "wasm"), feature = "http"))]
pub(crate) use native::http;
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{Batch, Collector, Fetched, Table, config, metrics};

#[cfg(all(target_family = "wasm", feature = "json"))]
pub use guest::{export_accumulate, export_closed, export_keys, export_merge, export_render};
#[cfg(target_family = "wasm")]
pub use guest::{
    export_close, export_committed, export_described, export_flush, export_function, export_make, export_open,
    export_poll, export_restore, export_save, export_tick, export_transform, export_write,
};

use crate::error::Error;

/// Why the host did not take what was emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EmitError {
    UnknownPort(String),
    BudgetExceeded,
    Invalid(String),
}

impl From<EmitError> for Error {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::Invalid(why) => Self::permanent(why),
            other => Self::permanent(format_args!("{other:?}")),
        }
    }
}
