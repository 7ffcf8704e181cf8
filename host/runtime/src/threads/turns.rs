//! Whose turn it is: start-time fair queuing.
//!
//! Each share has a virtual time that goes on with the processor time it uses, the slower the more weight it has. The next turn is
//! of the share whose virtual time is least, so over any longer while all who want to run get time by their weights, and one that
//! wants little is served at once. Time that was not asked for is not saved up: whoever comes back, or runs on fewer threads than
//! it might, is behind the others by a few ticks at most.

use super::Share;
use crate::limits::{CPU_CREDIT_TICKS, CPU_WEIGHT_MAX, TICK_MS};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Nanoseconds by weight. As many bits as no server lives to fill.
type VirtualTime = u128;

/// What waits for a turn, by share.
pub(super) struct Turns<T> {
    shares: HashMap<u64, Place<T>>,
    /// The shares that have something waiting, the next one first.
    order: BTreeSet<(VirtualTime, u64)>,
    /// The virtual time of the share that came last; it never goes back.
    now: VirtualTime,
    running: usize,
    /// When there are so many shares, those are forgotten that have nothing to say any more.
    sweep_at: usize,
}

/// Places are looked through when there are twice as many as were left the last time, and not for fewer than this.
const SWEEP_MIN: usize = 64;

/// Where a share is. It is remembered while something of it waits or runs, and until the others have caught up.
struct Place<T> {
    time: VirtualTime,
    /// Parts of a share are counted apart, so each brings its own.
    waiting: VecDeque<(Share, T)>,
    running: usize,
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Self { time: 0, waiting: VecDeque::new(), running: 0 }
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { shares: HashMap::new(), order: BTreeSet::new(), now: 0, running: 0, sweep_at: SWEEP_MIN }
    }
}

impl<T> Turns<T> {
    /// Puts something in line.
    pub(super) fn push(&mut self, share: &Share, item: T) {
        let now = self.now;
        let number = share.number();
        if self.shares.len() >= self.sweep_at {
            self.shares.retain(|_, place| place.running > 0 || !place.waiting.is_empty() || place.time > now);
            self.sweep_at = SWEEP_MIN.max(self.shares.len() * 2);
        }
        let place = self.shares.entry(number).or_default();
        if place.waiting.is_empty() {
            place.time = place.time.max(now.saturating_sub(credit(share)));
            self.order.insert((place.time, number));
        }
        place.waiting.push_back((share.clone(), item));
    }

    /// What comes next.
    pub(super) fn pop(&mut self) -> Option<(Share, T)> {
        let (time, number) = self.order.pop_first()?;
        self.now = self.now.max(time);
        let place = self.shares.get_mut(&number)?;
        let next = place.waiting.pop_front()?;
        place.running += 1;
        self.running += 1;
        if !place.waiting.is_empty() {
            self.order.insert((time, number));
        }
        Some(next)
    }

    /// A turn is over, and took so much processor time.
    pub(super) fn done(&mut self, share: &Share, spent: Duration) {
        let number = share.number();
        let Some(place) = self.shares.get_mut(&number) else { return };
        let before = place.time;
        place.running -= 1;
        self.running -= 1;
        place.time += virtual_time(spent, share);
        if !place.waiting.is_empty() {
            self.order.remove(&(before, number));
            self.order.insert((place.time, number));
        } else if self.running == 0 && self.order.is_empty() {
            // Nobody wants anything, so nobody was kept from it: all begin anew together.
            self.now = self.shares.values().map(|place| place.time).fold(self.now, VirtualTime::max);
            self.shares.clear();
        }
    }

    /// Takes out everything that waits.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.order.clear();
        self.shares.values_mut().flat_map(|place| place.waiting.drain(..)).map(|(_, item)| item).collect()
    }
}

fn virtual_time(spent: Duration, share: &Share) -> VirtualTime {
    spent.as_nanos() * VirtualTime::from(CPU_WEIGHT_MAX) / VirtualTime::from(share.weight())
}

