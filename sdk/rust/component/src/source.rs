//! A component that brings events in.

use crate::error::{Error, Result};
use crate::host;
use crate::kept::Kept;
use crate::output::Output;
use crate::port_info::PortInfo;
use std::time::Duration;

/// A component that brings events in.
///
/// ```
/// use nodata_component::{Error, Next, Output, Result, Source, component, config};
///
/// /// Counts to config `to`.
/// struct Numbers {
///     next: u64,
///     to: u64,
/// }
///
/// #[component]
/// impl Source for Numbers {
///     fn open(position: Option<&[u8]>) -> Result<Self> {
///         let next = position.map_or(Ok([0; 8]), TryInto::try_into).map_err(Error::permanent)?;
///         Ok(Self { next: u64::from_le_bytes(next), to: config::require("to")? })
///     }
///
///     fn poll(&mut self, events_max: u32, out: &mut Output<'_>) -> Result<Next> {
///         for _ in 0..events_max {
///             if self.next == self.to {
///                 return Ok(Next::Finished);
///             }
///             out.push(self.next.to_string())?;
///             self.next += 1;
///             out.checkpoint(self.next.to_le_bytes())?;
///         }
///         Ok(Next::More)
///     }
/// }
/// ```
///
/// What a call pushes and its last checkpoint become durable in one step. After a failed call and after a restart the source is
/// opened anew at the checkpoint that was committed last: nothing is brought in twice, and nothing is left out, as long as the
/// checkpoint says where to go on.
pub trait Source: Sized + 'static {
    /// Opens it at a checkpoint; `None`: at the beginning.
    fn open(position: Option<&[u8]>) -> Result<Self>;

    /// Pushes at most so many events. It may wait for some, and not for long.
    fn poll(&mut self, events_max: u32, out: &mut Output<'_>) -> Result<Next>;

    /// Everything up to this checkpoint is durable: the place to acknowledge it where it comes from.
    fn committed(&mut self, position: &[u8]) -> Result<()> {
        let _ = position;
        Ok(())
    }

    /// The end of an instance that is not needed any more: see [`Transform::close`](crate::Transform::close).
    fn close(self) {}

    /// The ports that there are with this configuration: see [`PortInfo`].
    fn ports() -> Result<Vec<PortInfo>> {
        Ok(Vec::new())
    }
}

/// When a source wants to be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once.
    More,
    /// After so long, or later.
    After(Duration),
    /// Never, also not after a restart.
    Finished,
}

impl<T: Source> Kept<T> {
    pub(crate) fn open(&self, position: Option<&[u8]>) -> Result<()> {
        drop(self.take());
        self.set(T::open(position)?);
        Ok(())
    }

    pub(crate) fn poll(&self, events_max: u32, collector: &host::Collector<'_>) -> Result<Next> {
        self.lend(not_open, |source| {
            let mut out = Output::new(collector);
            let next = source.poll(events_max, &mut out)?;
            out.flush()?;
            Ok(next)
        })
    }

    pub(crate) fn committed(&self, position: &[u8]) -> Result<()> {
        self.lend(not_open, |source| source.committed(position))
    }
}

fn not_open<T>() -> Result<T> {
    Err(Error::permanent("the source is not open"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Event, SourceHarness};

    struct Numbers {
        next: u8,
        acknowledged: u8,
    }

    impl Source for Numbers {
        fn open(position: Option<&[u8]>) -> Result<Self> {
            Ok(Self { next: position.map_or(0, |position| position[0]), acknowledged: 0 })
        }

        fn poll(&mut self, events_max: u32, out: &mut Output<'_>) -> Result<Next> {
            if self.next == 7 {
                return Ok(Next::Finished);
            }
            for _ in 0..events_max {
                out.push(format!("{} {}", self.next, self.acknowledged))?;
                self.next += 1;
                if self.next == crate::config::get_or("fails-at", u8::MAX)? {
                    return Err(Error::transient("told to"));
                }
            }
            out.checkpoint([self.next])?;
            Ok(Next::After(Duration::from_secs(1)))
        }

        fn committed(&mut self, position: &[u8]) -> Result<()> {
            self.acknowledged = position[0];
            Ok(())
        }
    }

    fn texts(call: &crate::testing::Call) -> Vec<String> {
        call.events().iter().map(Event::text).collect()
    }

    #[test]
    fn a_source_goes_on_from_its_last_checkpoint() {
        let mut harness = SourceHarness::<Numbers>::new();
        let call = harness.poll(2).ok();
        assert_eq!(
            (texts(&call), call.next()),
            (vec!["0 0".into(), "1 0".into()], Some(Next::After(Duration::from_secs(1))))
        );
        assert_eq!(harness.position(), Some(&[2][..]));
        assert_eq!(texts(&harness.poll(1).ok()), ["2 2"]);

        // A call that fails leaves nothing, and another source is opened.
        let mut harness = harness.config("fails-at", 5);
        assert_eq!(harness.poll(2).error(), Some(&Error::transient("told to")));
        assert_eq!(harness.position(), Some(&[3][..]));
        let mut harness = harness.config("fails-at", 100);
        assert_eq!(texts(&harness.poll(4).ok()), ["3 0", "4 0", "5 0", "6 0"]);
        assert_eq!(harness.poll(1).ok().next(), Some(Next::Finished));
    }
}
