//! A component, as the host calls it: made before its first call, restored from what it saved, let go in the end.

use crate::component::{self, Transform};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::host::native::{Batch, Collector, reading};
use crate::kept::Kept;
use crate::output::Output;
use crate::tick::Tick;
use std::cell::RefCell;

/// What a component saved, and the digest of who did.
pub(super) type Saved = (Vec<u8>, String);

/// Bytes that a component may save.
const SNAPSHOT_BYTES_MAX: usize = 1 << 20;
/// What a component is told of who saved what it goes on from: itself.
pub(super) const DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Makes a component that is not there, and gives it what was saved.
pub(super) fn make<T>(
    component: &Kept<T>,
    new: fn() -> Result<T>,
    restore: impl FnOnce(&mut T, &[u8], &str) -> Result<()>,
    saved: Option<&Saved>,
) -> Result<()> {
    if component.is_made() {
        return Ok(());
    }
    reading(|| {
        component.make(new)?;
        match saved {
            Some((saved, by)) => component.lend(new, |value| restore(value, saved, by)),
            None => Ok(()),
        }
    })
}

/// What a component saves after a call.
pub(super) fn save<T>(
    component: &Kept<T>,
    new: fn() -> Result<T>,
    save: impl FnOnce(&T) -> Result<Vec<u8>>,
) -> Result<Saved> {
    component.lend(new, |value| match save(value)? {
        saved if saved.len() > SNAPSHOT_BYTES_MAX => Err(Error::permanent(format_args!(
            "it saves {} bytes of memory, at most {SNAPSHOT_BYTES_MAX} are allowed",
            saved.len()
        ))),
        saved => Ok((saved, DIGEST.to_owned())),
    })
}

/// A component, as the host calls it.
pub(super) trait Component {
    /// Makes it, if there is anything to make, and gives it what was saved.
    fn open(&self, saved: Option<&Saved>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// What it saves, if there is anything to save.
    fn save(&self) -> Result<Option<Saved>> {
        Ok(None)
    }

    /// Lets it go without a word.
    fn forget(&self) {}

    fn call(&self, batch: Batch<'_>, collector: &Collector<'_>) -> Result<()>;

    fn tick(&self, at: Tick, collector: &Collector<'_>) -> Result<()> {
        let _ = (at, collector);
        panic!("a function does not tick: that is for `impl Transform`")
    }

    fn close(&self) {}
}

pub(super) struct OfFunction<F>(pub(super) RefCell<F>);

impl<F: FnMut(Events<'_>, &mut Output<'_>) -> Result<()>> Component for OfFunction<F> {
    fn call(&self, batch: Batch<'_>, collector: &Collector<'_>) -> Result<()> {
        component::call(&mut *self.0.borrow_mut(), batch, collector)
    }
}

pub(super) struct OfTransform<T>(pub(super) Kept<T>);

impl<T: Transform> Component for OfTransform<T> {
    fn open(&self, saved: Option<&Saved>) -> Result<()> {
        make(&self.0, T::new, T::restore, saved)
    }

    fn save(&self) -> Result<Option<Saved>> {
        save(&self.0, T::new, T::save).map(Some)
    }

    fn forget(&self) {
        self.0.take();
    }

    fn call(&self, batch: Batch<'_>, collector: &Collector<'_>) -> Result<()> {
        self.0.process(batch, collector)
    }

    fn tick(&self, at: Tick, collector: &Collector<'_>) -> Result<()> {
        self.0.tick(T::new, T::tick, at, collector)
    }

    fn close(&self) {
        self.0.take().into_iter().for_each(T::close);
    }
}

pub(super) struct OfSink<T>(pub(super) Kept<T>);

impl<T: crate::Sink> Component for OfSink<T> {
    fn open(&self, saved: Option<&Saved>) -> Result<()> {
        make(&self.0, T::new, T::restore, saved)
    }

    fn save(&self) -> Result<Option<Saved>> {
        save(&self.0, T::new, T::save).map(Some)
    }

    fn forget(&self) {
        self.0.take();
    }

    fn call(&self, batch: Batch<'_>, collector: &Collector<'_>) -> Result<()> {
        self.0.write(batch, collector)?;
        self.0.flush()
    }

    fn tick(&self, at: Tick, collector: &Collector<'_>) -> Result<()> {
        self.0.tick(T::new, |sink, at, _| sink.tick(at), at, collector)
    }

    fn close(&self) {
        self.0.take().into_iter().for_each(T::close);
    }
}
