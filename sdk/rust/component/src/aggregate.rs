//! A component that folds events into one accumulator for each group.

use crate::column_builder::BytesColumnBuilder;
use crate::columns::{BytesColumn, BytesColumnRef};
use crate::error::{Error, Result};
use crate::events::{Batch, Event, Events};
use crate::host;
use crate::kept::Kept;
use crate::output::Output;
use crate::port_info::PortInfo;
use crate::tick::Tick;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// A component that folds events into one accumulator for each group.
///
/// ```
/// use nodata_component::{Aggregate, Event, Result, component};
///
/// struct Longest;
///
/// #[component]
/// impl Aggregate for Longest {
///     type Accumulator = String;
///
///     fn new() -> Result<Self> {
///         Ok(Self)
///     }
///
///     fn add(&self, longest: &mut String, event: &Event<'_>) -> Result<()> {
///         let text = event.text()?;
///         if text.len() > longest.len() {
///             *longest = text.to_owned();
///         }
///         Ok(())
///     }
///
///     fn merge(&self, longest: &mut String, other: String) -> Result<()> {
///         if other.len() > longest.len() {
///             *longest = other;
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// Groups, windows and accumulators are the host's: accumulators are written as JSON and come back with the next events of their
/// group, whatever happened in between. So the type of an accumulator is a format: a new version of the component must read what the
/// one before it wrote.
pub trait Aggregate: Sized + 'static {
    /// What is kept of a group. A group begins with the default.
    type Accumulator: Default + Serialize + DeserializeOwned;

    /// Makes one when an instance starts, after a call that failed, and, to be thrown away, when the component is deployed: see
    /// [`Transform::new`](crate::Transform::new).
    fn new() -> Result<Self>;

    /// The group of an event, at most 4000 bytes; `None` leaves the event out. It is the key of the event otherwise.
    fn group<'e>(&self, event: &Event<'e>) -> Result<Option<Cow<'e, [u8]>>> {
        Ok(event.key().map(Cow::Borrowed))
    }

    /// Adds an event. An error that [`rejects`](Error::permanent) fails the call; [`accepts`](Self::accepts) puts single events aside.
    fn add(&self, accumulator: &mut Self::Accumulator, event: &Event<'_>) -> Result<()>;

    /// Why an event cannot be added, which puts it aside as a dead letter. Every event is accepted otherwise. One that is in no group,
    /// because [`group`](Self::group) is not written and it has no key, is left out without being asked about.
    fn accepts(&self, event: &Event<'_>) -> std::result::Result<(), String> {
        let _ = event;
        Ok(())
    }

    /// Adds what another accumulator has, of events that came later.
    fn merge(&self, accumulator: &mut Self::Accumulator, other: Self::Accumulator) -> Result<()>;

    /// A window is closed: the place to push its result. Otherwise what [`render`](Self::render) gives is pushed, with the group as
    /// the key and the end of the window as the time.
    fn finish(&self, group: &Group<'_>, accumulator: Self::Accumulator, out: &mut Output<'_>) -> Result<()> {
        let value = self.render(group, &accumulator)?;
        let draft = out.event().key(group.key);
        match group.window_us {
            Some((_, end)) => draft.timestamp_us(end).value(value),
            None => draft.value(value),
        }
    }

    /// What a reader is shown of a group. It is the accumulator as JSON otherwise.
    fn render(&self, group: &Group<'_>, accumulator: &Self::Accumulator) -> Result<Vec<u8>> {
        let _ = group;
        encode(accumulator)
    }

    /// Called at intervals: see [`Transform::tick`](crate::Transform::tick). With windows it is told the watermark.
    fn tick(&mut self, tick: Tick, out: &mut Output<'_>) -> Result<()> {
        let _ = (tick, out);
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

/// A group of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// What its events have in common.
    pub key: &'a [u8],
    /// In microseconds since the Unix epoch, from the start to before the end; `None` without windows.
    pub window_us: Option<(i64, i64)>,
}

fn encode<T: Serialize>(accumulator: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(accumulator)
        .map_err(|error| Error::permanent(error).context("an accumulator cannot be written as JSON"))
}

fn decode<T: Default + DeserializeOwned>(bytes: Option<&[u8]>) -> Result<T> {
    let Some(bytes) = bytes else { return Ok(T::default()) };
    serde_json::from_slice(bytes)
        .map_err(|error| Error::permanent(error).context("an accumulator that was written before cannot be read"))
}

/// Groups as they cross.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Groups {
    pub keys: BytesColumn,
    pub window_starts: Vec<i64>,
    pub window_ends: Vec<i64>,
    pub accumulators: BytesColumn,
}

