//! Which ids of events a topic was given lately, so that an event that is sent again is not appended again.
//!
//! An id is remembered as its 128-bit hash (XXH3), for the window of its topic. All topics together remember a bounded number;
//! where that is reached, those with the most forget their oldest. What is remembered is the sum of the appends in the log,
//! so a restart remembers the same: the checkpoint has what the log does not have any more.

use crate::batch::{Batch, BatchError};
use crate::event::TimestampUs;
use crate::frame::Op;
use crate::topic::{TopicId, Tp};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// XXH3, 128 bits, seed 0, of the bytes of an id. Two different ids are taken for the same one with a probability that stays
/// below 1e-20 for any number of events that a store will see.
pub(crate) type IdHash = u128;

/// Hashes of ids, and when their events were appended, oldest first.
pub(crate) type TimedIds = Vec<(TimestampUs, IdHash)>;

/// The hash of the id of each event of a batch; nothing if no event has one.
pub(crate) fn hashes(batch: &Batch) -> Vec<Option<IdHash>> {
    let mut rest: &[u8] = batch.ids();
    let lens = batch.id_lens().into_iter().flat_map(|lens| lens.iter());
    let hash = |len: Option<u32>| {
        let (id, behind) = rest.split_at(len? as usize);
        rest = behind;
        Some(xxhash_rust::xxh3::xxh3_128(id))
    };
    lens.map(hash).collect()
}

/// The ids of the events that an operation appends.
pub(crate) fn timed(op: &Op, wall_us: TimestampUs) -> TimedIds {
    let Op::Append { batch, .. } = op else { return TimedIds::new() };
    hashes(batch).into_iter().flatten().map(|id| (wall_us, id)).collect()
}

/// An event of an append: which batch, and which row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPlace {
    /// Counted from 0, among the batches that were given.
    pub batch: usize,
    pub row: u32,
}

/// Leaves events out of the batches of an append, and knows where each of them was.
#[derive(Debug)]
pub(crate) struct LeftOut {
    /// For each batch that is left, which one it was, and the rows that its events had if some are gone.
    left: Vec<(usize, Option<Vec<u32>>)>,
    gone: Vec<EventPlace>,
}

impl LeftOut {
    /// Nothing yet, of so many batches.
    pub(crate) fn new(batches: usize) -> Self {
        Self { left: (0..batches).map(|batch| (batch, None)).collect(), gone: Vec::new() }
    }

    /// Leaves out more. The places are those of the batches as they are now, in order.
    pub(crate) fn leave_out(
        &mut self,
        batches: Vec<(Tp, Batch)>,
        known: &[EventPlace],
    ) -> Result<Vec<(Tp, Batch)>, BatchError> {
        let mut kept = Vec::with_capacity(batches.len());
        let mut left = Vec::with_capacity(batches.len());
        for (at, ((tp, batch), (original, rows))) in batches.into_iter().zip(std::mem::take(&mut self.left)).enumerate()
        {
            let first = known.partition_point(|place| place.batch < at);
            let here = &known[first..known.partition_point(|place| place.batch <= at)];
            let here: Vec<u32> = here.iter().map(|place| place.row).collect();
            if here.is_empty() {
                kept.push((tp, batch));
                left.push((original, rows));
                continue;
            }
            let mut rows = rows.unwrap_or_else(|| (0..batch.len() as u32).collect());
            self.gone.extend(here.iter().map(|row| EventPlace { batch: original, row: rows[*row as usize] }));
            let is_kept = |row: usize| here.binary_search(&(row as u32)).is_err();
            let mut row = 0;
            rows.retain(|_| (is_kept(row), row += 1).0);
            if !rows.is_empty() {
                kept.push((tp, batch.retain(is_kept)?));
                left.push((original, Some(rows)));
            }
        }
        self.left = left;
        Ok(kept)
    }

    /// Everything that was left out, in order.
    pub(crate) fn places(mut self) -> Vec<EventPlace> {
        self.gone.sort_unstable();
        self.gone
    }
}

/// What a hash is in a table of hashes.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used: a `u128` is written as one.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[derive(Debug, Default)]
struct Ids {
    by_age: VecDeque<(TimestampUs, IdHash)>,
    known: HashSet<IdHash, BuildHasherDefault<AsItIs>>,
}

impl Ids {
    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.by_age.pop_front() {
            self.known.remove(&oldest);
        }
    }

    fn forget_before(&mut self, time_us: TimestampUs) {
        while self.by_age.front().is_some_and(|(at_us, _)| *at_us < time_us) {
            self.forget_oldest();
        }
    }
}

/// The ids of all topics.
#[derive(Debug)]
pub(crate) struct RecentIds {
    count_max: usize,
    topics: HashMap<TopicId, Ids>,
    count: usize,
}

