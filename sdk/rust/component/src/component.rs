//! How a call of the host becomes a call of the component.

use crate::error::Result;
use crate::events::{Batch, Events};
use crate::host;
use crate::kept::Kept;
use crate::output::Output;
use crate::port_info::PortInfo;

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
    /// Makes one when an instance starts, and after a call that failed. State can be read here and not written.
    ///
    /// One is also made when the component is deployed, and thrown away: an error that is not
    /// [`transient`](crate::Error::transient) refuses the deployment with its words. So this is where mistakes in the configuration
    /// are found.
    fn new() -> Result<Self>;

    /// Handles the events of one call. What it pushes and writes becomes durable when it returns `Ok`, in one step
    /// with the position in the input; on an error nothing of it is kept.
    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()>;

    /// The end of an instance that is not needed any more: the deployment is paused or deleted, the host stops, or another instance
    /// takes its place. It may not come at all, so nothing may depend on it.
    fn close(self) {}

    /// The ports that there are with this configuration: see [`PortInfo`]. A component that does not write this is wired as the
    /// operator likes.
    fn ports() -> Result<Vec<PortInfo>> {
        Ok(Vec::new())
    }
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

impl<T: Transform> Kept<T> {
    pub(crate) fn process(&self, batch: host::Batch<'_>, collector: &host::Collector<'_>) -> Result<()> {
        self.lend(T::new, |transform| call(|events, out| transform.process(events, out), batch, collector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::state::Table;
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
    fn a_component_that_cannot_be_made_fails_the_call() {
        let mut harness = Harness::of::<Counting>();
        assert_eq!(harness.call(["a"]).error().unwrap().message(), "config `mark` is missing");
    }

    thread_local! {
        static SAID: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    /// Says what happens to it, and writes when it should not.
    struct Told;

    fn write_state() -> Result<()> {
        Ok(Table::open("told")?.put("k", "v")?)
    }

    impl Transform for Told {
        fn new() -> Result<Self> {
            if crate::config::get("writes").is_some() {
                write_state()?;
            }
            Table::open("told")?.get("k")?;
            SAID.with_borrow_mut(|said| said.push("made".to_owned()));
            Ok(Self)
        }

        fn process(&mut self, _: Events<'_>, _: &mut Output<'_>) -> Result<()> {
            write_state()
        }

        fn close(self) {
            SAID.with_borrow_mut(|said| said.push(format!("closed, {}", write_state().unwrap_err())));
        }
    }

    #[test]
    fn a_component_begins_and_ends_and_only_reads_state_there() {
        let only_read = "while a component begins or ends, state can only be read";
        let mut harness = Harness::of::<Told>().config("writes", "");
        assert!(harness.call(["a"]).error().unwrap().message().ends_with(only_read));

        let mut harness = Harness::of::<Told>();
        let _ = harness.call(["a"]).ok();
        let _ = harness.call(["b"]).ok();
        harness.close();
        harness.close();
        let _ = harness.call(["c"]).ok();
        let said = SAID.take();
        assert_eq!((said.len(), said[0].as_str(), said[2].as_str()), (3, "made", "made"));
        assert!(said[1].starts_with("closed, ") && said[1].ends_with(only_read), "{said:?}");
    }
}