impl Groups {
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn of<'a>(
        keys: &[Vec<u8>],
        window_us: Option<(i64, i64)>,
        accumulators: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Self {
        let (mut written_keys, mut written) = (Written::default(), Written::default());
        keys.iter().for_each(|key| written_keys.push(Some(key)));
        accumulators.for_each(|accumulator| written.push(accumulator));
        let (starts, ends) = window_us.map(|window| vec![window; keys.len()]).unwrap_or_default().into_iter().unzip();
        Self { keys: written_keys.finish(), window_starts: starts, window_ends: ends, accumulators: written.finish() }
    }

    fn group(&self, at: usize) -> Group<'_> {
        let window_us = self.window_starts.get(at).copied().zip(self.window_ends.get(at).copied());
        Group { key: self.keys.get(at).unwrap_or_default(), window_us }
    }

    fn accumulator<T: Default + DeserializeOwned>(&self, at: usize) -> Result<T> {
        decode(self.accumulators.get(at))
    }
}

/// A column that is being written.
#[derive(Default)]
struct Written {
    column: BytesColumnBuilder,
    rows: usize,
}

impl Written {
    fn push(&mut self, element: Option<&[u8]>) {
        match element {
            Some(bytes) => {
                self.column.data.extend_from_slice(bytes);
                self.column.finish_element(self.rows);
            }
            None => self.column.finish_null(self.rows),
        }
        self.rows += 1;
    }

    fn finish(mut self) -> BytesColumn {
        if !self.column.is_used() {
            self.column.fill_with_nulls(self.rows);
        }
        let BytesColumnRef { offsets, data, validity } = self.column.as_column();
        BytesColumn { offsets: offsets.to_vec(), data: data.to_vec(), validity: validity.to_vec() }
    }
}

impl<T: Aggregate> Kept<T> {
    pub(crate) fn keys(&self, batch: host::Batch<'_>) -> Result<BytesColumn> {
        self.lend(T::new, |aggregate| {
            let batch = Batch::new(batch);
            let mut keys = Written::default();
            for event in Events::new(&batch) {
                let is_accepted = aggregate.accepts(&event).is_ok();
                // What is put aside needs a group, to be seen when it is folded.
                let group = if is_accepted { aggregate.group(&event)? } else { Some(Cow::Borrowed(&[][..])) };
                keys.push(group.as_deref());
            }
            Ok(keys.finish())
        })
    }

    pub(crate) fn accumulate(
        &self,
        batch: host::Batch<'_>,
        groups: &Groups,
        members: (&[u32], &[u32]),
        collector: &host::Collector<'_>,
    ) -> Result<BytesColumn> {
        self.lend(T::new, |aggregate| {
            let batch = Batch::new(batch);
            let events = Events::new(&batch);
            let mut accumulators: Vec<Option<T::Accumulator>> = Vec::with_capacity(groups.keys.rows());
            for at in 0..groups.keys.rows() {
                accumulators.push(groups.accumulators.get(at).map(|bytes| decode(Some(bytes))).transpose()?);
            }
            let (rows, of) = members;
            for (row, group) in rows.iter().zip(of) {
                let Some(event) = events.get(*row as usize) else { continue };
                match aggregate.accepts(&event) {
                    Ok(()) => {
                        let accumulator = accumulators[*group as usize].get_or_insert_with(T::Accumulator::default);
                        aggregate.add(accumulator, &event)?;
                    }
                    Err(why) => collector.reject(event.row(), &why),
                }
            }
            let mut written = Written::default();
            for accumulator in &accumulators {
                written.push(accumulator.as_ref().map(encode).transpose()?.as_deref());
            }
            Ok(written.finish())
        })
    }

    pub(crate) fn merge(&self, left: &BytesColumn, right: &BytesColumn) -> Result<BytesColumn> {
        self.lend(T::new, |aggregate| {
            let mut merged = Written::default();
            for at in 0..left.rows() {
                let mut accumulator = decode(left.get(at))?;
                aggregate.merge(&mut accumulator, decode(right.get(at))?)?;
                merged.push(Some(&encode(&accumulator)?));
            }
            Ok(merged.finish())
        })
    }