impl RecentIds {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { count_max, topics: HashMap::new(), count: 0 }
    }

    /// Remembers an id; false if it is remembered already. What is older than `from_us` is forgotten first.
    pub(crate) fn add(&mut self, topic: TopicId, id: IdHash, now_us: TimestampUs, from_us: TimestampUs) -> bool {
        if self.count >= self.count_max {
            self.make_room();
        }
        let ids = self.topics.entry(topic).or_default();
        let before = ids.by_age.len();
        ids.forget_before(from_us);
        self.count -= before - ids.by_age.len();
        let is_new = ids.known.insert(id);
        if is_new {
            // The clock may be put back; what is behind is never older than what is before.
            let at_us = ids.by_age.back().map_or(now_us, |(last_us, _)| now_us.max(*last_us));
            ids.by_age.push_back((at_us, id));
            self.count += 1;
        }
        is_new
    }

    /// Takes back the last ones that a topic was given.
    pub(crate) fn take_back(&mut self, topic: TopicId, count: usize) {
        let Some(ids) = self.topics.get_mut(&topic) else { return };
        for _ in 0..count {
            if let Some((_, id)) = ids.by_age.pop_back() {
                ids.known.remove(&id);
                self.count -= 1;
            }
        }
    }

    pub(crate) fn forget_topic(&mut self, topic: TopicId) {
        self.count -= self.topics.remove(&topic).map_or(0, |ids| ids.by_age.len());
    }

    /// Makes a tenth of the places free, so that it is not done for every id.
    fn make_room(&mut self) {
        while self.count > self.count_max - self.count_max.div_ceil(10) {
            let most = self.topics.values_mut().max_by_key(|ids| ids.by_age.len());
            let Some(most) = most else { return };
            let gone = (most.by_age.len() / 2).max(1).min(self.count_max.div_ceil(10));
            (0..gone).for_each(|_| most.forget_oldest());
            self.count -= gone;
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    const A: TopicId = TopicId(1);
    const B: TopicId = TopicId(2);

    #[test]
    fn an_id_is_known_in_its_topic_and_for_its_window() {
        let mut ids = RecentIds::new(100);
        assert!(ids.add(A, 7, 1000, 0) && !ids.add(A, 7, 1500, 0) && ids.add(B, 7, 1500, 0));
        assert!(!ids.add(A, 7, 1900, 1000));
        assert!(ids.add(A, 7, 2000, 1001));
        ids.forget_topic(A);
        assert!(ids.add(A, 7, 2000, 0));
        assert_eq!(ids.count(), 2);
    }

    #[test]
    fn what_is_taken_back_is_not_known() {
        let mut ids = RecentIds::new(100);
        ids.add(A, 1, 0, 0);
        ids.add(A, 2, 0, 0);
        ids.add(A, 3, 0, 0);
        ids.take_back(A, 2);
        assert!(!ids.add(A, 1, 0, 0) && ids.add(A, 2, 0, 0) && ids.add(A, 3, 0, 0));
    }

    #[test]
    fn the_topic_with_the_most_forgets_its_oldest() {
        let mut ids = RecentIds::new(20);
        ids.add(A, 1000, 0, 0);
        (0..100).for_each(|id| assert!(ids.add(B, id, id as i64, 0)));
        assert!(ids.count() <= 20);
        assert!(!ids.add(A, 1000, 100, 0) && !ids.add(B, 99, 100, 0) && ids.add(B, 0, 100, 0));
    }

    #[test]
    fn what_is_left_out_is_known_by_its_first_place() {
        let tp = |partition| Tp { topic: A, partition };
        let batch = |values: &str| {
            let events: Vec<Event> = values.chars().map(|value| Event::new(value.to_string()).with_id("i")).collect();
            Batch::from_events(&events, 5).unwrap()
        };
        let values = |batches: &[(Tp, Batch)]| -> Vec<String> {
            let of = |batch: &Batch| {
                batch.events().map(|event| String::from_utf8_lossy(event.value.unwrap()).into_owned()).collect()
            };
            batches.iter().map(|(_, batch)| of(batch)).collect()
        };
        let place = |batch, row| EventPlace { batch, row };
        let mut out = LeftOut::new(3);
        let first = vec![(tp(0), batch("ab")), (tp(1), batch("cdef")), (tp(2), batch("gh"))];
        let second = out.leave_out(first, &[place(0, 0), place(0, 1), place(1, 1)]).unwrap();
        assert_eq!(values(&second), ["cef", "gh"]);
        let third = out.leave_out(second, &[place(0, 2), place(1, 0)]).unwrap();
        assert_eq!(values(&third), ["ce", "h"]);
        assert_eq!(out.places(), [place(0, 0), place(0, 1), place(1, 1), place(1, 3), place(2, 0)]);
    }

    #[test]
    fn each_event_has_the_hash_of_its_own_id() {
        let events = [Event::new("x").with_id("a"), Event::new("y"), Event::new("z").with_id("bc")];
        let found = hashes(&Batch::from_events(&events, 0).unwrap());
        let of = |id: &str| Some(xxhash_rust::xxh3::xxh3_128(id.as_bytes()));
        assert_eq!(found, [of("a"), None, of("bc")]);
        assert_eq!(hashes(&Batch::from_events(&events[1..2], 0).unwrap()), []);
    }
}
