//! Idempotent producers: a request that is sent again is not appended again.
//!
//! A producer numbers its requests from 0. The log remembers the last number of each producer, in the same transaction
//! as the events, and takes only the next one. A number it already has is a repeat, and is answered as such.

use std::collections::{BTreeMap, HashMap};
use thiserror::Error;

/// Chosen by the producer at random; another one for each thing that publishes on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub u64);

/// How far a producer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSequence {
    /// A producer that raises it starts again at 0, and its earlier self is refused.
    pub epoch: u32,
    /// The number of the last request that was appended.
    pub last: u64,
}

/// The numbers of the requests in one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerRange {
    pub producer: ProducerId,
    pub epoch: u32,
    pub first: u64,
    /// How many requests; at least 1.
    pub count: u32,
}

impl ProducerRange {
    pub(crate) fn last(&self) -> u64 {
        self.first + u64::from(self.count.max(1) - 1)
    }
}

/// Why the numbers of an append were not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProducerError {
    /// Everything before `next` is already appended; this is not a failure. Requests from `next` on, if there are any
    /// in the range, were not taken and can be sent again without the repeated ones.
    #[error("request {first} of producer {:016x} was appended before", producer.0)]
    Repeated { producer: ProducerId, first: u64, next: u64 },
    #[error("producer {:016x} sent request {found}, request {expected} comes next", producer.0)]
    OutOfSequence { producer: ProducerId, expected: u64, found: u64 },
    #[error(
        "producer {:016x} is not known (it was quiet for too long) and cannot go on at request {found}; start a new \
         producer", producer.0
    )]
    Unknown { producer: ProducerId, found: u64 },
    #[error("producer {:016x} has epoch {current}, epoch {found} is over", producer.0)]
    Fenced { producer: ProducerId, current: u32, found: u32 },
}

/// What is remembered of all producers. The one that was quiet for longest is forgotten first; both the order and the
/// bound depend on nothing but the log, so a restart remembers the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Producers {
    count_max: usize,
    clock: u64,
    known: HashMap<ProducerId, (ProducerSequence, u64)>,
    by_use: BTreeMap<u64, ProducerId>,
}

impl Producers {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { count_max, clock: 0, known: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Whether these requests come next.
    pub(crate) fn check(&self, range: &ProducerRange) -> Result<(), ProducerError> {
        let ProducerRange { producer, epoch, first, .. } = *range;
        let Some((known, _)) = self.known.get(&producer) else {
            return if first == 0 { Ok(()) } else { Err(ProducerError::Unknown { producer, found: first }) };
        };
        if epoch < known.epoch {
            return Err(ProducerError::Fenced { producer, current: known.epoch, found: epoch });
        }
        let expected = if epoch > known.epoch { 0 } else { known.last + 1 };
        if first < expected {
            Err(ProducerError::Repeated { producer, first, next: expected })
        } else if first > expected {
            Err(ProducerError::OutOfSequence { producer, expected, found: first })
        } else {
            Ok(())
        }
    }

    /// Remembers a sequence, and says who was forgotten for it.
    pub(crate) fn put(&mut self, producer: ProducerId, sequence: ProducerSequence) -> Option<ProducerId> {
        self.clock += 1;
        if let Some((_, used)) = self.known.insert(producer, (sequence, self.clock)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.clock, producer);
        if self.known.len() <= self.count_max {
            return None;
        }
        let (_, forgotten) = self.by_use.pop_first()?;
        self.known.remove(&forgotten);
        Some(forgotten)
    }

    pub(crate) fn get(&self, producer: ProducerId) -> Option<ProducerSequence> {
        self.known.get(&producer).map(|(sequence, _)| *sequence)
    }

    /// All of them with the moment of their last use, for a checkpoint.
    pub(crate) fn used_at(&self, producer: ProducerId) -> Option<u64> {
        self.known.get(&producer).map(|(_, used)| *used)
    }

    /// All that are remembered.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ProducerId> + '_ {
        self.known.keys().copied()
    }

    /// Puts back what a checkpoint held.
    pub(crate) fn restore(&mut self, producer: ProducerId, sequence: ProducerSequence, used: u64) {
        self.clock = self.clock.max(used);
        self.known.insert(producer, (sequence, used));
        self.by_use.insert(used, producer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(producer: u64, epoch: u32, first: u64, count: u32) -> ProducerRange {
        ProducerRange { producer: ProducerId(producer), epoch, first, count }
    }

    fn send(producers: &mut Producers, range: ProducerRange) -> Result<(), String> {
        producers.check(&range).map_err(|error| error.to_string())?;
        producers.put(range.producer, ProducerSequence { epoch: range.epoch, last: range.last() });
        Ok(())
    }

    #[test]
    fn only_the_next_request_is_taken() {
        let mut all = Producers::new(10);
        assert_eq!(send(&mut all, range(1, 0, 0, 3)), Ok(()));
        assert_eq!(send(&mut all, range(1, 0, 3, 1)), Ok(()));
        assert_eq!(
            send(&mut all, range(1, 0, 3, 1)).unwrap_err(),
            "request 3 of producer 0000000000000001 was appended before"
        );
        assert_eq!(
            send(&mut all, range(1, 0, 5, 1)).unwrap_err(),
            "producer 0000000000000001 sent request 5, request 4 comes next"
        );
        assert!(send(&mut all, range(2, 0, 5, 1)).unwrap_err().contains("is not known"));
    }

    #[test]
    fn a_raised_epoch_starts_again_and_refuses_the_earlier_one() {
        let mut all = Producers::new(10);
        send(&mut all, range(1, 0, 0, 1)).unwrap();
        assert_eq!(send(&mut all, range(1, 1, 0, 1)), Ok(()));
        assert_eq!(
            send(&mut all, range(1, 0, 1, 1)).unwrap_err(),
            "producer 0000000000000001 has epoch 1, epoch 0 is over"
        );
    }

    #[test]
    fn the_quietest_is_forgotten_first() {
        let mut all = Producers::new(2);
        send(&mut all, range(1, 0, 0, 1)).unwrap();
        send(&mut all, range(2, 0, 0, 1)).unwrap();
        send(&mut all, range(1, 0, 1, 1)).unwrap();
        send(&mut all, range(3, 0, 0, 1)).unwrap();
        assert_eq!(all.get(ProducerId(2)), None);
        assert!(all.get(ProducerId(1)).is_some() && all.get(ProducerId(3)).is_some());
    }
}
