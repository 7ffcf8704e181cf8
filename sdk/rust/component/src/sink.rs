//! A component that delivers events to somewhere else.

use crate::error::Result;
use crate::events::{Batch, Event, Events};
use crate::host;
use crate::kept::Kept;
use crate::port_info::PortInfo;
use crate::tick::Tick;
use std::fmt::{self, Display};

/// A component that delivers events to somewhere else.
///
/// ```
/// use nodata_component::{Events, Rejects, Result, Sink, component};
///
/// struct Printed;
///
/// #[component]
/// impl Sink for Printed {
///     fn new() -> Result<Self> {
///         Ok(Self)
///     }
///
///     fn write(&mut self, events: Events<'_>, rejects: &mut Rejects<'_>) -> Result<()> {
///         for event in events {
///             match event.text() {
///                 Ok(text) => println!("{} {} {}: {text}", events.topic(), events.partition(), event.offset()),
///                 Err(why) => rejects.reject(&event, why),
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// Events are delivered at least once: a crash between the delivery and the commit of the position repeats some. Topic, partition
/// and offset of an event are the same each time, so give them to the receiver, which can then leave out what it has.
///
/// A call has an end (60 s by the clock), and what a failed call has delivered is delivered again. So where each request takes its
/// time, deliver for some seconds and [leave the rest](Rejects::defer) for the next call; and where one fails behind others that did
/// not, leave what begins with it, and let the next call say why.
///
/// An error that may pass is [`Error::transient`](crate::Error::transient): the same events are given again later, and none behind
/// them before. One that will not is put aside with [`Rejects::reject`], or fails the call with
/// [`Error::permanent`](crate::Error::permanent), and then the host finds out which event it is about.
pub trait Sink: Sized + 'static {
    /// Makes one when an instance starts, after a call that failed, and, to be thrown away, when the component is deployed: see
    /// [`Transform::new`](crate::Transform::new).
    fn new() -> Result<Self>;

    /// Delivers these events, or keeps them until [`flush`](Self::flush).
    fn write(&mut self, events: Events<'_>, rejects: &mut Rejects<'_>) -> Result<()>;

    /// Returns when all that was written is delivered.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Called at intervals: see [`Transform::tick`](crate::Transform::tick). [`flush`](Self::flush) is not called after it.
    fn tick(&mut self, tick: Tick) -> Result<()> {
        let _ = tick;
        Ok(())
    }

    /// What another instance needs to be exactly where this one is: see [`Transform::save`](crate::Transform::save).
    fn save(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Goes on from what was [`saved`](Self::save): see [`Transform::restore`](crate::Transform::restore).
    fn restore(&mut self, saved: &[u8], saved_by: &str) -> Result<()> {
        let _ = (saved, saved_by);
        Ok(())
    }

    /// The end of an instance that is not needed any more: see [`Transform::close`](crate::Transform::close).
    fn close(self) {}

    /// The ports that there are with this configuration: see [`PortInfo`].
    fn ports() -> Result<Vec<PortInfo>> {
        Ok(Vec::new())
    }
}

/// Puts events aside that can never be delivered, and leaves those for the next call that cannot be delivered in this one.
pub struct Rejects<'a> {
    collector: &'a host::Collector<'a>,
}

impl Rejects<'_> {
    /// Puts one event aside, with the reason, as a dead letter. The rest of the batch is not affected. The host keeps the last reason
    /// given for an event, and at most 1024 bytes of it.
    pub fn reject(&mut self, event: &Event<'_>, reason: impl Display) {
        self.collector.reject(event.row(), &reason.to_string());
    }

    /// Leaves this event and those behind it for the next call, which begins with it. The position moves on to it, so what was
    /// delivered before is not given again. An error for the first event of a call: one that delivers nothing fails.
    pub fn defer(&mut self, event: &Event<'_>) -> Result<()> {
        Ok(self.collector.defer(event.row())?)
    }
}

impl fmt::Debug for Rejects<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rejects")
    }
}

impl<T: Sink> Kept<T> {
    pub(crate) fn write(&self, batch: host::Batch<'_>, collector: &host::Collector<'_>) -> Result<()> {
        self.lend(T::new, |sink| {
            let batch = Batch::new(batch);
            sink.write(Events::new(&batch), &mut Rejects { collector })
        })
    }

    pub(crate) fn flush(&self) -> Result<()> {
        // Without one, nothing was written.
        let Some(mut sink) = self.take() else { return Ok(()) };
        sink.flush()?;
        self.set(sink);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::testing::Harness;

    thread_local! {
        static DELIVERED: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    /// Delivers when flushed, and fails as it is told.
    struct Buffered(Vec<String>);

    impl Sink for Buffered {
        fn new() -> Result<Self> {
            Ok(Self(Vec::new()))
        }

        fn write(&mut self, events: Events<'_>, rejects: &mut Rejects<'_>) -> Result<()> {
            for event in events {
                match event.text()? {
                    "bad" => rejects.reject(&event, "it is bad"),
                    "fail" => return Err(Error::transient("told to")),
                    text => self.0.push(format!("{} {text}", event.offset())),
                }
            }
            Ok(())
        }

        fn flush(&mut self) -> Result<()> {
            DELIVERED.with_borrow_mut(|delivered| delivered.append(&mut self.0));
            Ok(())
        }
    }

    #[test]
    fn what_is_written_is_delivered_when_it_is_flushed_and_a_failed_call_delivers_nothing() {
        let mut harness = Harness::of_sink::<Buffered>();
        let call = harness.call(["a", "bad", "b"]).ok();
        assert_eq!((call.rejected()[0].row, call.rejected()[0].reason.as_str()), (1, "it is bad"));
        assert_eq!(harness.call(["c", "fail"]).error(), Some(&Error::transient("told to")));
        let _ = harness.call(["d"]).ok();
        assert_eq!(DELIVERED.take(), ["0 a", "2 b", "5 d"]);
    }

    /// Delivers two events in a call.
    struct InPairs;

    impl Sink for InPairs {
        fn new() -> Result<Self> {
            Ok(Self)
        }

        fn write(&mut self, events: Events<'_>, rejects: &mut Rejects<'_>) -> Result<()> {
            for event in events {
                if event.text()? == "bad" {
                    rejects.reject(&event, "it is bad");
                }
                if event.row() == crate::config::get_or("leaves", 2)? {
                    return rejects.defer(&event);
                }
            }
            Ok(())
        }
    }

    #[test]
    fn a_call_leaves_events_for_the_next_one_but_not_all() {
        let mut harness = Harness::of_sink::<InPairs>();
        let call = harness.call(["a", "bad", "bad", "b", "c"]).ok();
        assert_eq!((call.deferred(), call.rejected().len(), call.rejected()[0].row), (Some(2), 1, 1));
        let call = harness.call_rest().ok();
        assert_eq!((call.deferred(), call.rejected()[0].row), (Some(2), 0));
        assert_eq!(harness.call_rest().ok().deferred(), None);
        let call = Harness::of_sink::<InPairs>().config("leaves", 0).call(["a"]);
        assert_eq!(call.error(), Some(&Error::permanent("a call cannot leave all of its rows for the next one")));
    }
}
