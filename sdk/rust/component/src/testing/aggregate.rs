//! The host of an aggregate.

use super::component::{Saved, make, save};
use super::harness::{Call, Produced};
use super::{Columns, Event};
use crate::aggregate::{Aggregate, Groups};
use crate::host::native::{Batch, Collector, Installed, Offsets, World};
use crate::kept::Kept;
use crate::tick::Tick;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// Gives events to an [`Aggregate`], keeps its groups, and closes them, as the host does.
pub struct AggregateHarness<T: Aggregate> {
    instance: Kept<T>,
    groups: BTreeMap<Vec<u8>, Vec<u8>>,
    world: World,
    next_offset: u64,
    /// What the aggregate saved last, and the digest of who did.
    saved: Option<Saved>,
}

impl<T: Aggregate> AggregateHarness<T> {
    /// For this aggregate, without groups.
    pub fn new() -> Self {
        let instance = Kept::new();
        Self { instance, groups: BTreeMap::new(), world: World::default(), next_offset: 0, saved: None }
    }

    /// Sets one entry of the configuration.
    #[must_use]
    pub fn config(mut self, key: &str, value: impl Display) -> Self {
        self.world.config.insert(key.to_owned(), value.to_string());
        self
    }

    /// Folds these events into their groups, as one batch.
    #[must_use = "a call may have failed: look at it, or end with `.ok()`"]
    pub fn call<E: Into<Event>>(&mut self, events: impl IntoIterator<Item = E>) -> Call {
        let events: Vec<Event> = events.into_iter().map(Into::into).collect();
        assert!(!events.is_empty(), "a batch is never empty");
        let offsets: Vec<u64> = (self.next_offset..).take(events.len()).collect();
        self.next_offset += events.len() as u64;
        let columns = Columns::from_events(&events);
        let batch =
            Batch { topic: "input", partition: 0, attempt: 1, offsets: Offsets::Given(&offsets), columns: &columns };
        let produced = Produced::new(columns.to_events());
        let _installed = Installed::new(&mut self.world);
        let made = make(&self.instance, T::new, T::restore, self.saved.as_ref());
        let folded = made.and_then(|()| self.instance.keys(batch)).and_then(|keys| {
            let mut found: Vec<Vec<u8>> = Vec::new();
            let (mut rows, mut of) = (Vec::new(), Vec::new());
            for row in 0..events.len() {
                let Some(key) = keys.get(row) else { continue };
                let at = found.iter().position(|known| known == key).unwrap_or(found.len());
                if at == found.len() {
                    found.push(key.to_vec());
                }
                rows.push(row as u32);
                of.push(at as u32);
            }
            let accumulators = found.iter().map(|key| self.groups.get(key).map(Vec::as_slice));
            let groups = Groups::of(&found, None, accumulators);
            let new = self.instance.accumulate(batch, &groups, (&rows, &of), &Collector(&produced))?;
            Ok((found, new, save(&self.instance, T::new, T::save)?))
        });
        match folded {
            Ok((found, new, saved)) => {
                self.saved = Some(saved);
                for (at, key) in found.into_iter().enumerate() {
                    match new.get(at) {
                        Some(bytes) => drop(self.groups.insert(key, bytes.to_vec())),
                        None => drop(self.groups.remove(&key)),
                    }
                }
                let (events, rejected) = (produced.events.take(), produced.into_rejected());
                Call { error: None, events, rejected, deferred: None, next: None }
            }
            Err(error) => Call::failed(error),
        }
    }

    /// What a reader is shown of a group; `None`: there is none.
    pub fn shown(&mut self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let accumulator = self.groups.get(key.as_ref())?.clone();
        let groups = Groups::of(&[key.as_ref().to_vec()], None, [Some(&accumulator[..])].into_iter());
        let _installed = Installed::new(&mut self.world);
        match self.instance.render(&groups) {
            Ok(rendered) => rendered.get(0).map(<[u8]>::to_vec),
            Err(error) => panic!("the group cannot be shown: {error:?}"),
        }
    }

    /// Adds the groups of another one, whose events came later.
    pub fn merge(&mut self, other: &Self) {
        let _installed = Installed::new(&mut self.world);
        for (key, accumulator) in &other.groups {
            let merged = match self.groups.get(key) {
                None => accumulator.clone(),
                Some(own) => {
                    let column = |bytes: &[u8]| Columns::from_events(&[Event::new(bytes)]).values;
                    match self.instance.merge(&column(own), &column(accumulator)) {
                        Ok(merged) => merged.get(0).unwrap_or_default().to_vec(),
                        Err(error) => panic!("the groups cannot be merged: {error:?}"),
                    }
                }
            };
            self.groups.insert(key.clone(), merged);
        }
    }

    /// Has the aggregate tick at this time, with this watermark, in microseconds since the Unix epoch.
    #[must_use = "a call may have failed: look at it, or end with `.ok()`"]
    pub fn tick(&mut self, now_us: i64, watermark_us: Option<i64>) -> Call {
        let produced = Produced::new(Vec::new());
        let ticked = {
            let _installed = Installed::new(&mut self.world);
            make(&self.instance, T::new, T::restore, self.saved.as_ref())
                .and_then(|()| {
                    self.instance.tick(T::new, T::tick, Tick { now_us, watermark_us }, &Collector(&produced))
                })
                .and_then(|()| save(&self.instance, T::new, T::save))
        };
        match ticked {
            Ok(saved) => {
                self.saved = Some(saved);
                let (events, rejected) = (produced.events.take(), Vec::new());
                Call { error: None, events, rejected, deferred: None, next: None }
            }
            Err(error) => Call::failed(error),
        }
    }

    /// Makes the aggregate anew, as the host does after a restart: restored from what it saved.
    pub fn restart(&mut self) {
        drop(self.instance.take());
    }

    /// Closes all groups, as those of this window.
    #[must_use = "a call may have failed: look at it, or end with `.ok()`"]
    pub fn close(&mut self, window_us: Option<(i64, i64)>) -> Call {
        let groups = std::mem::take(&mut self.groups);
        let keys: Vec<Vec<u8>> = groups.keys().cloned().collect();
        let closed = Groups::of(&keys, window_us, groups.values().map(|bytes| Some(&bytes[..])));
        let produced = Produced::new(Vec::new());
        let finished = {
            let _installed = Installed::new(&mut self.world);
            make(&self.instance, T::new, T::restore, self.saved.as_ref())
                .and_then(|()| self.instance.finish(&closed, &Collector(&produced)))
                .and_then(|()| save(&self.instance, T::new, T::save))
        };
        match finished {
            Ok(saved) => {
                self.saved = Some(saved);
                let (events, rejected) = (produced.events.take(), Vec::new());
                Call { error: None, events, rejected, deferred: None, next: None }
            }
            Err(error) => {
                self.groups = groups;
                Call::failed(error)
            }
        }
    }
}

impl<T: Aggregate> Default for AggregateHarness<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Aggregate> fmt::Debug for AggregateHarness<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateHarness").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}
