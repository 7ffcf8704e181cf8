//! The one value of a component, between calls.

use crate::error::Result;
use crate::host::Collector;
use crate::output::Output;
use crate::tick::Tick;
use std::cell::Cell;

/// The one value of a component, between calls.
pub struct Kept<T>(Cell<Option<T>>);

impl<T> Kept<T> {
    /// Not made yet.
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }

    /// Lends the value to a call, and makes it before if there is none. When the call fails the value is dropped, so that nothing
    /// half-done is carried over.
    pub(crate) fn lend<R>(&self, make: fn() -> Result<T>, call: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        let mut value = self.0.take().map_or_else(make, Ok)?;
        let done = call(&mut value)?;
        self.0.set(Some(value));
        Ok(done)
    }

    /// Makes the value, if there is none.
    pub(crate) fn make(&self, make: fn() -> Result<T>) -> Result<()> {
        self.lend(make, |_| Ok(()))
    }

    /// Calls it at a tick.
    pub(crate) fn tick(
        &self,
        make: fn() -> Result<T>,
        tick: impl FnOnce(&mut T, Tick, &mut Output<'_>) -> Result<()>,
        at: Tick,
        collector: &Collector<'_>,
    ) -> Result<()> {
        self.lend(make, |value| {
            let mut out = Output::new(collector);
            tick(value, at, &mut out)?;
            out.flush()
        })
    }

    /// Whether there is one.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn is_made(&self) -> bool {
        let value = self.0.take();
        let is_made = value.is_some();
        self.0.set(value);
        is_made
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.take()
    }

    pub(crate) fn set(&self, value: T) {
        self.0.set(Some(value));
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self::new()
    }
}
