//! How a call of the host becomes a call of the component.

use crate::error::Result;
use crate::events::{Batch, Events};
use crate::host;
use crate::kept::Kept;
use crate::output::Output;
use crate::port_info::PortInfo;
use crate::tick::Tick;

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
/// written to a [`state::Table`](crate::state::Table), or, if it is small, [saved](Self::save) with the position.
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

    /// Called at intervals, between two batches, also while no events come: the deployment says how often with `--tick`, and it is
    /// every second otherwise. A component that does not write this is not called.
    ///
    /// What it pushes and writes becomes durable in one step when it returns `Ok`; there are no events to forward or reject. A tick that
    /// fails otherwise than with [`Error::transient`](crate::Error::transient) is tried once more and then left out. Ticks that were
    /// missed are not made up for.
    ///
    /// ```
    /// # use nodata_component::{Events, Output, Result, Tick, Transform, component, state::Table};
    /// # struct Quiet;
    /// # #[component]
    /// # impl Transform for Quiet {
    /// # fn new() -> Result<Self> { Ok(Self) }
    /// # fn process(&mut self, _: Events<'_>, _: &mut Output<'_>) -> Result<()> { Ok(()) }
    /// fn tick(&mut self, tick: Tick, out: &mut Output<'_>) -> Result<()> {
    ///     for entry in Table::open("seen")?.scan(..) {
    ///         let (name, at) = entry?;
    ///         let minutes = (tick.now_us - i64::from_le_bytes(at.as_slice().try_into()?)) / 60_000_000;
    ///         if minutes >= 10 {
    ///             out.event().key(name).text(format_args!("silent for {minutes} minutes"))?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// ```
    fn tick(&mut self, tick: Tick, out: &mut Output<'_>) -> Result<()> {
        let _ = (tick, out);
        Ok(())
    }

    /// What another instance needs to be exactly where this one is. Called after each call that succeeded, and durable with it, so that
    /// what a component keeps is as exact as its position. At most 1 MiB; the same bytes as the last time cost nothing.
    ///
    /// This is for small things that are costly to look up for each event. What is large, or grows with the keys there are, belongs in a
    /// [`state::Table`](crate::state::Table). A component that writes this also writes [`restore`](Self::restore), and is made anew and
    /// restored after every call that failed.
    ///
    /// ```
    /// # use nodata_component::{Events, Output, Result, Transform, component};
    /// /// Numbers events, without asking a table for each of them.
    /// struct Numbered {
    ///     next: u64,
    /// }
    ///
    /// #[component]
    /// impl Transform for Numbered {
    ///     fn new() -> Result<Self> {
    ///         Ok(Self { next: 0 })
    ///     }
    ///
    ///     fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    ///         for event in events {
    ///             out.like(&event).header("number", self.next.to_string()).value(event.bytes()?)?;
    ///             self.next += 1;
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn save(&self) -> Result<Vec<u8>> {
    ///         Ok(self.next.to_le_bytes().to_vec())
    ///     }
    ///
    ///     fn restore(&mut self, saved: &[u8], _: &str) -> Result<()> {
    ///         self.next = u64::from_le_bytes(saved.try_into()?);
    ///         Ok(())
    ///     }
    /// }
    /// ```
    fn save(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Goes on from what was [`saved`](Self::save), on a new one. Who saved it is named by its digest, which is another one after an
    /// update: what is saved is a format, and a new version must read what the one before it wrote. State can be read here and not
    /// written.
    fn restore(&mut self, saved: &[u8], saved_by: &str) -> Result<()> {
        let _ = (saved, saved_by);
        Ok(())
    }

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

    /// Numbers events, remembers the number, and fails as it is told.
    struct Numbered {
        next: u8,
    }

    impl Transform for Numbered {
        fn new() -> Result<Self> {
            Ok(Self { next: 0 })
        }

        fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
            for event in events {
                self.next += 1;
                out.push(self.next.to_string())?;
                if event.bytes()? == b"fail" {
                    return Err(Error::transient("told to"));
                }
            }
            Ok(())
        }

        fn tick(&mut self, _: Tick, _: &mut Output<'_>) -> Result<()> {
            self.next += 10;
            Ok(())
        }

        fn save(&self) -> Result<Vec<u8>> {
            match self.next {
                99 => Err(Error::permanent("no")),
                100 => Ok(vec![0; (1 << 20) + 1]),
                next => Ok(vec![next]),
            }
        }

        fn restore(&mut self, saved: &[u8], saved_by: &str) -> Result<()> {
            self.next = saved[0] + u8::from(saved_by == "old");
            Ok(())
        }
    }

    #[test]
    fn what_is_saved_is_there_again_and_a_failed_call_is_in_no_memory() {
        let mut harness = Harness::of::<Numbered>();
        assert_eq!(harness.saved(), None);
        assert_eq!(texts(&harness.call(["a", "b"]).ok()), ["1", "2"]);
        harness.restart();
        assert_eq!(texts(&harness.call(["c"]).ok()), ["3"]);
        assert!(harness.call(["d", "e", "fail"]).error().is_some());
        assert_eq!(texts(&harness.call_again()), [""; 0]);
        assert_eq!(texts(&harness.call(["f"]).ok()), ["4"]);
        let _ = harness.tick(7).ok();
        assert_eq!(harness.saved(), Some(&[14][..]));
        harness.restart();
        assert_eq!(texts(&harness.call(["g"]).ok()), ["15"]);

        let mut harness = Harness::of::<Numbered>().saved_by("old", [97]);
        assert_eq!(harness.call(["h"]).error(), Some(&Error::permanent("no")));
        assert_eq!(texts(&harness.call(["i", "j"])), [""; 0]);
        let call = Harness::of::<Numbered>().saved_by("old", [98]).call(["k"]);
        let expected = "it saves 1048577 bytes of memory, at most 1048576 are allowed";
        assert_eq!(call.error().unwrap().message(), expected);
        assert_eq!(texts(&Harness::of::<Numbered>().saved_by("other", [7]).call(["l"]).ok()), ["8"]);
    }

    /// Says what it saw since the last tick, and fails at odd times.
    struct Reports {
        seen: usize,
    }

    impl Transform for Reports {
        fn new() -> Result<Self> {
            Ok(Self { seen: 0 })
        }

        fn process(&mut self, events: Events<'_>, _: &mut Output<'_>) -> Result<()> {
            self.seen += events.len();
            Ok(())
        }

        fn tick(&mut self, tick: Tick, out: &mut Output<'_>) -> Result<()> {
            out.push(format!("{} at {}", std::mem::take(&mut self.seen), tick.now_us))?;
            Table::open("ticks")?.put(tick.now_us.to_string(), "")?;
            if tick.now_us % 2 == 1 { Err(Error::transient("odd")) } else { Ok(()) }
        }
    }

    #[test]
    fn a_component_ticks_and_a_tick_that_fails_leaves_nothing() {
        let mut harness = Harness::of::<Reports>();
        assert_eq!(texts(&harness.tick(2).ok()), ["0 at 2"]);
        let _ = harness.call(["a", "b"]).ok();
        assert_eq!(texts(&harness.tick(4).ok()), ["2 at 4"]);
        assert_eq!(texts(&harness.tick(6).ok()), ["0 at 6"]);
        let _ = harness.call(["c"]).ok();
        let failed = harness.tick(7);
        assert_eq!((failed.error(), failed.events().len()), (Some(&Error::transient("odd")), 0));
        assert_eq!(harness.table("ticks").len(), 3);
        assert_eq!(texts(&harness.tick(8).ok()), ["0 at 8"], "a failed call takes what was kept with it");
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
