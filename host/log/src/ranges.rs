//! Sets of offsets, as ranges.

use crate::topic::Offset;
use std::collections::BTreeMap;
use std::ops::Range;

/// Offsets of one partition. Ranges that touch are one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<Offset, Offset>);

impl Ranges {
    /// Adds the offsets of a range.
    pub fn insert(&mut self, range: Range<Offset>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        while let Some((&first, &behind)) = self.0.range(..=end).next_back().filter(|(_, behind)| **behind >= start) {
            start = start.min(first);
            end = end.max(behind);
            self.0.remove(&first);
        }
        self.0.insert(start, end);
    }

    /// Takes the offsets of a range out.
    pub fn remove(&mut self, range: Range<Offset>) {
        let Range { start, end } = range;
        if start >= end {
            return;
        }
        while let Some((&first, &behind)) = self.0.range(..end).next_back().filter(|(_, behind)| **behind > start) {
            self.0.remove(&first);
            if behind > end {
                self.0.insert(end, behind);
            }
            if first < start {
                self.0.insert(first, start);
            }
        }
    }

    /// Adds all offsets of another set.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|range| self.insert(range));
    }

    /// Takes all offsets of another set out.
    pub fn remove_all(&mut self, other: &Self) {
        other.iter().for_each(|range| self.remove(range));
    }

    /// What of this set lies in a range.
    pub fn within(&self, range: Range<Offset>) -> Self {
        let mut inside = self.clone();
        inside.remove(0..range.start);
        inside.remove(range.end..Offset::MAX);
        inside
    }

    /// Those of the range that are not in this set.
    pub fn missing_from(&self, range: Range<Offset>) -> Self {
        let mut missing = Self::from(range);
        missing.remove_all(self);
        missing
    }

    /// Whether any offset is in both.
    pub fn meets(&self, range: Range<Offset>) -> bool {
        self.0.range(..range.end).next_back().is_some_and(|(_, behind)| *behind > range.start) && !range.is_empty()
    }

    /// The range in which an offset is.
    pub fn around(&self, offset: Offset) -> Option<Range<Offset>> {
        let (first, behind) = self.0.range(..=offset).next_back().filter(|(_, behind)| **behind > offset)?;
        Some(*first..*behind)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<Offset>> + '_ {
        self.0.iter().map(|(first, behind)| *first..*behind)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many offsets there are.
    pub fn count(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// The least, and behind the greatest.
    pub fn bounds(&self) -> Option<Range<Offset>> {
        Some(*self.0.first_key_value()?.0..*self.0.last_key_value()?.1)
    }
}

impl From<Range<Offset>> for Ranges {
    fn from(range: Range<Offset>) -> Self {
        let mut ranges = Self::default();
        ranges.insert(range);
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn offsets(ranges: &Ranges) -> BTreeSet<Offset> {
        ranges.iter().flatten().collect()
    }

    proptest! {
        /// They are what a plain set of numbers is, and no two ranges touch.
        #[test]
        fn ranges_are_sets(steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..12), 0..30), ask in (0u64..40, 0u64..12)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (adds, start, len) in steps {
                if adds {
                    ranges.insert(start..start + len);
                    model.extend(start..start + len);
                } else {
                    ranges.remove(start..start + len);
                    model.retain(|at| !(start..start + len).contains(at));
                }
                prop_assert_eq!(offsets(&ranges), model.clone());
                let all: Vec<_> = ranges.iter().collect();
                prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert_eq!(ranges.count(), model.len() as u64);
            }
            let ask = ask.0..ask.0 + ask.1;
            let around = ranges.around(ask.start);
            prop_assert_eq!(around.is_some_and(|range| range.contains(&ask.start)), model.contains(&ask.start));
            prop_assert_eq!(ranges.meets(ask.clone()), ask.clone().any(|at| model.contains(&at)));
            prop_assert_eq!(offsets(&ranges.within(ask.clone())), model.iter().copied().filter(|at| ask.contains(at)).collect());
            let missing = ask.clone().filter(|at| !model.contains(at)).collect();
            prop_assert_eq!(offsets(&ranges.missing_from(ask)), missing);
        }
    }
}