    pub(crate) fn finish(&self, closed: &Groups, collector: &host::Collector<'_>) -> Result<()> {
        self.lend(T::new, |aggregate| {
            let mut out = Output::new(collector);
            for at in 0..closed.keys.rows() {
                aggregate.finish(&closed.group(at), closed.accumulator(at)?, &mut out)?;
            }
            out.flush()
        })
    }

    pub(crate) fn render(&self, groups: &Groups) -> Result<BytesColumn> {
        self.lend(T::new, |aggregate| {
            let mut rendered = Written::default();
            for at in 0..groups.keys.rows() {
                rendered.push(Some(&aggregate.render(&groups.group(at), &groups.accumulator(at)?)?));
            }
            Ok(rendered.finish())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{AggregateHarness, Event};

    /// Sums numbers by their parity, without those that are none.
    struct Sums;

    impl Aggregate for Sums {
        type Accumulator = i64;

        fn new() -> Result<Self> {
            Ok(Self)
        }

        fn group<'e>(&self, event: &Event_<'e>) -> Result<Option<Cow<'e, [u8]>>> {
            let number: i64 = event.json()?;
            Ok((number != 0).then(|| Cow::Borrowed(if number % 2 == 0 { &b"even"[..] } else { &b"odd"[..] })))
        }

        fn add(&self, sum: &mut i64, event: &Event_<'_>) -> Result<()> {
            *sum += event.json::<i64>()?;
            Ok(())
        }

        fn accepts(&self, event: &Event_<'_>) -> std::result::Result<(), String> {
            event.json::<i64>().map(drop).map_err(|error| error.to_string())
        }

        fn merge(&self, sum: &mut i64, other: i64) -> Result<()> {
            *sum += other;
            Ok(())
        }
    }

    use crate::events::Event as Event_;

    #[test]
    fn events_are_folded_by_group_shown_merged_and_closed() {
        let mut harness = AggregateHarness::<Sums>::new();
        let call = harness.call(["1", "2", "x", "0", "3"]).ok();
        assert_eq!(call.rejected().iter().map(|letter| letter.row).collect::<Vec<_>>(), [2]);
        let _ = harness.call(["4"]).ok();
        assert_eq!((harness.shown("odd"), harness.shown("even")), (Some(b"4".to_vec()), Some(b"6".to_vec())));
        assert_eq!(harness.shown("x"), None);

        let mut other = AggregateHarness::<Sums>::new();
        let _ = other.call(["5"]).ok();
        harness.merge(&other);
        let closed = harness.close(Some((0, 10))).ok();
        let expected = [Event::new("6").key("even").timestamp_us(10), Event::new("9").key("odd").timestamp_us(10)];
        assert_eq!(closed.events(), expected);
        assert_eq!(harness.shown("odd"), None);
    }

    /// Says how many events there were before each, of all groups.
    struct Remembers {
        seen: std::cell::Cell<u8>,
    }

    impl Aggregate for Remembers {
        type Accumulator = u8;

        fn new() -> Result<Self> {
            Ok(Self { seen: 0.into() })
        }

        fn add(&self, before: &mut u8, _: &Event_<'_>) -> Result<()> {
            *before = self.seen.get();
            self.seen.set(*before + 1);
            Ok(())
        }

        fn merge(&self, _: &mut u8, _: u8) -> Result<()> {
            Ok(())
        }

        fn save(&self) -> Result<Vec<u8>> {
            Ok(vec![self.seen.get()])
        }

        fn restore(&mut self, saved: &[u8], _: &str) -> Result<()> {
            self.seen.set(saved[0]);
            Ok(())
        }
    }

    #[test]
    fn an_aggregate_goes_on_from_what_it_saved() {
        let mut harness = AggregateHarness::<Remembers>::new();
        let _ = harness.call([Event::new("x").key("a"), Event::new("x").key("b")]).ok();
        harness.restart();
        let _ = harness.call([Event::new("x").key("b")]).ok();
        let _ = harness.tick(0, None).ok();
        harness.restart();
        let _ = harness.call([Event::new("x").key("c")]).ok();
        let shown = ["a", "b", "c"].map(|key| harness.shown(key));
        assert_eq!(shown, ["0", "2", "3"].map(|before| Some(before.as_bytes().to_vec())));
    }
}