/// How far a share may be behind.
fn credit(share: &Share) -> VirtualTime {
    virtual_time(Duration::from_millis(TICK_MS * CPU_CREDIT_TICKS), share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: Duration = Duration::from_millis(TICK_MS);

    /// Ends a turn that took so long, of somebody who wants to go on.
    fn go_on(turns: &mut Turns<u32>, turn: (Share, u32), spent: Duration) {
        let (share, task) = turn;
        share.spend(spent);
        turns.push(&share, task);
        turns.done(&share, spent);
    }

    proptest! {
        /// However many tasks each has, and however long their turns are: time is by weight, on one thread and on several.
        #[test]
        fn time_is_by_weight(
            shares in prop::collection::vec((1u32..1000, 2usize..20), 2..6),
            spent in prop::collection::vec(1u64..10_000, 1..50),
            threads in 1usize..3,
        ) {
            let mut turns = Turns::default();
            let shares: Vec<Share> = shares.iter().map(|(weight, tasks)| {
                let share = Share::new(*weight);
                (0..*tasks).for_each(|_| turns.push(&share, 0));
                share
            }).collect();
            let mut running = VecDeque::new();
            for micros in spent.iter().cycle().take(4000) {
                running.push_back(turns.pop().unwrap());
                if running.len() == threads {
                    go_on(&mut turns, running.pop_front().unwrap(), Duration::from_micros(*micros));
                }
            }
            let times: Vec<VirtualTime> = shares.iter().map(|share| turns.shares[&share.number()].time).collect();
            // Nobody is further ahead than by turns that were given out before the ones before were counted.
            for (share, time) in shares.iter().zip(&times) {
                let ahead = time - times.iter().min().unwrap();
                let most = virtual_time(TICK, share) * threads as u128;
                prop_assert!(ahead <= most, "{ahead} {most}");
            }
        }
    }

    #[test]
    fn whoever_slept_comes_next_and_has_saved_up_nothing() {
        let mut turns = Turns::default();
        let (busy, sleeper) = (Share::default(), Share::default());
        (0..16).for_each(|task| turns.push(&busy, task));
        for _ in 0..1000 {
            let turn = turns.pop().unwrap();
            go_on(&mut turns, turn, TICK);
        }
        turns.push(&sleeper, 100);
        // It is behind by its credit, and then it is one of two.
        let mut got = Vec::new();
        for _ in 0..12 {
            let turn = turns.pop().unwrap();
            got.push(turn.1 == 100);
            go_on(&mut turns, turn, TICK);
        }
        assert_eq!(got[..3], [true; 3]);
        assert_eq!(got.iter().filter(|was_sleeper| **was_sleeper).count(), 7);
    }

    #[test]
    fn who_sleeps_takes_along_what_is_owed() {
        let mut turns = Turns::default();
        let (one, other) = (Share::default(), Share::default());
        turns.push(&one, 1);
        turns.push(&other, 2);
        let (share, task) = turns.pop().unwrap();
        assert_eq!(task, 1);
        turns.done(&share, TICK * 10);
        // Ten times it would have been the turn of the other one.
        turns.push(&one, 1);
        for _ in 0..10 {
            let turn = turns.pop().unwrap();
            assert_eq!(turn.1, 2);
            go_on(&mut turns, turn, TICK);
        }
        assert_eq!(turns.pop().unwrap().1, 1);
    }

    #[test]
    fn a_new_weight_counts_at_once() {
        let mut turns = Turns::default();
        let (one, other) = (Share::default(), Share::default());
        turns.push(&one, 1);
        turns.push(&other, 2);
        let count = |turns: &mut Turns<u32>| {
            let mut of_one = 0;
            for _ in 0..100 {
                let turn = turns.pop().unwrap();
                of_one += u32::from(turn.1 == 1);
                go_on(turns, turn, TICK);
            }
            of_one
        };
        assert_eq!(count(&mut turns), 50);
        one.clone().set_weight(CPU_WEIGHT_MAX);
        assert!(count(&mut turns) >= 98);
    }

    #[test]
    fn shares_that_are_gone_are_forgotten() {
        let mut turns = Turns::default();
        let busy = Share::default();
        turns.push(&busy, 0);
        for _ in 0..10_000 {
            turns.push(&Share::default(), 1);
            for _ in 0..2 {
                let (share, task) = turns.pop().unwrap();
                if task == 0 {
                    turns.push(&share, 0);
                }
                turns.done(&share, TICK);
            }
        }
        assert!(turns.shares.len() <= 2 * SWEEP_MIN, "{}", turns.shares.len());
        let (share, _) = turns.pop().unwrap();
        turns.done(&share, TICK);
        assert!(turns.shares.is_empty() && turns.order.is_empty());
    }
}
