//! How a call of the host becomes a call of the component.

use crate::error::{Error, Result};
use crate::events::{Batch, Events};
use crate::host;
use crate::output::Output;
use std::cell::Cell;

/// A component that keeps something between calls.
///
/// Where a function is enough, put `#[component]` on a function. This is for what is costly to make or to look up:
/// a compiled pattern, a parsed configuration, a cache.
///
/// ```
/// use nodata_component::{Events, Output, Result, Transform, component, config};
///
/// struct Sampled {
///     one_of: u64,
/// }
///
/// #[component]
/// impl Transform for Sampled {
///     fn new() -> Result<Self> {
///         Ok(Self { one_of: config::require("one-of")? })
///     }
///
///     fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
///         for event in events {
///             if event.offset() % self.one_of == 0 {
///                 out.forward(&event)?;
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// What a component keeps is a cache: it is gone when the host restarts, moves the partition or replaces the
/// component, and it is dropped when a call fails, so that nothing half-done is carried over. What must last is
/// written to a [`state::Table`](crate::state::Table).
pub trait Transform: Sized + 'static {
    /// Makes one, before the first call and after a failed one. An error fails the call, and no event is to blame for it, whatever
    /// its kind: the host tries again for as long as it takes, and says why it cannot.
    fn new() -> Result<Self>;

    /// Handles the events of one call. What it pushes and writes becomes durable when it returns `Ok`, in one step
    /// with the position in the input; on an error nothing of it is kept.
    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()>;
}

/// A component that is a function. `#[component]` has the compiler compare the author's with it:
///
/// ```compile_fail,E0308
/// use nodata_component::{Events, Output, Result, component};
///
/// #[component]
/// fn without_a_reference(events: Events<'_>, out: Output<'_>) -> Result<()> {
///     Ok(())
/// }
/// ```
///
/// and has it complain of a second one:
///
/// ```compile_fail,E0428
/// use nodata_component::{Events, Output, Result, component};
///
/// #[component]
/// fn one(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
///     Ok(())
/// }
///
/// #[component]
/// fn another(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
///     Ok(())
/// }
/// ```
pub type Process = fn(Events<'_>, &mut Output<'_>) -> Result<()>;

/// One call of a function.
pub(crate) fn call(
    process: impl FnOnce(Events<'_>, &mut Output<'_>) -> Result<()>,
    batch: host::Batch<'_>,
    collector: &host::Collector<'_>,
) -> Result<()> {
    let batch = Batch::new(batch);
    let mut out = Output::new(collector);
    process(Events::new(&batch), &mut out)?;
    out.flush()
}

/// The one value of a [`Transform`], between calls.
pub struct Instance<T>(Cell<Option<T>>);

impl<T: Transform> Instance<T> {
    /// Not made yet.
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }

    pub(crate) fn call(&self, batch: host::Batch<'_>, collector: &host::Collector<'_>) -> Result<()> {
        let mut transform = self.0.take().map_or_else(|| T::new().map_err(Error::of_nobody), Ok)?;
        call(|events, out| transform.process(events, out), batch, collector)?;
        self.0.set(Some(transform));
        Ok(())
    }
}

impl<T: Transform> Default for Instance<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Call, Event, Harness};

    /// Numbers events, refuses "fail" and cannot be made with a bad configuration.
    struct Counting {
        seen: u32,
        mark: char,
    }

    impl Transform for Counting {
        fn new() -> Result<Self> {
            Ok(Self { seen: 0, mark: crate::config::require("mark")? })
        }

        fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
            for event in events {
                self.seen += 1;
                out.event().text(format_args!("{}{}", self.seen, self.mark))?;
                if event.bytes()? == b"fail" {
                    return Err(Error::transient("asked to"));
                }
                if event.bytes()? == b"nowhere" {
                    out.to("nowhere").push("x")?;
                }
            }
            Ok(())
        }
    }

    fn texts(call: &Call) -> Vec<String> {
        call.events().iter().map(Event::text).collect()
    }

    #[test]
    fn what_a_component_keeps_lasts_until_a_call_fails() {
        let mut harness = Harness::of::<Counting>().config("mark", '.').ports([""]);
        assert_eq!(texts(&harness.call(["a", "b"]).ok()), ["1.", "2."]);
        assert_eq!(texts(&harness.call(["c"]).ok()), ["3."]);

        let failed = harness.call(["d", "fail"]);
        assert_eq!(failed.error(), Some(&Error::transient("asked to")));
        assert_eq!(texts(&failed), [""; 0]);
        assert_eq!(texts(&harness.call(["e"]).ok()), ["1."]);

        // A refusal that comes after the function returned is a failure, too.
        assert!(harness.call(["nowhere"]).error().is_some());
        assert_eq!(texts(&harness.call(["f"]).ok()), ["1."]);
    }

    #[test]
    fn a_component_that_cannot_be_made_fails_the_call_and_blames_no_event() {
        let mut harness = Harness::of::<Counting>();
        assert_eq!(harness.call(["a"]).error(), Some(&Error::transient("config `mark` is missing")));
    }
}
